"""Mode 1: an actor and a critic learnt in imagination, for the planner to begin from and to see beyond its horizon with.

Both practise on futures that the world model imagines from remembered states, the actor acting in closed loop. For the
stage cost c and the probability d[k] of being alive k steps on (times the discount so far), along one such future

    G[k] = c[k+1] + (d[k+1] / d[k]) ((1 - λ) V(z[k+1]) + λ G[k+1]),        G[K] = V(z[K])

Two critics regress `V(z[k])` onto G[k], and V is the higher of the two; the actor descends the gradient of G[0] through the
imagined dynamics (λ-returns: Sutton & Barto 2018, ch. 12; learning in imagination: Hafner et al. 2020).

Who acts is chosen: a running average of the actor takes over only where the model imagines it to cost less, over many steps
and without the critic, than who has been acting.
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
from world_models.base import Imagined
from world_models.networks import MLP, functional

PyTree = Any
CRITICS = 2  # the more pessimistic counts: planner and actor seek out what one overrates (Fujimoto et al. 2018)


class ActorCriticState(NamedTuple):
    """What the actor and the critic have learnt so far."""

    actor: PyTree
    critic: PyTree
    actor_ema: PyTree
    """A running average of the actor: from one update to the next policies swing between good and bad."""
    deployed_actor: PyTree
    """The better of what acted before and the running average, by what the model imagines of both."""
    target: PyTree
    """A running average of the critic, which returns are bootstrapped from and plans end in."""
    optimizer: PyTree
    key: jax.Array


class ActorCritic(NamedTuple):
    """`init(key) -> ActorCriticState`; `act(actor, latent) -> variables`; `value(params, critic, latent) -> cost to go`,
    floored by
    `least`; `fit(practice, params, buffer) -> (practice, metrics)`, a fixed number of gradient steps;
    `choose(practice, params, buffer) -> practice`, who is to act from now on; and
    `imitate(practice, latents [N, D], shown [N, A]) -> (practice, metrics)`: the actor regressed onto what others did, as
    networks see actions, see `reacting.imitation`.
    """

    init: Callable[[jax.Array], ActorCriticState]
    act: Callable[[PyTree, jax.Array], jax.Array]
    value: Callable[[PyTree, PyTree, jax.Array], jax.Array]
    fit: Callable[..., tuple[ActorCriticState, dict[str, jax.Array]]]
    choose: Callable[[ActorCriticState, PyTree, data.TrajectoryBuffer], ActorCriticState]
    imitate: Callable[[ActorCriticState, jax.Array, jax.Array], tuple[ActorCriticState, dict[str, jax.Array]]]


def actor_critic(
    dynamics: Callable[[PyTree, Imagined, jax.Array], Imagined],
    step_cost: Callable[[PyTree, Imagined, jax.Array, Imagined], jax.Array],
    least: Callable[[PyTree], jax.Array],
    encode: Callable[[PyTree, jax.Array], Imagined],
    space: Space,
    latent: int,
    *,
    hidden: int = 64,
    steps: int = 15,
    batch: int = 32,
    updates: int = 100,
    trace: float = 0.9,
    averaging: float = 0.98,
    steadiness: float = 0.998,
    trial: int = 100,
    learning_rate: float = 1e-3,
) -> ActorCritic:
    """Make the practice of an actor and a critic in what a world model imagines.

    Args:
        dynamics: `(params, state, action) -> next state`, the action as `space.embed` shows it.
        step_cost: `(params, state, action, next state) -> scalar`, weighted by the odds of being alive.
        least: `params -> scalar`: no cost to go is less than that; `-inf` where nothing is known.
        encode: `(params, observation) -> state`.
        space: Of actions.
        latent: Size D of a latent.
        hidden: Units of both networks' two hidden layers.
        steps: Imagined ahead per future, K.
        batch: Futures per gradient step; half of them begin shortly before a termination, once there has been one.
        updates: Gradient steps per `fit`.
        trace: λ of the returns; higher values look further along the imagined future and trust the critic less.
        averaging: Share of the critic's running average kept at each step.
        steadiness: The same for the actor.
        trial: Steps imagined ahead to tell which of two actors is better.
        learning_rate: Of Adam, for both.

    Example:
        >>> practice, metrics = minds.fit(minds.init(key), params, buffer)  # doctest: +SKIP
        >>> variables = minds.act(practice.steady, latent)  # doctest: +SKIP
    """

    # beginning as a constant 0: no preference, and no cost to come
    new_actor, actor_of = functional(lambda rngs: MLP((latent, hidden, hidden, space.size), last_scale=0.0, rngs=rngs))
    new_critic, critic_of = functional(
        lambda rngs: MLP((latent, hidden, hidden, 1), members=CRITICS, last_scale=0.0, rngs=rngs)
    )

    def act(actor: PyTree, latent: jax.Array) -> jax.Array:
        return space.project(jnp.tanh(actor_of(actor)(latent)))

    def guesses(critic: PyTree, latent: jax.Array) -> jax.Array:
        rows = jnp.broadcast_to(latent.reshape(-1, latent.shape[-1]), (CRITICS, latent[..., 0].size, latent.shape[-1]))
        return critic_of(critic)(rows)[..., 0].reshape(CRITICS, *latent.shape[:-1])

    def value(params: PyTree, critic: PyTree, latent: jax.Array) -> jax.Array:
        return jnp.maximum(guesses(critic, latent).max(axis=0), least(params))

    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(learning_rate))

    def init(key: jax.Array) -> ActorCriticState:
        key, for_actor, for_critic = jax.random.split(key, 3)
        actor, critic = new_actor(for_actor), new_critic(for_critic)
        actor_ema, deployed_actor, target = jax.tree.map(jnp.copy, (actor, actor, critic))
        return ActorCriticState(
            actor, critic, actor_ema, deployed_actor, target, (optimizer.init(actor), optimizer.init(critic)), key
        )

    def acted(variables: jax.Array) -> jax.Array:
        """What would be executed, with the gradient of its relaxation (straight-through: Bengio et al. 2013)."""
        relaxed = space.relax(variables)
        return relaxed if space.exact else relaxed + jax.lax.stop_gradient(space.embed(space.decide(variables)) - relaxed)

    def imagine(actor: PyTree, params: PyTree, start: Imagined, steps: int = steps):
        def one(state: Imagined) -> tuple[Imagined, jax.Array]:
            action = acted(act(actor, state.latent))
            later = dynamics(params, state, action)
            return later, step_cost(params, state, action, later)

        def advance(state: Imagined, _: None):
            later, costs = jax.vmap(one)(state)
            return later, (later, costs)

        return jax.lax.scan(advance, start, None, length=steps)[1]  # [K, B, ...]

    def update(practice: ActorCriticState, params: PyTree, start: Imagined):
        def actor_loss(actor: PyTree):
            later, costs = imagine(actor, params, start)
            discount = jnp.concatenate([start.discount[None], later.discount])
            each = costs / jnp.maximum(discount[:-1], 1e-6)
            ratio = later.discount / jnp.maximum(discount[:-1], 1e-6)
            values = value(params, practice.target, later.latent)

            def back(after: jax.Array, step):
                c, r, v = step
                total = c + r * ((1 - trace) * v + trace * after)
                return total, total

            _, returns = jax.lax.scan(back, values[-1], (each, ratio, values), reverse=True)  # [K, B]
            return returns[0].mean(), (returns, later.latent, discount)

        (loss, (returns, latents, discount)), slopes = jax.value_and_grad(actor_loss, has_aux=True)(practice.actor)
        inputs = jnp.concatenate([start.latent[None], latents[:-1]])
        weight = jax.lax.stop_gradient(discount[:-1])

        def critic_loss(critic: PyTree):
            return (weight * jnp.square(guesses(critic, inputs) - returns)).sum() / weight.sum()

        miss, critic_slopes = jax.value_and_grad(critic_loss)(practice.critic)
        moves, state_a = optimizer.update(slopes, practice.optimizer[0], practice.actor)
        actor = optax.apply_updates(practice.actor, moves)
        moves, state_c = optimizer.update(critic_slopes, practice.optimizer[1], practice.critic)
        critic = optax.apply_updates(practice.critic, moves)
        target = optax.incremental_update(critic, practice.target, 1 - averaging)
        actor_ema = optax.incremental_update(actor, practice.actor_ema, 1 - steadiness)
        moments = (state_a, state_c)
        metrics = {"actor": loss, "critic": miss}
        return practice._replace(actor=actor, critic=critic, actor_ema=actor_ema, target=target, optimizer=moments), metrics

    def drawn(buffer: data.TrajectoryBuffer, params: PyTree, key: jax.Array) -> Imagined:
        usual, near_termination = jax.random.split(key)
        seen = data.sample(buffer, usual, batch - batch // 2, 1).observations[:, 0]
        # falling is rare, and only from just before a fall can it be learnt how not to
        seen = jnp.concatenate([seen, data.before_terminations(buffer, near_termination, batch // 2, 2 * steps)])
        return jax.vmap(lambda o: encode(params, o))(seen)

    @jax.jit
    def choose(practice: ActorCriticState, params: PyTree, buffer: data.TrajectoryBuffer) -> ActorCriticState:
        key, draw = jax.random.split(practice.key)
        start = drawn(buffer, params, draw)
        both = jax.tree.map(lambda *x: jnp.stack(x), practice.deployed_actor, practice.actor_ema)

        def total(actor: PyTree) -> jax.Array:
            return imagine(actor, params, start, trial)[1].sum(axis=0).mean()  # without a critic, who may have just begun

        best = jnp.nanargmin(jax.vmap(total)(both))
        return practice._replace(deployed_actor=jax.tree.map(lambda x: x[best], both), key=key)

    @partial(jax.jit, donate_argnums=0)
    def fit(practice: ActorCriticState, params: PyTree, buffer: data.TrajectoryBuffer):
        key, draw = jax.random.split(practice.key)

        def one(practice: ActorCriticState, key: jax.Array):
            return update(practice, params, drawn(buffer, params, key))

        practice, metrics = jax.lax.scan(one, practice, jax.random.split(draw, updates))
        return practice._replace(key=key), jax.tree.map(lambda m: m[-updates // 4 :].mean(), metrics)

    regress = imitation(lambda actor, latents: actor_of(actor)(latents), space)

    def imitate(practice: ActorCriticState, latents: jax.Array, shown: jax.Array):
        key, draw = jax.random.split(practice.key)
        actor, metrics = regress(practice.deployed_actor, draw, latents, shown)
        actor_ema, deployed_actor = jax.tree.map(jnp.copy, (actor, actor))
        return practice._replace(actor=actor, actor_ema=actor_ema, deployed_actor=deployed_actor, key=key), metrics

    return ActorCritic(jax.jit(init), act, value, fit, choose, imitate)
