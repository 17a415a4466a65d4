"""A world model whose predictor takes a latent variable: for worlds whose future is not determined by what is done.

    ŝ[t+1] = f(s[t], a[t], z[t]),        E(s, a, z, s') = Σ_d (s'_d - f_d(s, a, z))² / 2σ_d²

z stands for whatever decides the next state and cannot be seen beforehand. While learning it is inferred from what came, by
minimising the energy E plus the price R of what it tells (`information`): a network proposes it, which learns to do so by
the same energy, and `infer_latent` goes on from the proposal by gradient. σ is the error that needs no explanation: with it,
energy and price are both in nats, and what is much larger than σ is worth telling. While planning z is drawn
(`mpc.risk.over_latents`, for the mean, CVaR or the worst of the draws), or inferred with the actions
(`mpc.risk.with_latents_as_actions`, optimism) or against them (`mpc.risk.against`, in turns with the planner).

States are the normalised observations: for vectors that say all there is to know, such as the latents of another model.

Sources: LeCun (2022), A path towards autonomous machine intelligence, section 4.2; Kingma, Welling (2014), arXiv:1312.6114;
going on from a proposal by gradient: Kim et al. (2018), Semi-amortized variational autoencoders, arXiv:1802.02550.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from world_models.base import WorldModel
from world_models.data import Moments
from world_models.losses import bottleneck
from world_models.losses.anticollapse import mean
from world_models.losses.bottleneck import LatentRegularizer
from world_models.networks import Identity, MLPPosterior, MLPPredictor, functional
from world_models.pixels import Batch, Latent, Metrics, chained, discounted, latent_world

PyTree = Any


class Networks(nnx.Module):
    """Predictor, and what proposes latent variables.

    Args:
        size: Of a state.
        action: Size of an action, all of a block together.
        latents: Size of the latent variable.
        numbers: Inferred per coordinate of it.
        predictor: `(latent, action, *, rngs) -> predictor`, the latent variable at the end of its action.
        explainer: `(latent, action, size, numbers, *, rngs) -> explainer`.
        prior: `(context, size, *, rngs) -> prior`, or None.
        rngs: Source of the initial weights.
    """

    def __init__(
        self,
        size: int,
        action: int,
        latents: int,
        numbers: int,
        predictor: Callable[..., Any],
        explainer: Callable[..., Any],
        prior: Callable[..., Any] | None,
        *,
        rngs: nnx.Rngs,
    ):
        self.encoder = Identity((size,), size, rngs=rngs)
        self.predictor = predictor(size, action + latents, rngs=rngs)
        self.explainer = explainer(size, action, latents, numbers, rngs=rngs)
        if prior is not None:
            known = context(jnp.zeros(size), self.predictor.begin(jnp.zeros(size)), jnp.zeros(action))
            self.prior = prior(len(known), latents, rngs=rngs)


def context(latent: Float[Array, "*batch size"], memory: PyTree, action: Float[Array, "*batch action"]) -> Array:
    """What a prior knows: a state, what the predictor remembers, and what is done."""
    return jnp.concatenate([latent, *jax.tree.leaves(memory), action], axis=-1)


def energy(error: Float[Array, "*batch size"], sigma: float | Sequence[float]) -> Float[Array, "*batch"]:
    """`Σ_d error_d² / 2σ_d²`, in nats: how surprising an error is, but for a constant.

    Args:
        error: Of a prediction.
        sigma: Deviation of errors that need no explanation; one for all numbers, or one for each.
    """
    return 0.5 * jnp.sum((error / jnp.asarray(sigma)) ** 2, axis=-1)


def latent_variable_model(
    size: int,
    action: int,
    *,
    latents: int,
    limit: LatentRegularizer | None = None,
    beta: float = 1.0,
    free_nats: float = 0.1,
    block: int = 1,
    normalised: bool = True,
    predictor: Callable[..., Any] = MLPPredictor,
    explainer: Callable[..., Any] = MLPPosterior,
    prior: Callable[..., Any] | None = None,
    steps: int = 1,
    decay: float = 0.9,
    sigma: float | Sequence[float] = 0.1,
    refinements: int = 20,
    refining_rate: float = 0.1,
    learning_rate: float = 1e-3,
) -> WorldModel:
    """Build the world model.

    Its loss over windows, a mean over windows and times, is

        Σ_k decay^(k-1) E[t+k] / Σ_k decay^(k-1)  +  price max(R, allowance)

    where E[t+k] is the energy of the state k steps later, predicted with the latent variables of all steps between, and R
    is the mean price of what they tell.

    Args:
        size: Of an observation, which is a state once it is normalised.
        action: Size A of an action of the environment; 0 for a world that is only watched, all of whose change is told by
            latent variables.
        latents: Size of the latent variable.
        limit: On what it tells, of `world_models.losses.bottleneck`; `noise()` unless told.
        price: Of a nat of information, in nats of energy. Higher values tell less; 1 is that of a variational bound.
        allowance: Nats per step, on average, that cost nothing: a predictor that has not learnt to listen yet would else
            teach the explainer to be silent (Kingma et al. 2016, arXiv:1606.04934).
        block: Actions of the environment in a step of the model.
        normalised: Whether every number of an observation is scaled by itself, to mean 0 and deviation 1; False where they
            have common units of about 1 already, as numbers of several objects must have to be read by one network.
        predictor: `(latent, action, *, rngs) -> predictor`, see `world_models.networks`.
        explainer: `(latent, action, size, numbers, *, rngs) -> explainer`, see `world_models.networks`.
        prior: `(context, size, *, rngs) -> prior`, see `world_models.networks`: learns what is told where, given state,
            memory and action. The latent variable of `predict` is then its noise, and stands for what happens there. None
            where everything is as likely everywhere.
        steps: Predictions chained in the loss.
        decay: How much less each further chained step counts.
        sigma: Deviation of errors that need no explanation, σ, in units of the state; one for all numbers, or one for each.
            Lower values have more told; what is less than that is left to chance. What is told first is what is largest
            against its σ: let that be what matters.
        refinements: Gradient steps of `infer_latent` from the proposal.
        refining_rate: Their length at first, in standard deviations of the latent variable.
        learning_rate: Of AdamW.

    Raises:
        ValueError: If a size is impossible, or a factor lies outside its range.
    """
    if min(size, latents) < 1 or refinements < 0:
        raise ValueError(
            "a latent-variable model needs size >= 1, latents >= 1, refinements >= 0; "
            f"got size={size}, latents={latents}, refinements={refinements}"
        )
    if np.ndim(sigma) > 0 and np.shape(sigma) != (size,):
        raise ValueError(f"sigma must be one number, or one for each of {size}; got shape {np.shape(sigma)}")
    if not beta >= 0 or not free_nats >= 0 or not min(*np.atleast_1d(sigma), refining_rate) > 0:
        raise ValueError(
            "beta and free_nats must be at least 0, sigma and refining_rate positive; "
            f"got beta={beta}, free_nats={free_nats}, sigma={sigma}, refining_rate={refining_rate}"
        )
    kind = bottleneck.gaussian() if limit is None else limit

    def build(rngs: nnx.Rngs) -> Networks:
        return Networks(size, action * block, latents, kind.params_per_dim, predictor, explainer, prior, rngs=rngs)

    def loss(batch: Batch) -> tuple[jax.Array, Metrics]:
        net, true = batch.net, batch.latents
        raw = net.explainer(true[:, :-1], batch.actions, true[:, 1:])
        key = jax.random.key(0) if batch.key is None else batch.key
        codes = kind.draw(raw, key)
        actions = jnp.concatenate([batch.actions, codes], axis=-1)
        every = chained(batch._replace(actions=actions), min(steps, actions.shape[1]))
        energies = [energy(true[:, k:] - guess, sigma) for k, guess in enumerate(every, 1)]
        told = mean(kind.kl(raw), batch.reached[:, 1:])
        squared = mean(jnp.mean((true[:, 1:] - every[0]) ** 2, axis=-1), batch.reached[:, 1:])
        total = discounted(energies, batch.reached, decay) + beta * jnp.maximum(told, free_nats)
        metrics = {"energy": mean(energies[0], batch.reached[:, 1:]), "nats": told, "latent": squared}
        if prior is not None:
            memories, _ = net.predictor.follow(true[:, :-1], actions)
            begun = net.predictor.begin(true[:, :1])
            before = jax.tree.map(lambda first, rest: jnp.concatenate([first, rest[:, :-1]], axis=1), begun, memories)
            # it learns what is told, and has no say in that
            given = jax.lax.stop_gradient((context(true[:, :-1], before, batch.actions), codes))
            unlikely = mean(-net.prior.log_density(*given), batch.reached[:, 1:])
            total += unlikely
            metrics["unlikely"] = unlikely
        return total, metrics | {"loss": total}

    def shape(net: Networks, state: Latent, taken: jax.Array, latent: jax.Array) -> jax.Array:
        return kind.shape(latent if prior is None else net.prior.code(context(state.latent, state.memory, taken), latent))

    model = latent_world(
        build,
        loss,
        (size,),
        action,
        block=block,
        steps=steps,
        decay=decay,
        inferred=False,
        readable=False,
        learning_rate=learning_rate,
        encoder_rate=1.0,
        latents=latents,
        shape_latent=shape,
    )
    _, network = functional(build)

    def infer_latent(params: PyTree, state: Latent, taken: jax.Array, following: Latent) -> jax.Array:
        """The latent variable of least energy and penalty, down from the proposal."""
        net = network(params["network"])
        scales = params["scales"]
        action_ = ((taken.reshape(block, action) - scales["action_mean"]) / scales["action_std"]).reshape(-1)
        proposal = kind.likeliest(net.explainer(state.latent, action_, following.latent))
        if prior is not None:
            proposal = net.prior.noise(context(state.latent, state.memory, action_), proposal)

        def cost(latent: jax.Array) -> jax.Array:
            guess = model.predict(params, state, taken, latent).latent
            return energy(following.latent - guess, sigma) + beta * kind.penalty(latent)

        def descend(carry: tuple[jax.Array, ...], rate: jax.Array) -> tuple[tuple[jax.Array, ...], None]:
            here, best, least = carry
            value, slope = jax.value_and_grad(cost)(here)
            best, least = jnp.where(value < least, here, best), jnp.minimum(value, least)
            return (here - rate * slope / (jnp.linalg.norm(slope) + 1e-9), best, least), None

        rates = refining_rate * jnp.linspace(1.0, 0.0, refinements + 1)
        (_, best, _), _ = jax.lax.scan(descend, (proposal, proposal, jnp.asarray(jnp.inf)), rates)
        return best

    def normalise(params: PyTree, moments: Moments) -> PyTree:
        if not normalised:
            plain = {"observation_mean": jnp.zeros(size), "observation_std": jnp.ones(size)}
            moments = moments._replace(**plain)
        return model.normalise(params, moments)

    return model._replace(infer_latent=infer_latent, normalise=normalise)
