"""Gymnasium environments of a task: a single one, or a vector that steps thousands in one compiled program.

Both run the same functions. A vector of n environments reset with seed s is identical to n single environments reset with
the seeds s … s + n - 1. Actions are in [-1, 1] per coordinate, as `gymnasium.utils.env_checker` recommends, and are scaled
to the units of the task; with `normalised=False` they are given in those units.
"""

from collections.abc import Mapping
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from envs.programs import EnvState, Outputs, named, programs, select
from envs.task import Bounds, Task

PyTree = Any


class _TaskEnv:
    """Spaces, units and checks shared by single and vector environments."""

    task: Task
    normalised: bool

    def _configure(self, task: Task | str, render_mode: str | None, normalised: bool, settings: dict[str, Any]) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array'; got {render_mode!r}")
        if isinstance(task, Task) and settings:
            raise ValueError(f"settings need the name of a task, not a Task; got {', '.join(settings)}")
        self.task = named(task, settings) if isinstance(task, str) else task
        self.params, self.normalised, self.render_mode = self.task.params, normalised, render_mode
        self._programs = programs(self.task)

    def _observation_space(self) -> gymnasium.spaces.Box:
        return _box(self.task.observations)

    def _action_space(self) -> gymnasium.spaces.Box:
        low, high = self.task.actions
        return _box(Bounds(np.full_like(low, -1.0), np.full_like(high, 1.0)) if self.normalised else self.task.actions)

    def _physical(self, action: Any, shape: tuple[int, ...]) -> np.ndarray:
        """Returns actions in the units of the task, clipped to its bounds.

        Raises:
            ValueError: If the shape differs from `shape` or a number is not finite.
        """
        actions = np.asarray(action, np.float32)
        if actions.shape != shape or not np.isfinite(actions).all():
            raise ValueError(f"an action must be finite numbers of shape {shape}; got shape {actions.shape}: {actions}")
        low, high = self.task.actions
        if self.normalised:
            actions = low + (np.clip(actions, -1.0, 1.0) + 1.0) / 2.0 * (high - low)
        return np.clip(actions, low, high)

    def _options(self, options: Mapping[str, Any] | None, count: int | None) -> dict[str, np.ndarray]:
        """Returns the options as arrays, with a leading axis of `count` environments unless `count` is None.

        Raises:
            ValueError: If an option is unknown, or its value has another shape or is out of bounds.
        """
        given = {}
        for name, value in (options or {}).items():
            if name not in self.task.options:
                available = ", ".join(self.task.options) or "none"
                raise ValueError(f"{self.task.name} has no reset option {name!r}; its options: {available}")
            low, high = self.task.options[name]
            array = np.asarray(value, np.float32)
            shapes = [low.shape] if count is None else [low.shape, (count, *low.shape)]
            if array.shape not in shapes or not ((array >= low) & (array <= high)).all():
                wanted = " or ".join(map(str, shapes))
                raise ValueError(f"{name} must have shape {wanted} and lie between {low} and {high}; got {array}")
            given[name] = array if count is None else np.broadcast_to(array, (count, *low.shape))
        return given

    def _check_possible(self, given: dict[str, np.ndarray], possible: dict[str, jax.Array]) -> None:
        for name in given:
            valid = np.atleast_1d(possible.get(name, True))
            if not valid.all():
                value = given[name] if valid.size == 1 else given[name][int(np.argmin(valid))]
                raise ValueError(f"{name} {value} is inside a wall or an obstacle of {self.task.name}")


def _box(bounds: Bounds) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(bounds.low, bounds.high, dtype=bounds.low.dtype.type)


def _clipped(observation: jax.Array, bounds: Bounds) -> np.ndarray:
    array = np.array(observation)
    return array if array.dtype == np.uint8 else np.clip(array, bounds.low, bounds.high)


class Env(_TaskEnv, gymnasium.Env):
    """A Gymnasium environment of a task.

    `info` has `success` and the entries of `Task.report`. `reset(options=...)` takes the options of `Task.options`.

    Args:
        task: A task, or the name of its module.
        render_mode: None or `"rgb_array"`.
        normalised: If True, actions are in [-1, 1]; otherwise in the units of the task.
        **settings: Settings of the task.

    Raises:
        ValueError: If a setting is unknown; the message lists the available ones.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 as Gymnasium declares it

    def __init__(self, task: Task | str, render_mode: str | None = None, normalised: bool = True, **settings: Any) -> None:
        self._configure(task, render_mode, normalised, settings)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": self.task.fps}
        if len(self.task.observation_names) == self.task.observations.low.size:
            self.metadata["observation_names"] = self.task.observation_names
        self.observation_space, self.action_space = self._observation_space(), self._action_space()
        self._state: EnvState | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: Seed of this and all following episodes.
            options: Parts of the start state, by name; the others are drawn at random.

        Raises:
            ValueError: If an option is unknown or impossible.
        """
        super().reset(seed=seed)
        given = self._options(options, None)
        if seed is not None or self._state is None:
            key = jax.random.key(int(self.np_random.integers(2**31)) if seed is None else seed % 2**31)
        else:
            key = self._state.key
        state, outputs, possible = self._programs.reset(key, given)
        self._check_possible(given, possible)
        self._state = state
        return _clipped(outputs.observation, self.task.observations), _infos(outputs.info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Takes one step.

        Raises:
            ValueError: If the action has another shape, or is not finite.
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        state = self._current()
        physical = self._physical(action, self.task.actions.low.shape)
        self._state, outputs = self._programs.step(self.params, state, physical)
        observation = _clipped(outputs.observation, self.task.observations)
        return observation, float(outputs.reward), bool(outputs.terminated), False, _infos(outputs.info)

    def render(self) -> Any:
        """Returns the scene as `[h, w, 3]` bytes, or None without a render mode."""
        return np.array(self._programs.render(self._current().state)) if self.render_mode == "rgb_array" else None

    def goal_observation(self) -> np.ndarray:
        """Returns the observation at the goal of this episode.

        Raises:
            ValueError: If the task has no goal observation.
        """
        if self._programs.goal is None:
            raise ValueError(f"{self.task.name} has no goal observation")
        return _clipped(self._programs.goal(self._current().state), self.task.observations)

    @property
    def state(self) -> PyTree:
        """Current state of the task."""
        return self._current().state

    def _current(self) -> EnvState:
        if self._state is None:
            raise gymnasium.error.ResetNeeded("call reset first")
        return self._state


def _infos(info: dict[str, jax.Array]) -> dict[str, Any]:
    """Returns the infos as NumPy arrays (copies) or Python numbers."""
    return {name: np.array(value) if np.ndim(value) else np.asarray(value).item() for name, value in info.items()}


class VectorEnv(_TaskEnv, gymnasium.vector.VectorEnv):
    """A Gymnasium vector environment of a task; one compiled program steps all its environments.

    Args:
        task: A task, or the name of its module.
        num_envs: Number n of environments.
        max_episode_steps: Steps after which an episode is truncated; `Task.horizon` if None.
        autoreset_mode: When an episode that ended is reset: in the next step, which ignores the action (`NEXT_STEP`); in the
            same step, with the last observation in `infos["final_obs"]` and `infos["final_info"]` (`SAME_STEP`); or by
            `reset(options={"reset_mask": mask})` only (`DISABLED`).
        render_mode: None or `"rgb_array"`.
        normalised: If True, actions are in [-1, 1]; otherwise in the units of the task.
        **settings: Settings of the task.

    Raises:
        ValueError: If a setting is unknown; the message lists the available ones.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 as Gymnasium declares it
        "render_modes": ["rgb_array"],
        "render_fps": 20,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        task: Task | str,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        normalised: bool = True,
        **settings: Any,
    ) -> None:
        self._configure(task, render_mode, normalised, settings)
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1; got {num_envs}")
        limit = self.task.horizon if max_episode_steps is None else max_episode_steps
        if limit < 1:
            raise ValueError(f"max_episode_steps must be at least 1; got {limit}")
        self.num_envs, self.max_episode_steps = num_envs, limit
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": self.task.fps,
            "autoreset_mode": self.autoreset_mode,
        }
        self.single_observation_space, self.single_action_space = self._observation_space(), self._action_space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._state: EnvState | None = None
        self._steps = np.zeros(num_envs, np.int64)
        self._over = np.zeros(num_envs, bool)
        self._outputs: Outputs | None = None

    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts all episodes, or those of a mask.

        Args:
            seed: Environment i gets `seed + i`, or the i-th seed of a list.
            options: Parts of the start states, by name: one value, or one per environment. `"reset_mask"`: `[n]`, the
                environments to reset.

        Raises:
            ValueError: If an option is unknown or impossible, or there are not n seeds.
        """
        super().reset(seed=seed if isinstance(seed, int) else None)
        rest = dict(options or {})
        mask = self._mask(rest.pop("reset_mask", None))
        given = self._options(rest, self.num_envs)
        if seed is not None or self._state is None:
            keys = self._programs.keys(self._seeds(seed))
            keys = keys if self._state is None else select(jnp.asarray(mask), keys, self._state.key)
        else:
            keys = self._state.key
        if self._state is None or self._outputs is None or mask.all():
            state, outputs, possible = self._programs.reset_all(keys, given)
        else:
            before = self._state._replace(key=keys)
            state, outputs, possible = self._programs.reset_where(mask, before, self._outputs, given)
        self._check_possible(given, possible)
        self._state, self._outputs = state, outputs
        self._steps, self._over = np.where(mask, 0, self._steps), self._over & ~mask
        return _clipped(outputs.observation, self.task.observations), _masked(outputs.info, mask)

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Takes one step in every environment.

        Raises:
            ValueError: If the actions have another shape, or are not finite.
            gymnasium.error.ResetNeeded: Before the first reset, or after the end of an episode if `autoreset_mode` is
                `DISABLED`.
        """
        if self._state is None or (self.autoreset_mode is AutoresetMode.DISABLED and self._over.any()):
            raise gymnasium.error.ResetNeeded(f"reset the environments {np.flatnonzero(self._over).tolist()} first")
        physical = self._physical(actions, (self.num_envs, *self.task.actions.low.shape))
        fresh = self._over  # episodes that the last step ended; with SAME_STEP they are reset already
        if fresh.any():
            self._state, outputs = self._programs.step_or_reset(self.params, self._state, physical, fresh)
        else:
            self._state, outputs = self._programs.step_all(self.params, self._state, physical)
        self._steps = np.where(fresh, 0, self._steps + 1)
        rewards, terminated = np.array(outputs.reward, np.float64), np.array(outputs.terminated)
        truncated = self._steps >= self.max_episode_steps
        over = terminated | truncated
        infos: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and over.any():
            infos = self._final(outputs, over)
            self._state, outputs, _ = self._programs.reset_where(over, self._state, outputs, {})
            self._steps, over = np.where(over, 0, self._steps), np.zeros_like(over)
        self._over, self._outputs = over, outputs
        infos |= _masked(outputs.info, np.ones(self.num_envs, bool))
        return _clipped(outputs.observation, self.task.observations), rewards, terminated, truncated, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Returns every scene as `[h, w, 3]` bytes, or None without a render mode."""
        return tuple(np.array(self._programs.render_all(self.state))) if self.render_mode == "rgb_array" else None

    def goal_observation(self) -> np.ndarray:
        """Returns the observations at the goals of these episodes, `[n, ...]`.

        Raises:
            ValueError: If the task has no goal observation.
        """
        if self._programs.goal_all is None:
            raise ValueError(f"{self.task.name} has no goal observation")
        return _clipped(self._programs.goal_all(self.state), self.task.observations)

    @property
    def state(self) -> PyTree:
        """Current states of the task, `[n, ...]`."""
        if self._state is None:
            raise gymnasium.error.ResetNeeded("call reset first")
        return self._state.state

    def _seeds(self, seed: int | list[int] | None) -> np.ndarray:
        if seed is None:
            return self.np_random.integers(2**31, size=self.num_envs)
        seeds = np.arange(self.num_envs) + seed if isinstance(seed, int) else np.asarray(seed, np.int64)
        if seeds.shape != (self.num_envs,):
            raise ValueError(f"seed must be one integer or {self.num_envs} integers, one per environment; got {seed}")
        return seeds % 2**31

    def _mask(self, mask: Any) -> np.ndarray:
        if mask is None:
            return np.ones(self.num_envs, bool)
        mask = np.asarray(mask)
        if mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
            raise ValueError(f"reset_mask must be {self.num_envs} booleans with at least one True; got {mask}")
        return mask

    def _final(self, outputs: Outputs, over: np.ndarray) -> dict[str, Any]:
        """Returns the last observations and infos of ended episodes, as object arrays like Gymnasium's own vectors."""
        last = np.full(self.num_envs, None, object)
        observations = _clipped(outputs.observation, self.task.observations)
        for i in np.flatnonzero(over):
            last[i] = observations[i]
        return {"final_obs": last, "_final_obs": over, "final_info": _masked(outputs.info, over), "_final_info": over}


def _masked(info: dict[str, jax.Array], mask: np.ndarray) -> dict[str, Any]:
    """Returns infos in the format of Gymnasium's vectors: zero, with a False mask, where they do not apply."""
    infos = {}
    for name, value in info.items():
        array = np.array(value)
        array[~mask] = 0
        infos |= {name: array, f"_{name}": mask.copy()}
    return infos
