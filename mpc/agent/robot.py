"""`craik robot`: an artefact drives a simulated robot by the wall clock, as it would drive a real one."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import tyro

from mpc import runtime
from mpc.agent import gym_spaces
from mpc.agent.common import Common, say
from mpc.agent.repeating import Repeated
from mpc.realtime import RealTime


@dataclass
class Robot(Common):
    """Drive a simulated robot in real time with what `craik export` wrote, and say how punctual that was.

    Example: craik robot hopper.craik --env InvertedPendulum-v5 --seconds 20 --health health.csv
    """

    artefact: tyro.conf.Positional[Path] = Path("planner.craik")
    """What `craik export` wrote."""
    env: str | None = None
    """Id of the Gymnasium environment, MuJoCo's (`craik[mujoco]`) or any other; the one learnt in unless told."""
    seconds: float = 10.0
    """How long."""
    period: float | None = None
    """Seconds of one step; the artefact's, or else the simulation's own, unless told."""
    deadline: float = 0.0
    """Seconds to wait for the plan from the newest observation; with 0, it acts one step later."""
    rate: float | None = None
    """Largest change of an action per step."""
    jerk: float | None = None
    """Largest change of that change."""
    health: Path | None = None
    """Where to write what every tick was like, as CSV."""
    window: bool = False
    """Show the simulation."""
    compiled: Path | None = None
    """A folder to keep machine code in, so that the next start need not compile."""


def robot(options: Robot) -> dict[str, Any]:
    """Load, simulate, report."""
    artefact = runtime.load(options.artefact, compiled=options.compiled)
    about = artefact.manifest["about"]
    name, repeat = options.env or about.get("env"), about.get("repeat", 1)
    if name is None:
        raise ValueError("the artefact does not say which environment it is of: give --env ID")
    env = Repeated(gym_spaces.make(name, render_mode="human" if options.window else None), repeat)
    try:
        period = options.period or artefact.period or repeat * getattr(env.unwrapped, "dt", 0.0)
        if not period:
            raise ValueError(f"neither the artefact nor {name} says how long a step is: give --period SECONDS")
        shown, wanted = gym_spaces.observation_size(env.observation_space), int(np.prod(artefact.observation.shape))
        if shown != wanted:
            raise ValueError(
                f"{options.artefact} is of another robot: it observes {wanted} numbers, and {name} shows {shown}"
            )
        return _drive(options, artefact, env, period) | {"env": name, "period": period}
    finally:
        env.close()


def _drive(options: Robot, artefact: runtime.Artefact, env: gymnasium.Env, period: float) -> dict[str, Any]:
    middle = np.nan_to_num(
        0.5 * (np.asarray(artefact.action.low) + np.asarray(artefact.action.high)), posinf=0.0, neginf=0.0
    )
    settings = {"deadline": options.deadline, "rate": options.rate, "jerk": options.jerk}
    raw, _ = env.reset(seed=options.seed)
    returns = [0.0]
    with RealTime(artefact, safe=middle.astype(artefact.action.dtype), period=period, **settings) as loop:
        begun = time.monotonic()
        for tick in range(round(options.seconds / period)):
            time.sleep(max(0.0, begun + tick * period - time.monotonic()))
            action = loop.tick(gym_spaces.flatten(env.observation_space, raw, batched=False)[0])
            raw, reward, terminated, truncated, _ = env.step(action)
            returns[-1] += float(reward)
            if terminated or truncated:
                raw, _ = env.reset()
                returns.append(0.0)
    if options.health is not None:
        loop.health.write(options.health)
    summary, tell = loop.health.summary(), say(options)
    tell(f"{summary['ticks']} steps; returns {', '.join(f'{value:.1f}' for value in returns)} (the last one cut short)")
    tell(f"actions: {summary['sources']}; what went wrong: {summary['faults'] or 'nothing'}")
    return {"returns": returns, "health": summary}
