"""The table of the configurator: ten tasks in one process, what they compile, and who is best at what.

A puck on a table, pushed by at most 1 m/s² an axis, in a wind that gusts the harder the further east it is, over an edge at
x = 1. Its model is known, the wind its latent variable; the tasks are the files in `tasks/`. Every task's configuration is
driven through the same episodes, and then judged by every task's objective: the mean over its risk's share of the worst
episodes of its weighted terms, and of what its limits were exceeded by.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import mpc
from benchmarks.architecture.report import write
from mpc.agent.configurator import configurator as module
from mpc.agent.configurator.configurator import Configurator
from mpc.agent.configurator.task import Task
from world_models.base import WorldModel, initial_state

PyTree = Any
TASKS = Path(__file__).parent / "tasks"
SPACE = mpc.Box([-1.0, -1.0], [1.0, 1.0])
START = np.array([-0.4, 0.0, 0.0, 0.0], np.float32)
GUSTS = 1.5
"""m/s², one standard deviation, per m east of -0.5."""
DT = 0.1
FOUL = 100.0
"""Cost of a unit by which a limit is exceeded."""
COMPILED, TRACED = "/jax/core/compile/backend_compile_duration", "/jax/core/compile/jaxpr_trace_duration"
"""What JAX tells its listeners whenever it compiles a program, and when it looks at a function anew."""


@dataclass
class Configuring:
    """Ten tasks, one after the other, in one process.

    Example: python -m benchmarks.architecture configurator --episodes 16
    """

    episodes: int = 16
    """Of each task, in the same winds for all."""
    steps: int = 40
    """Of an episode."""
    seed: int = 0
    """Of the winds."""
    out: Path = Path(__file__).parents[1] / "results"
    """Where the figures go."""


def moved(state: jax.Array, action: jax.Array, wind: jax.Array) -> jax.Array:
    """`(x, y, vx, vy)` 0.1 s later, in a standard normal wind `[2]`."""
    place, speed = state[:2], state[2:]
    push = action + GUSTS * jnp.maximum(place[0] + 0.5, 0.0) * wind
    speed = speed + DT * (push - 0.5 * speed)
    return jnp.concatenate([place + DT * speed, speed])


def puck() -> WorldModel:
    """The known model, with the wind as its latent variable."""

    def nothing(params: PyTree, windows: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        return jnp.zeros(()), {}

    return WorldModel(
        init=lambda key: {},
        encode=lambda params, observation: initial_state(observation),
        predict=lambda params, state, action, latent: initial_state(moved(state.latent, action, latent)),
        normalise=lambda params, moments: params,
        loss=nothing,
        optimizer=optax.identity(),
        members=1,
        latents=2,
    )


def edge(params: PyTree, state: Any, action: jax.Array, t: jax.Array) -> jax.Array:
    """How far it is over the edge, or nearly."""
    return 0.1 * jax.nn.softplus((state.latent[0] - 1.0) / 0.1)


TERMS = {"goal": (0.0, module.to_goal), "effort": (0.0, partial(module.effort, SPACE)), "edge": (0.0, edge)}
LIMITS = {
    "speed": lambda params, state, action, t: jnp.sqrt(jnp.sum(state.latent[2:] ** 2) + 1e-6),
    "east": lambda params, state, action, t: state.latent[0],
}


def objective(task: Task, states: np.ndarray, actions: np.ndarray) -> float:
    """What a task makes of episodes `[E, T+1, 4]` and what was done in them `[E, T, 2]`."""
    goal = START if task.goal is None else task.goal
    mask = np.isfinite(goal).astype(np.float32) * (task.goal is not None)
    params = {"cost": {"goal": initial_state(jnp.nan_to_num(jnp.asarray(goal))), "mask": jnp.asarray(mask)}}

    def cost(state: jax.Array, action: jax.Array) -> jax.Array:
        given = (params, initial_state(state), action, jnp.zeros((), jnp.int32))
        total = sum(task.weights.get(name, weight) * term(*given) for name, (weight, term) in TERMS.items())
        fouls = [jnp.maximum(LIMITS[name](*given) - bound, 0.0) for name, bound in task.limits.items()]
        return total + FOUL * sum(fouls, start=jnp.zeros(()))

    each = jax.vmap(jax.vmap(cost))(jnp.asarray(states[:, 1:]), jnp.asarray(actions)).mean(axis=1)
    return float(mpc.risk.cvar(max(task.risk, 1e-6))(each))


def run(options: Configuring, tell: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Drive every task, count what is compiled, judge, write down.

    Returns:
        A row for each task.
    """
    heard: Counter[str] = Counter()

    def hear(event: str, duration_secs: float, **_: str | int) -> None:
        heard[event] += 1

    jax.monitoring.register_event_duration_secs_listener(hear)
    planner = Configurator(puck(), {}, SPACE, START, terms=TERMS, limits=LIMITS, futures=8)
    given = {file.stem: planner.read(file) for file in sorted(TASKS.glob("*.toml"))}
    winds = np.random.default_rng(options.seed).standard_normal((options.episodes, options.steps, 2)).astype(np.float32)
    step, rows, driven = jax.jit(moved), [], {}
    step(START, np.zeros(2, np.float32), winds[0, 0])
    planner._encode(planner.params, START)
    for name, task in given.items():
        known = len(planner.shapes)
        heard.clear()
        begun = time.perf_counter()
        planner.configure(task)
        switched, times, states, actions = time.perf_counter() - begun, [], [], []
        for wind in winds:
            planner.configure(task)
            state, path, taken = START, [START], []
            for gust in wind:
                begun = time.perf_counter()
                taken.append(planner.act(state))
                times.append(time.perf_counter() - begun)
                state = np.asarray(step(state, taken[-1], gust))
                path.append(state)
            states.append(path)
            actions.append(taken)
        driven[name] = np.asarray(states), np.asarray(actions)
        rows.append(
            {
                "task": name,
                "horizon": task.horizon,
                "risk": task.risk,
                "limits": ", ".join(task.limits),
                "new_shape": len(planner.shapes) > known,
                "compilations": heard[COMPILED],
                "traces": heard[TRACED],
                "switch_ms": round(1000 * switched, 2),
                "decision_ms_p50": round(1000 * float(np.median(times)), 2),
            }
        )
        tell(f"  {rows[-1]}")
    table = np.array([[objective(task, *driven[other]) for other in given] for task in given.values()])
    for index, row in enumerate(rows):
        row["own"], row["best"] = float(table[index, index]), list(given)[int(table[index].argmin())]
        row["other"] = float(np.delete(table[index], index).min())
        row["objectives"] = table[index].tolist()
    write(options.out / "architecture-configurator", told(rows), {"rows": rows}, picture(rows, driven, table))
    return rows


def told(rows: list[dict[str, Any]]) -> list[str]:
    """The figures for people, line by line."""
    again = [row for row in rows if not row["new_shape"]]
    compiled, traced = (sum(row[name] for row in again) for name in ("compilations", "traces"))
    best = sum(row["best"] == row["task"] for row in rows)
    text = ["# The configurator: ten tasks in one process", ""]
    text += [
        f"In the {len(again)} tasks whose shape was there already {compiled} programs were compiled and {traced} functions "
        f"traced. Best at its own objective: {best} of {len(rows)}. Decisions are medians; the first switch to a shape "
        "compiles it.",
        "",
        "| task | horizon | risk | limits | new shape | compiled | switch | decision | own objective | the next | best |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        new = "yes" if row["new_shape"] else ""
        text.append(
            f"| {row['task']} | {row['horizon']} | {row['risk']:g} | {row['limits']} | {new} | {row['compilations']} | "
            f"{row['switch_ms']} ms | {row['decision_ms_p50']} ms | {row['own']:.4f} | {row['other']:.4f} | {row['best']} |"
        )
    return text


def picture(rows: list[dict[str, Any]], driven: dict[str, tuple[np.ndarray, np.ndarray]], table: np.ndarray) -> Figure:
    """Where every task's configuration went, and how each is judged by each: 1 is the best at an objective."""
    figure = Figure(figsize=(11.5, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, (states, _) in driven.items():
        line = left.plot(*states[0, :, :2].T, lw=1.4, label=name)[0]
        for path in states[1:4]:
            left.plot(*path[:, :2].T, lw=0.6, color=line.get_color())
    left.axvline(1.0, color="black", lw=0.8)
    left.set(xlabel="x, m", ylabel="y, m", aspect="equal")
    left.legend(fontsize=7)
    ranks = table.argsort(axis=1).argsort(axis=1) + 1
    right.imshow(ranks, cmap="viridis_r")
    for i in range(len(rows)):
        for j in range(len(rows)):
            right.text(
                j, i, str(ranks[i, j]), ha="center", va="center", fontsize=8, color="white" if ranks[i, j] > 5 else "k"
            )
    names = [row["task"] for row in rows]
    right.set(
        xticks=range(len(names)), yticks=range(len(names)), yticklabels=names, ylabel="judged by", xlabel="configured for"
    )
    right.set_xticklabels(names, rotation=60)
    return figure
