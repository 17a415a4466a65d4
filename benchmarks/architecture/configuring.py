"""Benchmark of the configurator: one agent is given ten tasks in turn; their compilations, and their objectives.

The system is a puck on a table with an acceleration of at most 1 m/s² per axis, gusts of wind that grow towards the east,
and an edge at x = 1. The model is known; the wind is its latent variable, and being near the edge a known cost. The tasks
are the files in `tasks/`. Each task's configuration runs the same episodes and is evaluated by the objective of every task:
the weighted cost terms plus the violations of the limits, averaged over the task's risk share of the worst episodes.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import mpc
from benchmarks.architecture.report import write
from mpc.agent import Agent, Task
from mpc.agent.viz.figures import legend_beside
from world_models.analytic import no_loss
from world_models.base import WorldModel, initial_state

PyTree = Any
TASKS = Path(__file__).parent / "tasks"
START = np.array([-0.4, 0.0, 0.0, 0.0], np.float32)
GUSTS = 1.5
"""Standard deviation of the wind in m/s², per metre east of x = -0.5."""
DT = 0.1
VIOLATION_COST = 100.0
"""Cost per unit of a violated limit."""
COMPILED, TRACED = "/jax/core/compile/backend_compile_duration", "/jax/core/compile/jaxpr_trace_duration"
"""JAX monitoring events: compilation of a program, and tracing of a function."""


@dataclass
class Configuring:
    """Ten consecutive tasks in one process.

    Example: python -m benchmarks.architecture configurator --episodes 16
    """

    episodes: int = 16
    """Episodes per task, with the same wind for all tasks."""
    steps: int = 40
    """Steps per episode."""
    seed: int = 0
    """Seed of the wind."""
    out: Path = Path(__file__).parents[1] / "results"
    """Folder of the results."""


def dynamics(state: jax.Array, action: jax.Array, wind: jax.Array) -> jax.Array:
    """Returns `(x, y, vx, vy)` after 0.1 s, for a standard normal wind `[2]`."""
    position, velocity = state[:2], state[2:]
    acceleration = action + GUSTS * jnp.maximum(position[0] + 0.5, 0.0) * wind
    velocity = velocity + DT * (acceleration - 0.5 * velocity)
    return jnp.concatenate([position + DT * velocity, velocity])


def puck() -> WorldModel:
    """Returns the analytic world model with the wind as its latent variable."""
    return WorldModel(
        init=lambda key: {"network": {}},
        encode=lambda params, observation: initial_state(observation),
        predict=lambda params, state, action, latent: initial_state(dynamics(state.latent, action, latent)),
        normalise=lambda params, moments: params,
        loss=no_loss,
        optimizer=optax.identity(),
        members=1,
        latents=2,
        decode=lambda params, state: state.latent,
        normalised_actions=False,
    )


def edge(params: PyTree, observation: jax.Array, action: jax.Array, t: jax.Array) -> jax.Array:
    """Returns a smoothed distance beyond the edge."""
    return 0.1 * jax.nn.softplus((observation[0] - 1.0) / 0.1)


LIMITS = {
    "speed": lambda params, observation, action, t: jnp.sqrt(jnp.sum(observation[2:] ** 2) + 1e-6),
    "east": lambda params, observation, action, t: observation[0],
}
PLANNING = {"step_size": 0.1, "starts": 4, "first_starts": 4, "first_iterations": 0, "buffer_mib": 1}


def configurable() -> Agent:
    """Returns the agent that is given the tasks; it has nothing to learn."""
    spaces: dict[str, Any] = {
        "observation_space": gymnasium.spaces.Box(-np.inf, np.inf, START.shape, np.float32),
        "action_space": gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32),
    }
    return Agent(None, config=PLANNING, model=puck(), cost=edge, limits=LIMITS, **spaces)


def objective(task: Task, states: np.ndarray, actions: np.ndarray) -> float:
    """Returns a task's objective for episodes with states `[E, T+1, 4]` and actions `[E, T, 2]`."""
    goal = np.full_like(START, np.nan) if task.goal is None else np.asarray(task.goal, START.dtype)
    mask, goal = np.isfinite(goal), np.nan_to_num(goal)

    def cost(state: jax.Array, action: jax.Array) -> jax.Array:
        given = ({}, state, action, jnp.zeros((), jnp.int32))
        terms = {
            "observation_goal": 0.5 * jnp.sum(mask * (state - goal) ** 2),
            "effort": jnp.mean(action**2),
            "cost": edge(*given),
        }
        total = sum((weight * terms[name] for name, weight in task.weights.items()), start=jnp.zeros(()))
        violations = [jnp.maximum(LIMITS[name](*given) - bound, 0.0) for name, bound in task.limits.items()]
        return total + VIOLATION_COST * sum(violations, start=jnp.zeros(()))

    each = jax.vmap(jax.vmap(cost))(jnp.asarray(states[:, 1:]), jnp.asarray(actions)).mean(axis=1)
    return float(mpc.risk.cvar(max(risk(task), 1e-6))(each))


def risk(task: Task) -> float:
    """Returns the share of the worst futures that a task minimises; all of them unless it says otherwise."""
    return 1.0 if task.risk is None else task.risk


def run(options: Configuring, log: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Runs every task, counts compilations, evaluates objectives, and writes results.

    Returns:
        A row for each task.
    """
    events: Counter[str] = Counter()

    def count(event: str, duration_secs: float, **_: str | int) -> None:
        events[event] += 1

    jax.monitoring.register_event_duration_secs_listener(count)
    agent, step, rows, episodes_of = configurable(), jax.jit(dynamics), [], {}
    winds = np.random.default_rng(options.seed).standard_normal((options.episodes, options.steps, 2)).astype(np.float32)
    step(START, np.zeros(2, np.float32), winds[0, 0])
    given: dict[str, Task] = {}
    for file in sorted(TASKS.glob("*.toml")):
        shapes_before = len(agent.components.shapes)
        events.clear()
        begun = time.perf_counter()
        agent.configure(file).predict(START)
        switched, times, states, actions = time.perf_counter() - begun, [], [], []
        given[file.stem] = task = agent.task
        for wind in winds:
            state, path, taken, under_way = START, [START], [], None
            for gust in wind:
                begun = time.perf_counter()
                action, under_way = agent.predict(state, under_way)
                times.append(time.perf_counter() - begun)
                state = np.asarray(step(state, action, gust))
                taken.append(action)
                path.append(state)
            states.append(path)
            actions.append(taken)
        episodes_of[file.stem] = np.asarray(states), np.asarray(actions)
        rows.append(
            {
                "task": file.stem,
                "horizon": agent.setup.shape.horizon,
                "risk": risk(task),
                "limits": ", ".join(task.limits),
                "new_shape": len(agent.components.shapes) > shapes_before,
                "compilations": events[COMPILED],
                "traces": events[TRACED],
                "switch_ms": round(1000 * switched, 2),
                "decision_ms_p50": round(1000 * float(np.median(times)), 2),
            }
        )
        log(f"  {rows[-1]}")
    table = np.array([[objective(task, *episodes_of[other]) for other in given] for task in given.values()])
    for index, row in enumerate(rows):
        row["own"], row["best"] = float(table[index, index]), list(given)[int(table[index].argmin())]
        row["other"] = float(np.delete(table[index], index).min())
        row["objectives"] = table[index].tolist()
    write(options.out / "architecture-configurator", tables(rows), {"rows": rows}, picture(rows, episodes_of, table))
    return rows


def tables(rows: list[dict[str, Any]]) -> list[str]:
    """Returns the lines of the report."""
    again = [row for row in rows if not row["new_shape"]]
    compiled, traced = (sum(row[name] for row in again) for name in ("compilations", "traces"))
    best = sum(row["best"] == row["task"] for row in rows)
    text = ["# The configurator: ten tasks in one process", ""]
    text += [
        f"In the {len(again)} tasks without a new shape, {compiled} programs were compiled and {traced} functions traced. "
        f"{best} of {len(rows)} configurations are the best at their own objective. Decision times are medians. A switch "
        "is a configuration and the first decision after it; the first switch to a shape includes compilation.",
        "",
        "| task | horizon | risk | limits | new shape | compiled | switch | decision | own objective | second best | best |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        new = "yes" if row["new_shape"] else ""
        text.append(
            f"| {row['task']} | {row['horizon']} | {row['risk']:g} | {row['limits']} | {new} | {row['compilations']} | "
            f"{row['switch_ms']} ms | {row['decision_ms_p50']} ms | {row['own']:.4f} | {row['other']:.4f} | {row['best']} |"
        )
    return text


def picture(rows: list[dict[str, Any]], episodes_of: dict[str, tuple[np.ndarray, np.ndarray]], table: np.ndarray) -> Figure:
    """Draws the paths of every configuration, and its rank under every objective (1 is the best)."""
    figure = Figure(figsize=(11.5, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, (states, _) in episodes_of.items():
        line = left.plot(*states[0, :, :2].T, lw=1.4, label=name)[0]
        for path in states[1:4]:
            left.plot(*path[:, :2].T, lw=0.6, color=line.get_color())
    left.axvline(1.0, color="black", lw=0.8)
    left.set(xlabel="x, m", ylabel="y, m", aspect="equal")
    legend_beside(left)
    ranks = table.argsort(axis=1).argsort(axis=1) + 1
    right.imshow(ranks, cmap="viridis_r")
    for i in range(len(rows)):
        for j in range(len(rows)):
            right.text(
                j, i, str(ranks[i, j]), ha="center", va="center", fontsize=8, color="white" if ranks[i, j] > 5 else "k"
            )
    names = [row["task"] for row in rows]
    right.set(
        xticks=range(len(names)), yticks=range(len(names)), yticklabels=names, ylabel="objective of", xlabel="configured for"
    )
    right.set_xticklabels(names, rotation=60)
    return figure
