"""Experience: the steps of environments, turned into rows for the replay buffer and observations to decide from."""

import warnings
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from mpc.agent.memory import safeguards
from mpc.agent.memory.unusual import UnusualMonitor
from mpc.agent.perception import gym_spaces
from mpc.agent.perception.action_repeat import taken
from mpc.agent.perception.history import History
from world_models import data

Writes = list[tuple[data.Rows, np.ndarray]]


class Happened(NamedTuple):
    """The outcome of one step of the environments."""

    writes: Writes
    """Rows to append to the replay buffer."""
    returns: list[float]
    """Returns of the episodes that ended."""


class Experience:
    """Acts in a vector environment, whichever way it restarts episodes.

    Args:
        env: The environments.
        history: Shape of the history that the model sees.
        seed: Of the reset and of random actions.
        timesteps: Taken before.
        agent: Which tells the origin of observations, and what was unusual before; None for zeros, and nothing.

    Raises:
        EnvironmentFailure: If the environment raises.
    """

    def __init__(
        self, env: gymnasium.vector.VectorEnv, history: History, *, seed: int, timesteps: int, agent: Any = None
    ) -> None:
        self.env, self.history, self.timesteps, self._origin = env, history, timesteps, None
        self._recorder = data.Recorder(env.metadata.get("autoreset_mode", gymnasium.vector.AutoresetMode.NEXT_STEP))
        self._copied = isinstance(env.unwrapped, gymnasium.vector.SyncVectorEnv)  # by `vectorise`
        self._monitor = safeguards.NonFiniteMonitor(env.num_envs)
        self._unusual = UnusualMonitor(env) if agent is None else agent.unusual
        with safeguards.as_environment_failure("reset", timesteps):
            raw, _ = env.reset(seed=seed)
        env.action_space.seed(seed)
        if agent is not None:
            agent.locate(gym_spaces.flat(env.single_observation_space, raw, batched=True)[0])
            self._origin = agent.learner.origin
        self.observations = self._rows(raw)
        """`[E, *observation]`, the newest, to decide from."""
        self._histories = history.begin(self.observations, np)
        self.begun: Writes = self._recorder.reset(self.rows)
        self.started = np.ones(env.num_envs, bool)
        """`[E]`, where an episode begins with the newest observation."""
        self._returns, self._over = np.zeros(env.num_envs), np.zeros(env.num_envs, bool)
        self._lengths, self._taken = np.zeros(env.num_envs, int), 0

    @property
    def rows(self) -> np.ndarray:
        """`[E, *history.shape]`, what the model sees and the replay buffer stores."""
        return self.history.model_input(self._histories, np)

    def step(self, actions: np.ndarray, recorded: np.ndarray) -> Happened:
        """Take a step in every environment.

        Args:
            actions: `[E, ...]`, as the environments take them.
            recorded: `[E, size]`, the same as the replay buffer stores them.

        Raises:
            EnvironmentFailure: If the environment raises, or has returned nothing finite for many steps.
        """
        mode, over = self._recorder.mode, self._over
        with safeguards.as_environment_failure("step", self.timesteps):
            raw, rewards, terminated, truncated, infos = self.env.step(actions)
            rewards = _each(rewards, len(over))
        real, done = ~over, (terminated | truncated) & ~over
        self.started = done if mode != "NextStep" else over
        before = self._histories
        self.observations = self._rows(raw)
        after = self.history.append(before, self.observations, recorded, np)
        reached = self.history.model_input(after, np)
        fresh = self.started if mode != "Disabled" else np.zeros_like(done)
        self._histories = np.where(_along(fresh, after), self.history.begin(self.observations, np), after)
        if mode != "Disabled":
            reached = self.rows
        if "final_obs" in infos:
            last = self._final(infos)
            self._check_last(last, infos["_final_obs"])
            final = self.history.model_input(self.history.append(before, last, recorded, np), np)
            reached, infos = np.where(_along(infos["_final_obs"], final), final, reached), infos | {"final_obs": final}
        self._monitor.look(reached, rewards, real, self.timesteps)
        writes = self._recorder.step(recorded, self.rows, rewards, terminated, truncated, infos)
        self._returns += np.where(over, 0.0, rewards)
        taken_steps = int(taken(infos, len(real))[real].sum())
        self.timesteps, self._taken = self.timesteps + taken_steps, self._taken + taken_steps
        self._lengths += real
        self._unusual.ended(self._lengths[done])
        self._unusual.stepped(rewards[real], self._taken)
        finished = self._returns[done].tolist()
        self._returns[done], self._lengths[done] = 0.0, 0
        self._over = done if mode == "NextStep" else np.zeros_like(done)
        if mode == "Disabled" and done.any():
            writes += self._reset(done)
        return Happened(writes, finished)

    def _reset(self, done: np.ndarray) -> Writes:
        with safeguards.as_environment_failure("reset", self.timesteps):
            raw, _ = self.env.reset(options={"reset_mask": done})
        self.observations = self._rows(raw)
        self._histories = np.where(_along(done, self._histories), self.history.begin(self.observations, np), self._histories)
        return self._recorder.reset(self.rows, done)

    def _rows(self, raw: Any) -> np.ndarray:
        rows = gym_spaces.rows(self.env.single_observation_space, raw, batched=True, origin=self._origin)
        return self._unusual.without_jumps(rows, self.timesteps)

    def _final(self, infos: dict[str, Any]) -> np.ndarray:
        space, there = self.env.single_observation_space, infos["_final_obs"]
        rows = np.zeros((len(there), *self.history.observation), self.observations.dtype)
        for index in np.flatnonzero(there):
            rows[index] = gym_spaces.rows(space, infos["final_obs"][index], batched=False, origin=self._origin)
        rows[there] = self._unusual.without_jumps(rows[there], self.timesteps)
        return rows

    def _check_last(self, last: np.ndarray, there: np.ndarray) -> None:
        """Warn, once, of last observations `[E, *observation]` that the next episode's first ones seem to be written over.

        A process of an `AsyncVectorEnv` sends both together, so that an array in which both are is not seen in between.
        """
        reused = there & (last == self.observations).all(axis=tuple(range(1, last.ndim)))
        if reused.any() and not self._copied:
            self._copied, index = True, int(np.flatnonzero(reused)[0])
            warnings.warn(
                f"the last observation of environment {index} is the first one of its next episode. "
                "If it returns the same array at every step, its last observations are lost: have it return copies, or "
                "make the vector with autoreset_mode=AutoresetMode.NEXT_STEP",
                RuntimeWarning,
                stacklevel=2,
            )


def _each(rewards: Any, count: int) -> np.ndarray:
    """Rewards of so many environments, `[E]`, copied."""
    found = np.asarray(rewards)
    if found.size != count or found.dtype.kind not in "fiub":
        raise ValueError(f"rewards must be one number for each of {count} environments; got shape {found.shape}")
    return found.reshape(count).astype(np.float64)


def _along(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Give a mask `[E]` the dimensions of `[E, ...]`, so that it selects whole rows."""
    return mask.reshape(-1, *(1,) * (values.ndim - 1))
