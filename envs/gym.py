"""The Gymnasium face of a task: one environment, or thousands that step in one compiled program.

Both run the same functions: a vector of n environments reset with seed s does, environment by environment, what n single
ones reset with the seeds s … s + n - 1 do. Actions are in [-1, 1] per coordinate, as `gymnasium.utils.env_checker`
recommends, and scaled to the task's own units; `normalised=False` takes them in those units.
"""

import importlib
import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from envs import leaves
from envs.task import Bounds, Task

PyTree = Any


class Run(NamedTuple):
    """One environment between two calls; a vector of them has a leading axis in every part."""

    state: PyTree
    key: jax.Array


class Seen(NamedTuple):
    """What a call returns, on the device."""

    observation: jax.Array
    reward: jax.Array
    terminated: jax.Array
    info: dict[str, jax.Array]


def named(name: str, settings: Mapping[str, Any]) -> Task:
    """The task of a module of this package.

    Args:
        name: Of the module, for example `"two_rooms"`.
        settings: Of its `task`; and for any, `leaves`: strength of the leaves behind images, `noise`: numbers beside
            vectors.

    Raises:
        ValueError: If it knows no such setting, or no such value of one.
    """
    make = importlib.import_module(f"envs.{name}").task
    known = list(inspect.signature(make).parameters)
    unknown = [setting for setting in settings if setting not in (*known, *_WINDY)]
    if unknown:
        has = ", ".join([*known, *_WINDY, "normalised"])
        raise ValueError(f"{name} has no setting {', '.join(unknown)}; it has {has}")
    task = make(**{setting: value for setting, value in settings.items() if setting in known})
    if settings.get("leaves"):
        task = leaves.behind(task, leaves.STRENGTH if settings["leaves"] is True else float(settings["leaves"]))
    return leaves.beside(task, settings["noise"]) if settings.get("noise") else task


_WINDY = ("leaves", "noise")


class Programs:
    """The compiled functions of a task, shared by all environments of it: single ones `[...]` and vectors `[n, ...]`."""

    def __init__(self, task: Task):
        def look(state: PyTree, reward: jax.Array) -> Seen:
            info = {"success": task.success(state)} | task.report(state)
            return Seen(task.observe(state), reward, task.terminated(state), info)

        def begin(key: jax.Array, given: dict[str, jax.Array]) -> tuple[Run, Seen, dict[str, jax.Array]]:
            key, use = jax.random.split(key)
            state = task.reset(use, **given)
            return Run(state, key), look(state, jnp.zeros(())), task.possible(state)

        def step(params: PyTree, run: Run, action: jax.Array) -> tuple[Run, Seen]:
            key, use = jax.random.split(run.key)
            following = task.step(params, run.state, action, use)
            return Run(following, key), look(following, task.reward(params, run.state, action, following))

        begins, steps = jax.vmap(begin), jax.vmap(step, in_axes=(None, 0, 0))

        def begin_where(mask: jax.Array, run: Run, seen: Seen, given: dict[str, jax.Array]) -> tuple[Run, Seen, dict]:
            fresh, looks, possible = begins(run.key, given)
            return chosen(mask, fresh, run), chosen(mask, looks, seen), possible

        def step_or_begin(params: PyTree, run: Run, action: jax.Array, over: jax.Array) -> tuple[Run, Seen]:
            run_, seen = steps(params, run, action)
            fresh, looks, _ = begins(run.key, {})
            looks = looks._replace(terminated=jnp.zeros_like(looks.terminated))
            return chosen(over, fresh, run_), chosen(over, looks, seen)

        self.begin, self.step = jax.jit(begin), jax.jit(step)
        self.begins, self.steps = jax.jit(begins), jax.jit(steps)
        self.begin_where, self.step_or_begin = jax.jit(begin_where), jax.jit(step_or_begin)
        self.render, self.renders = jax.jit(task.render), jax.jit(jax.vmap(task.render))
        self.goal = self.goals = None
        if task.goal is not None:
            self.goal, self.goals = jax.jit(task.goal), jax.jit(jax.vmap(task.goal))
        self.keys = jax.jit(jax.vmap(jax.random.key))


programs = cache(Programs)


def chosen(mask: jax.Array, yes: PyTree, no: PyTree) -> PyTree:
    """One of two vectors of environments, environment by environment."""

    def choose(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, yes, no)


class _Face:
    """What single and vector environments share: spaces, units, checks."""

    task: Task
    normalised: bool

    def _dress(self, task: Task | str, render_mode: str | None, normalised: bool, settings: dict[str, Any]) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array'; got {render_mode!r}")
        if isinstance(task, Task) and settings:
            raise ValueError(f"a task that is made already takes no settings; got {', '.join(settings)}")
        self.task = named(task, settings) if isinstance(task, str) else task
        self.params, self.normalised, self.render_mode = self.task.params, normalised, render_mode
        self._programs = programs(self.task)

    def _observation_space(self) -> gymnasium.spaces.Box:
        return _box(self.task.observations)

    def _action_space(self) -> gymnasium.spaces.Box:
        low, high = self.task.actions
        return _box(Bounds(np.full_like(low, -1.0), np.full_like(high, 1.0)) if self.normalised else self.task.actions)

    def _physical(self, action: Any, shape: tuple[int, ...]) -> np.ndarray:
        """Actions in the task's units, within its bounds.

        Raises:
            ValueError: If they are not numbers of that shape.
        """
        given = np.asarray(action, np.float32)
        if given.shape != shape or not np.isfinite(given).all():
            raise ValueError(f"an action must be finite numbers of shape {shape}; got shape {given.shape}: {given}")
        low, high = self.task.actions
        if self.normalised:
            given = low + (np.clip(given, -1.0, 1.0) + 1.0) / 2.0 * (high - low)
        return np.clip(given, low, high)

    def _given(self, options: Mapping[str, Any] | None, count: int | None) -> dict[str, np.ndarray]:
        """Options as arrays, one row for each of `count` environments, or without rows.

        Raises:
            ValueError: If there is no such option, or its value is not in bounds.
        """
        given = {}
        for name, value in (options or {}).items():
            if name not in self.task.options:
                known = ", ".join(self.task.options) or "none"
                raise ValueError(f"{self.task.name} cannot be reset with {name!r}; its options: {known}")
            low, high = self.task.options[name]
            array = np.asarray(value, np.float32)
            shapes = [low.shape] if count is None else [low.shape, (count, *low.shape)]
            if array.shape not in shapes or not ((array >= low) & (array <= high)).all():
                wanted = " or ".join(map(str, shapes))
                raise ValueError(f"{name} must have shape {wanted} and lie between {low} and {high}; got {array}")
            given[name] = array if count is None else np.broadcast_to(array, (count, *low.shape))
        return given

    def _refuse(self, given: dict[str, np.ndarray], possible: dict[str, jax.Array]) -> None:
        for name in given:
            fine = np.atleast_1d(possible.get(name, True))
            if not fine.all():
                value = given[name] if fine.size == 1 else given[name][int(np.argmin(fine))]
                raise ValueError(
                    f"{name} {value} is not possible in {self.task.name}: it is not free of walls and obstacles"
                )


def _box(bounds: Bounds) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(bounds.low, bounds.high, dtype=bounds.low.dtype.type)


def _clipped(observation: jax.Array, bounds: Bounds) -> np.ndarray:
    seen = np.array(observation)
    return seen if seen.dtype == np.uint8 else np.clip(seen, bounds.low, bounds.high)


class Env(_Face, gymnasium.Env):
    """One environment of a task, in the conventions of Gymnasium.

    `info` carries `success` and what the task reports. `reset(options=...)` takes what the task names in `options`.

    Args:
        task: A task, or the name of its module.
        render_mode: None or `"rgb_array"`.
        normalised: Whether actions are in [-1, 1], or else in the task's units.
        **settings: Of the task.

    Raises:
        ValueError: If there is no such setting, with those that there are.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 as Gymnasium declares it

    def __init__(self, task: Task | str, render_mode: str | None = None, normalised: bool = True, **settings: Any):
        self._dress(task, render_mode, normalised, settings)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": self.task.fps}
        self.observation_space, self.action_space = self._observation_space(), self._action_space()
        self._run: Run | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: Of this and everything that follows.
            options: What is not to be drawn, by name.

        Raises:
            ValueError: If an option is unknown or impossible.
        """
        super().reset(seed=seed)
        given = self._given(options, None)
        if seed is not None or self._run is None:
            key = jax.random.key(int(self.np_random.integers(2**31)) if seed is None else seed % 2**31)
        else:
            key = self._run.key
        run, seen, possible = self._programs.begin(key, given)
        self._refuse(given, possible)
        self._run = run
        return _clipped(seen.observation, self.task.observations), _infos(seen.info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Act once.

        Raises:
            ValueError: If the action has another shape, or is not finite.
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        run = self._running()
        physical = self._physical(action, self.task.actions.low.shape)
        self._run, seen = self._programs.step(self.params, run, physical)
        observation = _clipped(seen.observation, self.task.observations)
        return observation, float(seen.reward), bool(seen.terminated), False, _infos(seen.info)

    def render(self) -> Any:
        """The scene as `[h, w, 3]` bytes, or None without a render mode."""
        return np.array(self._programs.render(self._running().state)) if self.render_mode == "rgb_array" else None

    def goal_observation(self) -> np.ndarray:
        """What would be observed at the goal of this episode.

        Raises:
            ValueError: If the task has no goal to be seen.
        """
        if self._programs.goal is None:
            raise ValueError(f"{self.task.name} has no goal that could be observed")
        return _clipped(self._programs.goal(self._running().state), self.task.observations)

    @property
    def state(self) -> PyTree:
        """The task's state now."""
        return self._running().state

    def _running(self) -> Run:
        if self._run is None:
            raise gymnasium.error.ResetNeeded("call reset before anything else")
        return self._run


def _infos(info: dict[str, jax.Array]) -> dict[str, Any]:
    """As NumPy arrays of their own, or numbers of Python."""
    return {name: np.array(value) if np.ndim(value) else np.asarray(value).item() for name, value in info.items()}


class VectorEnv(_Face, gymnasium.vector.VectorEnv):
    """Many environments of a task, stepped in one compiled program.

    Args:
        task: A task, or the name of its module.
        num_envs: How many.
        max_episode_steps: Steps after which an episode is truncated; the task's own number if None.
        autoreset_mode: What happens when an episode ends: the next step begins a new one whatever the action (`NEXT_STEP`),
            the same step does (`SAME_STEP`, what was seen last in `infos["final_obs"]` and `infos["final_info"]`), or
            nothing until `reset(options={"reset_mask": mask})` (`DISABLED`).
        render_mode: None or `"rgb_array"`.
        normalised: Whether actions are in [-1, 1], or else in the task's units.
        **settings: Of the task.

    Raises:
        ValueError: If there is no such setting, with those that there are.
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
    ):
        self._dress(task, render_mode, normalised, settings)
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
        self._run: Run | None = None
        self._steps = np.zeros(num_envs, np.int64)
        self._over = np.zeros(num_envs, bool)
        self._seen: Seen | None = None

    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin all episodes, or those of a mask.

        Args:
            seed: Environment i gets `seed + i`, or the i-th of a list.
            options: What is not to be drawn, by name, one value or one per environment; `"reset_mask"`: `[n]`, which to
                reset.

        Raises:
            ValueError: If an option is unknown or impossible, or there are not n seeds.
        """
        super().reset(seed=seed if isinstance(seed, int) else None)
        rest = dict(options or {})
        mask = self._mask(rest.pop("reset_mask", None))
        given = self._given(rest, self.num_envs)
        if seed is not None or self._run is None:
            keys = self._programs.keys(self._seeds(seed))
            keys = keys if self._run is None else chosen(jnp.asarray(mask), keys, self._run.key)
        else:
            keys = self._run.key
        if self._run is None or self._seen is None or mask.all():
            run, seen, possible = self._programs.begins(keys, given)
        else:
            run, seen, possible = self._programs.begin_where(mask, self._run._replace(key=keys), self._seen, given)
        self._refuse(given, possible)
        self._run, self._seen = run, seen
        self._steps, self._over = np.where(mask, 0, self._steps), self._over & ~mask
        return _clipped(seen.observation, self.task.observations), _masked(seen.info, mask)

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Act once in every environment.

        Raises:
            ValueError: If the actions have another shape, or are not finite.
            gymnasium.error.ResetNeeded: Before the first reset, or when an episode is over and nothing resets it by itself.
        """
        if self._run is None or (self.autoreset_mode is AutoresetMode.DISABLED and self._over.any()):
            raise gymnasium.error.ResetNeeded(f"reset the environments {np.flatnonzero(self._over).tolist()} first")
        physical = self._physical(actions, (self.num_envs, *self.task.actions.low.shape))
        fresh = self._over  # those that the last step ended; none of them with SAME_STEP
        if fresh.any():
            self._run, seen = self._programs.step_or_begin(self.params, self._run, physical, fresh)
        else:
            self._run, seen = self._programs.steps(self.params, self._run, physical)
        self._steps = np.where(fresh, 0, self._steps + 1)
        rewards, terminated = np.array(seen.reward, np.float64), np.array(seen.terminated)
        truncated = self._steps >= self.max_episode_steps
        over = terminated | truncated
        infos: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and over.any():
            infos = self._final(seen, over)
            self._run, seen, _ = self._programs.begin_where(over, self._run, seen, {})
            self._steps, over = np.where(over, 0, self._steps), np.zeros_like(over)
        self._over, self._seen = over, seen
        infos |= _masked(seen.info, np.ones(self.num_envs, bool))
        return _clipped(seen.observation, self.task.observations), rewards, terminated, truncated, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Every scene as `[h, w, 3]` bytes, or None without a render mode."""
        return tuple(np.array(self._programs.renders(self.state))) if self.render_mode == "rgb_array" else None

    def goal_observation(self) -> np.ndarray:
        """What would be observed at the goals of these episodes, `[n, ...]`.

        Raises:
            ValueError: If the task has no goal to be seen.
        """
        if self._programs.goals is None:
            raise ValueError(f"{self.task.name} has no goal that could be observed")
        return _clipped(self._programs.goals(self.state), self.task.observations)

    @property
    def state(self) -> PyTree:
        """The task's states now, `[n, ...]`."""
        if self._run is None:
            raise gymnasium.error.ResetNeeded("call reset before anything else")
        return self._run.state

    def _seeds(self, seed: int | list[int] | None) -> np.ndarray:
        if seed is None:
            return self.np_random.integers(2**31, size=self.num_envs)
        seeds = np.arange(self.num_envs) + seed if isinstance(seed, int) else np.asarray(seed, np.int64)
        if seeds.shape != (self.num_envs,):
            raise ValueError(f"there must be one seed for each of {self.num_envs} environments; got {seed}")
        return seeds % 2**31

    def _mask(self, mask: Any) -> np.ndarray:
        if mask is None:
            return np.ones(self.num_envs, bool)
        mask = np.asarray(mask)
        if mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
            raise ValueError(f"reset_mask must be {self.num_envs} booleans, not all of them False; got {mask}")
        return mask

    def _final(self, seen: Seen, over: np.ndarray) -> dict[str, Any]:
        """What was seen last, where an episode ended; objects, as Gymnasium's own vectors have them."""
        last = np.full(self.num_envs, None, object)
        observations = _clipped(seen.observation, self.task.observations)
        for i in np.flatnonzero(over):
            last[i] = observations[i]
        return {"final_obs": last, "_final_obs": over, "final_info": _masked(seen.info, over), "_final_info": over}


def _masked(info: dict[str, jax.Array], mask: np.ndarray) -> dict[str, Any]:
    """Infos as Gymnasium's vectors have them: zero and unmarked where they do not apply."""
    infos = {}
    for name, value in info.items():
        array = np.array(value)
        array[~mask] = 0
        infos |= {name: array, f"_{name}": mask.copy()}
    return infos
