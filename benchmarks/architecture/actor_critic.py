"""The tables of actor, critic and memory: each module beside what it replaces, in the same learnt model.

Actor: Mode 1, the actor by itself, beside Mode 2, the planner, in one process; and how many iterations a plan that begins
from the actor's proposal needs to cost as little as one that began from noise does after `COLD`. Critic: a short horizon
that the critic sees beyond, beside a long one that ends in nothing. Memory: agents that see everything, that remember, and
that see the newest observation alone.

A share of a score is that of the way from random actions to what it is compared with, (R - random) / (R' - random): returns
may be negative, and 95% of them better than all.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.architecture import rooms
from benchmarks.architecture.actor_critic_report import picture, tables
from benchmarks.architecture.guesses import COLD, guessed
from benchmarks.architecture.latents import kept
from benchmarks.architecture.report import write
from benchmarks.learning import tasks
from benchmarks.learning.tasks import HIDDEN, VISIBLE
from benchmarks.provenance import invoked
from mpc.agent import Agent, Settings
from mpc.agent.evaluation import decision_times, evaluate, random_returns

MAZE = "craik/TMaze-v0"
TABLES = ("actor", "critic", "memory")


@dataclass(frozen=True)
class Pupil:
    """An agent to be taught: where, for how many steps, and with which settings."""

    env: str
    steps: int
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of files."""
        return f"{self.env.replace('/', '-')}-{self.steps}-memory-{self.settings.get('memory', 1)}"


PUPILS = {
    "pendulum": Pupil("Pendulum-v1", 1000),
    "swing-up": Pupil("craik/CartPoleSwingUp-v0", 2000),
}
"""Whose actor and critic are looked at."""
_HIDDEN = {"memory": 2}
_MAZE = {
    "memory": 64,
    "members": 2,
    "batch": 32,
    "updates": 500,
    "train_every": 100,
    "random_steps": 1000,
    "practice": 0,
    "horizon": 10,
    "starts": 4,
    "first_starts": 8,
    "first_iterations": 10,
    "capacity": 5000,
}
"""A turn takes four steps, and nothing else has to be planned: a short horizon, and neither actor nor critic."""
REMEMBERING = {
    "hidden speed": {
        "everything": Pupil("Pendulum-v1", 1000),
        "memory": Pupil(HIDDEN, 1000, _HIDDEN),
        "newest alone": Pupil(HIDDEN, 1000),
    },
    "T-maze": {
        "everything": Pupil(VISIBLE, 2000, _MAZE | {"memory": 1}),
        "memory": Pupil(MAZE, 2000, _MAZE),
        "newest alone": Pupil(MAZE, 2000, _MAZE | {"memory": 1}),
    },
}
"""Tasks that have to be remembered in, and what agents see in them."""


@dataclass
class Minds:
    """Actor, critic and memory.

    Example: python -m benchmarks.architecture minds --seeds 3
    """

    seeds: int = 3
    """Seeds 0 … n-1."""
    episodes: int = 20
    """Per score."""
    goals: int = 100
    """The same in Two Rooms, where a goal is reached or missed."""
    tables: tuple[str, ...] = TABLES
    """Which to make."""
    pupils: tuple[str, ...] = (*PUPILS, rooms.NAME)
    """Of `PUPILS`, and Two Rooms."""
    remembering: tuple[str, ...] = tuple(REMEMBERING)
    """Of `REMEMBERING`."""
    out: Path = Path(__file__).parents[1] / "results"
    """Where the figures go."""
    runs: Path = Path("runs/architecture")
    """Where what was learnt and how it scored is kept, and found again."""


def taught(options: Minds, pupil: Pupil, seed: int, tell: Callable[[str], None]) -> Path:
    """The checkpoint of an agent, taught now or in an earlier run."""
    folder = options.runs / f"minds-{pupil.name}-{seed}"
    if not folder.exists():
        tell(f"learning {pupil.name}, seed {seed}")
        agent = Agent(pupil.env, seed=seed, settings=replace(Settings(), **pupil.settings))
        agent.learn(pupil.steps, progress_bar=False, checkpoint_path=folder)
    return folder


def deployed_actor(options: Minds, name: str, pupil: Pupil, seed: int, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Mode 1 before and after it is taught what was planned, beside Mode 2."""
    agent = Agent.load(taught(options, pupil, seed, tell))
    row: dict[str, Any] = {"task": name, "seed": seed, "steps": pupil.steps}
    seeds = range(options.episodes)
    returns = {"random": random_returns(pupil.env, seeds), "plan": evaluate(agent, pupil.env, seeds)}
    returns["dreamt"] = evaluate(agent, pupil.env, seeds, mode="react")
    agent.distil()
    returns["react"] = evaluate(agent, pupil.env, seeds, mode="react")
    means = {who: float(each.mean()) for who, each in returns.items()}
    row |= {who: round(mean, 2) for who, mean in means.items()}
    row |= {f"{who}_share": round(share(means[who], means), 4) for who in ("dreamt", "react")}
    for mode in ("plan", "react"):
        row[f"{mode}_ms"] = decision_times(agent, pupil.env, seed, mode=mode)[0]["p50"]
    drawn = np.random.default_rng(seed).choice(int(agent.buffer.filled[0]), 32, replace=False)
    seen = jax.vmap(lambda row: agent.policy.observe(agent.params, row).latent)(agent.buffer.observations[0, drawn])
    row |= guessed(agent.policy.planner, agent.actor_adapter, agent.params, seen, seed)
    return [row | {f"{who}_returns": np.round(each, 2).tolist() for who, each in returns.items()}]


def share(score: float, means: dict[str, float]) -> float:
    """Of the way from random actions to planning."""
    return (score - means["random"]) / (means["plan"] - means["random"])


def seeing(options: Minds, name: str, pupil: Pupil, seed: int, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """A short horizon with and without the critic, and a long one without."""
    rows = []
    for horizon, critic in ((5, True), (5, False), (30, False), (30, True)):
        agent = Agent.load(taught(options, pupil, seed, tell), settings={"horizon": horizon})
        if not critic:
            practice = agent.learner.practice
            agent.learner.practice = practice._replace(target=jax.tree.map(jnp.zeros_like, practice.target))
        returns = evaluate(agent, pupil.env, range(options.episodes))
        row = {"task": name, "seed": seed, "horizon": horizon, "critic": critic, "mean": round(float(returns.mean()), 2)}
        rows.append(row | {"returns": np.round(returns, 2).tolist()})
    return rows


def remembering(options: Minds, task: str, shown: str, seed: int, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """How an agent that is shown so much does."""
    pupil = REMEMBERING[task][shown]
    agent = Agent.load(taught(options, pupil, seed, tell))
    returns = evaluate(agent, pupil.env, range(options.episodes))
    row = {"task": task, "shown": shown, "seed": seed, "steps": pupil.steps, "mean": round(float(returns.mean()), 3)}
    random = float(random_returns(pupil.env, range(options.episodes)).mean())
    return [row | {"random": round(random, 3), "returns": np.round(returns, 3).tolist()}]


def refuse(options: Minds) -> None:
    """Refuse names that are not there before anything is learnt.

    Raises:
        ValueError: With those that are.
    """
    for what, known in (("tables", TABLES), ("pupils", (*PUPILS, rooms.NAME)), ("remembering", REMEMBERING)):
        unknown = [name for name in getattr(options, what) if name not in known]
        if unknown:
            raise ValueError(f"{what}: there is no {', '.join(unknown)}; there are {', '.join(known)}")


def earlier(stem: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows that earlier commands wrote down, every one with its command."""
    file = stem.with_suffix(".json")
    told = json.loads(file.read_text()) if file.exists() else {}
    return {table: [{"command": told["command"]} | row for row in told.get(table, [])] for table in TABLES}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two rows of a table are of the same measurement."""
    return all(one.get(name) == other.get(name) for name in ("task", "seed", "shown", "horizon", "critic"))


def run(options: Minds, tell: Callable[[str], None] = print) -> dict[str, list[dict[str, Any]]]:
    """Teach, score, and write down, beside what earlier commands did.

    Returns:
        The rows of each table.
    """
    refuse(options)
    tasks.register()
    stem = options.out / "architecture-minds"
    found, command = earlier(stem), invoked("benchmarks.architecture")

    def add(table: str, name: str, episodes: int, make: Callable[[], list[dict[str, Any]]]) -> None:
        if table not in options.tables:
            return
        rows = kept(cast(Any, options), f"minds-{table}-{name}-{episodes}", lambda: {"rows": make()})["rows"]
        for row in rows:
            found[table] = [old for old in found[table] if not same(old, row)] + [row | {"command": command}]
            tell(f"  {table}: { ({key: value for key, value in row.items() if not isinstance(value, list)}) }")
        write(stem, tables(found, COLD), found, picture(found))

    for seed in range(options.seeds):
        for name in options.pupils:
            if name == rooms.NAME:
                given = (options.runs / f"minds-two-rooms-{seed}", seed, options.goals, tell)
                add("actor", f"two-rooms-{seed}", options.goals, lambda g=given: [rooms.deployed_actor(*g)])
                add("critic", f"two-rooms-{seed}", options.goals, lambda g=given: rooms.seeing(*g))
                continue
            p, key = PUPILS[name], f"{name}-{PUPILS[name].steps}-{seed}"
            add("actor", key, options.episodes, lambda n=name, p=p, s=seed: deployed_actor(options, n, p, s, tell))
            add("critic", key, options.episodes, lambda n=name, p=p, s=seed: seeing(options, n, p, s, tell))
        for task in options.remembering:
            for shown, pupil in REMEMBERING[task].items():
                key = f"{task}-{shown}-{pupil.steps}-{seed}"
                add("memory", key, options.episodes, lambda t=task, w=shown, s=seed: remembering(options, t, w, s, tell))
    return found
