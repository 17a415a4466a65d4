"""How fast the agent learns, with one default configuration for every environment.

    python -m benchmarks.learning                                  # the suite: Pendulum, InvertedPendulum, CartPole
    python -m benchmarks.learning --env Pendulum-v1 --seeds 5 --at 400 1000
    python -m benchmarks.learning --env Pendulum-v1 --seeds 5 --at 1000 3000 5000 --method sac     # needs craik[baselines]

Every seed learns in a process of its own, and is scored on fixed episodes without exploration noise. Beside each score
stand that of random actions on the same episodes and the wall time.
"""

import csv
import importlib
import json
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from matplotlib.figure import Figure

from benchmarks.statistics import bootstrap_interval
from mpc.agent import Agent, evaluate
from mpc.agent.evaluation import random_returns
from world_models.checkpoint import versions

RESULTS = Path(__file__).parent / "results"
SUITE = {"Pendulum-v1": ((400, 1000), 5), "InvertedPendulum-v5": ((500, 1000), 3), "CartPole-v1": ((1000, 2000), 3)}


@dataclass
class Options:
    """What to run."""

    env: str | None = None
    """One environment id; the whole suite when left out."""
    method: Literal["craik", "sac", "ppo", "dqn"] = "craik"
    """Who learns: our agent, or stable-baselines3's with its default settings."""
    seeds: int = 5
    """Seeds 0 … n-1."""
    at: tuple[int, ...] = (400, 1000)
    """Environment steps at which to score."""
    episodes: int = 20
    """Episodes per score, with the seeds 0 … n-1."""
    workers: int = 2
    """Seeds learnt at the same time."""
    out: Path = RESULTS
    """Where the figures go."""
    child: int | None = None
    """Internal: the one seed this process learns."""


def learner(method: str, env: str, seed: int) -> Any:
    """An agent that has learnt nothing yet.

    Raises:
        SystemExit: If stable-baselines3 is asked for and not installed.
    """
    if method == "craik":
        return Agent(env, seed=seed)
    try:
        stable_baselines3 = importlib.import_module("stable_baselines3")
    except ImportError as error:
        raise SystemExit(f"--method {method} needs stable-baselines3: pip install 'craik[baselines]'") from error
    return getattr(stable_baselines3, method.upper())("MlpPolicy", env, seed=seed, device="cpu")


def learn(method: str, env: str, seed: int, at: tuple[int, ...], episodes: int) -> list[dict[str, Any]]:
    """Learn with one seed; a row per score."""
    agent, rows, learning = learner(method, env, seed), [], 0.0
    more = {} if method == "craik" else {"reset_num_timesteps": False}
    for steps in at:
        begun = time.perf_counter()
        agent.learn(steps - agent.num_timesteps, progress_bar=False, **more)
        learning += time.perf_counter() - begun
        returns = evaluate(agent, env, range(episodes))
        rows.append(
            {
                "env": env,
                "seed": seed,
                "asked": steps,
                "steps": agent.num_timesteps,
                "mean": round(float(returns.mean()), 3),
                "worst": round(float(returns.min()), 3),
                "learning_seconds": round(learning, 1),
                "returns": [round(float(r), 3) for r in returns],
            }
        )
    return rows


def child(options: Options, env: str, at: tuple[int, ...], seed: int) -> list[dict[str, Any]]:
    """Learn with one seed in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.learning", "--env", env, "--child", str(seed)]
    command += ["--episodes", str(options.episodes), "--method", options.method, "--at", *map(str, at)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{env} seed {seed} failed:\n{done.stderr[-2000:]}", file=sys.stderr)
        return [{"env": env, "seed": seed, "asked": at[-1], "mean": float("nan"), "failed": True, "returns": []}]
    rows = json.loads(done.stdout.splitlines()[-1])
    for row in rows:
        print(f"{options.method} {env:>22} seed {seed} after {row['steps']:>5} steps: {row['mean']:8.1f}", flush=True)
    return rows


def draw(path: Path, env: str, rows: list[dict[str, Any]], summary: list[dict[str, Any]], floor: float) -> None:
    """Draw every seed's score, their means with intervals, and name the random floor."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.add_subplot()
    for seed in sorted({row["seed"] for row in rows}):
        points = [(row["steps"], row["mean"]) for row in rows if row["seed"] == seed and not row.get("failed")]
        if points:
            axis.plot(*zip(*points, strict=True), "o-", color="#8d99ae", alpha=0.7)
    steps, means = [line["steps"] for line in summary], np.array([line["mean"] for line in summary])
    low, high = np.array([line["interval_95"] for line in summary]).T
    axis.errorbar(steps, means, (means - low, high - means), fmt="s", color="#d1495b", capsize=4, label="mean, 95% interval")
    axis.set(
        xlabel="environment steps, random ones included",
        ylabel="mean return",
        title=f"{env}: every seed (random actions: {floor:.0f})",
    )
    axis.legend()
    figure.savefig(path, dpi=110)


def measure(options: Options, env: str, at: tuple[int, ...], seeds: int) -> None:
    """Learn with every seed and write `learning-<env>[-<method>].csv`, `.json` and `.png`."""
    with ThreadPoolExecutor(options.workers) as pool:
        rows = [row for some in pool.map(lambda s: child(options, env, at, s), range(seeds)) for row in some]
    options.out.mkdir(parents=True, exist_ok=True)
    name = env if options.method == "craik" else f"{env}-{options.method}"
    stem = options.out / f"learning-{name}"
    with open(f"{stem}.csv", "w", newline="") as file:
        names = ["env", "seed", "steps", "mean", "worst", "learning_seconds", "failed"]
        writer = csv.DictWriter(file, names, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(rows)
    floor = float(random_returns(env, range(options.episodes)).mean())
    summary = []
    for steps in at:
        means = [row["mean"] for row in rows if row["asked"] == steps and not row.get("failed")]
        interval = bootstrap_interval(means) if means else (float("nan"), float("nan"))
        summary.append({"steps": steps, "mean": float(np.mean(means)), "interval_95": interval, "seeds": len(means)})
    header = {
        "command": f"python -m benchmarks.learning --env {env} --seeds {seeds} --at {' '.join(map(str, at))}"
        + ("" if options.method == "craik" else f" --method {options.method}"),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "packages": versions(("craik", "jax", "flax", "optax", "gymnasium", "numpy", "stable-baselines3")),
        "episodes": options.episodes,
        "random_floor": floor,
        "summary": summary,
        "rows": rows,
    }
    Path(f"{stem}.json").write_text(json.dumps(header, indent=1) + "\n")
    draw(Path(f"{stem}.png"), name, rows, summary, floor)
    for line in summary:
        low, high = line["interval_95"]
        print(f"{env}: {line['mean']:.1f} [{low:.1f}, {high:.1f}] after {line['steps']} steps; random {floor:.1f}")


def main() -> None:
    """Run what the command line asks for."""
    options = tyro.cli(Options, description=__doc__)
    if options.child is not None:
        assert options.env is not None
        print(json.dumps(learn(options.method, options.env, options.child, options.at, options.episodes)))
    elif options.env is not None:
        measure(options, options.env, options.at, options.seeds)
    else:
        for env, (at, seeds) in SUITE.items():
            measure(options, env, at, seeds)


if __name__ == "__main__":
    main()
