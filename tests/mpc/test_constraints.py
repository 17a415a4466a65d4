"""Constraints: where they are evaluated, and what their violation is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mpc
from mpc import constraints


def test_each_action_and_each_state_it_leads_to_is_seen_once():
    seen = constraints.inequality(lambda p, s, a, t: jnp.stack([s[0], a[0], t.astype(float)]))
    states, actions = jnp.arange(10.0, 14.0)[:, None], jnp.arange(3.0)[:, None]
    values = constraints.along(seen, None, states, actions)
    np.testing.assert_array_equal(values, [[11, 0, 1], [12, 1, 2], [13, 2, 3]])


def test_violation_is_the_largest_on_the_wrong_side():
    both = (
        constraints.inequality(lambda p, s, a, t: s - p, "low"),
        constraints.equality(lambda p, s, a, t: a[0], "still"),
        constraints.inequality(lambda p, s, a, t: s - 100.0, "low"),
    )
    states, actions = jnp.array([9.0, 1.0, -5.0])[:, None], jnp.array([0.1, -0.3])[:, None]
    found = constraints.violation(both, 0.25, states, actions)
    assert {k: round(float(v), 6) for k, v in found.items()} == {"low": 0.75, "still": 0.3, "low_2": 0.0}
    assert constraints.table(both, 0.25, states, actions).shape == (2, 3)


def test_a_broken_future_is_no_feasible_one():
    limit = (constraints.inequality(lambda p, s, a, t: s - 1.0),)
    assert np.isnan(constraints.violation(limit, None, jnp.full((3, 1), jnp.nan), jnp.zeros((2, 1)))["inequality"])


def test_what_a_constraint_reads():
    example = (jnp.ones(2), {"x": jnp.ones(1), "y": jnp.ones(1)}, jnp.ones(1), jnp.asarray(1))
    reads = [
        (lambda p, s, a, t: s["y"], (False, True, False, False)),
        (lambda p, s, a, t: a * p[0], (True, False, True, False)),
        (lambda p, s, a, t: jnp.where(t > 1, s["x"] * a, 0.0), (False, True, True, True)),
        (lambda p, s, a, t: jnp.ones(3), (False, False, False, False)),
        (jax.jit(lambda p, s, a, t: s["x"] + a), (False, True, True, False)),
    ]
    for function, expected in reads:
        found = constraints.reads(function, *example)
        assert all(yes or not must for yes, must in zip(found, expected, strict=True)), "what is read must never be missed"
    assert [constraints.reads(f, *example) for f, _ in reads[:4]] == [expected for _, expected in reads[:4]]


def test_what_is_no_function_is_refused():
    with pytest.raises(ValueError, match="function"):
        mpc.constraints.inequality(3.0)  # type: ignore[arg-type]
