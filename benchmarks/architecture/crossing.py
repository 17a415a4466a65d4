"""Crossing: the value of a latent variable in the predictor when other agents are unpredictable.

A world model learns the street from recordings: with a regularized latent variable, with an unrestricted one, and without
one (the deterministic model). A gradient planner drives with each model. References are a planner with the true dynamics and
their latent variable, and a hand-written rule for these dynamics, `careful`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mpc
from envs import crossing
from envs.crossing import State
from mpc.agent.memory.collect import explored, vectors
from world_models import data, trainer
from world_models.base import WorldModel
from world_models.data.replay_buffer import Window
from world_models.latent_variables import latent_variable_model
from world_models.losses import bottleneck
from world_models.networks import ObjectPosterior, ObjectPredictor

PyTree = Any
BLOCK = 3
"""Steps of the environment per step of the model, 0.3 s."""
HORIZON = 10
"""Planning horizon in steps of the model, 3 s; braking from full speed takes 2.5 s."""
DRAWS = 8
"""Sampled futures per plan."""
MARGIN = 1.0
"""Clearance in m below which a cost applies."""
PENALTY = 30.0
"""Cost per m below the margin; 1 is the cost of standing still for a step."""
LENGTH = 24
"""Steps of a recording; short, because agents decide soon after the start."""
SIZE = len(crossing.task().observations.low)
_SHARE = {"own": SIZE - 5 * crossing.OTHERS, "objects": crossing.OTHERS}
SIGMA = (0.02,) * _SHARE["own"] + (0.02, 0.02, 0.02, 0.02, 0.2) * crossing.OTHERS
"""Standard deviations of predictions: 20 cm and 0.2 m/s; decisions are weighted less than positions."""


class Kind(NamedTuple):
    """A latent variable: its regularizer, size and weights."""

    limit: bottleneck.LatentRegularizer
    latents: int
    beta: float = 1.0
    free_nats: float = 0.1


KINDS = {
    "noise": Kind(bottleneck.gaussian(), crossing.OTHERS),
    "discrete": Kind(bottleneck.discrete(4), crossing.OTHERS),
    "sparse": Kind(bottleneck.sparse(), crossing.OTHERS),
    "low dimension": Kind(bottleneck.deterministic(), crossing.OTHERS),
    "unrestricted": Kind(bottleneck.deterministic(), 5 * crossing.OTHERS),
    "none": Kind(bottleneck.gaussian(), crossing.OTHERS, beta=1e4, free_nats=0.0),
}
"""`none` is the deterministic model: its high beta removes all information, so the predictor learns the mean future."""


def model(kind: Kind) -> WorldModel:
    """Returns the world model of a kind; networks, data and updates are the same for all kinds."""
    return latent_variable_model(
        SIZE,
        2,
        latents=kind.latents,
        limit=kind.limit,
        beta=kind.beta,
        free_nats=kind.free_nats,
        block=BLOCK,
        normalised=False,
        predictor=partial(ObjectPredictor, free=kind.latents // crossing.OTHERS, **_SHARE),
        posterior=partial(ObjectPosterior, **_SHARE),
        steps=3,
        sigma=SIGMA,
    )


def recordings(episodes: int, seed: int) -> data.Dataset:
    """Returns observations of exploring drivers; actions are in [-1, 1]."""
    task = crossing.task()
    walks = explored(task, crossing.explore, "craik/Crossing-v0", episodes, length=LENGTH, seed=seed)
    return replace(walks, observations=np.asarray(jax.jit(vectors(task).frames)(jnp.asarray(walks.observations))))


def train(kind: Kind, dataset: data.Dataset, updates: int, seed: int, log: Callable[[str], None]) -> PyTree:
    """Returns the parameters of a model after a number of updates."""
    each, made = 1000, model(kind)
    schedule = optax.cosine_decay_schedule(3e-3, updates, 0.01)
    optimizer = optax.chain(optax.clip_by_global_norm(5.0), optax.adam(schedule))
    model_trainer = trainer(
        made, optimizer=optimizer, batch=64, length=4, updates=min(each, updates), averaging=0.99, block=BLOCK
    )
    training, source = model_trainer.init(jax.random.key(seed)), data.resident(dataset, 4 * BLOCK)
    for done in range(0, updates, each):
        training, metrics = model_trainer.fit(training, source)
        log(f"  {done + each}: " + ", ".join(f"{n} {float(metrics[n]):.3f}" for n in ("energy", "nats")))
    return training.params


# Information in the latent variable


def energies(kind: Kind, params: PyTree, dataset: data.Dataset, count: int = 1000) -> dict[str, float]:
    """Returns mean squared prediction errors over transitions in which an agent decides, in units of the observation.

    `inferred`: with the latent variable from `infer_latent`; `zero`: with its mean; `drawn`: with a random one; `false`:
    error of a false future (that of another transition) with the latent variable inferred from it; it should be large.
    `discriminated`: fraction of transitions whose true future has a lower error than the false one.
    """
    made = model(kind)
    source = data.resident(dataset, BLOCK)
    windows: Window = data.draw(source, jax.random.key(1), 20 * count, 1, BLOCK)
    flags = windows.observations[:, :, _SHARE["own"] + 4 :: 5]
    rows = jnp.argsort(-jnp.abs(flags[:, 1] - flags[:, 0]).sum(axis=1), stable=True)[:count]
    before, after = windows.observations[rows, 0], windows.observations[rows, 1]
    taken = windows.actions[rows, 0]
    # a false future: the car as in this transition, the other agents as in another transition
    others = slice(_SHARE["own"], None)
    other = after.at[:, others].set((before + jnp.roll(after - before, 1, axis=0))[:, others])

    @jax.jit
    @partial(jax.vmap, in_axes=(0, 0, 0, 0, 0))
    def each(before: Any, taken: Any, after: Any, other: Any, key: Any) -> dict[str, Any]:
        start, true, false = (made.encode(params, o) for o in (before, after, other))

        def error(latent: jax.Array, target: Any) -> jax.Array:
            return jnp.sum((made.predict(params, start, taken, latent).latent - target.latent) ** 2)

        assert made.infer_latent is not None
        z, wrong = (made.infer_latent(params, start, taken, future) for future in (true, false))
        draw = jax.random.normal(key, z.shape)
        errors = {"inferred": error(z, true), "zero": error(0 * z, true), "drawn": error(draw, true)}
        return errors | {"false": error(wrong, false), "discriminated": error(z, true) < error(wrong, false)}

    means = each(before, taken, after, other, jax.random.split(jax.random.key(2), count))
    return {name: float(values.mean()) for name, values in means.items()}


# Driving


def cost_terms(params: PyTree, state: State, action: jax.Array) -> dict[str, jax.Array]:
    """Returns the costs of a step by name: time, clearance, lane, effort."""
    near = jnp.maximum(MARGIN - crossing.clearance(state), 0.0)
    kerb = jnp.maximum(jnp.abs(state.car[1]) - (crossing.KERB - crossing.HALF[1] - 0.4), 0.0)
    return {
        "time": 1.0 - state.car[3] / crossing.MAX_SPEED,
        "safety": PENALTY * (jnp.minimum(near, 1.5) + kerb),
        "lane": 0.05 * (state.car[1] + crossing.LANE) ** 2 + 0.5 * state.car[2] ** 2,
        "effort": 0.01 * jnp.mean(action**2),
    }


def _term(name: str, to_state: Callable[[PyTree], State]) -> Callable[..., jax.Array]:
    return lambda params, state, action, t: cost_terms(params, to_state(state), action)[name]


def problem(
    dynamics: Callable[..., PyTree], to_state: Callable[[PyTree], State], latents: int | None, space: mpc.Box
) -> mpc.Problem:
    """Returns the problem of driving fast without contact; `to_state` maps a model state to a state of the street."""
    names = ("time", "safety", "lane", "effort")
    return mpc.Problem(
        dynamics,
        mpc.costs.total(**{name: (1.0, _term(name, to_state)) for name in names}),
        lambda params, state: _term("safety", to_state)(params, state, jnp.zeros(1), 0),
        horizon=HORIZON,
        action_space=space,
        latents=latents,
    )


@dataclass(frozen=True, eq=False)
class Driver:
    """A driver with a state of its own.

    `begin(params, state, key) -> driver_state`; `decide(params, state, driver_state) -> (driver_state, actions)`.
    """

    name: str
    begin: Callable[..., Any]
    decide: Callable[..., tuple[Any, jax.Array]]
    params: PyTree


def planned(name: str, task: mpc.Problem, see: Callable[[PyTree, State], PyTree], params: PyTree, iterations: int) -> Driver:
    """Returns a driver that plans by gradient at every block.

    Args:
        name: Name of the driver.
        task: Problem without latents.
        see: `(params, state of the street) -> state of the problem`.
        params: Parameters of the problem.
        iterations: Iterations per decision.
    """
    planner = mpc.gradient(task, optimizer=optax.adam(0.2), starts=3, spread=0.5)

    policy = mpc.policy(planner, iterations=iterations, observe=see)

    def decide(params: PyTree, state: State, driver_state: Any) -> tuple[Any, jax.Array]:
        driver_state, decision = policy.step(params, state, driver_state)
        return driver_state, decision.action.reshape(BLOCK, 2) * np.array(
            [crossing.MAX_ACCELERATION, crossing.MAX_STEERING], np.float32
        )

    return Driver(name, policy.init, decide, params)


def by_model(name: str, kind: Kind, params: PyTree, measure: mpc.risk.Measure | None, iterations: int = 8) -> Driver:
    """Returns a driver with a learnt model: over samples of its latent variable or, without a measure, with its mean."""
    made, space = model(kind), mpc.Box([-1.0] * 2 * BLOCK, [1.0] * 2 * BLOCK)

    def stochastic(params: PyTree, state: Any, action: jax.Array, latent: jax.Array) -> Any:
        return made.predict(params, state, action, latent)

    def deterministic(params: PyTree, state: Any, action: jax.Array) -> Any:
        return stochastic(params, state, action, jnp.zeros(kind.latents))

    def to_state(state: Any) -> State:
        return crossing.read(state.latent)

    if measure is None:
        task = problem(deterministic, to_state, None, space)
    else:
        task = mpc.risk.over_latents(problem(stochastic, to_state, kind.latents, space), measure, DRAWS)
    return planned(name, task, lambda params, state: made.encode(params, crossing.observe(state)), params, iterations)


def by_truth(name: str, measure: mpc.risk.Measure, iterations: int = 8) -> Driver:
    """Returns a driver with the true dynamics that plans over samples of their latent variable."""
    space = mpc.Box([-1.0] * 2 * BLOCK, [1.0] * 2 * BLOCK)
    unit = np.array([crossing.MAX_ACCELERATION, crossing.MAX_STEERING], np.float32)

    def dynamics(params: PyTree, state: State, action: jax.Array, latent: jax.Array) -> State:
        def one(state: State, given: tuple[jax.Array, jax.Array]) -> tuple[State, None]:
            return crossing.advance(params, state, given[0] * unit, given[1]), None

        return jax.lax.scan(one, state, (action.reshape(BLOCK, 2), latent.reshape(BLOCK, crossing.OTHERS)))[0]

    single = problem(dynamics, lambda state: state, BLOCK * crossing.OTHERS, space)
    task = mpc.risk.over_latents(single, measure, DRAWS)
    return planned(name, task, lambda params, state: state, dict(crossing.PARAMS), iterations)


def careful() -> Driver:
    """Returns a hand-written rule: as fast as braking for undecided agents allows, and behind agents in the lane."""

    def decide(params: PyTree, state: State, driver_state: Any) -> tuple[Any, jax.Array]:
        ahead, across = state.place[:, 0] - state.car[0], state.place[:, 1]
        open_ = (state.decided == 0.0) & (ahead > -4.0) & (ahead < 20.0)
        walker = jnp.sqrt(8.0 * jnp.maximum(ahead - 14.5, 0.0) + 2.5**2)
        driver = jnp.sqrt(8.0 * jnp.maximum(ahead - 14.0, 0.0)) + 3.9
        walks = jnp.arange(crossing.OTHERS) < crossing.PEDESTRIANS
        speed = jnp.where(open_, jnp.where(walks, walker, driver), crossing.MAX_SPEED)
        in_way = (state.decided > 0.0) & (ahead > -3.0) & (ahead < 16.0)
        in_way = in_way & ((jnp.abs(across + crossing.LANE) < 2.3) | (state.velocity[:, 1] != 0.0))
        behind = jnp.where(in_way, jnp.sqrt(6.0 * jnp.maximum(ahead - 4.5, 0.0)), crossing.MAX_SPEED)
        action = crossing.steer(state, -crossing.LANE, jnp.minimum(speed.min(), behind.min()))
        return driver_state, action[None]

    return Driver("hand-written rule", lambda params, state, key: jnp.zeros(()), decide, {})


class Outcome(NamedTuple):
    """Results of E episodes."""

    crashed: np.ndarray
    arrived: np.ndarray
    seconds: np.ndarray
    """Duration of each episode."""


def drive(driver: Driver, episodes: int, seed: int, at_once: int = 25) -> Outcome:
    """Runs a driver; streets and decisions of the agents depend on the seed only."""

    @partial(jax.jit, static_argnames="count")
    def play(params: PyTree, keys: jax.Array, count: int) -> tuple[State, jax.Array]:
        starts, step_keys, plans = (jax.vmap(partial(jax.random.fold_in, data=i))(keys) for i in range(3))
        states = jax.vmap(crossing.reset)(starts)
        driver_state = jax.vmap(partial(driver.begin, params))(states, plans)

        def running(state: State, time: jax.Array) -> jax.Array:
            return ~crossing.crashed(state) & ~crossing.success(state) & (time < crossing.task().horizon)

        def advance(state: State, time: jax.Array, action: jax.Array, key: jax.Array) -> tuple[State, jax.Array]:
            following = crossing.step(crossing.PARAMS, state, action, jax.random.fold_in(key, time))
            active = running(state, time)
            return jax.tree.map(lambda a, b: jnp.where(active, a, b), following, state), time + active

        def decide(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            states, driver_state, times = carry
            driver_state, actions = jax.vmap(partial(driver.decide, params))(states, driver_state)

            def one(carry: tuple[State, jax.Array], action: jax.Array) -> tuple[tuple[State, jax.Array], None]:
                return jax.vmap(advance)(*carry, action, step_keys), None

            (states, times), _ = jax.lax.scan(one, (states, times), actions.swapaxes(0, 1))
            return states, driver_state, times

        states, _, times = jax.lax.while_loop(
            lambda carry: jax.vmap(running)(carry[0], carry[2]).any(),
            decide,
            (states, driver_state, jnp.zeros(count, jnp.int32)),
        )
        return states, times

    parts = []
    for first in range(0, episodes, at_once):
        keys = jax.vmap(jax.random.key)(seed * 100_000 + jnp.arange(first, first + at_once))
        states, times = play(driver.params, keys, at_once)
        ends = jax.vmap(crossing.crashed)(states), jax.vmap(crossing.success)(states), times * crossing.PARAMS["dt"]
        parts.append([np.asarray(x) for x in ends])
    return Outcome(*(np.concatenate(column)[:episodes] for column in zip(*parts, strict=True)))
