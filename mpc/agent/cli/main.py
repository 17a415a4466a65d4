"""The command line: one table of commands, and what becomes of their errors."""

import json
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import gymnasium
import tyro

import mpc
from mpc.agent.cli.bench import Bench, bench
from mpc.agent.cli.collect import Collect, collect
from mpc.agent.cli.demo import Demo, demo
from mpc.agent.cli.distil import Distil, distil
from mpc.agent.cli.doctor import Doctor, doctor
from mpc.agent.cli.export import Export, export
from mpc.agent.cli.learn import Learn, learn
from mpc.agent.cli.options import prepare
from mpc.agent.cli.plan import Plan, plan
from mpc.agent.cli.serve import Serve, serve
from mpc.agent.cli.simulate import Robot, robot
from mpc.agent.memory.safeguards import EnvironmentFailure
from world_models.io.checkpoint import CheckpointError

Command = (
    Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Collect, tyro.conf.subcommand("collect")]
    | Annotated[Learn, tyro.conf.subcommand("learn")]
    | Annotated[Plan, tyro.conf.subcommand("plan")]
    | Annotated[Distil, tyro.conf.subcommand("distil")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Serve, tyro.conf.subcommand("serve")]
    | Annotated[Robot, tyro.conf.subcommand("robot")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
)
COMMANDS: dict[type, Callable[[Any], dict[str, Any]]] = {
    Demo: demo,
    Collect: collect,
    Learn: learn,
    Plan: plan,
    Distil: distil,
    Export: export,
    Serve: serve,
    Robot: robot,
    Bench: bench,
    Doctor: doctor,
}


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Arguments; those of the process when None.

    Returns:
        0 when it went well, 1 when `doctor` found a problem or a run of `bench` failed, 2 for bad input, 130 when
        interrupted.
    """
    # pictures are drawn off screen, and pygame must not greet on the standard output that --json promises to machines
    if sys.platform == "linux" and "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if (sys.argv[1:] if argv is None else argv) == ["--version"]:
        print(f"craik {mpc.__version__}")
        return 0
    options: Any = tyro.cli(Command, prog="craik", description=mpc.__doc__, args=argv)  # type: ignore[arg-type]
    try:
        prepare(options)
        report = COMMANDS[type(options)](options)
    except (CheckpointError, ValueError, ImportError, OSError, EnvironmentFailure, gymnasium.error.Error) as error:
        print(f"craik: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("craik: interrupted; what was learnt is in the run's checkpoint", file=sys.stderr)
        return 130
    if options.json:
        print(json.dumps(report))
    return 1 if report.get("problems") else 0
