"""Score an agent: whole episodes, one per seed, all of them at once; and how long its decisions take."""

import time
from typing import Any

import numpy as np
from gymnasium.vector.utils import concatenate, create_empty_array

from mpc.agent.perception import gym_spaces
from mpc.agent.perception.history import PredictState


def evaluate(agent: Any, env: str, seeds: range | list[int], **deciding: Any) -> np.ndarray:
    """Returns of one episode per seed, `[episodes]`, each in an environment of its own.

    Args:
        agent: Anything with stable-baselines3's `predict`.
        env: Id of a Gymnasium environment.
        seeds: `env.reset(seed=s)` for each.
        **deciding: For `predict`, such as `mode="react"`.
    """
    envs = [gym_spaces.make(env) for _ in seeds]
    observations = [e.reset(seed=int(s))[0] for e, s in zip(envs, seeds, strict=True)]
    space = envs[0].observation_space
    returns, running = np.zeros(len(envs)), np.ones(len(envs), bool)
    state: Any = None
    while running.any():
        stacked = concatenate(space, observations, create_empty_array(space, len(envs)))
        actions, state = agent.predict(stacked, state=state, **deciding)
        for i in np.flatnonzero(running):
            observations[i], reward, terminated, truncated, _ = envs[i].step(actions[i])
            returns[i] += float(reward)
            running[i] = not (terminated or truncated)
    for e in envs:
        e.close()
    return returns


def random_returns(env: str, seeds: range | list[int]) -> np.ndarray:
    """Returns of random actions on the same episodes, `[episodes]`: the floor of every score.

    Args:
        env: Id of a Gymnasium environment.
        seeds: `env.reset(seed=s)` for each, and of the actions.
    """
    made, returns = gym_spaces.make(env), []
    for seed in seeds:
        made.reset(seed=int(seed))
        made.action_space.seed(int(seed))
        total, over = 0.0, False
        while not over:
            _, reward, terminated, truncated, _ = made.step(made.action_space.sample())
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    made.close()
    return np.array(returns)


def decision_times(
    agent: Any, env: str, seed: int, decisions: int = 200, **deciding: Any
) -> tuple[dict[str, float], list[float]]:
    """Milliseconds per decision in one environment, compilation apart.

    `compile`: what the very first call takes longer than the second of its kind. `episode_start`: an episode's first
    decision, which searches widely. `p50`, `p95`, `p99`: all other decisions, each planned from the last one.

    Args:
        agent: Anything with stable-baselines3's `predict`.
        env: Id of a Gymnasium environment.
        seed: Of its first reset.
        decisions: How many to time.
        **deciding: For `predict`, such as `mode="react"`.

    Returns:
        The summary, and every decision's milliseconds but for the episodes' first ones.
    """

    def timed(*args: Any, **settings: Any) -> tuple[Any, Any]:
        begun = time.perf_counter()
        made = agent.predict(*args, **settings, **deciding)
        times.append(1e3 * (time.perf_counter() - begun))
        return made

    times: list[float] = []
    live = gym_spaces.make(env)
    observation, _ = live.reset(seed=seed)
    for _ in range(2):
        action, state = timed(observation)
    first, second = times
    times.clear()
    for _ in range(decisions):
        observation, _, terminated, truncated, _ = live.step(action)
        if terminated or truncated:
            observation, _ = live.reset()
            state = agent.predict(observation, **deciding)[1]  # another kind of decision, timed above
        action, state = timed(observation, state=state.released() if isinstance(state, PredictState) else state)
    live.close()
    marks = {f"p{q}": float(np.percentile(times, q)) for q in (50, 95, 99)}
    summary = {"compile": first - second, "episode_start": second} | marks
    return {name: round(t, 2) for name, t in summary.items()}, times
