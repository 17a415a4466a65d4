"""What the agent wants: the cost of imagined futures, the planner that minimises it, the actor and critic that learn it.

By-products of a step are read off the state it leads to, so that `Σ_{t=0}^{H-1} cost + terminal_cost` counts each once.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import mpc
from mpc.agent.actor.actor_critic import ActorCritic, actor_critic
from mpc.agent.config import Settings
from mpc.spaces import Space
from world_models.base import Imagined, WorldModel

PyTree = Any
Cost = Callable[..., jax.Array]


def as_seen(space: Any, action: jax.Array) -> jax.Array:
    """An action as networks like it, `[size]`: continuous ones scaled to `[-1, 1]`, choices as points on a simplex."""
    return space.encode(action) if space.exact else action


def _missed(params: PyTree, state: Imagined, *_: Any) -> jax.Array:
    return -params["cost"]["reward"] * state.reward


def _disagreement(params: PyTree, state: Imagined, *_: Any) -> jax.Array:
    return params["cost"]["disagreement"] * state.disagreement


def _dynamics(model: WorldModel, space: Space) -> Callable[[PyTree, Imagined, jax.Array], Imagined]:
    return lambda params, state, action: model.predict(params["model"], state, as_seen(space, action))


def actor_and_critic(
    model: WorldModel, shape: tuple[int, ...], space: Space, settings: Settings, known: Cost | None = None
) -> ActorCritic:
    """An actor and a critic for the learnt reward or a known stage cost, doubt included.

    Args:
        model: Predicts.
        shape: Of what the model takes for an observation.
        space: Of actions.
        settings: Sizes, and how much to practise.
        known: Known stage cost, or None for the learnt reward.
    """

    def cost(params: PyTree, state: Imagined, action: jax.Array, later: Imagined) -> jax.Array:
        step = _missed(params, later) if known is None else state.discount * known(params, state, action, 0)
        return step + _disagreement(params, later)

    def least(params: PyTree) -> jax.Array:
        scales = params["model"].get("scales")
        if known is not None or scales is None:
            return jnp.asarray(-jnp.inf)
        # no future is better than the best reward seen, at every step; an end may come before a bad one
        return -jnp.maximum(scales.reward_best, 0.0) / scales.reward_std / max(1.0 - settings.discount, 1e-3)

    def encode(params: PyTree, observation: jax.Array) -> Imagined:
        return model.encode(params["model"], observation)

    latent = jax.eval_shape(lambda: model.encode(model.init(jax.random.key(0)), jnp.zeros(shape))).latent.shape[0]
    return actor_critic(
        _dynamics(model, space),
        cost,
        least,
        encode,
        space,
        latent,
        hidden=settings.hidden,
        steps=settings.imagination_horizon,
        updates=settings.spent(settings.actor_critic_updates),
    )


def planner(
    model: WorldModel, space: Space, settings: Settings, actor_critic: ActorCritic, known: Cost | None = None
) -> mpc.Planner:
    """A planner through a world model, for the learnt reward or a known cost, with the critic at its horizon.

    Args:
        model: Predicts.
        space: Of actions.
        settings: Which planner, horizon, starts, step size.
        minds: Whose critic says what comes after the horizon.
        known: Known stage cost, or None for the learnt reward.

    Raises:
        ValueError: If there is no such planner.
    """
    if settings.planner not in PLANNERS:
        raise ValueError(f"planner must be one of {', '.join(PLANNERS)}; got {settings.planner!r}")

    def beyond(params: PyTree, state: Imagined) -> jax.Array:
        return params["cost"]["reward"] * state.discount * actor_critic.value(params, params["critic"], state.latent)

    terms: dict[str, tuple[float, Cost]] = {"disagreement": (1.0, _disagreement)}
    if known is None:
        terms["reward"] = (1.0, _missed)
        stage = mpc.costs.total(**terms)
    else:
        stage = mpc.costs.total(cost=(1.0, lambda p, s, a, t: s.discount * known(p, s, a, t)), **terms)
    terminal = mpc.costs.total(critic=(1.0, beyond), **terms)
    problem = mpc.Problem(_dynamics(model, space), stage, terminal, horizon=settings.horizon, action_space=space)
    return PLANNERS[settings.planner](problem, settings)


def _by_gradient(problem: mpc.Problem, s: Settings) -> mpc.Planner:
    return mpc.gradient(problem, optimizer=optax.adam(s.step_size), starts=s.starts, spread=s.spread)


def _by_sampling(problem: mpc.Problem, s: Settings) -> mpc.Planner:
    # to imagine a future costs a third of its gradient, and many at once less than that
    return mpc.cem(problem, samples=4 * s.starts, elites=max(s.starts // 2, 2), spread=s.spread)


PLANNERS: dict[str, Callable[[mpc.Problem, Settings], mpc.Planner]] = {"gradient": _by_gradient, "cem": _by_sampling}
"""What `Settings.planner` may be."""
