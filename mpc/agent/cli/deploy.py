"""`craik export` and `craik serve`: what was learnt leaves for a robot."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
import tyro

import mpc
from mpc.agent.agent import Agent
from mpc.agent.cli import goals
from mpc.agent.cli.options import Common, mapping, say
from mpc.agent.world_model.mjx_policy import mjx_policy
from mpc.deploy import runtime
from mpc.deploy.server import LOOPBACK, Server, ServingError


@dataclass
class Export(Common):
    """Write an agent's planner, its model and its cost as one file that runs without the rest of craik.

    Example: craik export runs/demo --out pendulum.craik --period 0.05
    --observed '{"names": ["cos", "sin", "speed"], "units": ["", "", "rad/s"]}'

    Or the planner of a robot of MuJoCo's, through its equations, with nothing learnt.

    Example: craik export --mjx craik/CartPoleRobot-v0 --planner sampling --out cartpole.craik
    """

    checkpoint: tyro.conf.Positional[Path] = Path("runs/demo")
    """A run's folder, or its checkpoint folder."""
    mjx: str | None = None
    """Gymnasium id of a robot to plan for through MJX instead of by what was learnt."""
    planner: Literal["gradient", "sampling"] = "gradient"
    """How to plan through MJX."""
    out: Path = Path("planner.craik")
    """The file to write."""
    observed: str = "{}"
    """Names, units, low and high of an observation's numbers, as JSON; bounds are the environment's unless told."""
    acted: str = "{}"
    """Names and units of an action's numbers, as JSON."""
    period: float | None = None
    """Seconds of one step of the environment, of which an action may be held for several; the robot's own with --mjx."""
    delay: int = 1
    """Steps between an observation and its action that may be made up for: a loop without deadline has one, actuators and
    sensors may have more."""
    batch: str | None = None
    """Observations side by side: a number, or a name, b, for any number; one at a time unless told."""
    platforms: tuple[str, ...] = ("cpu", "cuda")
    """What it is to run on."""


@dataclass
class Serve(Common):
    """Answer observations with actions, over ZeroMQ, until Ctrl-C.

    Example: craik serve pendulum.craik --bind tcp://127.0.0.1:5577
    """

    artefact: tyro.conf.Positional[Path] = Path("planner.craik")
    """What `craik export` wrote."""
    bind: str = LOOPBACK
    """Where to listen. There is no password: give other machines access only on a network that is your own."""
    sha256: str | None = None
    """Of the artefact, where it is known from elsewhere."""
    compiled: Path | None = None
    """A folder to keep machine code in, so that the next start need not compile."""


def checkpoint_of(folder: Path) -> Path:
    """The folder of checkpoints of a run, where a run's folder is given."""
    inner = folder / "checkpoint"
    return inner if inner.is_dir() else folder


def export(options: Export) -> dict[str, Any]:
    """Write the artefact."""
    begun = time.perf_counter()
    policy, params, example, described = _learnt(options) if options.mjx is None else _physical(options)
    batch = int(options.batch) if options.batch is not None and options.batch.isdigit() else options.batch
    described["observed"] |= mapping(options.observed, "--observed")
    data = mpc.export(
        policy,
        params,
        example,
        options.out,
        acted=mapping(options.acted, "--acted"),
        delay=options.delay,
        batch=batch,
        platforms=options.platforms,
        **described,
    )
    files = runtime.unpack(data)[0]["files"]
    seconds = round(time.perf_counter() - begun, 1)
    tell = say(options)
    tell(f"wrote {options.out}: {len(data) / 1024:.0f} KiB, {files['weights.npz']['size'] / 1024:.0f} of them weights")
    tell("load it with: mpc.runtime.load, serve it with: craik serve, try it with: craik robot")
    return {"out": str(options.out), "bytes": len(data), "seconds": seconds, "files": files}


def _learnt(options: Export) -> tuple[mpc.Policy, Any, np.ndarray, dict[str, Any]]:
    """An agent's policy, its parameters, an example of an observation, and what else is known of it."""
    path = checkpoint_of(options.checkpoint)
    if goals.is_goal_run(path):
        raise ValueError(
            f"{options.checkpoint} was learnt offline, to go to goals; only agents learnt for rewards are exported"
        )
    agent = Agent.load(path)
    if agent.memory.steps > 1:
        raise ValueError(
            f"{options.checkpoint} was learnt with memory={agent.memory.steps}; only agents with memory=1 are exported"
        )
    seen, example = agent.observation_space, np.zeros(agent.memory.shape, np.float32)
    if agent.image:
        bounds = {"low": 0.0, "high": 1.0}  # artefacts take numbers, not bytes
    else:
        bounds = {"low": seen.low.ravel(), "high": seen.high.ravel()} if isinstance(seen, gymnasium.spaces.Box) else {}
    about = {"env": agent.env_id, "repeat": agent.settings.repeat, "timesteps": agent.num_timesteps, "seed": agent.seed}
    period = None if options.period is None else agent.settings.repeat * options.period  # that of a decision
    return agent.policy, agent.params, example, {"observed": bounds, "period": period, "about": about}


def _physical(options: Export) -> tuple[mpc.Policy, Any, np.ndarray, dict[str, Any]]:
    """The same of a robot's policy through MJX."""
    policy, robot = mjx_policy(options.mjx or "", options.planner)
    observed = {"names": list(robot.names), "units": list(robot.units)}
    period = options.period or robot.period
    if period != robot.period:
        raise ValueError(
            f"{options.mjx} acts every {robot.period} s, and its planner's steps are as long; got --period {period}"
        )
    about = {"env": options.mjx, "planner": options.planner}
    return policy, None, np.zeros(len(robot.names)), {"observed": observed, "period": robot.period, "about": about}


def serve(options: Serve) -> dict[str, Any]:
    """Load, listen, answer."""
    tell = say(options)
    artefact = runtime.load(options.artefact, sha256=options.sha256, compiled=options.compiled)
    try:
        server = Server(artefact, options.bind)
    except ServingError as error:
        raise ValueError(str(error)) from error
    tell(f"{options.artefact} answers at {server.address}")
    try:
        server.run()
    except KeyboardInterrupt:
        tell("")
    tell(f"answered {server.answered} requests, refused {server.refused}")
    return {"address": server.address, "answered": server.answered, "refused": server.refused}
