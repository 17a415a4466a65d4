"""How many steps and frames a second the environments make, beside their bars; and a picture of them all.

`python -m benchmarks.environments` times every task stepped through its Gymnasium vector (NumPy in and out, autoreset and
infos included) and inside one compiled program, and writes `benchmarks/results/environments.json` and `.md`. With `--sheet
FILE` it draws the contact sheet of the documentation instead: one scene of each task, and the same under windy leaves where
that is seen.
"""

import json
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
"""Steps and rendered frames a second of Two Rooms, on two cores."""


@dataclass
class Options:
    """What to time."""

    ids: tuple[str, ...] = tuple(envs.IDS)
    """Gymnasium ids."""
    many: int = 8192
    """Environments at once where states are observed."""
    few: int = 256
    """Environments at once where pixels are."""
    seconds: float = 1.0
    """How long each of three repetitions lasts, at least."""
    out: Path = RESULTS
    """Where the figures go."""
    sheet: Path | None = None
    """Draw the contact sheet there, and time nothing."""


def rate(run: Callable[[], int], seconds: float) -> float:
    """Steps a second: the median of three repetitions, each of whole calls of `run`, which says how many steps it made."""
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
    """Steps a second of `gymnasium.make_vec`, random actions drawn beforehand."""
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
    """Steps a second, observations included, of `length` steps in one compiled program, random actions drawn in it.

    Observations are summed, or the compiler would leave them out.
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
            return states, jax.lax.optimization_barrier(seen).sum(dtype=jnp.float32)  # drawn whole, then summed

        states, sums = jax.lax.scan(advance, states, jax.random.split(key, length))
        return states, sums.sum()

    states = jax.jit(jax.vmap(task.reset))(jax.random.split(jax.random.key(0), count))
    key = jax.random.key(1)

    def run() -> int:
        jax.block_until_ready(many(states, key))
        return count * length

    return rate(run, seconds)


def measure(options: Options, save: Callable[[dict[str, dict[str, float]]], None]) -> None:
    """Steps a second of every task, of states or vectors and, where there are pixels, of frames; saved after each."""
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
    """The figures for people."""
    lines = [
        "# Environments: steps a second",
        "",
        f"`{header['command']}`, {header['cores']} cores of {header['machine']}, "
        + ", ".join(f"{name} {version}" for name, version in header["packages"].items()),
        "",
        "| task, what is observed | at once | Gymnasium vector | one compiled program | bar |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        task, kind = name.split()
        bar = f"{BARS[kind]:,}" if task == "craik/TwoRooms-v0" else ""
        cells = (f"{row[column]:,}" for column in ("at_once", "gymnasium", "compiled"))
        lines.append(f"| {task.removeprefix('craik/')}, {kind} | {' | '.join(cells)} | {bar} |")
    return "\n".join(lines) + "\n"


def contact_sheet(file: Path) -> None:
    """One scene of each task after some steps, and Two Rooms and Wall under windy leaves; four to a row."""
    from matplotlib.figure import Figure

    titles = {name: name.removeprefix("craik/").removesuffix("-v0") for name in envs.IDS}
    scenes = [(titles[name], _scene(name)) for name in envs.IDS]
    scenes += [(f"{titles[n]}, windy leaves", _scene(n, leaves=True)) for n in ("craik/TwoRooms-v0", "craik/UMaze-v0")]
    figure = Figure(figsize=(12, 9.4), layout="constrained", facecolor="white")
    for axis, (title, image) in zip(figure.subplots(3, 4).ravel(), scenes, strict=True):
        axis.imshow(image, interpolation="antialiased")
        axis.set_title(title, fontsize=11, color="#36404a")
        axis.axis("off")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=90)


_ON_THE_WAY = {
    "craik/Car-v0": [10.7, 0.5, -0.25, 4.0],
    "craik/CartPoleSwingUp-v0": [0.4, 0.5, 0.5, -1.0],
    "craik/Quadrotor-v0": [2.1, 0.0, -0.3, 1.0, 0.0, 0.0],
    "craik/Rendezvous-v0": [-60.0, -110.0, 40.0, 0.1, 0.4, -0.1],
}  # states to show, where a start shows little


def _scene(name: str, **settings: Any) -> np.ndarray:
    env = gymnasium.make(name, render_mode="rgb_array", **settings)
    placed = name in _ON_THE_WAY
    env.reset(seed=4, options={"state": _ON_THE_WAY[name]} if placed else None)
    env.action_space.seed(1)
    for _ in range(0 if placed else 9):
        env.step(0.5 * env.action_space.sample())
    image: Any = env.render()
    env.close()
    return np.asarray(image)


def main() -> None:
    """Time the environments and write the figures down, or draw them."""
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
