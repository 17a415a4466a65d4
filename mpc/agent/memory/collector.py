"""What happens to an agent: the steps of its environments, turned into rows to remember and observations to decide from."""

from typing import Any, NamedTuple

import gymnasium
import numpy as np

from mpc.agent.memory import safeguards
from mpc.agent.perception import gym_spaces
from mpc.agent.perception.action_repeat import taken
from mpc.agent.perception.history import Memory
from world_models import data

Writes = list[tuple[data.Rows, np.ndarray]]


class Happened(NamedTuple):
    """What a step of the environments brought."""

    writes: Writes
    """Rows to append to what is remembered."""
    steps: int
    """Of the environments, all together; one that only began another episode took none."""
    returns: list[float]
    """Of the episodes that ended."""


class Experience:
    """A vector environment being acted in, whichever way it restarts episodes.

    Args:
        env: Acted in.
        memory: What is shown of what happened before.
        seed: Of the reset and of random actions.
        timesteps: Taken before.

    Raises:
        EnvironmentFailure: If the environment raises.
    """

    def __init__(self, env: gymnasium.vector.VectorEnv, memory: Memory, *, seed: int, timesteps: int):
        self.env, self.memory, self.timesteps = env, memory, timesteps
        self._recorder = data.Recorder(env.metadata.get("autoreset_mode", gymnasium.vector.AutoresetMode.NEXT_STEP))
        self._watch = safeguards.NonFiniteMonitor(env.num_envs)
        with safeguards.as_environment_failure("reset", timesteps):
            raw, _ = env.reset(seed=seed)
        env.action_space.seed(seed)
        self._seen = memory.begun(self._rows(raw))
        self.begun: Writes = self._recorder.reset(self.rows)
        self.started = np.ones(env.num_envs, bool)
        """`[E]`, where an episode begins with the newest observation."""
        self._returns, self._over = np.zeros(env.num_envs), np.zeros(env.num_envs, bool)

    @property
    def rows(self) -> np.ndarray:
        """`[E, *memory.shape]`, what to decide from."""
        return self.memory.shown(self._seen)

    def step(self, actions: np.ndarray, shown: np.ndarray) -> Happened:
        """Take a step in every environment.

        Args:
            actions: `[E, ...]`, as the environments take them.
            shown: `[E, size]`, the same as networks see them.

        Raises:
            EnvironmentFailure: If the environment raises, or has returned nothing finite for many steps.
        """
        mode, over = self._recorder.mode, self._over
        with safeguards.as_environment_failure("step", self.timesteps):
            raw, rewards, terminated, truncated, infos = self.env.step(actions)
        real, done = ~over, (terminated | truncated) & ~over
        self.started = done if mode != "NextStep" else over
        before, fresh = self._seen, self.started if mode != "Disabled" else None
        self._seen = self.memory.recall(before, self._rows(raw), shown, fresh)
        reached = self.rows
        if "final_obs" in infos:
            final = self.memory.shown(self.memory.recall(before, self._final(infos), shown))
            reached, infos = np.where(_along(infos["_final_obs"], final), final, reached), infos | {"final_obs": final}
        self._watch.look(reached, np.asarray(rewards), real, self.timesteps)
        writes = self._recorder.step(shown, self.rows, rewards, terminated, truncated, infos)
        self._returns += np.where(over, 0.0, rewards)
        steps = int(taken(infos, len(real))[real].sum())
        self.timesteps += steps
        finished = self._returns[done].tolist()
        self._returns[done] = 0.0
        self._over = done if mode == "NextStep" else np.zeros_like(done)
        if mode == "Disabled" and done.any():
            writes += self._reset(done)
        return Happened(writes, steps, finished)

    def _reset(self, done: np.ndarray) -> Writes:
        with safeguards.as_environment_failure("reset", self.timesteps):
            raw, _ = self.env.reset(options={"reset_mask": done})
        self._seen = np.where(_along(done, self._seen), self.memory.begun(self._rows(raw)), self._seen)
        return self._recorder.reset(self.rows, done)

    def _rows(self, raw: Any) -> np.ndarray:
        return gym_spaces.rows(self.env.single_observation_space, raw, batched=True)

    def _final(self, infos: dict[str, Any]) -> np.ndarray:
        space, there = self.env.single_observation_space, infos["_final_obs"]
        rows = np.zeros((len(there), *self.memory.observation), self._seen.dtype)
        for index in np.flatnonzero(there):
            rows[index] = gym_spaces.rows(space, infos["final_obs"][index], batched=False)
        return rows


def _along(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A mask `[E]` that selects whole rows of `[E, ...]`."""
    return mask.reshape(-1, *(1,) * (values.ndim - 1))
