"""`craik export`: the policy of a run, or of a robot's own equations, as one file."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

import mpc
from mpc.agent.cli import runs
from mpc.agent.cli.options import TaskOptions, mapping, say
from mpc.agent.world_model.mjx_policy import mjx_policy
from mpc.deploy import runtime


@dataclass
class Export(TaskOptions):
    """Write a run's policy, with its model and its task, as one file that runs without the rest of craik.

    Examples: craik export runs/rooms --goal goal.png --out rooms.craik;  craik export runs/demo --out pendulum.craik
    --period 0.05 --observed '{"names": ["cos", "sin", "speed"], "units": ["", "", "rad/s"]}'

    Or the policy of a robot that MuJoCo simulates, through its equations, with nothing learnt.

    Example: craik export --mjx craik/CartPoleRobot-v0 --planner mppi --out cartpole.craik
    """

    checkpoint: tyro.conf.Positional[Path] = Path("runs/demo")
    """A run's folder, or its checkpoint folder."""
    mjx: str | None = None
    """Gymnasium id of a robot to plan for through MJX instead of by what was learnt."""
    planner: str = "ilqr"
    """Name of the planner through MJX, as `mpc.make_planner` takes it: ilqr, mppi, …"""
    out: Path = Path("planner.craik")
    """The file to write."""
    observed: str = "{}"
    """Names, units, low and high of an observation's numbers, as JSON; bounds are the environment's unless told."""
    acted: str = "{}"
    """Names and units of an action's numbers, as JSON."""
    period: float | None = None
    """Seconds of one step of the environment, of which an action may be held for several; the robot's own with --mjx."""
    delay: int | None = None
    """Steps between an observation and its action that may be made up for: a loop without deadline has one, actuators and
    sensors may have more. 1 unless told; 0 for models that take several actions at once."""
    batch: str | None = None
    """Observations side by side: a number, or a name, b, for any number; one at a time unless told."""
    platforms: tuple[str, ...] = ("cpu", "cuda")
    """Platforms that it is to run on."""


def export(options: Export) -> dict[str, Any]:
    """Write the artefact and return the report on it."""
    begun, tell = time.perf_counter(), say(options)
    batch = int(options.batch) if options.batch is not None and options.batch.isdigit() else options.batch
    settings: dict[str, Any] = {"batch": batch, "platforms": options.platforms}
    settings |= {"observed": mapping(options.observed, "--observed"), "acted": mapping(options.acted, "--acted")}
    data = (_run if options.mjx is None else _robot)(options, settings)
    files = runtime.unpack(data)[0]["files"]
    seconds = round(time.perf_counter() - begun, 1)
    tell(f"wrote {options.out}: {len(data) / 1024:.0f} KiB, {files['weights.npz']['size'] / 1024:.0f} of them weights")
    tell("load it with: mpc.runtime.load, serve it with: craik serve, try it with: craik robot")
    return {"out": str(options.out), "bytes": len(data), "seconds": seconds, "files": files}


def _run(options: Export, settings: dict[str, Any]) -> bytes:
    """The artefact of a run's policy, for the task that is given."""
    agent = runs.load(options.checkpoint)
    runs.give_task(agent, options)
    runs.require_purpose(agent)
    repeat = agent.config.perception.action_repeat
    period = None if options.period is None else repeat * options.period  # that of a decision
    delay = int(agent.config.world_model.block == 1) if options.delay is None else options.delay
    return agent.export(options.out, period=period, delay=delay, **settings)


def _robot(options: Export, settings: dict[str, Any]) -> bytes:
    """The artefact of a robot's policy through MJX."""
    if options.goal is not None or options.task is not None:
        raise ValueError("--goal and --task are for runs; a robot's own cost says what it is to do")
    policy, robot = mjx_policy(options.mjx or "", options.planner)
    period = options.period or robot.period
    if period != robot.period:
        raise ValueError(
            f"{options.mjx} acts every {robot.period} s, and its planner's steps are as long; got --period {period}"
        )
    observed = {"names": list(robot.names), "units": list(robot.units)} | settings.pop("observed")
    known = {"observed": observed, "period": period, "delay": 1 if options.delay is None else options.delay}
    about = {"env": options.mjx, "planner": options.planner}
    return mpc.export(policy, None, np.zeros(len(robot.names)), options.out, about=about, **known, **settings)
