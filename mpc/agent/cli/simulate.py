"""`craik robot`: an artefact drives a simulated robot in real time, as it would drive a real one."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import tyro

from mpc.agent.cli.options import Common, say
from mpc.agent.perception import gym_spaces
from mpc.agent.perception.action_repeat import Repeated
from mpc.agent.perception.packages import ours
from mpc.agent.viz import figures, images
from mpc.deploy import runtime
from mpc.deploy.realtime import RealTime
from mpc.deploy.telemetry import Health

if TYPE_CHECKING:
    from envs.robots.plant import Trace


@dataclass
class Robot(Common):
    """Drive a simulated robot in real time with what `craik export` wrote, and say how punctual that was.

    A robot of MuJoCo's (craik/CartPoleRobot-v0, …) lives in a process of its own, and goes on whatever its controller does;
    any other environment of Gymnasium's is stepped between two ticks.

    Examples: craik robot cartpole.craik --seconds 30 --delay 0.02 --push 0.5 --video cartpole.mp4;
    craik robot hopper.craik --env InvertedPendulum-v5 --seconds 20 --health health.csv
    """

    artefact: tyro.conf.Positional[Path] = Path("planner.craik")
    """File that `craik export` wrote."""
    env: str | None = None
    """Id of the Gymnasium environment; the one that the artefact is of unless told."""
    seconds: float = 10.0
    """Duration."""
    period: float | None = None
    """Seconds of one step; the artefact's, or else the simulation's own, unless told."""
    deadline: float = 0.0
    """Seconds to wait for the plan from the newest observation; with 0, it acts one step later."""
    delay: float = 0.0
    """Seconds from sending an action until it acts; of MuJoCo's robots."""
    push: float = 0.0
    """N, with which a robot of MuJoCo's is pushed for a tenth of a second, every 2 to 4."""
    rate: float | None = None
    """Largest change of an action per step."""
    jerk: float | None = None
    """Largest change of that change."""
    health: Path | None = None
    """CSV file to write every tick's figures to."""
    timing: Path | None = None
    """PNG file to draw the times of ticks and the ages of plans in."""
    video: Path | None = None
    """MP4 file to film one of MuJoCo's robots in."""
    window: bool = False
    """Show the simulation, of an environment that is no robot of MuJoCo's."""


class Simulation(Protocol):
    """A robot as a control loop sees it: the newest observation with its time, and a place for actions."""

    def newest(self) -> tuple[np.ndarray, float]: ...
    def send(self, action: np.ndarray) -> None: ...


class Stepped(AbstractContextManager["Stepped"]):
    """An environment of Gymnasium's, stepped whenever an action is sent; `returns` of its episodes, the last one going on.

    Args:
        env: Is closed in the end.
        seed: Of its first reset.
    """

    def __init__(self, env: gymnasium.Env, seed: int) -> None:
        self._env, self.returns = env, [0.0]
        self._raw, _ = env.reset(seed=seed)

    def __exit__(self, *_: Any) -> None:
        self._env.close()

    def newest(self) -> tuple[np.ndarray, float]:
        """Return what the last step led to, seen now, as exported policies take it."""
        space = self._env.observation_space
        seen = gym_spaces.rows(space, self._raw, batched=False)[0]
        return seen / np.float32(255.0) if gym_spaces.is_image(space) else seen, time.monotonic()

    def send(self, action: np.ndarray) -> None:
        """Step, and begin anew where an episode is over."""
        self._raw, reward, terminated, truncated, _ = self._env.step(action)
        self.returns[-1] += float(reward)
        if terminated or truncated:
            self._raw, _ = self._env.reset()
            self.returns.append(0.0)


def robot(options: Robot) -> dict[str, Any]:
    """Load, simulate, report."""
    artefact = runtime.load(options.artefact)
    name = options.env or artefact.manifest["about"].get("env")
    if name is None:
        raise ValueError("the artefact does not say which environment it is of: give --env ID")
    begin, period = _simulated(options, artefact, name)
    settings = {"deadline": options.deadline, "rate": options.rate, "jerk": options.jerk, "latency": options.delay}
    health, simulation = drive(artefact, begin, options.seconds, period=period, **settings)
    if options.health is not None:
        health.write(options.health)
    if options.timing is not None:
        figures.timing(health.rows(), period, options.timing)
    summary, tell = health.summary(), say(options)
    report = {"env": name, "period": period, "health": summary}
    if name in ours("envs").ROBOT_IDS:
        report |= _judged(name, simulation.trace)
        tell(f"{summary['ticks']} steps; doing what it should for the last {report['good_for']:.1f} s")
        if options.video is not None:
            film(name, simulation.trace, options.video)
    else:
        report["returns"] = simulation.returns
        shown = ", ".join(f"{value:.1f}" for value in simulation.returns)
        tell(f"{summary['ticks']} steps; returns {shown} (the last one cut short)")
    tell(f"actions: {summary['sources']}; what went wrong: {summary['faults'] or 'nothing'}")
    return report


def _simulated(options: Robot, artefact: runtime.Artefact, name: str) -> tuple[Callable[[], Any], float]:
    """Return the function that begins the simulation, and the seconds of a step, after checking that robot and artefact
    match."""
    ids, repeat = ours("envs").ROBOT_IDS, artefact.manifest["about"].get("repeat", 1)
    if name in ids:
        from envs.robots.plant import Plant  # ours, as was just seen

        body = ours("envs").robots.named(ids[name])
        _same_robot(options.artefact, artefact, name, len(body.names))
        begin = partial(Plant, body, delay=options.delay, push=options.push, seed=options.seed)
        return begin, options.period or artefact.period or repeat * body.period
    if options.delay or options.push or options.video is not None:
        raise ValueError(f"--delay, --push and --video are for robots of MuJoCo's, {', '.join(ids)}; {name} is none")
    env = Repeated(gym_spaces.make(name, render_mode="human" if options.window else None), repeat)
    period = options.period or artefact.period or repeat * getattr(env.unwrapped, "dt", 0.0)
    if not period:
        raise ValueError(f"neither the artefact nor {name} says how long a step is: give --period SECONDS")
    _same_robot(options.artefact, artefact, name, int(np.prod(gym_spaces.observation_shape(env.observation_space))))
    return partial(Stepped, env, options.seed), period


def _same_robot(path: Path, artefact: runtime.Artefact, name: str, shown: int) -> None:
    wanted = int(np.prod(artefact.observation.shape))
    if shown != wanted:
        raise ValueError(f"{path} is of another robot: it observes {wanted} numbers, and {name} shows {shown}")


def drive(
    artefact: runtime.Artefact,
    begin: Callable[[], AbstractContextManager[Simulation]],
    seconds: float,
    *,
    period: float,
    **settings: Any,
) -> tuple[Health, Any]:
    """Drive a simulation by the wall clock; the loop's health, and the simulation when it is over.

    Args:
        artefact: Plans.
        begin: Makes a `Simulation`, entered by `with`, once the loop is armed.
        seconds: How long.
        period: Seconds between two ticks.
        **settings: Of `mpc.realtime.RealTime`.
    """
    low, high = np.asarray(artefact.action.low), np.asarray(artefact.action.high)
    middle = np.nan_to_num(0.5 * (low + high), posinf=0.0, neginf=0.0).astype(artefact.action.dtype)
    with RealTime(artefact, safe=middle, period=period, **settings) as loop, begin() as simulation:
        begun = time.monotonic()
        for tick in range(round(seconds / period)):
            time.sleep(max(0.0, begun + tick * period - time.monotonic()))
            simulation.send(loop.tick(*simulation.newest()))
    return loop.health, simulation


def good(env: str, trace: "Trace") -> np.ndarray:
    """At which of the times of a trace the robot did what it should."""
    body = ours("envs").robots.named(ours("envs").ROBOT_IDS[env])
    return np.asarray(jax.vmap(body.good)(jnp.asarray(trace.states, jnp.float32)))


def _judged(env: str, trace: "Trace") -> dict[str, Any]:
    fine = good(env, trace)
    last = int(np.flatnonzero(~fine).max(initial=-1))  # at which it was not
    until = trace.times[last] if last >= 0 else 0.0
    return {"good_for": round(float(trace.times[-1] - until), 2), "good_share": round(float(fine.mean()), 4)}


def film(env: str, trace: "Trace", path: Path) -> None:
    """Film what happened to one of MuJoCo's robots, in real time, with the seconds passed and the pushes.

    Args:
        env: Its Gymnasium id.
        trace: What happened.
        path: Of the MP4 file.
    """
    made: Any = gym_spaces.make(env, render_mode="rgb_array").unwrapped
    every = max(round(1 / (25 * made.dt)), 1)
    try:
        with figures.movie(path, fps=round(1 / (every * made.dt))) as append:
            for time, state, push in zip(trace.times[::every], trace.states[::every], trace.pushes[::every], strict=True):
                text = f"{time:.1f} s" + (f"   pushed by {push:+.2g} N" if push else "")
                append(images.captioned(made.pose(state[: made.model.nq]), text))
    finally:
        made.close()
