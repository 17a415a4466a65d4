"""Action spaces on both sides of the model: single actions of the environment, and blocks of them, one step of the model."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import mpc
from mpc.spaces import expanded


class ActionSpaces(NamedTuple):
    """`single`: of one action; `block`: of the actions of one model step, within the planner's limits; `whole`: of the same
    within the environment's bounds, by which the model's input is scaled. `count`: actions in a block; `normalised`: whether
    the model takes actions scaled to [-1, 1]. Made by `action_spaces`."""

    single: Any
    block: Any
    whole: Any
    count: int
    normalised: bool

    def to_model(self, action: jax.Array) -> jax.Array:
        """Return a block as the model takes it: `[size]` in [-1, 1], choices one-hot; or in the environment's units."""
        if not self.normalised or not self.single.exact:
            return action
        return self.whole.encode(action)

    def variables(self, action: jax.Array) -> jax.Array:
        """Return a block, as the planner's problem sees it, as planner variables `[size]`."""
        return self.block.encode(action) if self.single.exact else action.reshape(-1)

    def recorded(self, actions: jax.Array) -> jax.Array:
        """Return one action of the environment as replay buffers store it, `[size of a single action]`."""
        embedded = self.single.embed(actions)
        return self.single.encode(embedded) if self.single.exact else embedded

    def per_step(self, actions: jax.Array) -> jax.Array:
        """Return blocks `[H, ...]` as actions of the environment `[H * count, ...]`."""
        if self.count == 1:
            return actions
        return actions.reshape(-1, *self.single.shape)

    def in_blocks(self, actions: jax.Array) -> jax.Array:
        """Return actions of the environment `[H * count, ...]` as blocks `[H, ...]`."""
        if self.count == 1:
            return actions
        return actions.reshape(-1, *self.block.shape)

    def over_block(self, function: Callable[[jax.Array], jax.Array], action: jax.Array, reduce: Any = jnp.sum) -> jax.Array:
        """Return a function of single actions, reduced over the actions of a block (as the problem sees it)."""
        if self.count == 1:
            return function(action)
        return reduce(jax.vmap(function)(action.reshape(self.count, *self._shown)))

    @property
    def _shown(self) -> tuple[int, ...]:
        return self.single.shape if self.single.exact else (self.single.size,)


def action_spaces(single: Any, count: int, *, limit: float | None = None, normalised: bool = True) -> ActionSpaces:
    """Make the spaces of an agent.

    Args:
        single: Planner space of one action of the environment.
        count: Actions in one step of the model.
        limit: Planned continuous actions lie within plus or minus this; None for the environment's bounds.
        normalised: Whether the model takes actions scaled to [-1, 1].

    Raises:
        ValueError: If the limit leaves no action, or is given for choices.
    """
    inner: Any = single
    if limit is not None:
        if not isinstance(single, mpc.Box):
            raise ValueError(f"action_limit bounds continuous actions; the action space is {single}")
        if (single.low > limit).any() or (single.high < -limit).any():
            raise ValueError(f"action_limit={limit} leaves no action between {single.low} and {single.high}")
        inner = mpc.Box(np.maximum(single.low, -limit), np.minimum(single.high, limit), single.shape)
    if count == 1:
        return ActionSpaces(single, inner, single, 1, normalised)
    return ActionSpaces(single, expanded(inner, count), expanded(single, count), count, normalised)
