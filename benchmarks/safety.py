"""The safety filter under adversarial actions: constraints of car and quadrotor must hold, whatever is asked for.

`python -m benchmarks.safety` asks for actions that lead into obstacles, over speed limits, or anywhere, in episodes that
begin where every constraint can be kept, and counts violations. It times one action as well. It writes
`benchmarks/results/safety.json`, and exits with 1 if a constraint was violated.
"""

import json
import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import mpc
from benchmarks.provenance import invoked, provenance
from envs import car, quadrotor

AHEAD = 10  # steps that an adversary looks ahead
MARGIN = 1e-4  # of constraints that are shares of a radius or a limit; more than rounding makes of 60 steps


@dataclass
class Options:
    """Options of the benchmark."""

    actions: int = 100_000
    """Adversarial actions per task."""
    length: int = 200
    """Actions of an episode."""
    timed: int = 1000
    """Actions that are timed."""
    seed: int = 0
    """Seed of starts and actions."""
    out: Path = Path(__file__).parent / "results" / "safety.json"
    """File of the results."""


class Case(NamedTuple):
    """A task: its `problem`, its parameters, its `safe` filter, and `reset(key)`."""

    problem: Any
    params: Any
    safe: mpc.SafetyFilter
    reset: Any


def _brake(turn: float, params: Any, state: jax.Array) -> jax.Array:
    """Returns the action that stops a car, at most as fast as it can, while it turns."""
    return jnp.stack([-state[3] / params["dt"], jnp.full((), turn)])


def _hover(params: Any, state: jax.Array, damping: float) -> jax.Array:
    """Returns thrusts that bring a quadrotor to rest, upright."""
    lift = params["mass"] * (params["gravity"] - damping * state[4])
    lean = jnp.clip(jnp.arctan(damping * state[3] / params["gravity"]), -0.6, 0.6)
    turn = (40.0 * (lean - state[2]) - 10.0 * state[5]) * params["inertia"] / params["arm"]
    lift = jnp.clip(lift / jnp.maximum(jnp.cos(state[2]), 0.5), 0.0, 2 * quadrotor.MAX_THRUST)
    return 0.5 * jnp.stack([lift + turn, lift - turn])


def cases() -> dict[str, Case]:
    """Returns the tasks by name."""
    found = {}
    steering = np.array([car.MAX_ACCELERATION, car.MAX_STEERING])
    rotors = mpc.Box(np.zeros(2), np.full(2, quadrotor.MAX_THRUST))
    backups = {
        "car": ([partial(_brake, turn) for turn in (0.0, 0.6, -0.6)], car, mpc.Box(-steering, steering), 24),
        "quadrotor": ([partial(_hover, damping=d) for d in (2.0, 4.0)], quadrotor, rotors, 60),
    }
    for name, (controllers, env, space, horizon) in backups.items():
        limit = mpc.constraints.inequality(lambda params, state, action, t, env=env: env.limits(state))
        problem = mpc.Problem(
            env.dynamics, lambda *_: jnp.zeros(()), horizon=horizon, action_space=space, constraints=[limit]
        )
        found[name] = Case(problem, env.PARAMS, mpc.safety_filter(problem, controllers, margin=MARGIN), env.reset)
    return found


def adversary(case: Case, state: jax.Array, held: jax.Array, kind: jax.Array, key: jax.Array) -> jax.Array:
    """Returns an action: at random, held for long, or the corner that leads deepest into a constraint."""
    space, limit = case.problem.action_space, case.problem.constraints[0].function
    low, high = jnp.asarray(space.low, jnp.float32), jnp.asarray(space.high, jnp.float32)
    corners = jnp.stack([jnp.stack([a, b]) for a in (low[0], high[0]) for b in (low[1], high[1])])

    def deepest(action: jax.Array) -> jax.Array:
        def step(state: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
            state = case.problem.dynamics(case.params, state, action)
            return state, jnp.max(limit(case.params, state, action, t))

        return jnp.max(jax.lax.scan(step, state, jnp.arange(AHEAD))[1])

    worst = corners[jnp.argmax(jax.vmap(deepest)(corners))]
    anything = jax.random.uniform(key, (2,), minval=2 * low - high, maxval=2 * high - low)  # out of bounds, too
    return jnp.stack([anything, held, worst, worst])[kind]


def episode(case: Case, length: int, key: jax.Array) -> dict[str, jax.Array]:
    """Returns the largest constraint value of an episode, and what the filter counted."""
    begin, drawn = jax.random.split(key)
    limit = case.problem.constraints[0].function

    def step(carry: Any, key: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        state, filtered, held, kind = carry
        again, which, anew, action = jax.random.split(key, 4)
        switch = jax.random.uniform(again) < 0.05
        space = case.problem.action_space
        drawn = jax.random.uniform(anew, (2,), minval=jnp.asarray(space.low), maxval=jnp.asarray(space.high))
        held = jnp.where(switch, drawn.astype(held.dtype), held)
        kind = jnp.where(switch, jax.random.randint(which, (), 0, 4), kind)
        asked = adversary(case, state, held, kind, action)
        filtered, sent = case.safe.apply(case.params, state, asked, filtered)
        state = case.problem.dynamics(case.params, state, sent.action)
        return (state, filtered, held, kind), (jnp.max(limit(case.params, state, sent.action, 0)), sent.safe)

    start = (case.reset(begin), case.safe.init(), jnp.zeros(2), jnp.asarray(2))
    (_, counts, *_), (values, safe) = jax.lax.scan(step, start, jax.random.split(drawn, length))
    violated = jnp.sum(values > 0)
    return {"largest": jnp.max(values), "violations": violated, "changed": counts.changed, "unsafe": jnp.sum(~safe)}


def evaluate(case: Case, options: Options) -> dict[str, Any]:
    """Runs the episodes of a task, and times single actions."""
    keys = jax.random.split(jax.random.key(options.seed), -(-options.actions // options.length))
    found = jax.jit(jax.vmap(partial(episode, case, options.length)))(keys)
    apply, state = jax.jit(case.safe.apply), case.reset(keys[0])
    kept, action, seconds = case.safe.init(), jnp.asarray(case.problem.action_space.high, jnp.float32), []
    for _ in range(options.timed):
        begun = time.perf_counter()
        kept, sent = apply(case.params, state, action, kept)
        sent.action.block_until_ready()
        seconds.append(time.perf_counter() - begun)
    total = len(keys) * options.length
    marks = {f"p{mark}": round(1e3 * float(np.percentile(seconds[10:], mark)), 4) for mark in (1, 50, 99)}
    report = {name: int(found[name].sum()) for name in ("violations", "changed", "unsafe")}
    return {"actions": total} | report | {"largest_value": float(found["largest"].max()), "milliseconds": marks}


def main() -> None:
    """Runs the benchmark and writes results."""
    options = tyro.cli(Options, description=__doc__)
    report = {name: evaluate(case, options) for name, case in cases().items()}
    header = provenance(invoked("benchmarks.safety"), ("craik", "jax", "numpy"))
    header |= {"load_average": os.getloadavg()[0], "seed": options.seed}
    options.out.write_text(json.dumps(header | report, indent=1) + "\n")
    print(json.dumps(report))
    raise SystemExit(any(part["violations"] for part in report.values()))


if __name__ == "__main__":
    main()
