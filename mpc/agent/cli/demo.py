"""`craik demo`: learn to swing a pendulum up, from nothing."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpc.agent.agent import Agent
from mpc.agent.cli.learn import learn_into
from mpc.agent.cli.options import Common, say
from mpc.agent.evaluation import decision_times, evaluate, random_returns
from mpc.agent.perception.packages import ours
from mpc.agent.viz import figures
from world_models import analytic


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


def demo(options: Demo) -> dict[str, Any]:
    """Learn, score beside random actions and the true dynamics, film, and return the report."""
    begun, env, tell = time.perf_counter(), "Pendulum-v1", say(options)
    pendulum, seeds = ours("envs").pendulum, range(options.episodes)
    tell(f"Learning a world model of {env} from {options.steps} steps ...")
    agent = Agent(env, seed=options.seed)
    returns = learn_into(agent, options.out, options, options.steps)
    tell(f"  returns of the episodes learnt from: {', '.join(f'{r:.0f}' for r in returns)}")
    scores = {"random actions": random_returns(env, seeds)}
    tell("Planning by gradient in what was learnt ...")
    scores[f"learnt model, {agent.num_timesteps} steps"] = evaluate(agent, env, seeds)
    truth = analytic(pendulum.dynamics, pendulum.reward, pendulum.state_of, pendulum.PARAMS)
    tell("Planning by gradient in the true dynamics ...")
    scores["true dynamics"] = evaluate(Agent(env, seed=options.seed, model=truth), env, seeds)
    table = {name: {"mean": round(float(r.mean()), 1), "worst": round(float(r.min()), 1)} for name, r in scores.items()}
    tell(f"\n  {'planned with':<28}{'mean return':>12}{'worst':>10}   ({options.episodes} episodes, the same for all)")
    for name, row in table.items():
        tell(f"  {name:<28}{row['mean']:>12.1f}{row['worst']:>10.1f}")
    milliseconds, _ = decision_times(agent, env, options.seed)
    names = pendulum.task().observation_names
    shown = figures.show(agent, env, options.out, options.seed, names=names)
    seconds = round(time.perf_counter() - begun, 1)
    tell(f"\n  a decision takes {milliseconds['p50']} ms (p99 {milliseconds['p99']} ms); all of this took {seconds:.0f} s")
    tell(f"  look at {options.out}/futures.png and {options.out}/video.mp4; plan again with: craik plan {options.out}")
    report = {"env": env, "seed": options.seed, "timesteps": agent.num_timesteps, "scores": table} | shown
    report |= {"decision_ms": milliseconds, "seconds": seconds, "folder": str(options.out)}
    (options.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    return report
