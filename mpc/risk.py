"""Risk: what to minimise when a future is not one energy but many, one per model of an ensemble or per draw of a latent.

    minimise over u   ρ(E_1(u), …, E_N(u)),        E_i the energy of the same actions in the i-th imagined world

`over_models` and `over_latents` turn a problem into an ordinary one whose state holds all N worlds side by side, with what
each has cost so far, so that every planner works with it unchanged and constraints hold in every world. `solve` and
`Controller` take the plain state as before. Measures are functions of the N energies: `mean`, `worst_case`, `optimistic`,
`cvar(alpha)`, `cvar_from_params()`, `entropic(aversion)`, or one's own.

Latents need not be drawn. `with_latents_as_actions` infers them with the actions, the future that is hoped for and how far
it is from the likeliest; `against` moves draws to where they hurt a plan most, so that the next plan is held against those.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mpc.costs import Total, itemise
from mpc.problem import Problem
from mpc.rollout import energy
from mpc.spaces import Box

PyTree = Any
Measure = Callable[..., jax.Array]


class ParametricCVaR:
    """CVaR whose share is a parameter, `params["risk"]`, so that other risk asks for no other program; see
    `cvar_from_params`."""

    def __call__(self, energies: jax.Array, params: PyTree) -> jax.Array:
        """The mean of the worst share of the energies."""
        return _worst(energies, jnp.asarray(params["risk"], energies.dtype))


class ScenarioState(NamedTuple):
    """The state of a risk-aware problem: N worlds `[N, ...]`, what each has cost so far `[N]`, and the step."""

    states: PyTree
    spent: jax.Array
    time: jax.Array


def mean(energies: jax.Array) -> jax.Array:
    """The expectation, indifferent to risk."""
    return jnp.mean(energies)


def worst_case(energies: jax.Array) -> jax.Array:
    """The largest energy: robust control."""
    return jnp.max(energies)


def optimistic(energies: jax.Array) -> jax.Array:
    """The lowest energy: the latent is chosen as the action is, by inference; for exploring, not for robots."""
    return jnp.min(energies)


def cvar(alpha: float) -> Measure:
    """Conditional value at risk, the mean of the worst share `alpha` of the energies.

        CVaR_α(E) = min_η  η + Σ_i max(0, E_i - η) / (α N)        (Rockafellar & Uryasev 2000)

    The minimum lies at one of the energies. 1 is the mean; at most 1/N is the worst case.

    Raises:
        ValueError: If alpha is not in `(0, 1]`.
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"cvar's alpha is a share in (0, 1]; got {alpha}")

    return lambda energies: _worst(energies, alpha)


def cvar_from_params() -> ParametricCVaR:
    """`cvar` of a share that is given when solving, as `params["risk"]`: 1 is the mean, 0 the worst case."""
    return ParametricCVaR()


def _worst(energies: jax.Array, alpha: Any) -> jax.Array:
    share = jnp.maximum(alpha * energies.shape[0], 1.0)
    beyond = jnp.maximum(energies[:, None] - energies, 0.0).sum(axis=0)  # no sort: XLA would leave the planner's loop
    return jnp.min(energies + beyond / share)


def entropic(aversion: float) -> Measure:
    """The entropic risk `log(mean exp(θ E_i)) / θ`: smooth, about `mean + θ/2 variance` (Whittle 1981).

    Args:
        aversion: θ, in units of one over the cost. Higher values tend to the worst case, negative ones to the best.

    Raises:
        ValueError: If it is 0; take `mean`.
    """
    if aversion == 0:
        raise ValueError("entropic needs an aversion other than 0, where it is the mean; take mpc.risk.mean")

    def measure(energies: jax.Array) -> jax.Array:
        return (jax.nn.logsumexp(aversion * energies) - np.log(energies.shape[0])) / aversion

    return measure


def over_models(problem: Problem, measure: Measure, count: int) -> Problem:
    """Plan one action sequence for all members of an ensemble of models.

    Args:
        problem: With dynamics and costs that read one model, `params["model"]`.
        measure: Of the members' energies; see this module.
        count: Number of members N: the leading axis of every leaf of `params["model"]` that the new problem is given.

    Returns:
        A problem whose plans show all members' states, `plan.states.states [H+1, N, ...]`; named costs are means over
        members, and the term `risk` is what the measure adds to them.

    Raises:
        ValueError: If the count is less than 1, the problem has latents (apply `over_latents` first), or a term is called
            risk; when solving, if a leaf of `params["model"]` has another leading axis.
    """
    if problem.latents is not None:
        raise ValueError("the problem has latents: apply mpc.risk.over_latents first, then over_models to what it returns")

    def each(function: Callable, params: PyTree, states: PyTree, *rest: Any) -> Any:
        model = params["model"]
        for path, leaf in jax.tree.leaves_with_path(model):
            if jnp.ndim(leaf) == 0 or jnp.shape(leaf)[0] != count:
                where = f"params['model']{jax.tree_util.keystr(path)}"
                raise ValueError(f"{where} must have a leading axis of {count} members; got shape {list(jnp.shape(leaf))}")
        return jax.vmap(lambda m, s: function({**params, "model": m}, s, *rest))(model, states)

    def advance(params: PyTree, worlds: ScenarioState, action: jax.Array) -> PyTree:
        return each(problem.dynamics, params, worlds.states, action)

    def spread(params: PyTree, state: PyTree) -> PyTree:
        return each(problem.lifted, params, _copies(state, count))

    return _transformed(problem, measure, count, each, advance, spread)


def over_latents(problem: Problem, measure: Measure, count: int, seed: int = 0) -> Problem:
    """Plan one action sequence for many draws of the latents that decide what the actions leave open.

    The draws `[N, H, size]` are standard normal, and the same for every candidate, iteration and decision, so that two
    plans are compared on the same luck. `params["latents"]`, of that shape, replaces them without recompiling.

    Args:
        problem: With latents declared, and dynamics `(params, state, action, latent)`.
        measure: Of the draws' energies; see this module.
        count: Number of draws N.
        seed: Of the draws.

    Returns:
        A problem without latents whose plans show all draws' states, as `over_models` does.

    Raises:
        ValueError: If the problem has no latents, the count is less than 1, or a term is called risk; when solving, if
            `params["latents"]` has another shape.
    """
    if problem.latents is None:
        raise ValueError("over_latents needs a problem with latents: Problem(..., latents=size)")
    shape = (count, problem.horizon, problem.latents)
    fixed = np.random.default_rng(seed).standard_normal(shape) if count > 0 else np.zeros(shape)

    def each(function: Callable, params: PyTree, states: PyTree, *rest: Any) -> Any:
        return jax.vmap(lambda s: function(params, s, *rest))(states)

    def advance(params: PyTree, worlds: ScenarioState, action: jax.Array) -> PyTree:
        given = params.get("latents", fixed) if isinstance(params, Mapping) else fixed
        if jnp.shape(given) != shape:
            raise ValueError(f"params['latents'] must be [count, horizon, latents] = {list(shape)}; got {jnp.shape(given)}")
        draws = jnp.asarray(given, worlds.spent.dtype)
        now = jax.lax.dynamic_index_in_dim(draws, _step(worlds), axis=1, keepdims=False)
        return jax.vmap(lambda s, z: problem.dynamics(params, s, action, z))(worlds.states, now)

    def spread(params: PyTree, state: PyTree) -> PyTree:
        return _copies(problem.lifted(params, state), count)

    return _transformed(problem, measure, count, each, advance, spread)


LATENT_BOUND = 3.0
"""Deviations within which latents are inferred."""


def with_latents_as_actions(problem: Problem, weight: float = 1.0) -> Problem:
    """Infer the latents with the actions, as one more part of them: the plan of an optimist.

        minimise over u, z   E(u, z) + weight Σ_t ½ |z[t]|²

    Args:
        problem: With latents, and a `Box` of actions.
        weight: Of how unlikely the latents are, in cost per nat; higher values hope for less.

    Returns:
        A problem without latents whose actions are `[A + latents]`: the actions, flat, and then the latents, each within
        `LATENT_BOUND` of 0; the term `hope` is what these cost.

    Raises:
        ValueError: If the problem has no latents, its action space is no `Box`, the weight is not positive, or a cost term
            is called hope.
    """
    if problem.latents is None:
        raise ValueError("jointly needs a problem with latents: Problem(..., latents=size)")
    space = problem.action_space
    if not isinstance(space, Box):
        raise ValueError(f"latents are inferred beside continuous actions, in an mpc.Box; got {type(space).__name__}")
    if not weight > 0:
        raise ValueError(f"jointly needs a positive weight, or every future can be hoped for; got {weight}")
    if isinstance(problem.cost, Total) and "hope" in problem.cost.weighted:
        raise ValueError("a cost term is called hope, which is the name of what latents cost; rename it")
    size, reach = space.size, np.full(problem.latents, LATENT_BOUND)

    def parted(both: jax.Array) -> tuple[jax.Array, jax.Array]:
        return both[:size].reshape(space.shape), both[size:]

    def stage(params: PyTree, state: PyTree, both: jax.Array, t: jax.Array) -> dict[str, jax.Array]:
        action, latent = parted(both)
        terms = itemise(problem.cost, "stage")(params, state, action, t)
        return terms | {"hope": 0.5 * weight * jnp.sum(latent**2)}

    constraints = [
        replace(c, function=lambda params, state, both, t, f=c.function: f(params, state, parted(both)[0], t))
        for c in problem.constraints
    ]
    return replace(
        problem,
        dynamics=lambda params, state, both: problem.dynamics(params, state, *parted(both)),
        cost=_Terms(stage),
        action_space=Box(np.concatenate([space.low.ravel(), -reach]), np.concatenate([space.high.ravel(), reach])),
        constraints=constraints,
        latents=None,
    )


def against(
    problem: Problem,
    params: PyTree,
    state: PyTree,
    actions: jax.Array,
    draws: jax.Array,
    *,
    weight: float = 1.0,
    steps: int = 10,
    rate: float = 0.2,
) -> jax.Array:
    """Move draws of the latents uphill, to what hurts a plan most for how likely it is.

        maximise over z   E(u, z) - weight Σ_t ½ |z[t]|²

    What comes out takes the place of the draws of `over_latents`, as `params["latents"]`, for the next plan: in turns, that
    minimises the cost of the worst that can be found.

    Args:
        problem: With latents.
        params: Its parameters.
        state: Where to start.
        actions: Of the plan, `[H, ...]`, as the model sees them.
        draws: To begin from, `[N, H, latents]`; several, for there are many ways to be hurt.
        weight: Of how unlikely latents are, in cost per nat; higher values look for likelier harm.
        steps: Of gradient ascent.
        rate: Length of a step at first, in deviations, falling to nothing.

    Returns:
        Latents `[N, H, latents]` that cost no less than the draws, each within `LATENT_BOUND` of 0 or as it was drawn.

    Raises:
        ValueError: If the problem has no latents.
    """
    if problem.latents is None:
        raise ValueError("against needs a problem with latents: Problem(..., latents=size)")
    told = _told(problem)
    lifted = problem.lifted(params, state)

    def harm(latents: jax.Array) -> jax.Array:
        cost = energy(told, (params, latents), (lifted, jnp.zeros(())), actions)
        return cost - 0.5 * weight * jnp.sum(latents**2)

    def ascend(carry: tuple[jax.Array, jax.Array, jax.Array], rate: jax.Array):
        here, best, most = carry
        value, slope = jax.value_and_grad(harm)(here)
        better = value > most
        length = jnp.sqrt(jnp.sum(slope**2, axis=-1, keepdims=True)) + 1e-9
        moved = jnp.clip(here + rate * slope / length, -LATENT_BOUND, LATENT_BOUND)
        moved = jnp.where(jnp.isfinite(slope), moved, here)
        return (moved, jnp.where(better, here, best), jnp.where(better, value, most)), None

    def one(draw: jax.Array) -> jax.Array:
        start = (draw, draw, jnp.asarray(-jnp.inf, draw.dtype))
        return jax.lax.scan(ascend, start, rate * jnp.linspace(1.0, 0.0, steps + 1))[0][1]

    return jax.vmap(one)(jnp.asarray(draws, jnp.result_type(float)))


def _told(problem: Problem) -> Problem:
    """A problem whose latents are told in advance: parameters `(params, latents [H, size])`, states `(state, step)`."""

    def dynamics(given: tuple[PyTree, jax.Array], now: tuple[PyTree, jax.Array], action: jax.Array):
        (params, latents), (state, time) = given, now
        latent = jax.lax.dynamic_index_in_dim(latents, time.astype(jnp.int32), keepdims=False)
        return problem.dynamics(params, state, action, latent), time + 1

    end = problem.terminal_cost
    return Problem(
        dynamics,
        lambda given, now, action, t: problem.cost(given[0], now[0], action, t),
        None if end is None else lambda given, now: end(given[0], now[0]),
        horizon=problem.horizon,
        action_space=problem.action_space,
    )


def _transformed(
    problem: Problem,
    measure: Measure,
    count: int,
    each: Callable[..., Any],
    advance: Callable[[PyTree, ScenarioState, jax.Array], PyTree],
    spread: Callable[[PyTree, PyTree], PyTree],
) -> Problem:
    """The problem over N worlds, where `each` calls a function in every world and `advance` takes them a step further."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"count must be a whole number of worlds, at least 1; got {count!r}")
    for cost in (problem.cost, problem.terminal_cost):
        if isinstance(cost, Total) and "risk" in cost.weighted:
            raise ValueError("a cost term is called risk, which is the name of what the measure adds; rename it")

    def dynamics(params: PyTree, worlds: ScenarioState, action: jax.Array) -> ScenarioState:
        spent = worlds.spent + each(problem.cost, params, worlds.states, action, _step(worlds))
        return ScenarioState(advance(params, worlds, action), spent, worlds.time + 1)

    def stage(params: PyTree, worlds: ScenarioState, action: jax.Array, t: jax.Array) -> dict[str, jax.Array]:
        return _means(each(itemise(problem.cost, "stage"), params, worlds.states, action, t))

    def terminal(params: PyTree, worlds: ScenarioState) -> dict[str, jax.Array]:
        energies, terms = worlds.spent, {}
        if problem.terminal_cost is not None:
            energies = energies + each(problem.terminal_cost, params, worlds.states)
            terms = _means(each(itemise(problem.terminal_cost, "terminal"), params, worlds.states))
        # the worlds of a world may have a risk of their own, already part of its energy
        risk = measure(energies, params) if isinstance(measure, ParametricCVaR) else measure(energies)
        return terms | {"risk": terms.get("risk", 0.0) + risk - jnp.mean(energies)}

    def begin(params: PyTree, state: PyTree) -> ScenarioState:
        dtype = jnp.result_type(float)
        return ScenarioState(spread(params, state), jnp.zeros(count, dtype), jnp.zeros((), dtype))

    constraints = [
        replace(c, function=lambda params, worlds, *rest, f=c.function: each(f, params, worlds.states, *rest))
        for c in problem.constraints
    ]
    return Problem(
        dynamics,
        _Terms(stage),
        _Terms(terminal),
        horizon=problem.horizon,
        action_space=problem.action_space,
        constraints=constraints,
        lift=begin,
    )


class _Terms(Total):
    """A cost whose named terms come from one function; their sum is the cost."""

    def __init__(self, terms: Callable[..., dict[str, jax.Array]]):
        super().__init__({})
        self.terms = terms


def _means(terms: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: jnp.mean(values) for name, values in terms.items()}


def _copies(state: PyTree, count: int) -> PyTree:
    return jax.tree.map(lambda s: jnp.broadcast_to(s, (count, *jnp.shape(s))), state)


def _step(worlds: ScenarioState) -> jax.Array:
    """The step as an index; collocation may hand in a clock that is off by a little."""
    return jnp.round(worlds.time).astype(jnp.int32)
