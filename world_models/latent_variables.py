"""A world model whose predictor takes a latent variable, for worlds whose future actions do not determine.

    ŝ[t+1] = f(s[t], a[t], z[t]),        E(s, a, z, s') = Σ_d (s'_d - f_d(s, a, z))² / 2σ_d²

z stands for everything that decides the next state and cannot be seen beforehand. While learning, it is inferred from the
next state, by minimising the energy E plus a price on its information (`losses.bottleneck`): a posterior network proposes it
and learns by the same energy, and `infer_latent` refines the proposal by gradient. σ is the error that needs no explanation;
with it, energy and information are both in nats, and errors much larger than σ are worth explaining. While planning, z is
drawn (`mpc.risk.over_latents`, for the mean, CVaR or the worst of the draws), or inferred with the actions
(`mpc.risk.with_latents_as_actions`, optimism).

States are the normalised observations: for vectors that are states, such as the latents of another model.

Sources: LeCun (2022), A path towards autonomous machine intelligence, section 4.2; Kingma, Welling (2014), arXiv:1312.6114;
refining a proposal by gradient: Kim et al. (2018), Semi-amortized variational autoencoders, arXiv:1802.02550.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from world_models.assembly import Assembly, Batch, chained, flat, from_start, mean_error
from world_models.base import LatentState, Metrics, PyTree, WorldModel
from world_models.data import Moments
from world_models.latent import LatentSettings, Networks
from world_models.losses.bottleneck import LatentRegularizer, gaussian
from world_models.losses.terms import mean
from world_models.networks import Identity, MLPPosterior, MLPPredictor, functional


@dataclass(frozen=True)
class LatentVariableSettings:
    """Settings of `latent_variable_model`.

    Raises:
        ValueError: If a size is impossible, or a factor lies outside its range.
    """

    latents: int
    """Size of the latent variable."""
    limit: LatentRegularizer | None = None
    """On the information in it, of `world_models.losses.bottleneck`; `gaussian()` by default."""
    beta: float = 1.0
    """Weight of a nat of information, in nats of energy. Higher values have it carry less; a variational bound has 1."""
    free_nats: float = 0.1
    """Nats per step, on average, that cost nothing: otherwise a predictor that does not use the latent variable yet would
    teach the posterior to carry nothing (Kingma et al. 2016, arXiv:1606.04934)."""
    block: int = 1
    """Actions of the environment in a step of the model."""
    normalised: bool = True
    """True scales every number of an observation by itself, to mean 0 and deviation 1; False where they have common
    units of about 1 already, as numbers of several objects must have to be read by one network."""
    predictor: Callable[..., Any] = MLPPredictor
    """`(latent, action, *, rngs) -> predictor`, see `world_models.networks`."""
    posterior: Callable[..., Any] = MLPPosterior
    """`(latent, action, size, params_per_dim, *, rngs) -> posterior`, see `world_models.networks`."""
    prior: Callable[..., Any] | None = None
    """`(context, size, *, rngs) -> prior`, see `world_models.networks`: learns which values are likely given state, carry
    and action. The latent variable of `predict` is then its noise. None where everything is as likely everywhere."""
    steps: int = 1
    """Predictions chained in the loss."""
    decay: float = 0.9
    """Factor on the weight of each further chained step."""
    sigma: float | Sequence[float] = 0.1
    """Deviation σ of errors that need no explanation, in units of the state; one for all numbers, or one for each. Lower
    values have more explained; the rest is left to chance. The errors that are largest against their σ are explained
    first."""
    refinements: int = 20
    """Gradient steps of `infer_latent` from the posterior's proposal."""
    refining_rate: float = 0.1
    """Length of the first of them, in standard deviations of the latent variable."""
    learning_rate: float = 1e-3
    """Of AdamW."""

    def __post_init__(self) -> None:
        if self.latents < 1 or self.refinements < 0:
            raise ValueError(
                "a latent-variable model needs latents >= 1, refinements >= 0; "
                f"got latents={self.latents}, refinements={self.refinements}"
            )
        if not self.beta >= 0 or not self.free_nats >= 0 or not min(*np.atleast_1d(self.sigma), self.refining_rate) > 0:
            raise ValueError(
                "beta and free_nats must be at least 0, sigma and refining_rate positive; "
                f"got beta={self.beta}, free_nats={self.free_nats}, sigma={self.sigma}, refining_rate={self.refining_rate}"
            )

    @property
    def regularizer(self) -> LatentRegularizer:
        """The limit, or the default one."""
        return gaussian() if self.limit is None else self.limit

    def of_latents(self, size: int) -> LatentSettings:
        """The settings that encoder and predictor share with all world models."""
        shared = {name: getattr(self, name) for name in ("predictor", "block", "steps", "decay", "learning_rate")}
        return LatentSettings(latent=size, encoder=Identity, **shared)


class LatentVariableNetworks(Networks):
    """Predictor, posterior of the latent variable, and perhaps its prior."""

    def __init__(self, size: int, action: int, settings: LatentVariableSettings, *, rngs: nnx.Rngs) -> None:
        s = settings
        super().__init__((size,), action, s.of_latents(size), s.latents, rngs=rngs)
        self.posterior = s.posterior(size, action, s.latents, s.regularizer.params_per_dim, rngs=rngs)
        blank = jnp.zeros(size)
        known = context(blank, self.predictor.begin(blank), jnp.zeros(action))
        self.prior = None if s.prior is None else s.prior(len(known), s.latents, rngs=rngs)


def context(latent: Float[Array, "*batch size"], carry: PyTree, action: Float[Array, "*batch action"]) -> Array:
    """The input of a prior: a state, the predictor's carry, and the action."""
    return jnp.concatenate([latent, *jax.tree.leaves(carry), action], axis=-1)


def energy(error: Float[Array, "*batch size"], sigma: float | Sequence[float]) -> Float[Array, "*batch"]:
    """`Σ_d error_d² / 2σ_d²` of a prediction's error, in nats: how surprising it is, up to a constant."""
    return 0.5 * jnp.sum((error / jnp.asarray(sigma)) ** 2, axis=-1)


def latent_variable_loss(s: LatentVariableSettings, batch: Batch) -> tuple[jax.Array, Metrics]:
    """The loss of `latent_variable_model`, and its terms before weighting."""
    net, true = batch.net, batch.latents
    raw = net.posterior(flat(true[:, :, :-1]), flat(batch.actions), flat(true[:, :, 1:]))
    codes = s.regularizer.draw(raw, jax.random.key(0) if batch.key is None else batch.key)
    acting = batch._replace(actions=jnp.concatenate([batch.actions, codes[None]], axis=-1))
    every = chained(acting, s.steps)
    energies = [energy(from_start(true, k, step.latent) - step.latent, s.sigma) for k, step in enumerate(every, 1)]
    reached = flat(batch.reached)[:, 1:]
    nats = mean(s.regularizer.kl(raw), reached)
    squared = mean(jnp.mean((flat(true)[:, 1:] - flat(every[0].latent)) ** 2, axis=-1), reached)
    total = mean_error(energies, batch.reached, s.decay) + s.beta * jnp.maximum(nats, s.free_nats)
    terms = {"energy": mean(flat(energies[0]), reached), "nats": nats, "latent": squared}
    if net.prior is not None:
        terms["unlikely"] = mean(surprise(acting, batch.actions, codes), reached)
        total += terms["unlikely"]
    return total, terms | {"loss": total}


def surprise(acting: Batch, actions: jax.Array, codes: jax.Array) -> Float[Array, "N steps"]:
    """`-log p(code | context)` under the prior, in nats, with a gradient to the prior alone.

    Args:
        acting: Windows whose actions hold codes.
        actions: Without them, `[1, N, steps, A]`.
        codes: Drawn from the posterior, `[N, steps, size]`.
    """
    net, latents = acting.net, flat(acting.latents)
    carries, _ = net.predictor.follow(latents[:, :-1], flat(acting.actions))
    begun = net.predictor.begin(latents[:, :1])
    before = jax.tree.map(lambda first, rest: jnp.concatenate([first, rest[:, :-1]], axis=1), begun, carries)
    given = jax.lax.stop_gradient((context(latents[:, :-1], before, flat(actions)), codes))
    return -net.prior.log_density(*given)


def shaped(s: LatentVariableSettings, net: Any, state: LatentState, action: jax.Array, latent: jax.Array) -> jax.Array:
    """A standard normal latent variable as the predictor takes it in a state, before a scaled action."""
    if net.prior is not None:
        latent = net.prior.code(context(state.latent, state.carry, action), latent)
    return s.regularizer.shape(latent)


def descend(cost: Callable[[jax.Array], jax.Array], start: jax.Array, s: LatentVariableSettings) -> jax.Array:
    """The best point met by `s.refinements` normalised gradient steps, whose length falls to 0, on a cost of `[latents]`."""

    def advance(carry: tuple[jax.Array, ...], rate: jax.Array) -> tuple[tuple[jax.Array, ...], None]:
        here, best, least = carry
        value, slope = jax.value_and_grad(cost)(here)
        best, least = jnp.where(value < least, here, best), jnp.minimum(value, least)
        return (here - rate * slope / (jnp.linalg.norm(slope) + 1e-9), best, least), None

    rates = s.refining_rate * jnp.linspace(1.0, 0.0, s.refinements + 1)
    (_, best, _), _ = jax.lax.scan(advance, (start, start, jnp.asarray(jnp.inf)), rates)
    return best


def latent_variable_model(size: int, action: int, **settings: Any) -> WorldModel:
    """Build the world model.

    Its loss over windows, a mean over windows and times, is

        Σ_k decay^(k-1) E[t+k] / Σ_k decay^(k-1)  +  beta max(R, free_nats)

    where E[t+k] is the energy of the state k steps later, predicted with the latent variables of all steps between, and R
    is the mean information in one of them, in nats.

    Args:
        size: Of an observation, which is a state once it is normalised.
        action: Size A of an action of the environment; 0 for recordings without actions, all of whose change is explained
            by latent variables.
        **settings: Of `LatentVariableSettings`; `latents` is required.

    Raises:
        ValueError: If a size is impossible, or a factor lies outside its range.
        TypeError: If a setting is unknown, or `latents` is missing.
    """
    s = LatentVariableSettings(**settings)
    if size < 1 or action < 0 or (np.ndim(s.sigma) > 0 and np.shape(s.sigma) != (size,)):
        raise ValueError(
            f"a latent-variable model needs size >= 1, action >= 0, and one sigma or one for each of {size}; "
            f"got size={size}, action={action}, sigma of shape {np.shape(s.sigma)}"
        )

    def build(rngs: nnx.Rngs) -> LatentVariableNetworks:
        return LatentVariableNetworks(size, action * s.block, s, rngs=rngs)

    loss, shape = partial(latent_variable_loss, s), partial(shaped, s)
    assembly = Assembly(build, loss, (size,), action, s.of_latents(size), s.latents, shape)
    _, network = functional(build)

    def infer_latent(params: PyTree, state: LatentState, taken: jax.Array, following: LatentState) -> jax.Array:
        """The latent variable of least energy and penalty, refined from the posterior's proposal."""
        net = network(params["network"])
        done = assembly.scaled(params, taken.reshape(s.block, action))
        proposal = s.regularizer.likeliest(net.posterior(state.latent, done, following.latent))
        if net.prior is not None:
            proposal = net.prior.noise(context(state.latent, state.carry, done), proposal)

        def cost(latent: jax.Array) -> jax.Array:
            guess = assembly.predict(params, state, taken, latent).latent
            return energy(following.latent - guess, s.sigma) + s.beta * s.regularizer.penalty(latent)

        return descend(cost, proposal, s)

    def normalise(params: PyTree, moments: Moments) -> PyTree:
        if not s.normalised:
            moments = moments._replace(observation_mean=jnp.zeros(size), observation_std=jnp.ones(size))
        return assembly.normalise(params, moments)

    return assembly.model()._replace(infer_latent=infer_latent, normalise=normalise)
