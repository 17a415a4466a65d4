"""Decision latency on one core, without compilation.

`python -m benchmarks.latency` learns Pendulum-v1 for 400 steps (or loads `--checkpoint`), then times decisions on a single
core and writes `benchmarks/results/latency-<env>.json`, `.csv` and `.png`. With `--loop` it times a whole control loop on
the wall clock: `--loop latent --hertz 100 --seconds 60`, or `--loop pendulum --hertz 500`. With `--load planner.craik` it
times new processes from their start to the first action of that file.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from benchmarks.provenance import invoked, provenance

PACKAGES = ("craik", "jax", "flax", "gymnasium", "numpy")
RESULTS = Path(__file__).parent / "results"
FIRST = """
import sys, time, numpy as np
from mpc.deploy import runtime
artefact = runtime.load(sys.argv[1])
seen = np.zeros(artefact.observation.shape)
action = artefact.step(seen, artefact.init(seen)).action
print(time.process_time(), flush=True)
"""


@dataclass
class Options:
    """Options of the benchmark."""

    env: str = "Pendulum-v1"
    """Id of a Gymnasium environment."""
    steps: int = 400
    """Environment steps to learn from before timing."""
    checkpoint: Path | None = None
    """Checkpoint of an agent; without it, an agent is trained."""
    decisions: int = 1000
    """Number of timed decisions."""
    core: int = 0
    """The core to run on; -1 for all cores."""
    loop: Literal["latent", "pendulum"] | None = None
    """Time a control loop: with learnt latent MLPs, or with the equations of a pendulum."""
    hertz: float = 100.0
    """Ticks of the loop per second."""
    seconds: float = 60.0
    """Duration of the loop."""
    busy: int | None = None
    """Another core to keep busy during the loop."""
    load: Path | None = None
    """Time new processes from their start to the first action of this exported planner."""
    starts: int = 20
    """Number of timed processes, after one that compiles."""
    out: Path = RESULTS
    """Folder of the results."""


def pin(core: int) -> None:
    """Pins this process and its future threads to one core.

    Raises:
        SystemExit: If JAX has already started its threads, or the core does not exist.
    """
    if core < 0:
        return
    if "jax" in sys.modules:
        raise SystemExit("latency: JAX is already loaded, so its threads cannot be pinned to one core")
    try:
        os.sched_setaffinity(0, {core})
    except (OSError, AttributeError) as error:
        raise SystemExit(f"latency: cannot pin to core {core} ({error}); --core -1 uses all cores") from error


def main() -> None:
    """Times decisions, a loop or process starts, and writes results."""
    options = tyro.cli(Options, description=__doc__)
    pin(options.core)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.load is not None:
        loading(options, options.load)
    elif options.loop is None:
        decisions(options)
    else:
        closed_loop(options)


def loading(options: Options, artefact: Path) -> None:
    """Times new processes that reuse the machine code compiled by the first one."""
    with tempfile.TemporaryDirectory() as folder:
        times = [_first_action(artefact, folder) for _ in range(options.starts + 1)]
    names = ("wall_seconds", "cpu_seconds")
    report = provenance(invoked("benchmarks.latency"), PACKAGES) | {
        "load_average": os.getloadavg()[0],
        "bytes": artefact.stat().st_size,
        "compiling": dict(zip(names, times[0], strict=True)),
        "starts": [dict(zip(names, pair, strict=True)) for pair in times[1:]],
    }
    (options.out / f"load-{artefact.stem}.json").write_text(json.dumps(report, indent=1) + "\n")
    kept = times[1:]
    print(
        json.dumps(
            {name: sorted(pair[i] for pair in kept)[len(kept) // 2] for i, name in enumerate(names)} | {"of": "medians"}
        )
    )


def _first_action(artefact: Path, folder: str) -> tuple[float, float]:
    """Returns wall and CPU seconds from a process's start to its first action."""
    begun = time.perf_counter()
    command, variables = [sys.executable, "-c", FIRST, str(artefact)], os.environ | {"CRAIK_CACHE": folder}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    return round(time.perf_counter() - begun, 3), round(float(done.stdout), 3)


def closed_loop(options: Options) -> None:
    """Times a control loop."""
    import numpy as np
    from matplotlib.figure import Figure

    from benchmarks.closed_loop import measure
    from mpc.agent.viz.figures import legend_beside

    summary, times = measure(options.loop or "", options.hertz, options.seconds, options.busy, options.checkpoint)
    stem = options.out / f"loop-{options.loop}-{options.hertz:g}"
    with open(f"{stem}.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["begun_late_ms", "action_out_ms"])
        table.writerows(np.round(1e3 * times, 4).tolist())
    header = provenance(invoked("benchmarks.latency"), PACKAGES) | {
        "hertz": options.hertz,
        "seconds": options.seconds,
        "busy": options.busy,
    }
    Path(f"{stem}.json").write_text(json.dumps(header | {"milliseconds": summary}, indent=1) + "\n")
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axis = figure.add_subplot()
    for column, label, colour in ((0, "tick begins", "#30638e"), (1, "action is out", "#d1495b")):
        late = np.sort(1e3 * np.maximum(times[:, column], 1e-6))
        axis.loglog(late, 1 - np.arange(len(late)) / len(late), label=label, color=colour)
    axis.axvline(1e3 / options.hertz, color="black", linestyle=":", label="the next tick is due")
    axis.set(xlabel="milliseconds after a tick is due", ylabel="fraction of later ticks", title=stem.name)
    legend_beside(axis)
    figure.savefig(f"{stem}.png", dpi=110)
    print(json.dumps(summary))


def decisions(options: Options) -> None:
    """Times an agent's decisions."""
    import numpy as np
    from matplotlib.figure import Figure

    from mpc.agent import Agent
    from mpc.agent.evaluation import decision_times

    if options.checkpoint is None:
        agent = Agent(options.env, seed=0).learn(options.steps, progress_bar=False)
    else:
        agent = Agent.load(options.checkpoint)
    summary, times = decision_times(agent, options.env, 0, options.decisions)
    stem = options.out / f"latency-{options.env}"
    header = provenance(invoked("benchmarks.latency"), PACKAGES) | {
        "decisions": options.decisions,
        "settings": agent.config.as_dict(),
        "milliseconds": summary,
    }
    Path(f"{stem}.json").write_text(json.dumps(header, indent=1) + "\n")
    with open(f"{stem}.csv", "w", newline="") as file:
        csv.writer(file).writerows([["decision", "milliseconds"], *enumerate(np.round(times, 4))])
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axis = figure.add_subplot()
    axis.plot(np.sort(times), np.arange(1, len(times) + 1) / len(times), color="#d1495b")
    axis.set(
        xlabel="milliseconds per decision", ylabel="fraction of decisions", title=f"{options.env}, {header['cores']} core(s)"
    )
    figure.savefig(f"{stem}.png", dpi=110)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
