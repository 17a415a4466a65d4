"""Mode 1 for rewards: an actor and a critic learnt in imagination.

The planner begins from the actor's actions and counts the critic's cost to go after its horizon. Both learn on futures that
the world model imagines from experienced states, the actor acting in closed loop. For the stage cost c and the discounted
probability d[k] that the episode has not terminated after k steps, along one such future

    G[k] = c[k+1] + (d[k+1] / d[k]) ((1 - λ) V(z[k+1]) + λ G[k+1]),        G[K] = V(z[K])

Two critics regress `V(z[k])` onto G[k], and V is the higher of the two; the actor descends the gradient of G[0] through the
imagined dynamics (λ-returns: Sutton & Barto 2018, ch. 12; learning in imagination: Hafner et al. 2020).

The deployed actor is replaced by a running average of the actor only if the model imagines that to cost less, over many
steps and without the critic.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mpc.agent.actor.distillation import imitation
from mpc.spaces import Space
from world_models import data
from world_models.base import LatentState
from world_models.networks import MLP, functional

PyTree = Any
Array = jax.Array
CRITICS = 2  # the higher cost counts: planner and actor seek out what one of them underrates (Fujimoto et al. 2018)


class ActorCriticState(NamedTuple):
    """Networks, averages and optimiser of the actor and the critic."""

    actor: PyTree
    critic: PyTree
    actor_ema: PyTree
    """Running average of the actor: from one update to the next, policies alternate between good and bad."""
    deployed_actor: PyTree
    """The better of the actor deployed before and the running average, by what the model imagines of both."""
    target: PyTree
    """Running average of the critic, which returns are bootstrapped from and plans end in."""
    optimizer: PyTree
    key: Array


class Imagination(NamedTuple):
    """The imagined world that actor and critic learn in.

    `dynamics(params, state, action) -> state`, the action as `space.embed` gives it. `step_cost(params, state, action, next
    state) -> scalar`, discounted. `value_floor(params) -> scalar`, the least cost to go possible. `encode(params,
    observation) -> state`. `space`: of actions. `latent`: size D of a latent.
    """

    dynamics: Callable[[PyTree, LatentState, Array], LatentState]
    step_cost: Callable[[PyTree, LatentState, Array, LatentState], Array]
    value_floor: Callable[[PyTree], Array]
    encode: Callable[[PyTree, Array], LatentState]
    space: Space
    latent: int


class Hyperparameters(NamedTuple):
    """Hyperparameters of the actor and the critic.

    `hidden`: units of both networks' two hidden layers. `steps`: K, imagined per future. `batch`: futures per gradient step,
    half of them from shortly before a termination once there has been one. `updates`: gradient steps per `fit`. `trace`: λ
    of the returns; higher values look further ahead and trust the critic less. `critic_averaging`, `actor_averaging`: share
    of the running averages kept at each step. `trial`: steps imagined to tell which of two actors is better.
    `learning_rate`: of Adam.
    """

    hidden: int = 64
    steps: int = 15
    batch: int = 32
    updates: int = 100
    trace: float = 0.9
    critic_averaging: float = 0.98
    actor_averaging: float = 0.998
    trial: int = 100
    learning_rate: float = 1e-3


class ActorCritic(NamedTuple):
    """Compiled functions of an actor and a critic.

    `init(key) -> state`; `act(actor, latent) -> variables`; `value(params, critic, latent) -> cost to go`, not below
    `value_floor`; `fit(state, params, buffer) -> (state, metrics)`, a fixed number of gradient steps; `deploy(state, params,
    buffer) -> state`, with the better actor deployed; `imitate(state, latents [N, D], actions [N, A]) -> (state, metrics)`,
    the actor regressed onto actions (`distillation.imitation`).
    """

    init: Callable[[Array], ActorCriticState]
    act: Callable[[PyTree, Array], Array]
    value: Callable[[PyTree, PyTree, Array], Array]
    fit: Callable[..., tuple[ActorCriticState, dict[str, Array]]]
    deploy: Callable[[ActorCriticState, PyTree, data.TrajectoryBuffer], ActorCriticState]
    imitate: Callable[[ActorCriticState, Array, Array], tuple[ActorCriticState, dict[str, Array]]]


class _Learner(NamedTuple):
    """Everything that the functions below share."""

    world: Imagination
    how: Hyperparameters
    new_actor: Callable[[Array], PyTree]
    new_critic: Callable[[Array], PyTree]
    actor_of: Callable[[PyTree], Callable[[Array], Array]]
    critic_of: Callable[[PyTree], Callable[[Array], Array]]
    optimizer: optax.GradientTransformation


def actor_critic(world: Imagination, how: Hyperparameters | None = None) -> ActorCritic:
    """Make an actor and a critic that learn in an imagined world.

    Example:
        >>> state, metrics = made.fit(made.init(key), params, buffer)  # doctest: +SKIP
        >>> variables = made.act(state.deployed_actor, latent)  # doctest: +SKIP
    """
    how = Hyperparameters() if how is None else how
    sizes, size = (world.latent, how.hidden, how.hidden), world.space.size
    # beginning as a constant 0: no preference, and no cost to come
    actor = functional(lambda rngs: MLP((*sizes, size), last_scale=0.0, rngs=rngs))
    critic = functional(lambda rngs: MLP((*sizes, 1), members=CRITICS, last_scale=0.0, rngs=rngs))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(how.learning_rate))
    learner = _Learner(world, how, actor[0], critic[0], actor[1], critic[1], optimizer)
    regress = imitation(lambda weights, latents: learner.actor_of(weights)(latents), world.space)

    def imitate(state: ActorCriticState, latents: Array, actions: Array):
        key, draw = jax.random.split(state.key)
        weights, metrics = regress(state.deployed_actor, draw, latents, actions)
        actor_ema, deployed = jax.tree.map(jnp.copy, (weights, weights))
        return state._replace(actor=weights, actor_ema=actor_ema, deployed_actor=deployed, key=key), metrics

    return ActorCritic(
        jax.jit(partial(_init, learner)),
        partial(_act, learner),
        partial(_value, learner),
        jax.jit(partial(_fit, learner), donate_argnums=0),
        jax.jit(partial(_deploy, learner)),
        imitate,
    )


def _init(learner: _Learner, key: Array) -> ActorCriticState:
    key, for_actor, for_critic = jax.random.split(key, 3)
    actor, critic = learner.new_actor(for_actor), learner.new_critic(for_critic)
    actor_ema, deployed, target = jax.tree.map(jnp.copy, (actor, actor, critic))
    optimizer = learner.optimizer.init(actor), learner.optimizer.init(critic)
    return ActorCriticState(actor, critic, actor_ema, deployed, target, optimizer, key)


def _act(learner: _Learner, actor: PyTree, latent: Array) -> Array:
    return learner.world.space.project(jnp.tanh(learner.actor_of(actor)(latent)))


def _critics(learner: _Learner, critic: PyTree, latent: Array) -> Array:
    """Every critic's cost to go, `[CRITICS, ...]`."""
    rows = jnp.broadcast_to(latent.reshape(-1, latent.shape[-1]), (CRITICS, latent[..., 0].size, latent.shape[-1]))
    return learner.critic_of(critic)(rows)[..., 0].reshape(CRITICS, *latent.shape[:-1])


def _value(learner: _Learner, params: PyTree, critic: PyTree, latent: Array) -> Array:
    return jnp.maximum(_critics(learner, critic, latent).max(axis=0), learner.world.value_floor(params))


def _executed(space: Space, variables: Array) -> Array:
    """Return the action that would be executed, with the gradient of its relaxation (straight-through: Bengio et al.
    2013)."""
    relaxed = space.relax(variables)
    return relaxed if space.exact else relaxed + jax.lax.stop_gradient(space.embed(space.decide(variables)) - relaxed)


def _imagine(learner: _Learner, actor: PyTree, params: PyTree, start: LatentState, steps: int) -> tuple[LatentState, Array]:
    """The states `[K, B, ...]` that the actor leads to, and the costs `[K, B]` of the steps."""
    world = learner.world

    def one(state: LatentState) -> tuple[LatentState, Array]:
        action = _executed(world.space, _act(learner, actor, state.latent))
        later = world.dynamics(params, state, action)
        return later, world.step_cost(params, state, action, later)

    def advance(state: LatentState, _: None):
        later, costs = jax.vmap(one)(state)
        return later, (later, costs)

    return jax.lax.scan(advance, start, None, length=steps)[1]


def lambda_returns(costs: Array, ratios: Array, values: Array, trace: float) -> Array:
    """Return `G[k] = c[k] + r[k] ((1 - λ) v[k] + λ G[k+1])`, `[K, ...]`, with `G[K] = v[K-1]`.

    c are the costs of the steps, r their discounts, and v the costs to go after them, all `[K, ...]`; λ is `trace`.
    """

    def back(after: Array, step: tuple[Array, Array, Array]):
        cost, ratio, value = step
        total = cost + ratio * ((1 - trace) * value + trace * after)
        return total, total

    return jax.lax.scan(back, values[-1], (costs, ratios, values), reverse=True)[1]


def _actor_loss(learner: _Learner, actor: PyTree, state: ActorCriticState, params: PyTree, start: LatentState):
    later, costs = _imagine(learner, actor, params, start, learner.how.steps)
    discount = jnp.concatenate([start.discount[None], later.discount])
    before = jnp.maximum(discount[:-1], 1e-6)
    values = _value(learner, params, state.target, later.latent)
    returns = lambda_returns(costs / before, later.discount / before, values, learner.how.trace)
    return returns[0].mean(), (returns, later.latent, discount)


def _update(learner: _Learner, state: ActorCriticState, params: PyTree, start: LatentState):
    """One gradient step of the actor and of the critic."""
    how, optimizer = learner.how, learner.optimizer
    gradient = jax.value_and_grad(partial(_actor_loss, learner), has_aux=True)
    (loss, (returns, latents, discount)), actor_slopes = gradient(state.actor, state, params, start)
    inputs = jnp.concatenate([start.latent[None], latents[:-1]])
    weight = jax.lax.stop_gradient(discount[:-1])

    def critic_loss(critic: PyTree) -> Array:
        return (weight * jnp.square(_critics(learner, critic, inputs) - returns)).sum() / weight.sum()

    error, critic_slopes = jax.value_and_grad(critic_loss)(state.critic)
    moves, actor_moments = optimizer.update(actor_slopes, state.optimizer[0], state.actor)
    actor = optax.apply_updates(state.actor, moves)
    moves, critic_moments = optimizer.update(critic_slopes, state.optimizer[1], state.critic)
    critic = optax.apply_updates(state.critic, moves)
    later = state._replace(
        actor=actor,
        critic=critic,
        actor_ema=optax.incremental_update(actor, state.actor_ema, 1 - how.actor_averaging),
        target=optax.incremental_update(critic, state.target, 1 - how.critic_averaging),
        optimizer=(actor_moments, critic_moments),
    )
    return later, {"actor": loss, "critic": error}


def _starts(learner: _Learner, buffer: data.TrajectoryBuffer, params: PyTree, key: Array) -> LatentState:
    """States to imagine from: half of them uniform, half from shortly before terminations, which are rare."""
    uniform, near_termination = jax.random.split(key)
    batch, steps = learner.how.batch, learner.how.steps
    observations = data.sample(buffer, uniform, batch - batch // 2, 1).observations[:, 0]
    last = data.before_terminations(buffer, near_termination, batch // 2, 2 * steps)
    return jax.vmap(lambda o: learner.world.encode(params, o))(jnp.concatenate([observations, last]))


def _deploy(learner: _Learner, state: ActorCriticState, params: PyTree, buffer: data.TrajectoryBuffer) -> ActorCriticState:
    key, draw = jax.random.split(state.key)
    start = _starts(learner, buffer, params, draw)
    both = jax.tree.map(lambda *x: jnp.stack(x), state.deployed_actor, state.actor_ema)

    def total(actor: PyTree) -> Array:
        return _imagine(learner, actor, params, start, learner.how.trial)[1].sum(axis=0).mean()

    best = jnp.nanargmin(jax.vmap(total)(both))
    return state._replace(deployed_actor=jax.tree.map(lambda x: x[best], both), key=key)


def _fit(learner: _Learner, state: ActorCriticState, params: PyTree, buffer: data.TrajectoryBuffer):
    updates = learner.how.updates
    key, draw = jax.random.split(state.key)

    def one(state: ActorCriticState, key: Array):
        return _update(learner, state, params, _starts(learner, buffer, params, key))

    state, metrics = jax.lax.scan(one, state, jax.random.split(draw, updates))
    return state._replace(key=key), jax.tree.map(lambda m: m[-updates // 4 :].mean(), metrics)
