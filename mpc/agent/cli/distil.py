"""`craik distil`: teach the actor of a run what its planner comes to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from mpc.agent.cli import runs
from mpc.agent.cli.options import Common, say


@dataclass
class Distil(Common):
    """Teach the actor of a run what planning comes to, for `craik plan --mode react`.

    Examples: craik distil runs/demo;  craik distil runs/rooms --data data/rooms
    """

    checkpoint: tyro.conf.Positional[Path] = Path("runs/demo")
    """A run's folder, or its checkpoint folder."""
    data: str | None = None
    """Recordings, for an actor for goals; the run's own experience unless told."""
    rounds: int = 4
    """Rounds of imitation."""


def distil(options: Distil) -> dict[str, Any]:
    """Teach the actor, save the run, and return the report."""
    agent, tell = runs.load(options.checkpoint), say(options)
    dataset = None if options.data is None else runs.read_dataset(options.data)
    tell("Teaching the actor what planning comes to ...")
    taught = agent.distil(dataset, rounds=options.rounds)
    agent.save(runs.checkpoint_of(options.checkpoint))
    tell(f"  {', '.join(f'{name} {value:.3g}' for name, value in taught.items())}")
    tell(f"  plan by it with: craik plan {options.checkpoint} --mode react")
    return {"checkpoint": str(options.checkpoint), "distilled": taught}
