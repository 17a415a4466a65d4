"""One episode of an agent with all that was seen, and all that was imagined on the way."""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from mpc.agent.actor.time_budget import Mode
from mpc.agent.decisions import PredictState
from mpc.agent.evaluation import own_goal
from mpc.agent.perception import gym_spaces
from mpc.agent.perception.action_repeat import Repeated
from world_models.data import About, Dataset


class Episode(NamedTuple):
    """One episode of T agent steps.

    `observations`: `[T+1, O]`, or images `[T+1, H, W, C]`. `actions`: `[T, ...]`. `rewards`: `[T]`. `frames`: T+1 renders,
    or none. `futures`: T arrays `[S, H+1, D]` of latents, the S futures that the plan under way was expected to lead to when
    it was made; S is 1 for a model without a latent variable. `ages`: `[T]`, steps since it was made. `success`: `[T]`, as
    the environment tells, NaN where it does not. `goal`: the task's goal, an observation, or None. `distances`: `[T+1]`, to
    the goal, as plans minimise them; None without a goal or a distance. `names`: `[O]`, of an observation's numbers, with
    their units; empty where the environment does not tell.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    frames: list[np.ndarray]
    futures: list[np.ndarray]
    ages: np.ndarray
    success: np.ndarray
    goal: np.ndarray | None = None
    distances: np.ndarray | None = None
    names: tuple[str, ...] = ()

    def label(self, index: int) -> str:
        """Return the name of a number of observations."""
        return self.names[index] if index < len(self.names) else f"observation {index}"

    @property
    def succeeded(self) -> bool | None:
        """True if the episode ended in success; None where the environment does not tell."""
        return None if np.isnan(self.success[-1]) else bool(self.success[-1])


def record(
    agent: Any,
    env: gymnasium.Env,
    seed: int,
    *,
    reset: dict[str, Any] | None = None,
    own_goals: bool = False,
    mode: Mode = "plan",
    names: tuple[str, ...] = (),
) -> Episode:
    """Act for one episode and keep everything, a step being as long as the agent holds its actions.

    Args:
        env: One environment; drawn if it was made with `render_mode="rgb_array"`.
        seed: Of its reset.
        reset: Options of its reset.
        own_goals: Whether the goal that the environment sets in this episode becomes the task's.
        mode: As for `Agent.predict`.
        names: Of an observation's numbers, with their units; those in `env.metadata["observation_names"]` if none.
    """
    env = Repeated(env, agent.config.perception.action_repeat)
    raw, _ = env.reset(seed=seed, options=reset or None)
    if own_goals:
        agent.configure(replace(agent.task, goal=own_goal(env)))
    draw = env.render_mode == "rgb_array"
    observations, actions, rewards, frames, imagined, ages, success = [raw], [], [], [], [], [], []
    state, over = None, False
    while not over:
        if draw:
            frames.append(_bytes(np.asarray(env.render())))
        action, state = agent.predict(raw, state=None if state is None else state.released(), mode=mode)
        ages.append(int(state.policy.age[0]))
        imagined.append(imagined[-1] if ages[-1] and imagined else futures(agent, state))
        raw, reward, terminated, truncated, info = env.step(action)
        observations.append(raw)
        actions.append(action)
        rewards.append(float(reward))
        success.append(float(info["success"]) if "success" in info else np.nan)
        over = terminated or truncated
    if draw:
        frames.append(_bytes(np.asarray(env.render())))
    rows = np.concatenate([gym_spaces.flat(agent.observation_space, o, batched=False) for o in observations])
    kept = Episode(rows, np.stack(actions), np.array(rewards), frames, imagined, np.array(ages), np.array(success))
    kept = kept._replace(names=tuple(names or env.metadata.get("observation_names", ())))
    if not agent.setup.has_goal:
        return kept
    goal = np.asarray(agent.task.goal).reshape(rows.shape[1:]).astype(rows.dtype)
    return kept._replace(goal=goal, distances=_distances(agent, kept) if agent.setup.measures_goal else None)


def futures(agent: Any, state: PredictState) -> np.ndarray:
    """Return the latents `[S, H+1, D]` that what was decided is expected to lead to; of a batch, the first decision."""
    policy = state.policy
    if not int(policy.unplanned[0]):
        return _latents(agent.imagine(state))
    # a reaction has actions, and no plan
    belief = jax.tree.map(lambda x: x[0], policy.belief)
    return _imagined(agent, belief, agent.program.spaces.in_blocks(policy.plan.actions[0]))


def imagine(agent: Any, inputs: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Return the latents `[S, n+1, D]` that given actions `[n * block, ...]` are expected to lead to, n model steps.

    `inputs` is what the model sees where it begins, of `model_inputs`.
    """
    belief = agent.components.encode(agent.learner.training.params, jnp.asarray(inputs))
    return _imagined(agent, belief, agent.program.spaces.in_blocks(jnp.asarray(actions)))


def model_inputs(agent: Any, episode: Episode) -> np.ndarray:
    """Return what the model sees at every step of an episode, `[T+1, ...]`: observations, or histories of them."""
    count = len(episode.actions)
    taken = np.asarray(agent.program.recorded(jnp.asarray(episode.actions)))
    taken = np.concatenate([taken, np.zeros_like(taken[:1])])
    nothing = np.zeros(count + 1)
    seen = gym_spaces.centred(episode.observations, agent.learner.origin)
    about = Dataset(seen, taken, nothing, nothing > 0, np.array([count]), About(agent.env_id or ""))
    return agent.components.history.dataset(about, taken)


def _imagined(agent: Any, belief: Any, blocks: jax.Array) -> np.ndarray:
    states = agent.program.imagine(agent.params, belief, blocks[None])
    return _latents(jax.tree.map(lambda x: x[0], states))


def _latents(states: Any) -> np.ndarray:
    """States of a plan as latents `[S, H+1, D]`; a problem that weighs risk carries all of its futures along."""
    latent = np.asarray(getattr(states, "states", states).latent)
    return np.moveaxis(latent, 1, 0) if latent.ndim == 3 else latent[None]


def _distances(agent: Any, episode: Episode) -> np.ndarray:
    """Distances `[T+1]` to the goal."""
    latents, goal = agent.learner.encode_observations(model_inputs(agent, episode)), agent.params["cost"]["goal"]
    measure = partial(agent.components.distance.measure, agent.learner.distance)
    return np.asarray(jax.jit(jax.vmap(lambda z: measure(z, goal)))(latents))


def _bytes(frame: np.ndarray) -> np.ndarray:
    """A frame as bytes, where it was drawn in numbers from 0 to 1."""
    return frame if frame.dtype == np.uint8 else (255 * np.clip(frame, 0.0, 1.0)).astype(np.uint8)
