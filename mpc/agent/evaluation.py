"""Score an agent: returns of whole episodes, goals reached, and how long its decisions take.

`agent` is anything with stable-baselines3's `predict`, and `deciding` are keywords for it, such as `mode="react"`. `env` is
the id of a Gymnasium environment, or a function that returns one, and `seeds` are those of its resets, one per episode.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector.utils import concatenate, create_empty_array

from mpc.agent.decisions import PredictState
from mpc.agent.perception import gym_spaces
from mpc.agent.perception.action_repeat import Repeated


def evaluate(agent: Any, env: str | Callable[[], gymnasium.Env], seeds: range | list[int], **deciding: Any) -> np.ndarray:
    """Returns of one episode per seed, `[episodes]`, each in an environment of its own."""
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


def own_goal(env: gymnasium.Env) -> np.ndarray | None:
    """Return the goal that an environment sets in the episode under way, as agents take it; None where it sets none.

    Tasks of ours have a `goal_observation()`.
    """
    ask: Any = getattr(env.unwrapped, "goal_observation", None)
    try:
        return None if ask is None else gym_spaces.flat(env.observation_space, ask(), batched=False)[0]
    except ValueError:  # of a task without goals
        return None


def success(
    agent: Any, env: str, seeds: range | list[int], *, own_goals: bool, reset: dict[str, Any] | None = None, **deciding: Any
) -> list[bool]:
    """Return in which episodes a goal was reached, as the environment tells in the end, by `success` in its `info`.

    The agent is an `Agent`, whose task has a goal unless `own_goals` takes that of each episode from the environment;
    `reset` are options of its reset.
    """
    made, reached = Repeated(gym_spaces.make(env), agent.config.perception.action_repeat), []
    for seed in seeds:
        observation, info = made.reset(seed=int(seed), options=reset or None)
        if own_goals:
            agent.configure(replace(agent.task, goal=own_goal(made)))
        state, over = None, False
        while not over:
            released = None if state is None else state.released()
            action, state = agent.predict(observation, state=released, **deciding)
            observation, _, terminated, truncated, info = made.step(action)
            over = terminated or truncated
        if "success" not in info:
            raise ValueError(f"{env} does not tell in its info whether an episode was a success")
        reached.append(bool(info["success"]))
    made.close()
    return reached


def random_returns(env: str | Callable[[], gymnasium.Env], seeds: range | list[int]) -> np.ndarray:
    """Returns of random actions on the same episodes, `[episodes]`: the floor of every score."""
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
    """Milliseconds per decision in one environment, compilation apart: a summary, and all decisions but the episodes' first.

    `compile`: what the very first call takes longer than the second of its kind. `episode_start`: an episode's first
    decision, which searches widely. `p50`, `p95`, `p99`: all other decisions, each planned from the last one.
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
