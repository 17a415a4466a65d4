"""Environments, models and agents as small as can be: one agent of every kind, each compiled once per process."""

from functools import cache
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
from gymnasium import spaces

from mpc.agent import Agent
from mpc.agent.configurator.task import Task
from tests.world_models import dots
from world_models.base import LatentState, WorldModel, initial_state

SMALL: dict[str, Any] = {
    "random_steps": 20,
    "updates": 5,
    "window": 2,
    "chained_steps": 2,
    "first_trainings": 1,
    "actor_critic_updates": 0,
    "actor_critic_reset_rounds": 1,
    "imagination_horizon": 3,
    "hidden": 8,
    "members": 2,
    "planner": "predictive_sampling",  # compiles in half the time of a descent
    "samples": 8,
    "horizon": 5,
    "starts": 2,
    "iterations": 2,
    "first_starts": 2,
    "first_iterations": 2,
    "capacity": 500,
    "offline_updates": 4,
}
"""For rewards, without an actor and a critic: those take as long to compile as all the rest."""

ACTOR: dict[str, Any] = {"actor_critic_updates": 2}
"""For rewards, beside `SMALL`: an actor and a critic."""

EXACT: dict[str, Any] = {
    "distance": "latent",
    "block": 2,
    "horizon": 8,
    "starts": 4,
    "first_starts": 4,
    "samples": 64,
    "first_iterations": 30,
    "iterations": 20,
    "random_steps": 30,
    "updates": 1,
    "first_trainings": 1,
    "window": 2,
    "chained_steps": 2,
    "batch": 8,
    "offline_updates": 2,
    "finetune_updates": 2,
    "finetune_steps": 2,
    "capacity": 500,
}
"""For goals in an exact model."""

TINY: dict[str, Any] = EXACT | {
    "latent": 8,
    "window": 3,
    "updates": 2,
    "offline_updates": 4,
    "horizon": 3,
    "starts": 2,
    "first_starts": 2,
    "first_iterations": 2,
    "iterations": 1,
    "encoder_options": {"levels": [[4, 8]], "dense": [16]},
    "predictor_options": {"hidden": [16]},
}
"""For goals shown by images, all of it learnt."""

LEVELS: dict[str, Any] = EXACT | {
    "strides": (3,),
    "macro_sigma": 0.5,
    "macro_horizon": 4,
    "near": 4.0,
    "candidates": 8,
    "macro_starts": 2,
    "macro_first_iterations": 20,
    "macro_iterations": 10,
    "macro_updates": 20,
    "macro_hidden": (32,),
    "prior_weight": 0.05,
}
"""For goals on two levels."""

PLACES = spaces.Box(1.0, 14.0, (2,))
FRAMES = spaces.Box(0, 255, (dots.SIZE, dots.SIZE, 1), np.uint8)
MOVES = spaces.Box(-dots.STEP, dots.STEP, (2,))
START, GOAL = np.array([3.0, 4.0], np.float32), np.array([9.0, 11.0], np.float32)


class Dot(gymnasium.Env):
    """The dot of `tests.world_models.dots`, seen as its place or as a frame."""

    action_space = MOVES

    def __init__(self, image: bool = False, length: int = 12):
        self.image, self.length, self.observation_space = image, length, FRAMES if image else PLACES

    def look(self) -> np.ndarray:
        """Return the observation of the present place."""
        return np.asarray(dots.render(jnp.asarray(self.place))) if self.image else self.place

    def reset(self, *, seed=None, options=None):
        """Begin anywhere."""
        super().reset(seed=seed)
        self.place, self.left = self.np_random.uniform(2, 13, 2).astype(np.float32), self.length
        return self.look(), {}

    def step(self, action):
        """Move."""
        self.place, self.left = moved(self.place, action), self.left - 1
        return self.look(), 0.0, False, self.left == 0, {}


def moved(place: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Return the dot's place after an action."""
    return np.clip(place + action, 1.0, 14.0).astype(np.float32)


def go(agent: Agent, start: np.ndarray, steps: int = 24, **deciding) -> np.ndarray:
    """Places of the dot at every step of an episode."""
    place, state, path = start, None, [start]
    for _ in range(steps):
        action, state = agent.predict(place, state, **deciding)
        place = moved(place, action)
        path.append(place)
    return np.stack(path)


def _nothing(params: Any, windows: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    return jnp.zeros(()), {}


@cache
def exact(block: int = 2, latents: int | None = None) -> WorldModel:
    """Return the dot's own dynamics, with its place as the latent; with a latent variable, it moves by more or less."""

    def predict(params: Any, state: LatentState, action: jax.Array, latent: jax.Array | None = None) -> LatentState:
        place, push = state.latent, 1.0 if latent is None else 1.0 + 0.5 * latent[0]
        for move in action.reshape(block, 2):
            place = jnp.clip(place + push * dots.STEP * move, 1.0, 14.0)
        return initial_state(place)

    return WorldModel(
        init=lambda key: {"network": {}},
        encode=lambda params, o: initial_state(jnp.asarray(o, jnp.float32)),
        predict=predict,
        normalise=lambda params, moments: params,
        loss=_nothing,
        optimizer=optax.identity(),
        members=1,
        latents=latents,
        decode=lambda params, state: state.latent,
    )


def exact_agent(
    env: gymnasium.Env | None = None, goal: Any = GOAL, config: dict[str, Any] | None = None, **given: Any
) -> Agent:
    """Return an agent that knows the dot's dynamics and is given a goal."""
    if env is None:
        given = {"observation_space": PLACES, "action_space": MOVES} | given
    return Agent(env, task=Task(goal=goal), config=EXACT | (config or {}), **(dict[str, Any](model=exact()) | given))


def image_agent(
    env: gymnasium.Env | None = None, goal: Any = GOAL, config: dict[str, Any] | None = None, **given: Any
) -> Agent:
    """Return an agent that learns from frames of the dot and is given a goal frame."""
    if env is None:
        given = {"observation_space": FRAMES, "action_space": MOVES} | given
    given = {"render": dots.render} | given
    return Agent(env, task=Task(goal=frame(goal)), config=TINY | (config or {}), **given)


def frame(place: Any) -> np.ndarray:
    """Return the frame of a dot at a place."""
    return np.asarray(dots.render(jnp.asarray(place)))


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
