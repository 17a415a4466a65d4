"""Cart-pole swung up and balanced from positions alone, which come late, noisy, or not at all.

`python -m benchmarks.estimating` plans through MJX, by `mpc.agent.world_model.mjx_policy`, from the estimate of an extended
Kalman filter, for MuJoCo's robot in simulated time. It writes `benchmarks/results/estimating.json`, and exits with 1 if a
trial failed.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import tyro

import mpc
from benchmarks.provenance import invoked, provenance
from benchmarks.trials import evaluate
from envs import ROBOT_IDS, robots
from envs.robots.plant import Body
from mpc.agent.world_model.mjx_policy import mjx_policy
from mpc.deploy import runtime
from mpc.deploy.realtime import RealTime
from mpc.deploy.specs import Signal
from mpc.deploy.workers import Inline
from world_models.mjx import mjx_dynamics

ENV = "craik/CartPoleRobot-v0"


@dataclass
class Options:
    """Options of the benchmark."""

    trials: int = 20
    """Number of trials."""
    seconds: float = 10.0
    """Seconds of a trial."""
    until: float = 5.0
    """Seconds within which the pole must stand; it must then stand until the end."""
    missing: float = 0.1
    """Share of observations that are missing."""
    noise: float = 0.005
    """Standard deviation of noise of the positions, in m and rad."""
    late: int = 1
    """Periods of 20 ms by which observations are late."""
    out: Path = Path(__file__).parent / "results" / "estimating.json"
    """File of the results."""


def observer(robot: robots.Robot, noise: float) -> mpc.estimation.Observer:
    """Returns an observer of (q, q̇) from positions alone, angles as cosine and sine."""
    dynamics = mjx_dynamics(robots.built(robot), robot.period, steps=1)
    problem = mpc.Problem(dynamics, lambda p, s, a, t: s @ s, horizon=1, action_space=mpc.Box([-1e3], [1e3]))

    def positions(params: Any, state: Any) -> Any:
        return jnp.stack([state[0], jnp.cos(state[1]), jnp.sin(state[1])])

    def observation(params: Any, state: Any) -> Any:
        return robot.observe(state[:2], state[2:], jnp)

    kalman = mpc.estimation.extended_kalman(problem, positions, process=[1e-3, 1e-3, 2e-2, 2e-2], sensors=noise)
    expected = jnp.array([*robot.start, 0.0, 0.0])
    sensors = Signal((3,), names=["position", "cos angle", "sin angle"])
    return mpc.estimation.Observer(kalman, None, expected, 0.2, sensors=sensors, period=robot.period, observe=observation)


def trial(artefact: runtime.Artefact, robot: robots.Robot, options: Options, seed: int) -> dict[str, Any]:
    """Runs one trial and returns whether the pole stood, since when, and what the loop counted."""
    body, drawn, tick = Body(robot, 0.0, 0.0, seed), np.random.default_rng(seed), 0
    shown: list[np.ndarray] = []
    estimating: dict[str, Any] = {"observer": observer(robot, options.noise), "clock": lambda: tick * robot.period}
    with RealTime(artefact, safe=[0.0], worker=Inline, **estimating) as loop:
        for tick in range(round(options.seconds / robot.period)):
            body.advance(tick * robot.period)
            x, angle = body.data.qpos + options.noise * drawn.normal(size=2)
            shown.append(np.array([x, np.cos(angle), np.sin(angle)], np.float32))
            late = tick - options.late
            seen = None if late < 0 or drawn.uniform() < options.missing else shown[late]
            action = loop.tick(seen, late * robot.period)
            body.receive(tick * robot.period, np.asarray(action, float))
    found = evaluate(ENV, loop.health, body.trace(), options.until)
    kept = {name: found[name] for name in ("success", "good_from", "sources")}
    return {"seed": seed} | kept | {"faults": loop.health.summary()["faults"]}


def main() -> None:
    """Runs the trials and writes results."""
    options = tyro.cli(Options, description=__doc__)
    policy, robot = mjx_policy(ENV)
    seen = np.zeros(len(robot.names), np.float32)
    artefact = runtime.loads(mpc.export(policy, None, seen, period=robot.period, delay=3, platforms=("cpu",)))
    header = provenance(invoked("benchmarks.estimating"), ("craik", "jax", "numpy", "mujoco", "mujoco-mjx"))
    results: list[dict[str, Any]] = []
    for seed in range(options.trials):
        results.append(trial(artefact, robots.named(ROBOT_IDS[ENV]), options, seed))
        counts = {"trials": len(results), "successes": sum(result["success"] for result in results)}
        options.out.write_text(json.dumps(header | counts | {"results": results}, indent=1) + "\n")
        print(json.dumps(results[-1]), flush=True)
    raise SystemExit(not all(result["success"] for result in results))


if __name__ == "__main__":
    main()
