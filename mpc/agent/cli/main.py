"""The command line: `craik demo`, `collect`, `learn`, `plan`, `export`, `serve`, `robot`, `bench`, `doctor`."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium
import tyro

import mpc
from mpc.agent.actor.time_budget import Mode
from mpc.agent.agent import Agent
from mpc.agent.cli import deploy, goals
from mpc.agent.cli import simulate as simulated
from mpc.agent.cli.doctor import examine, ours
from mpc.agent.cli.options import Common, mapping, say
from mpc.agent.cli.run_log import Run
from mpc.agent.evaluation import decision_times, evaluate, random_returns
from mpc.agent.memory.safeguards import EnvironmentFailure
from mpc.agent.perception import gym_spaces
from mpc.agent.viz import figures
from world_models import analytic
from world_models.io.checkpoint import CheckpointError


@dataclass
class Demo(Common):
    """Learn to swing a pendulum up, from nothing, and show it.

    Example: craik demo --steps 400
    """

    steps: int = 400
    """Environment steps to learn from, random ones included."""
    out: Path = Path("runs/demo")
    """The run's folder."""
    episodes: int = 20
    """Episodes per score."""


@dataclass
class Learn(Common):
    """Learn a world model of an environment and plan in it; or offline, from recorded trajectories, to plan to goals.

    Examples: craik learn CartPole-v1 --steps 2000;  craik learn CartPole-v1 --steps 2000 --resume;
    craik learn Pendulum-v1 --effort 0.25 --distil;  craik learn craik/TwoRooms-v0 --offline data/rooms --updates 6000
    """

    env: tyro.conf.Positional[str] = "Pendulum-v1"
    """Id of a Gymnasium environment."""
    steps: int = 1000
    """Environment steps to take in this run."""
    out: Path | None = None
    """The run's folder; runs/ENV-SEED unless told."""
    resume: bool = False
    """Go on from the checkpoint in the run's folder."""
    episodes: int = 20
    """Episodes per score; 0 for none."""
    update_ratio: float | None = None
    """Compute per environment step, as a factor: more learns from fewer steps, and takes longer over each."""
    offline: str | None = None
    """Recorded trajectories to learn from instead of acting: what `craik collect` wrote, or the id of a Minari dataset."""
    updates: int | None = None
    """Gradient steps to take in this run, offline; what is missing of the settings' number unless told."""
    distil: bool = False
    """In the end, teach the actor what planning comes to, for `craik plan --mode react`."""
    settings: str = "{}"
    """As JSON, what of `Settings` is to be otherwise; offline, of the goal-reaching agent's `GoalSettings`."""


@dataclass
class Plan(Common):
    """Plan with what was learnt: score a checkpoint, and film it; or go to a goal that an image shows.

    Examples: craik plan runs/demo --episodes 5 --video;  craik plan runs/demo --mode react;
    craik plan runs/craik-TwoRooms-v0-0 --goal goal.png
    """

    checkpoint: tyro.conf.Positional[Path] = Path("runs/demo")
    """A run's folder, or its checkpoint folder."""
    env: str | None = None
    """Id of the environment; the one learnt in unless told."""
    episodes: int = 20
    """Episodes to score, with the seeds SEED, SEED+1, …"""
    mode: Literal["plan", "react"] | float = "plan"
    """Plan; react, the actor by itself; or, within so many milliseconds, plan where there is time and else react."""
    video: bool = False
    """Also write video.mp4 and futures.png beside the checkpoint."""
    goal: Path | None = None
    """An image or .npy file of the observation to reach, for what was learnt offline; the environment's own unless told."""
    reset: str = "{}"
    """Options of the environment's reset, as JSON, for example '{"layout": [32, 30]}', where a goal is gone after."""


@dataclass
class Bench(Common):
    """Measure our agent beside reinforcement learning on the same seeds; what was measured already is not done again.

    Example: craik bench Pendulum-v1 --against sac,ppo --seeds 5
    """

    env: tyro.conf.Positional[str] = "Pendulum-v1"
    """Id of a Gymnasium environment."""
    against: str = ""
    """Methods to compare with, with commas between: sac, ppo, tqc, dqn, …; random actions are always there."""
    seeds: int = 5
    """Seeds 0 … n-1."""
    at: tuple[int, ...] = ()
    """Environment steps at which to score; the benchmark's own unless told."""
    episodes: int = 20
    """Episodes per score."""
    cores: int = 1
    """Runs at the same time, each on a core of its own."""
    out: Path | None = None
    """Where raw figures and the report go; runs/bench-ENV unless told."""


@dataclass
class Doctor(Common):
    """Say what is installed, where it was found, and on what it runs.

    Example: craik doctor --json
    """


Command = (
    Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[goals.Collect, tyro.conf.subcommand("collect")]
    | Annotated[Learn, tyro.conf.subcommand("learn")]
    | Annotated[Plan, tyro.conf.subcommand("plan")]
    | Annotated[deploy.Export, tyro.conf.subcommand("export")]
    | Annotated[deploy.Serve, tyro.conf.subcommand("serve")]
    | Annotated[simulated.Robot, tyro.conf.subcommand("robot")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
)


def learn_into(agent: Agent, env: str, steps: int, folder: Path, options: Common) -> list[float]:
    """Learn with everything written down; returns of the episodes along the way."""
    config = {"env": env, "seed": options.seed, "steps": steps, "settings": agent.settings.asdict(), "argv": sys.argv[1:]}
    with Run(folder, config) as run:
        bar = not (options.quiet or options.json) and sys.stderr.isatty()
        agent.learn(steps, callback=run, progress_bar=bar, checkpoint_path=folder / "checkpoint")
    return run.returns


def show(agent: Agent, env: str, folder: Path, seed: int) -> dict[str, Any]:
    """Write futures.png and video.mp4 of one episode."""
    made = gym_spaces.make(env, render_mode="rgb_array")
    probe, episode = agent.probe(), figures.record(agent, made, seed)
    made.close()
    errors = figures.futures_picture(agent, episode, probe, folder / "futures.png")
    fps = max((made.metadata.get("render_fps") or 20) // agent.settings.repeat, 1)
    figures.film(episode, probe, folder / "video.mp4", fps=fps)
    return {"return": float(episode.rewards.sum()), "prediction_error": errors}


def demo(options: Demo) -> dict[str, Any]:
    """Learn, score beside the floor and the truth, film."""
    begun, env, tell = time.perf_counter(), "Pendulum-v1", say(options)
    pendulum, seeds = ours("envs").pendulum, range(options.episodes)
    tell(f"Learning a world model of {env} from {options.steps} steps ...")
    agent = Agent(env, seed=options.seed)
    returns = learn_into(agent, env, options.steps, options.out, options)
    tell(f"  returns of the episodes learnt from: {', '.join(f'{r:.0f}' for r in returns)}")
    scores = {"random actions": random_returns(env, seeds)}
    tell("Planning by gradient in what was learnt ...")
    scores[f"learnt model, {agent.num_timesteps} steps"] = evaluate(agent, env, seeds)
    truth = analytic(pendulum.dynamics, pendulum.reward, pendulum.state_of, pendulum.PARAMS, scale=pendulum.MAX_TORQUE)
    tell("Planning by gradient in the true dynamics ...")
    scores["true dynamics"] = evaluate(Agent(env, seed=options.seed, model=truth), env, seeds)
    table = {name: {"mean": round(float(r.mean()), 1), "worst": round(float(r.min()), 1)} for name, r in scores.items()}
    tell(f"\n  {'planned with':<28}{'mean return':>12}{'worst':>10}   ({options.episodes} episodes, the same for all)")
    for name, row in table.items():
        tell(f"  {name:<28}{row['mean']:>12.1f}{row['worst']:>10.1f}")
    milliseconds, _ = decision_times(agent, env, options.seed)
    shown = show(agent, env, options.out, options.seed)
    seconds = round(time.perf_counter() - begun, 1)
    tell(f"\n  a decision takes {milliseconds['p50']} ms (p99 {milliseconds['p99']} ms); all of this took {seconds:.0f} s")
    tell(f"  look at {options.out}/futures.png and {options.out}/video.mp4; plan again with: craik plan {options.out}")
    report = {"env": env, "seed": options.seed, "steps": agent.num_timesteps, "scores": table} | shown
    report |= {"decision_ms": milliseconds, "seconds": seconds, "folder": str(options.out)}
    (options.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


def learn(options: Learn) -> dict[str, Any]:
    """Learn in any environment, or go on learning."""
    tell = say(options)
    folder = options.out or Path("runs") / f"{options.env.replace('/', '-')}-{options.seed}"
    if not options.resume and (folder / "checkpoint").exists():
        raise ValueError(f"{folder} holds a run already: add --resume to go on with it, or give another --out")
    if options.offline is not None:
        return goals.learn(options, folder)
    agent = begun(options, folder)
    tell(f"Learning in {options.env} for {options.steps} steps; writing to {folder} ...")
    kept = agent.buffer.follows.size
    if kept < min(options.steps, agent.settings.capacity):
        tell(f"  of which the last {kept:,} are remembered, what {agent.settings.buffer_mib} MiB hold")
    returns = learn_into(agent, options.env, options.steps, folder, options)
    report: dict[str, Any] = {"env": options.env, "steps": agent.num_timesteps, "folder": str(folder), "returns": returns}
    if options.distil:
        tell("Teaching the actor what planning comes to ...")
        report["distilled"] = agent.distil()
        agent.save(folder / "checkpoint")
    if options.episodes:
        report["scores"] = score(agent, options.env, options.seed, options.episodes, tell)
    report |= show(agent, options.env, folder, options.seed)
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    tell(f"  look at {folder}/futures.png and {folder}/video.mp4")
    return report


def begun(options: Learn, folder: Path) -> Agent:
    """A new agent with the settings asked for, or the one that a run is to go on with."""
    given = mapping(options.settings, "--settings")
    if options.update_ratio is not None:
        given["update_ratio"] = options.update_ratio
    if options.resume:
        if given:
            raise ValueError(f"{folder} goes on with the settings it began with: leave out --effort and --settings")
        return Agent.load(folder / "checkpoint", options.env)
    return Agent(options.env, seed=options.seed, settings=given)


def score(
    agent: Agent, env: str, seed: int, episodes: int, tell: Callable[[str], None], mode: Mode = "plan"
) -> dict[str, Any]:
    """Mean return of the agent and of random actions, on the same episodes."""
    seeds = range(seed, seed + episodes)
    planned, random = evaluate(agent, env, seeds, mode=mode), random_returns(env, seeds)
    tell(f"  mean return of {episodes} episodes: {planned.mean():.1f}; random actions {random.mean():.1f}")
    return {"mean": float(planned.mean()), "returns": planned.tolist(), "random": float(random.mean())}


def plan(options: Plan) -> dict[str, Any]:
    """Score a checkpoint."""
    path = deploy.checkpoint_of(options.checkpoint)
    if goals.is_goal_run(path):
        return goals.plan(options, path)
    if options.goal is not None:
        raise ValueError(f"{options.checkpoint} was not learnt offline, and plans for rewards: it cannot go to --goal")
    agent = Agent.load(path, options.env)
    env = options.env or agent.env_id
    if env is None:
        raise ValueError("the checkpoint does not say which environment it is of: give --env ID")
    report: dict[str, Any] = {"env": env, "checkpoint": str(path), "steps": agent.num_timesteps}
    report["scores"] = score(agent, env, options.seed, options.episodes, say(options), options.mode)
    if options.video:
        report |= show(agent, env, options.checkpoint, options.seed)
        say(options)(f"  look at {options.checkpoint}/futures.png and {options.checkpoint}/video.mp4")
    return report


def bench(options: Bench) -> dict[str, Any]:
    """Run the learning benchmark, which is part of the checkout but not of the wheel, in a process of its own."""
    checkout = Path(mpc.__file__).resolve().parents[1]
    if not (checkout / "benchmarks" / "learning").is_dir():
        raise ValueError(
            f"the benchmarks are not installed with craik, and there are none in {checkout}: get a checkout of its sources, "
            "pip install -e '.[baselines]' there, and run craik bench again"
        )
    folder = options.out or Path("runs") / f"bench-{options.env.replace('/', '-')}"
    command = [sys.executable, "-m", "benchmarks.learning", options.env, "--out", str(folder)]
    for name in ("seeds", "episodes", "cores"):
        command += [f"--{name}", str(getattr(options, name))]
    for name, values in (("against", options.against.split(",")), ("at", map(str, options.at))):
        given = [value for value in values if value]
        command += [f"--{name}", *given] if given else []
    paths = os.pathsep.join(filter(None, (str(checkout), os.environ.get("PYTHONPATH"))))
    silent = subprocess.DEVNULL if options.quiet or options.json else None
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, stdout=silent, check=False)
    if done.returncode not in (0, 1):
        raise ValueError("the benchmark did not run; the reason stands above")
    report = json.loads((folder / "report.json").read_text())
    return report | {"folder": str(folder), "problems": report["failed"]}


def doctor(options: Doctor) -> dict[str, Any]:
    """Look around."""
    found, tell = examine(), say(options)
    for name, value in found.items():
        if isinstance(value, dict):
            tell(f"{name}:")
            for part, text in value.items():
                tell(f"  {part:<20} {text}")
        else:
            tell(f"{name}: {', '.join(value) if isinstance(value, list) else value}")
    return found


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
    options: Any = tyro.cli(Command, prog="craik", description=mpc.__doc__, args=argv)  # type: ignore[arg-type]
    commands: dict[type, Callable[[Any], dict[str, Any]]] = {
        Demo: demo,
        goals.Collect: goals.gather,
        Learn: learn,
        Plan: plan,
        deploy.Export: deploy.export,
        deploy.Serve: deploy.serve,
        simulated.Robot: simulated.robot,
        Bench: bench,
        Doctor: doctor,
    }
    try:
        report = commands[type(options)](options)
    except (CheckpointError, ValueError, ImportError, OSError, EnvironmentFailure, gymnasium.error.Error) as error:
        print(f"craik: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("craik: interrupted; what was learnt is in the run's checkpoint", file=sys.stderr)
        return 130
    if options.json:
        print(json.dumps(report))
    return 1 if report.get("problems") else 0
