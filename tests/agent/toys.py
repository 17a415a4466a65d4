"""Environments and settings as small as can be."""

import gymnasium
import numpy as np
from gymnasium import spaces

from mpc.agent import Settings

SMALL = Settings(
    random_steps=20,
    updates=5,
    window=2,
    first_trainings=1,
    actor_critic_updates=2,
    actor_critic_reset_rounds=1,
    hidden=8,
    members=2,
    horizon=5,
    starts=2,
    iterations=2,
    first_starts=2,
    first_iterations=2,
    capacity=500,
)


class Toy(gymnasium.Env):
    """A counter that ends after `length` steps; spaces are given."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space, length: int = 7):
        self.observation_space, self.action_space, self.length = observation_space, action_space, length

    def reset(self, *, seed=None, options=None):
        """Begin."""
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.count = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        """Count."""
        assert self.action_space.contains(action), action
        self.count += 1
        return self.observation_space.sample(), 1.0, self.count >= self.length, False, {}


class Catch(gymnasium.Env):
    """A ball falls, blown about by chance; a paddle three wide is paid for being beneath it. Seen as 6x6x2 yes and no."""

    SIDE = 6
    observation_space = spaces.Box(0, 1, (SIDE, SIDE, 2), bool)  # type: ignore[arg-type]
    action_space = spaces.Discrete(3)
    metadata: dict = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode

    def _seen(self):
        image = np.zeros((self.SIDE, self.SIDE, 2), bool)
        image[self.row, self.ball, 0] = True
        image[-1, max(self.paddle - 1, 0) : self.paddle + 2, 1] = True
        return image

    def reset(self, *, seed=None, options=None):
        """Begin."""
        super().reset(seed=seed)
        self.row, (self.ball, self.paddle) = 0, self.np_random.integers(self.SIDE, size=2)
        return self._seen(), {}

    def step(self, action):
        """Move the paddle left, not at all, or right."""
        self.paddle = np.clip(self.paddle + action - 1, 0, self.SIDE - 1)
        self.ball = np.clip(self.ball + self.np_random.choice([-1, 0, 1], p=[0.1, 0.8, 0.1]), 0, self.SIDE - 1)
        self.row += 1
        over = self.row == self.SIDE - 1
        return self._seen(), float(abs(self.ball - self.paddle) <= 1), over, False, {}

    def render(self):
        """Ball and paddle in red and green."""
        return (255 * np.pad(self._seen(), ((0, 0), (0, 0), (0, 1)))).astype(np.uint8)


OBSERVATIONS = [
    spaces.Box(-1, 1, (3,)),
    spaces.Box(-1, 1, (2, 2), np.float64),
    spaces.Discrete(4),
    spaces.MultiBinary(3),
    spaces.Dict({"b": spaces.Box(-1, 1, (2,)), "a": spaces.Discrete(2), "c": spaces.Dict({"d": spaces.Box(0, 1, (1,))})}),
]
ACTIONS = [
    spaces.Box(np.array([-2.0, 0.5], np.float32), np.array([1.0, 0.75], np.float32)),
    spaces.Box(-1, 1, (2, 2)),
    spaces.Discrete(3, start=2),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary(2),
]
