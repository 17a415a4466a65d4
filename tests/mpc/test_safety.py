"""The safety filter of a cart before a wall, where the safe actions are known: those after which it can brake."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mpc
from mpc.safety import Guard

WALL = mpc.constraints.inequality(lambda p, s, a, t: s[0] - 1.0)
SPACE = mpc.Box([-1.0], [1.0])


def roll(p, s, a):  # position in m, velocity in m/s, acceleration in m/s²; steps of 0.1 s
    return s + 0.1 * jnp.stack([s[1] + 0.05 * a[0], a[0]])


def brake(p, s):
    return -s[1:] / 0.1


CART = mpc.Problem(roll, lambda *_: jnp.zeros(()), horizon=25, action_space=SPACE, constraints=[WALL])
SAFE = mpc.safety_filter(CART, [brake])


def stop(v):
    """Returns how far the cart rolls while it brakes: n steps at full force, then one that leaves it at rest."""
    n = np.floor(v / 0.1)
    return 0.1 * v * n - 0.005 * n**2 + 0.05 * (v - 0.1 * n)


def test_only_what_cannot_be_braked_after_is_changed_and_just_so_far():
    drawn = np.random.default_rng(0)
    states, actions = drawn.uniform([-1.0, 0.15], [1.0, 1.5], (2000, 2)), drawn.uniform(-1.0, 1.0, (2000, 1))

    def reach(actions):
        return states[:, 0] + 0.1 * states[:, 1] + 0.005 * actions[:, 0] + stop(states[:, 1] + 0.1 * actions[:, 0])

    _, sent = jax.jit(jax.vmap(SAFE.apply, (None, 0, 0, None)))(None, states, actions, SAFE.init())
    clear = np.abs(reach(actions) - 1.0) > 1e-5
    np.testing.assert_array_equal(sent.changed[clear], reach(actions)[clear] > 1.0)
    can = reach(-np.ones_like(actions)) < 1.0 - 1e-5
    assert sent.safe[can].all() and can.sum() > 500 and sent.changed[can].sum() > 50
    assert (reach(np.asarray(sent.action))[can] < 1.0 + 1e-5).all()
    milder = np.minimum(np.asarray(sent.action) + 2.0 / 16 + 1e-3, actions)  # one level nearer to what was asked for
    assert (reach(milder)[np.asarray(sent.changed) & can] > 1.0 - 1e-5).all()


def test_a_cart_that_is_told_to_hit_the_wall_stops_before_it():
    def step(carry, _):
        state, filtered = carry
        filtered, sent = SAFE.apply(None, state, jnp.array([jnp.inf]), filtered)
        filtered, sent = SAFE.apply(None, state, jnp.array([1.0]), filtered)
        state = roll(None, state, sent.action)
        return (state, filtered), state[0]

    (end, counts), positions = jax.jit(partial(jax.lax.scan, step, length=200))((jnp.zeros(2), SAFE.init()))
    assert 0.98 < positions.max() <= 1.0 + 1e-6 and abs(end[1]) < 0.02
    assert counts.decided == 400 and 200 < counts.changed < 400


def test_nothing_is_sent_that_is_not_a_number_and_the_backup_acts_where_nothing_is_known():
    lost = mpc.safety_filter(CART, [lambda p, s: s[1:] * jnp.nan, brake])
    for state, action in ((jnp.zeros(2), jnp.nan), (jnp.full(2, jnp.nan), 1.0), (jnp.array([0.0, 1e30]), 1.0)):
        after, sent = lost.apply(None, state, jnp.array([action]), lost.init())
        assert np.isfinite(sent.action).all() and sent.changed and sent.safe == (action != 1.0)
        assert after.unsafe == (action == 1.0)
    _, sent = lost.apply(None, jnp.array([2.0, 1.0]), jnp.array([1.0]), lost.init())  # behind the wall already
    assert sent.action == -1.0 and not sent.safe


def test_compiled_batched_and_eager_filters_agree_in_both_precisions():
    states, actions = jnp.array([[0.8, 0.6], [0.0, 0.3]]), jnp.array([[1.0], [0.25]])
    together = jax.vmap(SAFE.apply, (None, 0, 0, None))(None, states, actions, SAFE.init())
    for i in range(2):
        one = SAFE.apply(None, states[i], actions[i], SAFE.init())
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a, b[i], rtol=1e-6), one, together)
    assert list(together[1].changed) == [True, False] and together[1].action[1] == 0.25
    with jax.enable_x64(True):
        _, sent = SAFE.apply(None, np.array([0.8, 0.6], np.float32), np.array([1.0]), SAFE.init())
        np.testing.assert_allclose(sent.action, together[1].action[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"constraints": []}, {}, "needs constraints"),
        ({"constraints": [mpc.constraints.equality(lambda p, s, a, t: s[0])]}, {}, "no equality"),
        ({"action_space": mpc.Discrete(2)}, {}, "an mpc.Box"),
        ({"lift": lambda p, s: s}, {}, "without latents and lift"),
        ({}, {"backups": []}, "at least 1"),
        ({}, {"levels": 0}, "at least 1"),
        ({}, {"margin": float("nan")}, "margin not negative"),
    ],
)
def test_what_cannot_be_filtered_is_refused(changes, settings, message):
    with pytest.raises(ValueError, match=message):
        mpc.safety_filter(replace(CART, **changes), **({"backups": [brake]} | settings))


def test_a_guard_looks_at_the_state_in_which_the_action_acts():
    guard = Guard(CART, SAFE)
    seen, asked = np.array([0.8, 0.5], np.float32), np.array([0.3], np.float32)
    flying = np.array([[np.nan], [1.0], [-1.0]], np.float32)
    for count, sent in ((0, []), (1, [-1.0]), (2, [1.0, -1.0])):
        state = seen
        for action in sent:
            state = roll(None, state, jnp.array([action]))
        _, wanted = SAFE.apply(None, state, asked, SAFE.init())
        found = guard(seen, mpc.InFlight(flying, count), asked)
        np.testing.assert_allclose(found.action, wanted.action, atol=1e-6)
