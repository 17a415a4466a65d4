"""Learning that is killed with -9 at random moments must go on from its last checkpoint.

`python -m benchmarks.killing` kills `learn` and `learn_from` again and again, each time in a process of its own, until each
was killed as often as told. Weights learnt from recordings must equal those of a run that nobody killed, bit by bit.
Experience is made anew after a kill, as environments are not stored, so that `learn` must end with all its steps. It writes
`benchmarks/results/killing.json`, and exits with 1 if a run did not go on or ended with other weights.
"""

import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.provenance import invoked, provenance

ENV = "Pendulum-v1"
STEPS, UPDATES = 200, 2000
SETTINGS: dict[str, Any] = {"hidden": 32, "members": 2, "updates": 20, "first_trainings": 2, "random_steps": 40}
SETTINGS |= {"actor_critic_updates": 0, "planner": "predictive_sampling", "iterations": 2, "samples": 16, "horizon": 5}
SETTINGS |= {"offline_updates": UPDATES, "capacity": 2000}


@dataclass
class Options:
    """Options of the benchmark."""

    kills: int = 20
    """Kills of `learn` and of `learn_from` each."""
    seed: int = 0
    """Seed of the moments."""
    work: str = ""
    """Work of a process of this benchmark's own; empty for the benchmark."""
    folder: Path = Path()
    """Folder of that process."""
    out: Path = Path(__file__).parent / "results" / "killing.json"
    """File of the results."""


def recordings() -> Any:
    """Returns recordings of a walk that nobody can predict."""
    from world_models.data import About, Dataset

    drawn, lengths = np.random.default_rng(0), np.full(20, 50)
    rows = int(np.sum(lengths + 1))
    observations, actions = drawn.normal(size=(rows, 3)), drawn.uniform(-2.0, 2.0, (rows, 1))
    arrays = [array.astype(np.float32) for array in (observations, actions, drawn.normal(size=rows))]
    return Dataset(*arrays, terminated=np.zeros(rows, bool), lengths=lengths, about=About(ENV))


def work(options: Options) -> None:
    """Learns until it is done, from the last checkpoint on, and prints a digest of what was learnt."""
    import jax

    from mpc.agent import Agent

    path = options.folder / "checkpoint"
    agent = Agent.load(path, ENV) if list(path.glob("checkpoint-*")) else Agent(ENV, config=SETTINGS)
    print(f"at {agent.num_timesteps + agent.learner.updates}", flush=True)
    given: dict[str, Any] = {"progress_bar": False, "checkpoint_path": path, "checkpoint_updates": 1}
    if options.work == "learn":
        agent.learn(max(STEPS - agent.num_timesteps, 0), **given)
        print(f"done {agent.num_timesteps}", flush=True)
    else:
        agent.learn_from(recordings(), **given)
        digest = hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(agent.params["model"])))
        print(f"done {digest.hexdigest()}", flush=True)


def once(name: str, folder: Path, seconds: float | None) -> tuple[list[str], float, int]:
    """Runs a process, and kills it so many seconds after it has begun to learn.

    Returns:
        What it printed, how long it learnt, and its exit status.
    """
    command = [sys.executable, "-m", "benchmarks.killing", "--work", name, "--folder", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines, begun = [process.stdout.readline().strip()], time.monotonic()
    try:
        rest, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        rest, _ = process.communicate()
    return lines + rest.splitlines(), time.monotonic() - begun, process.returncode


def campaign(name: str, kills: int, seed: int) -> dict[str, Any]:
    """Kills a kind of learning again and again.

    Args:
        name: "learn" or "learn_from".
        kills: How often.
        seed: Of the moments.

    Returns:
        Kills, runs that failed to go on, and whether what was learnt is what an undisturbed run learns.
    """
    drawn, report = random.Random(seed), {"kills": 0, "went_on": 0, "failed": 0, "runs": 0, "same": 0}
    with tempfile.TemporaryDirectory() as place:
        once(name, Path(place) / "compiles", None)
        lines, seconds, _ = once(name, Path(place) / "whole", None)  # with what the first has compiled, as all that follow
        wanted = lines[-1]
        while report["kills"] < kills:
            folder, killed = Path(place) / f"run {report['runs']}", False
            while True:
                left = report["kills"] < kills
                lines, _, status = once(name, folder, drawn.uniform(0.0, 0.7 * seconds) if left else None)
                report["went_on"] += killed and lines[0].startswith("at")
                if status == 0:
                    break
                if status != -9:
                    report["failed"] += 1
                    break
                report["kills"], killed = report["kills"] + 1, True
            report["runs"] += 1
            report["same"] += lines[-1] == wanted
    return report | {"seconds_undisturbed": round(seconds, 1), "ended_with": wanted}


def main() -> None:
    """Runs the benchmark and writes results."""
    options = tyro.cli(Options, description=__doc__)
    if options.work:
        work(options)
        return
    report = {name: campaign(name, options.kills, options.seed) for name in ("learn", "learn_from")}
    header = provenance(invoked("benchmarks.killing"), ("craik", "jax", "numpy")) | {"seed": options.seed}
    options.out.write_text(json.dumps(header | report, indent=1) + "\n")
    print(json.dumps(report))
    raise SystemExit(any(part["failed"] or part["same"] != part["runs"] for part in report.values()))


if __name__ == "__main__":
    main()
