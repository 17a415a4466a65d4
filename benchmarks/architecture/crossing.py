"""Crossing: what a latent variable in the predictor is worth, where others have not made up their minds.

A world model learns the street from recordings, once with a latent variable whose information is limited, once with an
unlimited one, once without any (the deterministic twin), and a gradient planner drives by it. Beside them drive the twin of
all, the true dynamics with the latent variable that decides in them, and a rule that knows them, `careful`.
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
from mpc import controller as loops
from mpc.agent.memory.collect import explored, vectors
from world_models import data, trainer
from world_models.base import WorldModel
from world_models.data.replay_buffer import Window
from world_models.latent_variables import latent_variable_model
from world_models.losses import bottleneck
from world_models.networks import ObjectPosterior, ObjectPredictor

PyTree = Any
BLOCK = 3
"""Steps of the environment in one of the model, 0.3 s."""
HORIZON = 10
"""Steps of the model that are imagined ahead, 3 s: from full speed to a stop takes 2.5."""
DRAWS = 8
"""Futures that every plan is held against."""
MARGIN = 1.0
"""m that are kept from everybody; nearer costs."""
PENALTY = 30.0
"""Per m nearer than that, in steps spent standing still."""
LENGTH = 24
"""Steps of a recording: short, for it is soon after they begin that minds are made up."""
SIZE = len(crossing.task().observations.low)
_SHARE = {"own": SIZE - 5 * crossing.OTHERS, "objects": crossing.OTHERS}
SIGMA = (0.02,) * _SHARE["own"] + (0.02, 0.02, 0.02, 0.02, 0.2) * crossing.OTHERS
"""Errors that need no explanation: 20 cm and 0.2 m/s; whether somebody has decided matters less than where they go."""


class Kind(NamedTuple):
    """A way to limit what the latent variable tells."""

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
"""`none` is the deterministic twin: at that price nothing is told, and the predictor learns the average future."""


def model(kind: Kind) -> WorldModel:
    """The world model of a kind; networks, data and updates are the same for all."""
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
        explainer=partial(ObjectPosterior, **_SHARE),
        steps=3,
        sigma=SIGMA,
    )


def recordings(episodes: int, seed: int) -> data.Dataset:
    """Exploring drivers, as observed; actions in [-1, 1]."""
    task = crossing.task()
    walks = explored(task, crossing.explore, "craik/Crossing-v0", episodes, length=LENGTH, seed=seed)
    return replace(walks, observations=np.asarray(jax.jit(vectors(task).frames)(jnp.asarray(walks.observations))))


def learnt(kind: Kind, dataset: data.Dataset, updates: int, seed: int, tell: Callable[[str], None]) -> PyTree:
    """Parameters of a model after so many updates."""
    each, made = 1000, model(kind)
    fall = optax.cosine_decay_schedule(3e-3, updates, 0.01)
    optimizer = optax.chain(optax.clip_by_global_norm(5.0), optax.adam(fall))
    model_trainer = trainer(
        made, optimizer=optimizer, batch=64, length=4, updates=min(each, updates), averaging=0.99, block=BLOCK
    )
    training, source = model_trainer.init(jax.random.key(seed)), data.resident(dataset, 4 * BLOCK)
    for done in range(0, updates, each):
        training, metrics = model_trainer.fit(training, source)
        tell(f"  {done + each}: " + ", ".join(f"{n} {float(metrics[n]):.3f}" for n in ("energy", "nats")))
    return training.params


# What the latent variable tells


def energies(kind: Kind, params: PyTree, dataset: data.Dataset, count: int = 1000) -> dict[str, float]:
    """Mean squared errors of predictions, of transitions in which somebody decides, summed over an observation's numbers
    as they are: ten m and ten m/s are 1, and so is whether somebody has decided.

    `inferred`: with the latent variable that `infer_latent` finds; `zero`: with its mean; `drawn`: with one drawn at random;
    `false`: with one inferred from what came after another transition, to which it should not be possible to lead.
    `told_apart`: how often the true future has less energy, its latent variable inferred, than that other one.
    """
    made = model(kind)
    source = data.resident(dataset, BLOCK)
    windows: Window = data.draw(source, jax.random.key(1), 20 * count, 1, BLOCK)
    flags = windows.observations[:, :, _SHARE["own"] + 4 :: 5]
    rows = jnp.argsort(-jnp.abs(flags[:, 1] - flags[:, 0]).sum(axis=1), stable=True)[:count]
    before, after = windows.observations[rows, 0], windows.observations[rows, 1]
    taken = windows.actions[rows, 0]
    # the same place in another's future: ours as it came, all others as they came to somebody else
    others = slice(_SHARE["own"], None)
    other = after.at[:, others].set((before + jnp.roll(after - before, 1, axis=0))[:, others])

    @jax.jit
    @partial(jax.vmap, in_axes=(0, 0, 0, 0, 0))
    def each(before: Any, taken: Any, after: Any, other: Any, key: Any) -> dict[str, Any]:
        start, came, false = (made.encode(params, o) for o in (before, after, other))

        def missed(latent: jax.Array, wanted: Any) -> jax.Array:
            return jnp.sum((made.predict(params, start, taken, latent).latent - wanted.latent) ** 2)

        assert made.infer_latent is not None
        z, wrong = (made.infer_latent(params, start, taken, future) for future in (came, false))
        draw = jax.random.normal(key, z.shape)
        found = {"inferred": missed(z, came), "zero": missed(0 * z, came), "drawn": missed(draw, came)}
        return found | {"false": missed(wrong, false), "told_apart": missed(z, came) < missed(wrong, false)}

    found = each(before, taken, after, other, jax.random.split(jax.random.key(2), count))
    return {name: float(values.mean()) for name, values in found.items()}


# Driving


def expense(params: PyTree, state: State, action: jax.Array) -> dict[str, jax.Array]:
    """What a step costs, by name: time, room kept from others, the lane, effort."""
    near = jnp.maximum(MARGIN - crossing.clearance(state), 0.0)
    kerb = jnp.maximum(jnp.abs(state.car[1]) - (crossing.KERB - crossing.HALF[1] - 0.4), 0.0)
    return {
        "time": 1.0 - state.car[3] / crossing.MAX_SPEED,
        "safety": PENALTY * (jnp.minimum(near, 1.5) + kerb),
        "lane": 0.05 * (state.car[1] + crossing.LANE) ** 2 + 0.5 * state.car[2] ** 2,
        "effort": 0.01 * jnp.mean(action**2),
    }


def _term(name: str, seen: Callable[[PyTree], State]) -> Callable[..., jax.Array]:
    return lambda params, state, action, t: expense(params, seen(state), action)[name]


def problem(
    dynamics: Callable[..., PyTree], seen: Callable[[PyTree], State], latents: int | None, space: mpc.Box
) -> mpc.Problem:
    """Drive on quickly and touch nobody; `seen` makes states of what the dynamics carry along."""
    names = ("time", "safety", "lane", "effort")
    return mpc.Problem(
        dynamics,
        mpc.costs.total(**{name: (1.0, _term(name, seen)) for name in names}),
        lambda params, state: _term("safety", seen)(params, state, jnp.zeros(1), 0),
        horizon=HORIZON,
        action_space=space,
        latents=latents,
    )


@dataclass(frozen=True, eq=False)
class Driver:
    """Who drives: `begin(params, state, key) -> memory`, `decide(params, state, memory) -> (memory, actions)`."""

    name: str
    begin: Callable[..., Any]
    decide: Callable[..., tuple[Any, jax.Array]]
    params: PyTree


def planned(name: str, task: mpc.Problem, see: Callable[[PyTree, State], PyTree], params: PyTree, iterations: int) -> Driver:
    """A driver that plans by gradient at every block.

    Args:
        name: Its name.
        task: Without latents.
        see: `(params, state of the world) -> state of the problem`, which is all that is known of the world.
        params: Of the problem.
        iterations: Per decision.
    """
    planner = mpc.gradient(task, optimizer=optax.adam(0.2), starts=3, spread=0.5)

    def begin(params: PyTree, state: State, key: jax.Array) -> Any:
        return loops.begin(planner, params, see(params, state), key)

    def decide(params: PyTree, state: State, loop: Any) -> tuple[Any, jax.Array]:
        loop, _, action = loops.decide(planner, params, see(params, state), loop, iterations)
        return loop, action.reshape(BLOCK, 2) * np.array([crossing.MAX_ACCELERATION, crossing.MAX_STEERING], np.float32)

    return Driver(name, begin, decide, params)


def by_model(name: str, kind: Kind, params: PyTree, measure: mpc.risk.Measure | None, iterations: int = 8) -> Driver:
    """A driver that plans with a learnt model: over draws of its latent variable, or, without a measure, with its mean."""
    made, space = model(kind), mpc.Box([-1.0] * 2 * BLOCK, [1.0] * 2 * BLOCK)

    def uncertain(params: PyTree, state: Any, action: jax.Array, latent: jax.Array) -> Any:
        return made.predict(params, state, action, latent)

    def certain(params: PyTree, state: Any, action: jax.Array) -> Any:
        return uncertain(params, state, action, jnp.zeros(kind.latents))

    def seen(state: Any) -> State:
        return crossing.read(state.latent)

    if measure is None:
        task = problem(certain, seen, None, space)
    else:
        task = mpc.risk.over_latents(problem(uncertain, seen, kind.latents, space), measure, DRAWS)
    return planned(name, task, lambda params, state: made.encode(params, crossing.observe(state)), params, iterations)


def by_truth(name: str, measure: mpc.risk.Measure, iterations: int = 8) -> Driver:
    """A driver that plans with the true dynamics over draws of what decides in them; but for the draws, it knows it all."""
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
    """As fast as stopping allows for whoever may still step out or cut in, and behind whoever has: a rule, not a plan."""

    def decide(params: PyTree, state: State, memory: Any) -> tuple[Any, jax.Array]:
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
        return memory, action[None]

    return Driver("rule that knows the street", lambda params, state, key: jnp.zeros(()), decide, {})


class Outcome(NamedTuple):
    """How E episodes ended."""

    crashed: np.ndarray
    arrived: np.ndarray
    seconds: np.ndarray
    """Until they ended."""


def drive(driver: Driver, episodes: int, seed: int, at_once: int = 25) -> Outcome:
    """Let somebody drive; the same streets and the same minds for the same seed, whoever drives."""

    @partial(jax.jit, static_argnames="count")
    def play(params: PyTree, keys: jax.Array, count: int) -> tuple[State, jax.Array]:
        starts, actor_critic, plans = (jax.vmap(partial(jax.random.fold_in, data=i))(keys) for i in range(3))
        states = jax.vmap(crossing.reset)(starts)
        memory = jax.vmap(partial(driver.begin, params))(states, plans)

        def going(state: State, time: jax.Array) -> jax.Array:
            return ~crossing.crashed(state) & ~crossing.success(state) & (time < crossing.task().horizon)

        def advance(state: State, time: jax.Array, action: jax.Array, key: jax.Array) -> tuple[State, jax.Array]:
            following = crossing.step(crossing.PARAMS, state, action, jax.random.fold_in(key, time))
            on = going(state, time)
            return jax.tree.map(lambda a, b: jnp.where(on, a, b), following, state), time + on

        def decide(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            states, memory, times = carry
            memory, actions = jax.vmap(partial(driver.decide, params))(states, memory)

            def one(carry: tuple[State, jax.Array], action: jax.Array) -> tuple[tuple[State, jax.Array], None]:
                return jax.vmap(advance)(*carry, action, actor_critic), None

            (states, times), _ = jax.lax.scan(one, (states, times), actions.swapaxes(0, 1))
            return states, memory, times

        states, _, times = jax.lax.while_loop(
            lambda carry: jax.vmap(going)(carry[0], carry[2]).any(), decide, (states, memory, jnp.zeros(count, jnp.int32))
        )
        return states, times

    found = []
    for first in range(0, episodes, at_once):
        keys = jax.vmap(jax.random.key)(seed * 100_000 + jnp.arange(first, first + at_once))
        states, times = play(driver.params, keys, at_once)
        ends = jax.vmap(crossing.crashed)(states), jax.vmap(crossing.success)(states), times * crossing.PARAMS["dt"]
        found.append([np.asarray(x) for x in ends])
    return Outcome(*(np.concatenate(parts)[:episodes] for parts in zip(*found, strict=True)))
