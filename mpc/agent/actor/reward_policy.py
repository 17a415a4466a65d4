"""How an agent acts: its policy as pure functions, and the compiled decisions for many environments at once."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mpc
from mpc import controller as loops
from mpc.agent.actor import distillation
from mpc.agent.actor.actor_critic import ActorCritic
from mpc.agent.config import Settings
from mpc.agent.cost import reward
from mpc.agent.cost.reward import Cost, as_seen
from mpc.planners.multistart import propose
from mpc.policy import skip
from mpc.spaces import Space
from world_models.base import Imagined, WorldModel, initial_state

PyTree = Any


def policy(model: WorldModel, space: Space, settings: Settings, actor_critic: ActorCritic, known: Cost | None) -> mpc.Policy:
    """Plan in a world model, from the last plan and from what the actor would do.

    Args:
        model: Predicts.
        space: Of actions.
        settings: Of the planner.
        minds: The actor that proposes a start, and the critic that plans end in.
        known: Known stage cost, or None for the learnt reward.
    """
    plan = reward.planner(model, space, settings, actor_critic, known)
    wide = reward.planner(model, space, replace(settings, starts=settings.first_starts), actor_critic, known)

    def act(params: PyTree, state: Imagined) -> jax.Array:
        return actor_critic.act(params["actor"], state.latent)

    def begin(params: PyTree, state: Imagined, key: jax.Array) -> loops.ControllerState:
        # an episode's first decision searches widely for the basin that later ones stay in
        found = mpc.solve(wide, params, state, key, settings.first_iterations)
        return loops.begin(plan, params, state, key, found.actions)

    def decide(params: PyTree, state: Imagined, loop: loops.ControllerState):
        loop = loop._replace(planner=propose(loop.planner, distillation.react(plan.problem, act, params, state)))
        return loops.decide(plan, params, state, loop, settings.iterations)

    def advance(params: PyTree, state: Imagined, action: jax.Array) -> Imagined:
        # what is lost or doubted before the plan begins is none of its doing
        return initial_state(plan.problem.dynamics(params, state, space.embed(action)).latent)

    def react(params: PyTree, state: Imagined) -> jax.Array:
        return space.decide(act(params, state))

    return mpc.Policy(plan, lambda params, seen: model.encode(params["model"], seen), begin, decide, advance, react)


class Decider:
    """A policy over batches of observations, compiled; everything here but the compiled code is in its arguments.

    Args:
        policy: Of one environment.
        noise: Of `perturbed`: deviation in planner variables; of choices, the share made at random.
    """

    def __init__(self, policy: mpc.Policy, noise: float):
        self.space, self.horizon = policy.planner.problem.action_space, policy.planner.problem.horizon
        self._noise = noise

        def first(params: PyTree, observation: jax.Array, key: jax.Array) -> loops.ControllerState:
            return policy.begin(params, policy.observe(params, observation), key)

        def brief(params: PyTree, observation: jax.Array, key: jax.Array) -> loops.ControllerState:
            return loops.begin(policy.planner, params, policy.observe(params, observation), key)

        def later(params: PyTree, observation: jax.Array, loop: loops.ControllerState):
            loop, _, action = policy.decide(params, policy.observe(params, observation), loop)
            return loop, action

        def react(params: PyTree, observation: jax.Array) -> jax.Array:
            assert policy.react is not None
            return policy.react(params, policy.observe(params, observation))

        def imagined(params: PyTree, observation: jax.Array, actions: jax.Array):
            start = policy.observe(params, observation)
            return jax.vmap(lambda a: mpc.rollout(policy.planner.problem, params, start, a).states)(actions)

        self._first = jax.jit(jax.vmap(first, in_axes=(None, 0, 0)))
        self._brief = jax.jit(jax.vmap(brief, in_axes=(None, 0, 0)))
        self._later = jax.jit(jax.vmap(later, in_axes=(None, 0, 0)))
        self._skip = jax.jit(jax.vmap(partial(skip, policy.planner)))
        self.react = jax.jit(jax.vmap(react, in_axes=(None, 0)))
        """`(params, rows [B, O]) -> actions [B, ...]`, without planning; of the parameters, `"model"` and `"actor"`."""
        self.choose = jax.jit(lambda mask, a, b: jax.tree.map(partial(_where, mask), a, b))
        """`(mask [B], a, b) -> a` where the mask is set, else `b`, for trees of `[B, ...]`."""
        self._perturb = jax.jit(self._perturbed)
        self._shown = jax.jit(jax.vmap(lambda a: as_seen(self.space, self.space.embed(a))))
        self.imagined = jax.jit(imagined)
        """`(params, observation [O], actions [S, H, ...]) -> what they would lead to, [S, H+1, ...]`."""

    def decide(
        self,
        params: PyTree,
        rows: np.ndarray,
        loop: loops.ControllerState | None,
        starts: np.ndarray | None,
        seed: int,
        *,
        behind: np.ndarray | None = None,
        widely: bool = True,
    ) -> tuple[jax.Array, loops.ControllerState]:
        """Actions `[B, ...]`, and the plans to begin the next decision with.

        Args:
            params: Of the policy.
            rows: `[B, O]` observations.
            loop: As the last call returned it; None plans from scratch.
            starts: `[B]`, where to plan from scratch all the same; None for nowhere.
            seed: Of plans from scratch, which depend on nothing else: the same call gives the same actions.
            behind: `[B]`, decisions that were made without the plans in `loop` since; None for none.
            widely: Whether plans from scratch search widely first, which takes several times longer.
        """
        anew = np.zeros(len(rows), bool) if starts is None else starts
        if loop is not None and behind is not None and behind.any():
            anew = anew | (behind >= self.horizon)  # nothing is left of such plans
            loop = self._skip(loop, np.minimum(behind, self.horizon))
        if loop is None or anew.any():
            begin = self._first if widely else self._brief
            fresh = begin(params, rows, jax.random.split(jax.random.key(seed), len(rows)))
            loop = fresh if loop is None else self.choose(anew, fresh, loop)
        after, actions = self._later(params, rows, loop)
        return actions, after

    def perturbed(self, actions: jax.Array, key: jax.Array) -> jax.Array:
        """Actions with noise, as good as them to explore with."""
        return self._perturb(actions, key)

    def shown(self, actions: Any) -> np.ndarray:
        """Actions `[B, ...]` as networks see them, `[B, size]`."""
        return np.asarray(self._shown(actions))

    def _perturbed(self, actions: jax.Array, key: jax.Array) -> jax.Array:
        variables = jax.vmap(self.space.encode)(actions)
        if self.space.exact:
            variables += self._noise * jax.random.normal(key, variables.shape)
        else:  # no small change turns one choice into another
            draw, whether = jax.random.split(key)
            other = jax.random.uniform(draw, variables.shape, minval=-1.0)
            variables = jnp.where(jax.random.bernoulli(whether, self._noise, (len(actions), 1)), other, variables)
        return jax.vmap(self.space.decide)(self.space.project(variables))


def _where(mask: Any, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - 1)), a, b)
