"""A policy over batches of observations, compiled."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mpc
from mpc.agent.actor.policy import AgentPolicy, PolicyState, as_policy
from mpc.planners.base import tree_where
from world_models.base import LatentState

PyTree = Any


class Program:
    """The compiled functions of one policy, for one observation or many side by side.

    `planner` is that of the lowest level. `noise` is that of `perturb`: standard deviation in planner variables; of choices,
    the share made at random.
    """

    def __init__(self, made: AgentPolicy, planner: mpc.Planner, noise: float) -> None:
        self.made, self.planner, self.problem, self.policy = made, planner, planner.problem, as_policy(made)
        self.spaces, self.every, self._noise = made.spaces, made.every, noise
        each = (None, 0, 0)
        self.init = jax.jit(jax.vmap(made.init, in_axes=each))
        """`(params, observations [B, ...], keys [B]) -> PolicyState`, with a wide search for an episode's first plan."""
        self.init_briefly = jax.jit(jax.vmap(partial(made.init, wide=False), in_axes=each))
        """The same without that search."""
        self.decide = jax.jit(jax.vmap(lambda p, o, s: made.decide(p, o, s), in_axes=each))
        self.hold = jax.jit(jax.vmap(made.hold, in_axes=each))
        self.react = None if made.react is None else jax.jit(jax.vmap(made.react, in_axes=each))
        self.choose = jax.jit(jax.vmap(tree_where))
        """`(mask [B], a, b) -> a` where the mask is set, else `b`."""
        self.perturb = jax.jit(self._perturb)
        self.executed = jax.jit(jax.vmap(_executed))
        """`(state, actions [B, ...]) -> PolicyState`, other actions being executed now than planned, such as noisy ones."""
        self.recorded = jax.jit(jax.vmap(made.spaces.recorded))
        """`actions [B, ...] -> [B, size]`, as the replay buffer stores them."""
        self.imagine = jax.jit(self._imagine)
        """`(params, belief, blocks [S, H, ...]) -> states [S, H+1, ...]`, what the blocks of actions would lead to."""

    def due(self, state: PolicyState) -> np.ndarray:
        """Return where a new decision is due, `[B]`."""
        return np.asarray(~state.begun | (state.age + 1 >= self.every))

    def actions(self, state: PolicyState) -> np.ndarray:
        """Return the actions to execute now, `[B, ...]`."""
        ages = np.asarray(state.age)
        return np.asarray(state.plan.actions)[np.arange(len(ages)), ages]

    def _perturb(self, actions: jax.Array, key: jax.Array) -> jax.Array:
        """Actions of the environment with noise."""
        space: Any = self.spaces.single
        variables = jax.vmap(space.encode)(actions)
        if space.exact:
            variables += self._noise * jax.random.normal(key, variables.shape)
        else:  # no small change turns one choice into another
            draw, whether = jax.random.split(key)
            other = jax.random.uniform(draw, variables.shape, minval=-1.0)
            variables = jnp.where(jax.random.bernoulli(whether, self._noise, (len(actions), 1)), other, variables)
        return jax.vmap(space.decide)(space.project(variables))

    def _imagine(self, params: PyTree, belief: LatentState, blocks: jax.Array) -> PyTree:
        shown = jax.vmap(self.problem.action_space.embed)(blocks)
        return jax.vmap(lambda a: mpc.rollout(self.problem, params, self.problem.lifted(params, belief), a).states)(shown)


def _executed(state: PolicyState, action: jax.Array) -> PolicyState:
    actions = state.plan.actions.at[state.age].set(jnp.asarray(action, state.plan.actions.dtype))
    return state._replace(plan=state.plan._replace(actions=actions))
