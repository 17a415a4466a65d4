"""Benchmark of actor, critic and observation history, each compared with what it replaces in the same learnt model.

- actor: Mode 1 (the actor alone) and Mode 2 (the planner) in one process; and the number of iterations after which a plan
  that starts from the actor's proposal costs no more than a plan that starts from noise does after `COLD` iterations;
- critic: a short horizon with and without the critic as its terminal value, and a long horizon without and with it;
- history: agents that observe the full state, an observation history, or the last observation only.

Relative scores are (R - random) / (R' - random), with R' the reference: returns can be negative, so R / R' is meaningless.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.architecture import rooms
from benchmarks.architecture.actor_critic_report import picture, tables
from benchmarks.architecture.latents import cached
from benchmarks.architecture.proposals import COLD, proposal_iterations
from benchmarks.architecture.report import write
from benchmarks.learning import tasks
from benchmarks.learning.tasks import HIDDEN, VISIBLE
from benchmarks.provenance import invoked
from mpc.agent import Agent
from mpc.agent.actor import teaching
from mpc.agent.evaluation import decision_times, evaluate, random_returns

MAZE = "craik/TMaze-v0"
TABLES = ("actor", "critic", "history")


@dataclass(frozen=True)
class AgentSpec:
    """Environment, number of steps and settings of an agent to train."""

    env: str
    steps: int
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.env.replace('/', '-')}-{self.steps}-history-{self.settings.get('history', 1)}"


AGENTS = {
    "pendulum": AgentSpec("Pendulum-v1", 1000),
    "swing-up": AgentSpec("craik/CartPoleSwingUp-v0", 2000),
}
"""Agents of the tables actor and critic."""
_HIDDEN = {"history": 2}
_MAZE = {
    "history": 64,
    "members": 2,
    "batch": 32,
    "updates": 500,
    "train_every": 100,
    "random_steps": 1000,
    "actor_critic_updates": 0,
    "horizon": 10,
    "starts": 4,
    "first_starts": 8,
    "first_iterations": 10,
    "capacity": 5000,
}
"""The turn takes four steps and nothing else needs planning: a short horizon without actor and critic."""
HISTORY_TASKS = {
    "hidden speed": {
        "full state": AgentSpec("Pendulum-v1", 1000),
        "history": AgentSpec(HIDDEN, 1000, _HIDDEN),
        "last observation": AgentSpec(HIDDEN, 1000),
    },
    "T-maze": {
        "full state": AgentSpec(VISIBLE, 2000, _MAZE | {"history": 1}),
        "history": AgentSpec(MAZE, 2000, _MAZE),
        "last observation": AgentSpec(MAZE, 2000, _MAZE | {"history": 1}),
    },
}
"""Partially observed tasks, with one agent per type of observation."""


@dataclass
class ActorCritic:
    """Actor, critic and observation history.

    Example: python -m benchmarks.architecture actor-critic --seeds 3
    """

    seeds: int = 3
    """Number of seeds, 0 … n-1."""
    episodes: int = 20
    """Episodes per score."""
    goals: int = 100
    """Episodes per score in Two Rooms."""
    tables: tuple[str, ...] = TABLES
    """Tables to make: actor, critic, history."""
    agents: tuple[str, ...] = (*AGENTS, rooms.NAME)
    """Agents of the tables actor and critic."""
    history_tasks: tuple[str, ...] = tuple(HISTORY_TASKS)
    """Tasks of the table history."""
    out: Path = Path(__file__).parents[1] / "results"
    """Folder of the results."""
    runs: Path = Path("runs/architecture")
    """Folder of trained agents and of their scores, which are reused."""


def trained(options: ActorCritic, spec: AgentSpec, seed: int, log: Callable[[str], None]) -> Path:
    """Returns the checkpoint of an agent; trains it unless the checkpoint exists."""
    folder = options.runs / f"actor-critic-{spec.name}-{seed}"
    if not folder.exists():
        log(f"training {spec.name}, seed {seed}")
        agent = Agent(spec.env, seed=seed, config=spec.settings)
        agent.learn(spec.steps, progress_bar=False, checkpoint_path=folder)
    return folder


def actor_rows(
    options: ActorCritic, name: str, spec: AgentSpec, seed: int, log: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Returns scores of Mode 1 before and after distillation, and of Mode 2."""
    agent = Agent.load(trained(options, spec, seed, log))
    row: dict[str, Any] = {"task": name, "seed": seed, "steps": spec.steps}
    seeds = range(options.episodes)
    returns = {"random": random_returns(spec.env, seeds), "plan": evaluate(agent, spec.env, seeds)}
    returns["imagined"] = evaluate(agent, spec.env, seeds, mode="react")
    agent.distil()
    returns["react"] = evaluate(agent, spec.env, seeds, mode="react")
    means = {name: float(each.mean()) for name, each in returns.items()}
    row |= {name: round(mean, 2) for name, mean in means.items()}
    row |= {f"{name}_share": round(share(means[name], means), 4) for name in ("imagined", "react")}
    for mode in ("plan", "react"):
        row[f"{mode}_ms"] = decision_times(agent, spec.env, seed, mode=mode)[0]["p50"]
    drawn = np.random.default_rng(seed).choice(int(agent.buffer.filled[0]), 32, replace=False)
    params = agent.params
    seen = jax.vmap(lambda row: agent.model.encode(params["model"], row).latent)(agent.buffer.observations[0, drawn])
    row |= proposal_iterations(agent.program.planner, teaching.reward_adapter(agent), params, seen, seed)
    return [row | {f"{name}_returns": np.round(each, 2).tolist() for name, each in returns.items()}]


def share(score: float, means: dict[str, float]) -> float:
    """Returns a score scaled to 0 for random actions and 1 for planning."""
    return (score - means["random"]) / (means["plan"] - means["random"])


def critic_rows(
    options: ActorCritic, name: str, spec: AgentSpec, seed: int, log: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Returns scores of a short and of a long horizon, each with and without the critic."""
    rows = []
    for horizon, critic in ((5, True), (5, False), (30, False), (30, True)):
        agent = Agent.load(trained(options, spec, seed, log), config={"horizon": horizon})
        if not critic:
            state = agent.learner.actor_critic_state
            assert state is not None
            agent.learner.actor_critic_state = state._replace(target=jax.tree.map(jnp.zeros_like, state.target))
        returns = evaluate(agent, spec.env, range(options.episodes))
        row = {"task": name, "seed": seed, "horizon": horizon, "critic": critic, "mean": round(float(returns.mean()), 2)}
        rows.append(row | {"returns": np.round(returns, 2).tolist()})
    return rows


def history_rows(
    options: ActorCritic, task: str, observed: str, seed: int, log: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Returns the score of an agent with one type of observation."""
    spec = HISTORY_TASKS[task][observed]
    agent = Agent.load(trained(options, spec, seed, log))
    returns = evaluate(agent, spec.env, range(options.episodes))
    row = {"task": task, "observed": observed, "seed": seed, "steps": spec.steps, "mean": round(float(returns.mean()), 3)}
    random = float(random_returns(spec.env, range(options.episodes)).mean())
    return [row | {"random": round(random, 3), "returns": np.round(returns, 3).tolist()}]


def check_names(options: ActorCritic) -> None:
    """Checks the names in the options before training starts.

    Raises:
        ValueError: If a name is unknown.
    """
    for option, names in (("tables", TABLES), ("agents", (*AGENTS, rooms.NAME)), ("history_tasks", HISTORY_TASKS)):
        unknown = [name for name in getattr(options, option) if name not in names]
        if unknown:
            raise ValueError(f"{option} must be of {', '.join(names)}; got {', '.join(unknown)}")


def earlier(stem: Path) -> dict[str, list[dict[str, Any]]]:
    """Returns the rows of the existing results, each with the command that measured it."""
    file = stem.with_suffix(".json")
    results = json.loads(file.read_text()) if file.exists() else {}
    return {table: [{"command": results["command"]} | row for row in results.get(table, [])] for table in TABLES}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Returns True if two rows of a table are the same measurement."""
    return all(one.get(name) == other.get(name) for name in ("task", "seed", "observed", "horizon", "critic"))


def run(options: ActorCritic, log: Callable[[str], None] = print) -> dict[str, list[dict[str, Any]]]:
    """Trains, evaluates, and merges the rows with existing results.

    Returns:
        Rows of each table.
    """
    check_names(options)
    tasks.register()
    stem = options.out / "architecture-actor-critic"
    results, command = earlier(stem), invoked("benchmarks.architecture")

    def add(table: str, name: str, episodes: int, make: Callable[[], list[dict[str, Any]]]) -> None:
        if table not in options.tables:
            return
        rows = cached(cast(Any, options), f"actor-critic-{table}-{name}-{episodes}", lambda: {"rows": make()})["rows"]
        for row in rows:
            results[table] = [old for old in results[table] if not same(old, row)] + [row | {"command": command}]
            log(f"  {table}: { ({key: value for key, value in row.items() if not isinstance(value, list)}) }")
        write(stem, tables(results, COLD), results, picture(results))

    for seed in range(options.seeds):
        for name in options.agents:
            if name == rooms.NAME:
                given = (options.runs / f"actor-critic-two-rooms-{seed}", seed, options.goals, log)
                add("actor", f"two-rooms-{seed}", options.goals, lambda g=given: [rooms.actor_row(*g)])
                add("critic", f"two-rooms-{seed}", options.goals, lambda g=given: rooms.critic_rows(*g))
                continue
            p, key = AGENTS[name], f"{name}-{AGENTS[name].steps}-{seed}"
            add("actor", key, options.episodes, lambda n=name, p=p, s=seed: actor_rows(options, n, p, s, log))
            add("critic", key, options.episodes, lambda n=name, p=p, s=seed: critic_rows(options, n, p, s, log))
        for task in options.history_tasks:
            for observed, spec in HISTORY_TASKS[task].items():
                key = f"{task}-{observed}-{spec.steps}-{seed}"
                add("history", key, options.episodes, lambda t=task, o=observed, s=seed: history_rows(options, t, o, s, log))
    return results
