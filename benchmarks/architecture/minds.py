"""The tables of actor, critic and memory: each module beside what it replaces, in the same learnt model.

Actor: Mode 1, the actor by itself, beside Mode 2, the planner, in one process; and how many iterations a plan that begins
from the actor's proposal needs to cost as little as one that began from noise does after `COLD`. Critic: a short horizon
that the critic sees beyond, beside a long one that ends in nothing. Memory: agents that see everything, that remember, and
that see the newest observation alone.

A share of a score is that of the way from random actions to what it is compared with, (R - random) / (R' - random): returns
may be negative, and 95% of them better than all.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.architecture.latents import kept
from benchmarks.architecture.minds_report import picture, tables
from benchmarks.architecture.report import write
from benchmarks.learning import tasks
from benchmarks.learning.tasks import HIDDEN, VISIBLE
from mpc.agent import Agent, Settings, objective
from mpc.agent.evaluation import decision_times, evaluate, random_returns

COLD, MOST = 30, 60
"""Iterations of plans from noise, and the most that plans from a proposal are given to cost as little."""
MAZE = "craik/TMaze-v0"


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
    tables: tuple[str, ...] = ("actor", "critic", "memory")
    """Which to make."""
    pupils: tuple[str, ...] = tuple(PUPILS)
    """Of `PUPILS`."""
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


def acting(options: Minds, name: str, pupil: Pupil, seed: int, tell: Callable[[str], None]) -> list[dict[str, Any]]:
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
    row |= guessed(agent, seed)
    return [row | {f"{who}_returns": np.round(each, 2).tolist() for who, each in returns.items()}]


def share(score: float, means: dict[str, float]) -> float:
    """Of the way from random actions to planning."""
    return (score - means["random"]) / (means["plan"] - means["random"])


def guessed(agent: Agent, seed: int, count: int = 32) -> dict[str, float]:
    """Iterations until a plan from the actor's proposal costs no more than one from noise after `COLD`, the median.

    Args:
        agent: Plans.
        seed: Of what is drawn of what it remembers.
        count: Observations to plan from.
    """
    planner, minds = agent.policy.planner, agent.learner.minds

    def curves(params: Any, row: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = agent.policy.observe(params, row)
        proposal = planner.problem.action_space.decide(objective.react(planner.problem, minds, params, state))

        def costs(guess: jax.Array | None) -> jax.Array:
            def improve(memory: Any, _: None) -> tuple[Any, jax.Array]:
                memory = planner.step(params, state, memory)
                return memory, memory.cost

            return jax.lax.scan(improve, planner.init(params, state, key, guess), None, length=MOST)[1]

        return costs(None), costs(proposal)

    rows = np.random.default_rng(seed).choice(int(agent.buffer.filled[0]), count, replace=False)
    keys = jax.random.split(jax.random.key(seed), count)
    cold, warm = jax.jit(jax.vmap(curves, in_axes=(None, 0, 0)))(agent.params, agent.buffer.observations[0, rows], keys)
    goal = cold[:, COLD - 1 : COLD]
    reached = warm <= goal + 1e-3 * jnp.abs(goal)
    needed = np.where(reached.any(axis=1), np.argmax(reached, axis=1) + 1, MOST)
    return {"iterations": float(np.median(needed)), "never": round(float(np.mean(~reached.any(axis=1))), 3)}


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
    for what, known in (("tables", ("actor", "critic", "memory")), ("pupils", PUPILS), ("remembering", REMEMBERING)):
        unknown = [name for name in getattr(options, what) if name not in known]
        if unknown:
            raise ValueError(f"{what}: there is no {', '.join(unknown)}; there are {', '.join(known)}")


def run(options: Minds, tell: Callable[[str], None] = print) -> dict[str, list[dict[str, Any]]]:
    """Teach, score, and write down.

    Returns:
        The rows of each table.
    """
    refuse(options)
    tasks.register()
    found: dict[str, list[dict[str, Any]]] = {"actor": [], "critic": [], "memory": []}

    def add(table: str, name: str, make: Callable[[], list[dict[str, Any]]]) -> None:
        if table not in options.tables:
            return
        rows = kept(cast(Any, options), f"minds-{table}-{name}-{options.episodes}", lambda: {"rows": make()})["rows"]
        found[table] += rows
        for row in rows:
            tell(f"  {table}: { ({key: value for key, value in row.items() if not isinstance(value, list)}) }")
        write(options.out / "architecture-minds", tables(found, COLD), found, picture(found))

    for seed in range(options.seeds):
        for name in options.pupils:
            pupil = PUPILS[name]
            add("actor", f"{name}-{pupil.steps}-{seed}", lambda n=name, p=pupil, s=seed: acting(options, n, p, s, tell))
            add("critic", f"{name}-{pupil.steps}-{seed}", lambda n=name, p=pupil, s=seed: seeing(options, n, p, s, tell))
        for task in options.remembering:
            for shown, pupil in REMEMBERING[task].items():
                key = f"{task}-{shown}-{pupil.steps}-{seed}"
                add("memory", key, lambda t=task, w=shown, s=seed: remembering(options, t, w, s, tell))
    return found
