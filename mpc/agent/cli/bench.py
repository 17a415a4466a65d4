"""`craik bench`: the learning benchmark, in a process of its own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

import mpc
from mpc.agent.cli.options import Common


@dataclass
class Bench(Common):
    """Measure our agent beside reinforcement learning on the same seeds; what was measured already is not done again.

    Example: craik bench Pendulum-v1 --against sac,ppo --seeds 5
    """

    env: tyro.conf.Positional[str] = "Pendulum-v1"
    """Id of a Gymnasium environment."""
    against: str = ""
    """Methods to compare with, with commas between: sac, ppo, tqc, dqn, …; random actions are always there."""
    seeds: int = 5
    """Seeds 0 … n-1."""
    at: tuple[int, ...] = ()
    """Environment steps at which to score; the benchmark's own unless told."""
    episodes: int = 20
    """Episodes per score."""
    cores: int = 1
    """Runs at the same time, each on a core of its own."""
    out: Path | None = None
    """Folder of raw figures and the report; runs/bench-ENV by default."""


def bench(options: Bench) -> dict[str, Any]:
    """Run the learning benchmark, which is part of the checkout but not of the wheel, and return its report."""
    checkout = Path(mpc.__file__).resolve().parents[1]
    if not (checkout / "benchmarks" / "learning").is_dir():
        raise ValueError(
            f"the benchmarks are not installed with craik, and there are none in {checkout}: get a checkout of its sources, "
            "pip install -e '.[baselines]' there, and run craik bench again"
        )
    folder = options.out or Path("runs") / f"bench-{options.env.replace('/', '-')}"
    command = [sys.executable, "-m", "benchmarks.learning", options.env, "--out", str(folder)]
    for name in ("seeds", "episodes", "cores"):
        command += [f"--{name}", str(getattr(options, name))]
    for name, values in (("against", options.against.split(",")), ("at", map(str, options.at))):
        given = [value for value in values if value]
        command += [f"--{name}", *given] if given else []
    paths = os.pathsep.join(filter(None, (str(checkout), os.environ.get("PYTHONPATH"))))
    silent = subprocess.DEVNULL if options.quiet or options.json else None
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, stdout=silent, check=False)
    if done.returncode not in (0, 1):
        raise ValueError("the benchmark did not run; the reason stands above")
    report = json.loads((folder / "report.json").read_text())
    return report | {"folder": str(folder), "problems": report["failed"]}
