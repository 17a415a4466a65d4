"""Gymnasium environment of a robot simulated by MuJoCo; simulated time advances only in `step`."""

from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from envs.robots import built, mujoco, named


class RobotEnv(gymnasium.Env):
    """A robot that holds each action for its period; the reward is minus the cost of that period.

    Episodes are truncated when the robot leaves its arena, because distant states carry no information about the task.

    Args:
        robot: Name of one of `envs.robots.ROBOTS`.
        anywhere: Share of episodes that start from the wide distribution `Robot.anywhere` rather than at rest near the
            robot's start. With it the data has upright poles before the policy can swing them up.
        render_mode: None or `"rgb_array"`.

    Raises:
        ImportError: If MuJoCo is not installed.
        ValueError: If the robot is unknown, or the share is outside [0, 1].
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012 as Gymnasium declares it

    def __init__(self, robot: str, anywhere: float = 0.5, render_mode: str | None = None) -> None:
        if not 0.0 <= anywhere <= 1.0:
            raise ValueError(f"anywhere is a share of episodes in [0, 1]; got {anywhere}")
        self.robot, self.render_mode, self._anywhere = named(robot), render_mode, anywhere
        names = (f"{name} ({unit})" if unit else name for name, unit in zip(self.robot.names, self.robot.units, strict=True))
        self.metadata = self.metadata | {"observation_names": tuple(names)}
        self.model = built(self.robot)
        self.data = mujoco().MjData(self.model)
        self._bounds = tuple(self.model.actuator_ctrlrange[:, side].astype(np.float32) for side in (0, 1))
        self.action_space = gymnasium.spaces.Box(*self._bounds)
        size = len(self.robot.names)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,))
        self.dt = self.robot.period
        self._steps = round(self.robot.period / self.model.opt.timestep)
        self._cost = jax.jit(lambda x, u: self.robot.period * self.robot.cost(x, u))
        self._renderer: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode at rest near the robot's start or, in a share `anywhere` of episodes, in another state."""
        super().reset(seed=seed)
        mujoco().mj_resetData(self.model, self.data)
        rest = (*self.robot.spread, *np.zeros(self.model.nv))
        spread = self.robot.anywhere if self.np_random.random() < self._anywhere else rest
        offset = spread * self.np_random.uniform(-1.0, 1.0, len(spread))
        self.data.qpos[:], self.data.qvel[:] = self.robot.start + offset[: self.model.nq], offset[self.model.nq :]
        mujoco().mj_forward(self.model, self.data)
        return self._observation(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Holds an action for one period."""
        self.data.ctrl[:] = np.clip(action, *self._bounds)
        cost = float(self._cost(self._state(), jnp.asarray(self.data.ctrl, jnp.float32)))
        mujoco().mj_step(self.model, self.data, self._steps)
        outside = bool((np.abs(self.data.qpos) > self.robot.arena).any())
        return self._observation(), -cost, False, outside, {"success": bool(self.robot.good(self._state()))}

    def render(self) -> Any:
        """Returns the scene as `[h, w, 3]` bytes, or None without a render mode."""
        if self.render_mode != "rgb_array":
            return None
        if self._renderer is None:
            self._renderer = mujoco().Renderer(self.model, 480, 640)
        self._renderer.update_scene(self.data, camera="side")
        return self._renderer.render()

    def pose(self, positions: np.ndarray) -> Any:
        """Moves the robot to a pose and returns the scene as `render` does.

        Args:
            positions: q of every joint.
        """
        self.data.qpos[:] = positions
        mujoco().mj_forward(self.model, self.data)
        return self.render()

    def close(self) -> None:
        """Frees the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _observation(self) -> np.ndarray:
        return self.robot.observe(self.data.qpos, self.data.qvel)

    def _state(self) -> jax.Array:
        return jnp.asarray(np.concatenate([self.data.qpos, self.data.qvel]), jnp.float32)
