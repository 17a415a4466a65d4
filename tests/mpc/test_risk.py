"""Risk measures against brute force, and plans whose risk can be worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpc
from mpc import risk


@settings(max_examples=60, deadline=None)
@given(energies=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=9), alpha=st.floats(0.01, 1.0))
def test_cvar_is_the_mean_of_the_worst_share(energies, alpha):
    share, left, total = alpha * len(energies), max(alpha * len(energies), 1.0), 0.0
    for energy in sorted(energies, reverse=True):  # the last one counted may count in part
        total += min(left, 1.0) * energy
        left -= min(left, 1.0)
    got = float(risk.cvar(alpha)(jnp.asarray(energies, float)))
    assert got == pytest.approx(total / max(share, 1.0), rel=1e-4, abs=1e-2)


def test_measures_are_ordered_and_meet_at_their_limits():
    energies = jnp.array([3.0, -1.0, 4.0, 1.0, -5.0])
    assert float(risk.cvar(1.0)(energies)) == pytest.approx(float(risk.mean(energies)), abs=1e-5)
    assert float(risk.cvar(0.1)(energies)) == float(risk.worst_case(energies)) == 4.0
    assert float(risk.optimistic(energies)) == -5.0
    assert float(risk.entropic(40.0)(energies)) == pytest.approx(4.0, abs=0.05)
    assert float(risk.entropic(-40.0)(energies)) == pytest.approx(-5.0, abs=0.05)
    assert float(risk.entropic(1e-3)(energies)) == pytest.approx(0.4, abs=1e-2)
    # the slope of CVaR is the share with which each energy counts
    np.testing.assert_allclose(jax.grad(risk.cvar(0.5))(energies), [0.4, 0.0, 0.4, 0.2, 0.0], atol=1e-6)


def two_opinions(measure) -> mpc.Problem:
    """Gain m of the action is 1 or 3 for all anyone knows, and the state should reach 1 in one step: E_m = (m u - 1)²."""
    single = mpc.Problem(
        lambda p, s, a: s + p["model"]["gain"] * a,
        mpc.costs.total(nothing=(1.0, lambda p, s, a, t: 0.0 * a[0])),
        mpc.costs.total(miss=(1.0, lambda p, s: (s[0] - 1.0) ** 2)),
        horizon=1,
        action_space=mpc.Box([-2.0], [2.0]),
    )
    return risk.over_models(single, measure, 2)


@pytest.mark.parametrize(
    ("measure", "action", "cost"),
    [
        (risk.mean, 0.4, 0.2),  # Σ m (m u - 1) = 0: u = 4 / 10
        (risk.worst_case, 0.5, 0.25),  # |u - 1| = |3u - 1|: u = 1/2
        (risk.cvar(0.5), 0.5, 0.25),
    ],
)
@pytest.mark.parametrize("build", [lambda p: mpc.cem(p, samples=128), lambda p: mpc.gradient(p, starts=4)])
def test_mean_and_worst_case_choose_differently(measure, action, cost, build):
    params = {"model": {"gain": jnp.array([1.0, 3.0])}}
    plan = mpc.solve(build(two_opinions(measure)), params, jnp.zeros(1), jax.random.key(0), iterations=150)
    assert float(plan.actions[0, 0]) == pytest.approx(action, abs=2e-2)
    assert float(plan.cost) == pytest.approx(cost, abs=1e-2)
    members = (np.array([1.0, 3.0]) * float(plan.actions[0, 0]) - 1.0) ** 2
    assert float(plan.costs["miss"]) == pytest.approx(members.mean(), rel=1e-4)
    assert float(plan.costs["risk"]) == pytest.approx(float(measure(jnp.asarray(members))) - members.mean(), abs=1e-4)
    np.testing.assert_allclose(plan.states.states[1, :, 0], [plan.actions[0, 0], 3 * plan.actions[0, 0]], rtol=1e-5)


def test_optimism_picks_the_world_that_suits_it():
    plan = mpc.solve(
        mpc.cem(two_opinions(risk.optimistic), samples=128),
        {"model": {"gain": jnp.array([1.0, 3.0])}},
        jnp.zeros(1),
        jax.random.key(0),
        iterations=40,
    )
    assert float(plan.cost) < 1e-4 and min(abs(float(plan.actions[0, 0]) - u) for u in (1.0, 1 / 3)) < 1e-2


def gusty(**settings) -> mpc.Problem:
    """A cart pushed by a random wind that the more it is steered blows the harder."""
    return mpc.Problem(
        lambda p, s, a, z: s + 0.5 * a + 0.3 * a * z[:1],
        lambda p, s, a, t: jnp.sum((s - 1.0) ** 2) + 0.01 * t,
        lambda p, s: 2.0 * jnp.sum((s - 1.0) ** 2),
        horizon=4,
        action_space=mpc.Box([-1.0], [1.0]),
        latents=2,
        **settings,
    )


@pytest.mark.parametrize("measure", [risk.mean, risk.cvar(0.25), risk.worst_case])
def test_energies_over_latents_are_those_of_a_loop(measure):
    problem, actions = risk.over_latents(gusty(), measure, 8), jnp.array([[0.9], [0.2], [-0.3], [0.5]])
    draws = jax.random.normal(jax.random.key(1), (8, 4, 2))
    single, energies = gusty(), []
    for z in draws:
        state, energy = jnp.zeros(1), 0.0
        for t in range(4):
            energy += float(single.cost(None, state, actions[t], jnp.asarray(t)))
            state = single.dynamics(None, state, actions[t], z[t])
        energies.append(energy + 2.0 * float((state[0] - 1.0) ** 2))
    params = {"latents": draws}
    lifted = problem.lifted(params, jnp.zeros(1))
    got = jax.jit(lambda: mpc.energy(problem, params, lifted, actions))()
    assert float(got) == pytest.approx(float(measure(jnp.asarray(energies))), rel=1e-5)
    itemised = mpc.rollout(problem, params, lifted, actions)
    assert float(itemised.energy) == pytest.approx(float(got), rel=1e-5)
    assert float(itemised.costs["stage"].sum() + itemised.costs["terminal"]) == pytest.approx(np.mean(energies), rel=1e-5)


def test_draws_are_the_same_for_every_plan_unless_given_anew_and_never_recompile():
    compiled = []

    def count(p, s, a, z):
        compiled.append(1)
        return gusty().dynamics(p, s, a, z)

    single = mpc.Problem(count, gusty().cost, horizon=4, action_space=mpc.Box([-1.0], [1.0]), latents=2)
    planner = mpc.cem(risk.over_latents(single, risk.cvar(0.5), 6), samples=32, elites=4)

    def run(draws):
        return float(mpc.solve(planner, {"latents": draws}, jnp.zeros(1), jax.random.key(0), iterations=3).cost)

    first = run(jax.random.normal(jax.random.key(0), (6, 4, 2)))
    traced = len(compiled)
    assert run(jax.random.normal(jax.random.key(0), (6, 4, 2))) == first
    assert run(jax.random.normal(jax.random.key(5), (6, 4, 2))) != first
    assert len(compiled) == traced
    fixed = [float(mpc.solve(planner, None, jnp.zeros(1), jax.random.key(0), iterations=3).cost) for _ in range(2)]
    assert fixed[0] == fixed[1]


def test_models_and_latents_nest():
    single = mpc.Problem(
        lambda p, s, a, z: s + p["model"] * a + 0.1 * z[:1],
        lambda p, s, a, t: jnp.sum(s * s),
        horizon=3,
        action_space=mpc.Box([-1.0], [1.0]),
        latents=1,
    )
    both = risk.over_models(risk.over_latents(single, risk.cvar(0.5), 5), risk.worst_case, 2)
    params, actions = {"model": jnp.array([1.0, 2.0])}, jnp.full((3, 1), 0.4)
    got = mpc.energy(both, params, both.lifted(params, jnp.ones(1)), actions)
    inner = risk.over_latents(single, risk.cvar(0.5), 5)
    each = [mpc.energy(inner, {"model": m}, inner.lifted(None, jnp.ones(1)), actions) for m in params["model"]]
    assert float(got) == pytest.approx(max(float(e) for e in each), rel=1e-5)
    plan = mpc.solve(mpc.mppi(both, samples=8), params, jnp.ones(1), jax.random.key(0), iterations=2)
    assert float(sum(jnp.sum(c) for c in plan.costs.values())) == pytest.approx(float(plan.cost), rel=1e-5)


def test_constraints_hold_in_every_world_and_controllers_take_plain_states():
    single = mpc.Problem(
        lambda p, s, a: s + p["model"] * a,
        lambda p, s, a, t: jnp.sum((s - 1.0) ** 2),
        horizon=3,
        action_space=mpc.Box([-1.0], [1.0]),
        constraints=[mpc.constraints.inequality(lambda p, s, a, t: s - 0.5)],
    )
    problem = risk.over_models(single, risk.mean, 3)
    values = problem.constraints[0].function(
        {"model": jnp.array([1.0, 2.0, 3.0])},
        risk.ScenarioState(jnp.ones((3, 1)), jnp.zeros(3), jnp.zeros(())),
        jnp.ones(1),
        jnp.asarray(1),
    )
    assert values.shape == (3, 1)
    free = risk.over_models(
        mpc.Problem(single.dynamics, single.cost, horizon=3, action_space=single.action_space), risk.mean, 3
    )
    controller = mpc.Controller(
        mpc.cem(free, samples=16, elites=4), {"model": jnp.ones(3)}, observation=jnp.zeros(1), iterations=3
    )
    assert controller.act(jnp.zeros(1)).shape == (1,) and controller.status == mpc.Status.ITERATIONS


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="alpha"):
        risk.cvar(0.0)
    with pytest.raises(ValueError, match="over_latents first"):
        risk.over_models(gusty(), risk.mean, 2)
    with pytest.raises(ValueError, match="latents=size"):
        risk.over_latents(two_opinions(risk.mean), risk.mean, 2)
    with pytest.raises(ValueError, match="count"):
        risk.over_latents(gusty(), risk.mean, 0)
    with pytest.raises(ValueError, match="2 members"):
        mpc.solve(mpc.cem(two_opinions(risk.mean)), {"model": {"gain": jnp.ones(3)}}, jnp.zeros(1), jax.random.key(0))
    with pytest.raises(ValueError, match="aversion"):
        risk.entropic(0.0)
    named = mpc.Problem(
        lambda p, s, a: s,
        mpc.costs.total(risk=(1.0, lambda p, s, a, t: jnp.sum(s))),
        horizon=2,
        action_space=mpc.Box([-1.0], [1.0]),
    )
    with pytest.raises(ValueError, match="called risk"):
        risk.over_models(named, risk.mean, 2)


def hopeful() -> mpc.Problem:
    """One step `s' = a + z` at a cost of `½ (s' - 3)²`, with a in [-1, 1]."""
    return mpc.Problem(
        lambda p, s, a, z: a + z,
        mpc.costs.total(effort=(1.0, lambda p, s, a, t: 0.5 * a[0] ** 2)),
        mpc.costs.total(miss=(1.0, lambda p, s: 0.5 * (s[0] - p["goal"]) ** 2)),
        horizon=1,
        action_space=mpc.Box([-1.0], [1.0]),
        latents=1,
    )


def test_an_optimist_infers_the_future_with_the_action():
    """Minimise `½ a² + ½ (a + z - g)² + w/2 z²`: with the miss m = g - a - z, a = m and z = m / w, so m = g / (2 + 1/w)."""
    weight, params = 4.0, {"goal": jnp.float32(1.5)}
    planner = mpc.gradient(risk.with_latents_as_actions(hopeful(), weight), starts=1)
    plan = mpc.solve(planner, params, jnp.zeros(1), jax.random.key(0), iterations=200)
    missed = 1.5 / (2 + 1 / weight)
    np.testing.assert_allclose(plan.actions[0], [missed, missed / weight], rtol=1e-2)
    assert float(plan.costs["latent_prior_cost"].sum()) == pytest.approx(0.5 * missed**2 / weight, rel=2e-2)


def test_an_adjustable_share_is_cvar_of_that_share():
    actions, draws = jnp.array([[0.9], [0.2], [-0.3], [0.5]]), jax.random.normal(jax.random.key(1), (8, 4, 2))
    loose = risk.over_latents(gusty(), risk.cvar_from_params(), 8)
    params = {"latents": draws, "risk": jnp.float32(0.25)}
    given = jax.jit(lambda p: mpc.energy(loose, p, loose.lifted(p, jnp.zeros(1)), actions))
    for share, measure in ((0.25, risk.cvar(0.25)), (1.0, risk.mean), (0.0, risk.worst_case)):
        fixed = risk.over_latents(gusty(), measure, 8)
        wanted = mpc.energy(fixed, params, fixed.lifted(params, jnp.zeros(1)), actions)
        assert float(given(params | {"risk": jnp.float32(share)})) == pytest.approx(float(wanted), rel=1e-5)
    assert given._cache_size() == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: risk.with_latents_as_actions(two_opinions(risk.mean)), "needs a problem with latents"),
        (lambda: risk.with_latents_as_actions(hopeful(), 0.0), "positive weight"),
    ],
)
def test_inferring_what_is_not_there_is_refused(build, said):
    with pytest.raises(ValueError, match=said):
        build()
