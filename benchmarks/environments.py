"""Throughput of the environments in steps and frames per second, and a contact sheet of their scenes.

`python -m benchmarks.environments` times every task as a Gymnasium vector environment (NumPy input and output, with
autoreset and infos) and inside one compiled program. It writes `benchmarks/results/environments.json` and `.md`. With
`--sheet FILE` it only draws the contact sheet of the documentation: one scene of each task, two of them with windy leaves.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import tyro

import envs
from benchmarks.provenance import invoked, provenance
from envs.gym import VectorEnv
from envs.task import Task

RESULTS = Path(__file__).parent / "results"
BARS = {"states": 1_000_000, "frames": 20_000}
"""Required steps and rendered frames per second of Two Rooms on two cores."""


@dataclass
class Options:
    """Options of the benchmark."""

    ids: tuple[str, ...] = tuple(envs.IDS)
    """Gymnasium ids."""
    many: int = 8192
    """Number of environments with state observations."""
    few: int = 256
    """Number of environments with image observations."""
    seconds: float = 1.0
    """Minimal duration of each of three repetitions."""
    out: Path = RESULTS
    """Folder of the results."""
    sheet: Path | None = None
    """File of the contact sheet; if given, nothing is timed."""


def rate(run: Callable[[], int], seconds: float) -> float:
    """Returns steps per second: the median of three repetitions of whole calls of `run`, which returns its steps."""
    for _ in range(2):
        run()
    rates = []
    for _ in range(3):
        begun, steps = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            steps += run()
        rates.append(steps / (time.perf_counter() - begun))
    return float(np.median(rates))


def through_gymnasium(name: str, count: int, seconds: float, **settings: Any) -> float:
    """Returns steps per second of `gymnasium.make_vec` with precomputed random actions."""
    env = gymnasium.make_vec(name, count, **settings)
    env.reset(seed=0)
    shape = (16, *(env.action_space.shape or ()))
    actions = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    turn = 0

    def run() -> int:
        nonlocal turn
        env.step(actions[turn % len(actions)])
        turn += 1
        return count

    made = rate(run, seconds)
    env.close()
    return made


def compiled(task: Task, count: int, length: int, seconds: float) -> float:
    """Returns steps per second of `length` steps with observations in one compiled program that draws random actions.

    Observations are summed; otherwise the compiler would remove them.
    """
    low, high = task.actions

    def one(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        acting, moving = jax.random.split(key)
        action = jax.random.uniform(acting, low.shape, minval=low, maxval=high)
        state = task.step(task.params, state, action, moving)
        return state, task.observe(state)

    @jax.jit
    def many(states: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        def advance(states: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            states, seen = jax.vmap(one)(states, jax.random.split(key, count))
            return states, jax.lax.optimization_barrier(seen).sum(dtype=jnp.float32)  # the barrier keeps whole images

        states, sums = jax.lax.scan(advance, states, jax.random.split(key, length))
        return states, sums.sum()

    states = jax.jit(jax.vmap(task.reset))(jax.random.split(jax.random.key(0), count))
    key = jax.random.key(1)

    def run() -> int:
        jax.block_until_ready(many(states, key))
        return count * length

    return rate(run, seconds)


def measure(options: Options, save: Callable[[dict[str, dict[str, float]]], None]) -> None:
    """Measures steps per second of every task with vector and with image observations; saves after each task."""
    rows: dict[str, dict[str, float]] = {}
    for name in options.ids:
        both = "observation" in _settings(name)
        for kind, count in (("states", options.many), ("frames", options.few)):
            if kind == "frames" and not both:
                continue
            settings: dict[str, Any] = {"observation": "state" if kind == "states" else "pixels"} if both else {}
            env = gymnasium.make_vec(name, 1, **settings)
            assert isinstance(env, VectorEnv)
            length = 64 if kind == "states" else 8
            rows[f"{name} {kind}"] = {
                "at_once": count,
                "gymnasium": round(through_gymnasium(name, count, options.seconds, **settings)),
                "compiled": round(compiled(env.task, count, length, options.seconds)),
            }
            print(f"{name} {kind}", rows[f"{name} {kind}"], flush=True)
            save(rows)


def _settings(name: str) -> list[str]:
    module, _ = envs.IDS[name]
    return list(getattr(envs, module).task.__wrapped__.__annotations__)


def table(header: dict[str, Any], rows: dict[str, dict[str, float]]) -> str:
    """Returns the report as Markdown."""
    lines = [
        "# Environments: steps per second",
        "",
        f"`{header['command']}`, {header['cores']} cores of {header['machine']}, "
        + ", ".join(f"{name} {version}" for name, version in header["packages"].items()),
        "",
        "| task, observation | environments | Gymnasium vector | one compiled program | required |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        task, kind = name.split()
        bar = f"{BARS[kind]:,}" if task == "craik/TwoRooms-v0" else ""
        cells = (f"{row[column]:,}" for column in ("at_once", "gymnasium", "compiled"))
        lines.append(f"| {task.removeprefix('craik/')}, {kind} | {' | '.join(cells)} | {bar} |")
    return "\n".join(lines) + "\n"


def contact_sheet(file: Path) -> None:
    """Draws one scene of each task after some steps, and Two Rooms and U-Maze with windy leaves; four per row."""
    from matplotlib.figure import Figure

    titles = {name: name.removeprefix("craik/").removesuffix("-v0") for name in envs.IDS}
    scenes = [(titles[name], _scene(name)) for name in envs.IDS]
    scenes += [(f"{titles[n]}, windy leaves", _scene(n, leaves=True)) for n in ("craik/TwoRooms-v0", "craik/UMaze-v0")]
    figure = Figure(figsize=(12, 3.15 * math.ceil(len(scenes) / 4)), layout="constrained", facecolor="white")
    axes = figure.subplots(math.ceil(len(scenes) / 4), 4).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, (title, image) in zip(axes, scenes, strict=False):
        axis.imshow(image, interpolation="antialiased")
        axis.set_title(title, fontsize=11, color="#36404a")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=90)


_SHOWN_STATES = {
    "craik/Car-v0": [10.7, 0.5, -0.25, 4.0],
    "craik/CartPoleSwingUp-v0": [0.4, 0.5, 0.5, -1.0],
    "craik/Quadrotor-v0": [2.1, 0.0, -0.3, 1.0, 0.0, 0.0],
    "craik/Rendezvous-v0": [-60.0, -110.0, 40.0, 0.1, 0.4, -0.1],
}  # states for the contact sheet, for tasks whose start states show little


def _scene(name: str, **settings: Any) -> np.ndarray:
    env = gymnasium.make(name, render_mode="rgb_array", **settings)
    placed = name in _SHOWN_STATES
    env.reset(seed=4, options={"state": _SHOWN_STATES[name]} if placed else None)
    env.action_space.seed(1)
    for _ in range(0 if placed else 9):
        env.step(0.5 * env.action_space.sample())
    image: Any = env.render()
    env.close()
    return np.asarray(image)


def main() -> None:
    """Times the environments and writes results, or draws the contact sheet."""
    options = tyro.cli(Options, description=__doc__)
    if options.sheet is not None:
        contact_sheet(options.sheet)
        return
    header = provenance(invoked("benchmarks.environments"), ("craik", "jax", "gymnasium", "numpy")) | {
        "settings": {"many": options.many, "few": options.few, "seconds": options.seconds},
        "bars": BARS,
    }
    options.out.mkdir(parents=True, exist_ok=True)

    def save(rows: dict[str, dict[str, float]]) -> None:
        (options.out / "environments.json").write_text(json.dumps(header | {"steps_per_second": rows}, indent=1) + "\n")
        (options.out / "environments.md").write_text(table(header, rows))

    measure(options, save)


if __name__ == "__main__":
    main()
