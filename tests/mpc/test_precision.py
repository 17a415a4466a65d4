"""The precision of numbers and the kind of random keys are those of the model and of the file, not of the process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mpc
from mpc.deploy import runtime
from mpc.deploy.runtime import ArtefactError
from mpc.precision import as_dynamics_keep

KINDS = [np.float32, np.float64]


def plain(p, s, a):
    """Whatever is given, promoted."""
    return s + p["gain"] * a


def point(dynamics=plain) -> mpc.Problem:
    """A point on a line that is pushed towards 0."""
    space = mpc.Box([-1.0], [1.0])
    return mpc.Problem(dynamics, lambda p, s, a, t: jnp.sum(s * s), horizon=3, action_space=space)


def network(p, s, a):
    """Weights of single precision, which cast what they are given."""
    return s.astype(jnp.float32) + p["gain"].astype(jnp.float32) * a.astype(jnp.float32)


def policy(dynamics=plain) -> mpc.Policy:
    return mpc.policy(mpc.predictive_sampling(point(dynamics), samples=4), iterations=2)


@pytest.mark.parametrize(("wide", "dynamics"), [(True, plain), (True, network), (False, plain)])
def test_controllers_take_states_and_parameters_of_any_precision(wide, dynamics):
    with jax.enable_x64(wide):
        for observed, given in (KINDS, KINDS[::-1]):
            controller = mpc.Controller(policy(dynamics), {"gain": given(0.5)}, observation=np.zeros(1, observed))
            for seen in (np.ones(1, observed), [1.0]):
                assert controller.act(seen)[0] < 0
                assert controller.status == mpc.Status.ITERATIONS


def test_states_are_converted_only_where_the_dynamics_ask_for_it():
    params = {"gain": np.float32(0.5)}
    with jax.enable_x64(True):
        for dynamics, kept in ((plain, jnp.float64), (network, jnp.float32)):
            for observed in KINDS:
                assert as_dynamics_keep(point(dynamics), params, np.zeros(1, observed)).dtype == kept
        never = point(lambda p, s, a: s.astype(jnp.float16))
        assert as_dynamics_keep(never, params, np.zeros(1, np.float32)).dtype == jnp.float32
        with pytest.raises(ValueError, match="dynamics must keep the state's shapes and dtypes"):
            mpc.Controller(mpc.predictive_sampling(never, samples=4), params, observation=np.zeros(1))
    assert as_dynamics_keep(point(), params, np.zeros(1, np.float16)).dtype == jnp.float32
    assert as_dynamics_keep(point(), params, np.zeros(1)).dtype == jnp.float32


def decided(artefact: runtime.Artefact, seed: int) -> np.ndarray:
    """Two plans, one after the other."""
    first = artefact.step([1.0], artefact.init([1.0], seed))
    return np.stack([first.actions, artefact.step([0.5], first.state).actions])


@pytest.mark.parametrize(("wide", "observed"), [(True, np.float32), (True, np.float64), (False, np.float64)])
def test_artefacts_decide_in_the_precision_that_they_were_made_in(wide, observed):
    with jax.enable_x64(wide):
        data = mpc.export(policy(), {"gain": np.full((), 0.5)}, np.zeros(1, observed), delay=1, platforms=("cpu",))
        there = decided(runtime.loads(data), 3)
        assert there.dtype == (np.float64 if wide else np.float32)
    with jax.enable_x64(not wide):
        artefact = runtime.loads(data, prepare=False)
        assert artefact.observation.dtype == (observed if wide else np.float32)
        np.testing.assert_array_equal(decided(artefact, 3), there)


KEYS = ["rbg", "threefry2x32"]


@pytest.mark.parametrize(("kind", "other"), [KEYS, KEYS[::-1]])
def test_artefacts_draw_by_the_keys_that_they_were_made_with(kind, other):
    params, seen, drawing = {"gain": np.float32(0.5)}, np.ones(1, np.float32), policy()
    with jax.default_prng_impl(kind):
        data = mpc.export(drawing, params, seen, platforms=("cpu",))
        key = jax.random.key(7)
        begin_and_step = jax.jit(lambda p, seen, key: drawing.step(p, seen, drawing.init(p, seen, key))[1])
        decision = begin_and_step(params, seen, key)
    with jax.default_prng_impl(other):
        artefact = runtime.loads(data, prepare=False)
        np.testing.assert_array_equal(artefact.keys(7), jax.random.key_data(key))
        found = artefact.step(seen, artefact.init(seen, np.int64(7)))
        np.testing.assert_allclose(found.actions, decision.plan.actions, atol=1e-6)
        with pytest.raises(ArtefactError, match=f"jax_default_prng_impl='{kind}', which the artefact was exported with"):
            artefact.init(seen, np.asarray(jax.random.key_data(jax.random.key(0))))


def test_keys_of_several_observations_are_drawn_from_the_kind_of_the_artefact():
    params, seen = {"gain": np.float32(0.5)}, np.ones((2, 1), np.float32)
    with jax.default_prng_impl("rbg"):
        data = mpc.export(policy(), params, seen[0], batch=2, platforms=("cpu",))
        with pytest.raises(ArtefactError, match="which keys of jax_default_prng_impl='rbg' cannot"):
            mpc.export(policy(), params, seen[0], batch="b", platforms=("cpu",))
    artefact = runtime.loads(data, prepare=False)
    assert artefact.keys(7, 2).shape == (2, 4) and len(np.unique(artefact.keys(7, 2), axis=0)) == 2
    assert artefact.step(seen, artefact.init(seen)).action.shape == (2, 1)


def test_artefacts_of_before_have_keys_of_two_words_and_single_precision():
    data = mpc.export(policy(), {"gain": np.float32(0.5)}, np.ones(1, np.float32), platforms=("cpu",))
    manifest, members = runtime.unpack(data)
    weights = [np.float32(0.5)]
    programs = {name: members[f"cpu/{name}"] for name in manifest["entries"]}
    before = {name: value for name, value in manifest.items() if name not in ("key", "x64")}
    old = runtime.Artefact(before, programs, weights)  # type: ignore[arg-type]
    np.testing.assert_array_equal(decided(old, 3), decided(runtime.loads(data), 3))
