"""Timing of a control loop on the wall clock: start of ticks, time until actions are sent, and their sources."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import mpc
from benchmarks.faults import resident
from mpc.deploy import runtime
from mpc.deploy.realtime import RealTime
from mpc.deploy.runtime import Artefact

MARKS = (50, 95, 99, 99.9)
Plant = Callable[[np.ndarray, np.ndarray], np.ndarray]
HOG = "import os, sys\nos.nice(19)\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"


def pendulum(period: float) -> tuple[Artefact, Plant, np.ndarray]:
    """Returns a planner with the true model that balances a pendulum under noise; the torque limit is half the static load.

        θ'' = 15 sin θ + 3 u,  |u| ≤ 2.5 N m;   H = 100 steps;   cost θ² + 0.01 ω² + 0.001 u², at the end 100 θ² + 10 ω²

    Args:
        period: Seconds between two ticks, equal to the step of the model.

    Returns:
        The exported planner, the plant (pendulum with noise), and its start.
    """
    rng = np.random.default_rng(0)

    def step(xp: Any, state: Any, action: Any) -> Any:
        speed = state[1] + period * (15.0 * xp.sin(state[0]) + 3.0 * action[0])
        return xp.stack([state[0] + period * speed, speed])

    problem = mpc.Problem(
        lambda params, state, action: step(jnp, state, action),
        lambda params, state, action, t: state[0] ** 2 + 0.01 * state[1] ** 2 + 0.001 * action @ action,
        lambda params, state: 100.0 * state[0] ** 2 + 10.0 * state[1] ** 2,
        horizon=100,
        action_space=mpc.Box([-2.5], [2.5]),
    )
    seen = {"names": ["angle", "speed"], "units": ["rad", "rad/s"], "low": [-10.0, -50.0], "high": [10.0, 50.0]}
    decisions = mpc.policy(mpc.ilqr(problem), iterations=1)
    data = mpc.export(decisions, None, np.zeros(2), observed=seen, period=period, delay=2, platforms=("cpu",))

    def plant(state: np.ndarray, action: np.ndarray) -> np.ndarray:
        return step(np, state, action) + rng.normal(0.0, 0.01, 2) * [0.0, 1.0]

    return runtime.loads(data), plant, np.array([0.1, 0.0])


def latent(period: float, checkpoint: Path | None) -> tuple[Artefact, Plant, np.ndarray]:
    """Returns a planner that swings a pendulum up with an ensemble of five latent MLPs over 20 steps.

    Args:
        period: Seconds between two ticks; the plant advances by 0.05 s per tick regardless.
        checkpoint: Checkpoint of an agent for Pendulum-v1; None uses an untrained one, which takes the same time.
    """
    from envs import pendulum as task
    from mpc.agent import Agent

    few = {"horizon": 20, "starts": 2, "iterations": 3, "first_starts": 8}
    agent = Agent("Pendulum-v1", config=few) if checkpoint is None else Agent.load(checkpoint, config=few)
    seen = {"low": [-1.01, -1.01, -9.0], "high": [1.01, 1.01, 9.0]}
    data = mpc.export(agent.policy, agent.params, np.zeros(3), observed=seen, period=period, delay=2, platforms=("cpu",))
    state = [np.array([np.pi, 0.0], np.float32)]

    def plant(_: np.ndarray, action: np.ndarray) -> np.ndarray:
        angle, speed = state[0]
        speed = np.clip(speed + 0.05 * (15.0 * np.sin(angle) + 3.0 * float(action[0])), -task.MAX_SPEED, task.MAX_SPEED)
        state[0] = np.array([angle + 0.05 * speed, speed])
        return np.array([np.cos(state[0][0]), np.sin(state[0][0]), speed])

    return runtime.loads(data), plant, np.array([-1.0, 0.0, 0.0])


@contextmanager
def loaded(core: int | None):
    """Context manager that keeps another core busy with a process of the lowest priority."""
    hog = None if core is None else subprocess.Popen([sys.executable, "-c", HOG, str(core)])
    try:
        yield
    finally:
        if hog is not None:
            hog.kill()
            hog.wait()


def marks(seconds: np.ndarray) -> dict[str, float]:
    """Returns percentiles in milliseconds."""
    values = {f"p{mark:g}": float(np.percentile(seconds, mark)) for mark in MARKS} | {"max": float(seconds.max())}
    return {name: round(1e3 * value, 4) for name, value in values.items()}


def drive(loop: RealTime, plant: Plant, seen: np.ndarray, seconds: float) -> tuple[dict[str, Any], np.ndarray]:
    """Runs a control loop on the wall clock.

    Args:
        loop: Control loop with the clock `time.monotonic`.
        plant: `(observation, action) -> observation`, one period later.
        seen: First observation.
        seconds: Duration.

    Returns:
        A summary, and `[ticks, 2]`: seconds from the due time of a tick until its start and until its action is sent.
    """
    ticks, period = round(seconds / loop.period), loop.period
    times, first = np.full((ticks, 2), np.nan), np.full(ticks, np.nan)  # allocated before the first tick
    memory = resident()
    begun = time.monotonic() + 10 * period
    for tick in range(ticks):
        due = begun + tick * period
        time.sleep(max(0.0, due - time.monotonic()))
        now = time.monotonic()
        action = loop.tick(seen, now)
        times[tick] = now - due, time.monotonic() - due
        seen = plant(seen, action)
        first[tick] = float(seen[0])
    starts = times[:, 0] + period * np.arange(ticks)
    summary = {
        "ticks": ticks,
        "begun_late": marks(times[:, 0]),
        "action_out": marks(times[:, 1]),
        "period": marks(np.diff(starts)),
        "deadline_misses": int((times[:, 1] > period).sum()),
        "memory_growth": resident() - memory,
        "first_coordinate": {"mean": float(first[ticks // 2 :].mean()), "deviation": float(first[ticks // 2 :].std())},
        "health": loop.health.summary(),
    }
    return summary, times


def measure(
    kind: str, hertz: float, seconds: float, busy: int | None, checkpoint: Path | None
) -> tuple[dict[str, Any], np.ndarray]:
    """Warms up and times a closed loop; returns the results of `drive`.

    Args:
        kind: "pendulum" or "latent".
        hertz: Ticks per second.
        seconds: Duration.
        busy: Another core to keep busy, or None.
        checkpoint: Checkpoint for "latent".
    """
    period = 1.0 / hertz
    artefact, plant, seen = pendulum(period) if kind == "pendulum" else latent(period, checkpoint)
    with loaded(busy):
        for duration in (0.5, seconds):  # the first run is a warm-up
            before = os.getloadavg()
            with RealTime(artefact, safe=[0.0]) as loop:
                summary, times = drive(loop, plant, seen, duration)
    return summary | {"load_average_before_and_after": [before[0], os.getloadavg()[0]]}, times
