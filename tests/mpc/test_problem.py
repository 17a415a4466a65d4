"""Problems that cannot be meant are refused when they are built, or when they are held against an example."""

import jax
import jax.numpy as jnp
import pytest

import mpc

BOX = mpc.Box([-1.0], [1.0])


def step(params, state, action):
    return state + action


def noisy(params, state, action, latent):
    return state + action + latent


def size(params, state, action, t):
    return jnp.sum(state * state)


def problem(dynamics=step, cost=size, **settings) -> mpc.Problem:
    return mpc.Problem(dynamics, cost, **({"horizon": 3, "action_space": BOX} | settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dynamics": 3}, "dynamics must be a function"),
        ({"horizon": 0}, "horizon"),
        ({"horizon": True}, "horizon"),
        ({"horizon": 2.0}, "horizon"),
        ({"action_space": (-1, 1)}, "mpc.Box"),
        ({"dynamics": noisy}, r"latents=None; got a function of \(params, state, action, latent\)"),
        ({"latents": 2}, r"latents=2; got a function of \(params, state, action\)"),
        ({"dynamics": noisy, "latents": 0}, "latents must be the size"),
        ({"constraints": (size,)}, "mpc.constraints.inequality"),
        ({"constraints": mpc.constraints.equality(size)}, "sequence"),
    ],
)
def test_problems_that_cannot_be_meant(settings, message):
    with pytest.raises(ValueError, match=message):
        problem(**settings)


@pytest.mark.parametrize(
    ("settings", "state", "message"),
    [
        ({"cost": lambda p, s, a, t: s}, jnp.ones(2), r"cost must return one .* got float32\[2\]"),
        ({"cost": lambda p, s, a, t: 1}, jnp.ones(2), r"cost must return one floating"),
        ({"dynamics": lambda p, s, a: s[:1]}, jnp.ones(2), r"went in as float32\[2\] and came out as float32\[1\]"),
        ({"dynamics": lambda p, s, a: s.astype(jnp.float16)}, jnp.ones(2), r"came out as float16\[2\]"),
        ({"dynamics": lambda p, s, a: (s, s)}, jnp.ones(2), "built like"),
        ({}, jnp.ones(2, int), "floating point"),
        ({"terminal_cost": lambda p, s: s}, jnp.ones(2), "terminal_cost must return one"),
    ],
)
def test_functions_that_do_not_fit_an_example(settings, state, message):
    with pytest.raises(ValueError, match=message):
        problem(**settings).check(None, state)


@pytest.mark.parametrize(
    ("values", "got"),
    [
        (lambda p, s, a, t: (s, s), "tuple"),
        (lambda p, s, a, t: s > 0, r"bool\[2\]"),
        (lambda p, s, a, t: s[:0], r"float32\[0\]"),
    ],
)
def test_constraints_of_the_wrong_kind(values, got):
    wrong = problem(constraints=(mpc.constraints.inequality(values, "speed"),))
    with pytest.raises(ValueError, match=rf"constraint 'speed' must return one array .* got {got}"):
        mpc.solve(mpc.gradient(wrong, starts=1), None, jnp.ones(2), jax.random.key(0), 1)


def test_a_latent_has_the_declared_size_and_planners_ask_what_to_make_of_it():
    declared = problem(noisy, latents=2)
    declared.check(None, jnp.ones(2))
    with pytest.raises(ValueError, match="dynamics must keep"):
        problem(noisy, latents=2).check(None, jnp.ones(1))
    for planner in (mpc.gradient, mpc.cem, mpc.ilqr):
        with pytest.raises(ValueError, match="over_latents"):
            planner(declared)


def test_callables_that_do_not_tell_what_they_take_are_taken_at_their_word():
    problem(jax.jit(step)).check(None, jnp.ones(1))
    problem(lambda *given: given[1]).check(None, jnp.ones(1))
