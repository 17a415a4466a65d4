"""How long a decision takes: on one core, compilation apart, beside the bar it is held against.

`python -m benchmarks.latency` learns Pendulum-v1 for 400 steps (or loads `--checkpoint`), then times decisions on a single
core and writes `benchmarks/results/latency-<env>.json`, `.csv` and `.png`.
"""

import csv
import json
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

RESULTS = Path(__file__).parent / "results"


@dataclass
class Options:
    """What to time."""

    env: str = "Pendulum-v1"
    """Id of a Gymnasium environment."""
    steps: int = 400
    """Environment steps to learn from before timing."""
    checkpoint: Path | None = None
    """An agent to load instead of learning one."""
    decisions: int = 1000
    """How many to time."""
    core: int = 0
    """The one core everything runs on; -1 for all there are."""
    out: Path = RESULTS
    """Where the figures go."""


def pin(core: int) -> None:
    """Keep this process, and the threads it is yet to start, on one core.

    Raises:
        SystemExit: If JAX has started its threads already, or the core does not exist.
    """
    if core < 0:
        return
    if "jax" in sys.modules:
        raise SystemExit("latency: JAX is loaded already, its threads cannot be kept on one core")
    try:
        os.sched_setaffinity(0, {core})
    except (OSError, AttributeError) as error:
        raise SystemExit(f"latency: cannot keep to core {core} ({error}); --core -1 uses all") from error


def main() -> None:
    """Time decisions, write them down, draw them."""
    options = tyro.cli(Options, description=__doc__)
    pin(options.core)
    import numpy as np
    from matplotlib.figure import Figure

    from mpc.agent import Agent
    from mpc.agent.evaluation import decision_times
    from world_models.checkpoint import versions

    if options.checkpoint is None:
        agent = Agent(options.env, seed=0).learn(options.steps, progress_bar=False)
    else:
        agent = Agent.load(options.checkpoint)
    summary, times = decision_times(agent, options.env, 0, options.decisions)
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / f"latency-{options.env}"
    header = {
        "command": "python -m benchmarks.latency " + " ".join(sys.argv[1:]),
        "machine": platform.machine(),
        "cores": os.cpu_count() if options.core < 0 else 1,
        "packages": versions(("craik", "jax", "flax", "gymnasium", "numpy")),
        "decisions": options.decisions,
        "settings": agent.settings.asdict(),
        "milliseconds": summary,
    }
    Path(f"{stem}.json").write_text(json.dumps(header, indent=1) + "\n")
    with open(f"{stem}.csv", "w", newline="") as file:
        csv.writer(file).writerows([["decision", "milliseconds"], *enumerate(np.round(times, 4))])
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axis = figure.add_subplot()
    axis.plot(np.sort(times), np.arange(1, len(times) + 1) / len(times), color="#d1495b")
    axis.set(
        xlabel="milliseconds per decision", ylabel="share of decisions", title=f"{options.env}, {header['cores']} core(s)"
    )
    figure.savefig(f"{stem}.png", dpi=110)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
