"""The control loop against bad input, deadlines, and planning afresh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpc
from mpc.controller import conform, types_to_keep


def integrator(horizon: int = 10) -> mpc.Problem:
    """A point that moves by a tenth of the action and wants to be at 0."""
    return mpc.Problem(
        lambda p, s, a: s + 0.1 * a,
        lambda p, s, a, t: s @ s + 0.001 * a @ a,
        horizon=horizon,
        action_space=mpc.Box([-1.0], [1.0]),
    )


PLANNER = mpc.gradient(integrator(), starts=4)


def test_closed_loop_reaches_the_goal_and_stays():
    controller, state = mpc.Controller(PLANNER, None, iterations=20), jnp.ones(1)
    for _ in range(15):
        state = state + 0.1 * controller.act(state)
    assert abs(float(state[0])) < 0.02


def test_warm_start_beats_a_cold_one():
    planner = mpc.gradient(integrator(30), starts=1)
    long, short = mpc.policy(planner, iterations=60), mpc.policy(planner, iterations=3)
    start, key = jnp.ones(1), jax.random.key(0)
    state, decision = long.step(None, start, long.init(None, start, key))
    after = start + 0.1 * decision.action
    _, warm = short.step(None, after, state)
    cold = mpc.solve(planner, None, after, key, iterations=3)
    assert float(warm.plan.cost) < float(cold.cost)


@pytest.mark.parametrize("bad", [[np.nan], [np.inf], [1.0, 2.0], "text", None, {"a": 1.0}])
def test_bad_states_get_the_last_good_plan(bad):
    controller = mpc.Controller(PLANNER, None, observation=jnp.ones(1), iterations=10)
    controller.act(jnp.ones(1))
    assert controller.plan is not None
    expected = np.asarray(controller.plan.actions)
    for k in (1, 2):
        np.testing.assert_array_equal(controller.act(bad), expected[k])
        assert controller.status == mpc.Status.NOT_FINITE
    action = controller.act(jnp.ones(1))
    assert controller.status == mpc.Status.ITERATIONS and action[0] < -0.9


def test_a_long_blackout_ends_in_the_neutral_action():
    controller = mpc.Controller(PLANNER, None, observation=jnp.ones(1), iterations=5)
    controller.act(jnp.ones(1))
    last = [controller.act([np.nan]) for _ in range(12)][-1]
    np.testing.assert_array_equal(last, [0.0])


class Clock:
    """A clock that goes on by a millisecond whenever it is read."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1e-3
        return self.now


def test_a_deadline_buys_the_iterations_that_fit():
    """Every chunk is followed by one look at the clock, and takes a millisecond by it."""
    spent = {}
    for deadline in (0.0065, 0.0505):
        settings = {"observation": jnp.ones(1), "iterations": 1000, "clock": Clock()}
        controller = mpc.Controller(PLANNER, None, deadline=deadline, **settings)
        for _ in range(3):
            controller.act(jnp.ones(1))
            spent[deadline] = controller.iterations_spent
            assert controller.seconds <= deadline + 2.5e-3  # the looks at the clock that are no work
    assert spent == {0.0065: 4, 0.0505: 48}


def test_a_decision_that_takes_longer_is_late():
    clock = Clock()
    controller = mpc.Controller(PLANNER, None, observation=jnp.ones(1), iterations=5, deadline=0.5, clock=clock)
    controller.act(jnp.ones(1))
    assert not controller.late and controller.iterations_spent == 5
    controller.deadline = 1e-4
    controller.act(jnp.ones(1))
    assert controller.late and controller.iterations_spent == 1  # at least one is made


def test_decisions_in_chunks_equal_decisions_at_once():
    whole = mpc.Controller(PLANNER, None, observation=jnp.ones(1), iterations=6)
    chunked = mpc.Controller(PLANNER, None, observation=jnp.ones(1), iterations=6, deadline=60.0, chunk=2)
    for x in (1.0, 0.9, 0.7):
        np.testing.assert_allclose(whole.act(jnp.array([x])), chunked.act(jnp.array([x])), rtol=1e-5)


@settings(max_examples=15, deadline=None)
@given(x=st.floats(allow_nan=True, allow_infinity=True, width=32))
def test_actions_are_finite_and_in_bounds_whatever_is_observed(x):
    action = CONTROLLER.act(np.array([x]))
    assert np.isfinite(action).all() and (np.abs(action) <= 1).all()


CONTROLLER = mpc.Controller(PLANNER, None, iterations=3)


@pytest.mark.parametrize("wrong", [{"iterations": 0}, {"deadline": 0.0}, {"chunk": 0}, {"deadline": float("nan")}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        mpc.Controller(PLANNER, None, **wrong)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("deadline", [None, 60.0])
def test_a_policy_decides_as_it_does_alone(deadline):
    policy, key = mpc.policy(PLANNER, iterations=4), jax.random.key(0)
    iterations = None if deadline is None else 4
    controller = mpc.Controller(policy, None, observation=jnp.ones(1), deadline=deadline, iterations=iterations)
    step, state = jax.jit(policy.step), policy.init(None, jnp.ones(1), key)
    for x in (1.0, 0.9, 0.7):
        state, decision = step(None, jnp.array([x]), state)
        np.testing.assert_allclose(controller.act(jnp.array([x])), decision.action, rtol=1e-5)


def test_an_indivisible_policy_has_no_deadline():
    policy = mpc.policy(PLANNER, iterations=4)._replace(phases=None)
    assert mpc.Controller(policy, None).act(jnp.ones(1)).shape == (1,)
    with pytest.raises(ValueError, match="indivisible"):
        mpc.Controller(policy, None, deadline=1.0)
    with pytest.raises(ValueError, match="indivisible"):
        mpc.Controller(policy, None, iterations=3)


def tracking() -> mpc.Problem:
    """A point that goes to `params["cost"]["goal"]`."""
    return mpc.Problem(
        lambda p, s, a: s + p["gain"] * a,
        lambda p, s, a, t: jnp.sum((s - p["cost"]["goal"]) ** 2),
        horizon=5,
        action_space=mpc.Box([-1.0], [1.0]),
    )


GIVEN = {"gain": 0.1, "cost": {"goal": np.zeros(1, np.float32)}}


@pytest.fixture
def compilations():
    """The programs that XLA compiled since the test began."""
    made: list[str] = []

    def listen(event: str, *_: object, **__: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            made.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield made
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("deadline", [None, 60.0])
def test_new_parameters_of_the_same_shapes_never_compile(compilations, deadline):
    planner = mpc.gradient(tracking(), starts=2)
    controller = mpc.Controller(planner, GIVEN, observation=jnp.zeros(1), iterations=20, deadline=deadline)
    assert compilations  # the listener hears
    for goal in (np.ones(1), np.ones(1, np.int64), jnp.ones(1), [1.0]):
        controller.params = {"gain": np.float64(0.2), "cost": {"goal": np.asarray(goal)}}
        compilations.clear()
        controller.reset()
        assert controller.act(np.zeros(1))[0] > 0.5
        assert not compilations
    controller.params = {"gain": jnp.float32(0.2), "cost": {"goal": -np.ones(1)}}
    assert controller.act(np.zeros(1))[0] < -0.5 and not compilations


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"gain": 0.1}, r"lack params\['cost'\]\['goal'\]"),
        ({"gain": 0.1, "cost": {"goal": np.zeros(2)}}, r"\['goal'\] must be float32\[1\]; got float32\[2\]"),
        ({"gain": "fast", "cost": {"goal": np.zeros(1)}}, r"\['gain'\] must be numbers; got str"),
        ({"gain": 1j, "cost": {"goal": np.zeros(1)}}, r"\['gain'\] must be float32\[\]; got complex64"),
        ({"gain": 1e300, "cost": {"goal": np.zeros(1)}}, r"\['gain'\] must be float32\[\], which cannot hold"),
        ({"gain": 0.1, "cost": {"goal": np.full(1, 1e300)}}, r"\['goal'\] must be float32\[1\], which cannot hold"),
        ({"gain": 0.1, "cost": {"goal": [[0.0]]}}, r"\['goal'\] must be float32\[1\]; got float32\[1, 1\]"),
        ({**GIVEN, "speed": 1.0}, r"params\['speed'\] beyond the wanted"),
        (None, "lack"),
        ((0.1, {"goal": np.zeros(1)}), "lack"),
    ],
)
def test_parameters_of_another_make_are_refused_and_the_old_ones_stay(wrong, said):
    with pytest.raises(ValueError, match=said):
        TRACKING.params = wrong
    assert TRACKING.params["gain"] == 0.1 and np.isfinite(TRACKING.act(np.zeros(1))).all()


TRACKING = mpc.Controller(mpc.gradient(tracking(), starts=1), GIVEN, iterations=1)


NUMBERS = [np.float16, np.float32, np.float64, np.int8, np.uint16, np.int64, np.bool_]
MAKES = [lambda x: x, np.asarray, jnp.asarray, lambda x: jax.device_put(x, jax.devices()[0]), lambda x: x.tolist()]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(MAKES), st.sampled_from(NUMBERS), st.sampled_from(MAKES), st.sampled_from(NUMBERS), st.booleans())
def test_numbers_of_any_type_become_those_compiled_for_or_are_refused(make, kind, remake, other, many):
    """Whatever is assigned: its value in types that nothing is traced again for, or an error that names the leaf."""
    example, new = (np.ones(2, kind) if many else kind(1)), (np.array([0, 1], other) if many else other(1))
    wanted = types_to_keep(jnp.asarray(example) if many else make(example))
    try:
        got = conform({"a": remake(new)}, {"a": wanted})["a"]
    except ValueError as error:
        assert "params['a'] must be" in str(error)
        assert not np.can_cast(np.result_type(other), jnp.result_type(wanted), "same_kind")
        return
    np.testing.assert_array_equal(np.asarray(got), new)
    assert jax.typeof(got) == jax.typeof(wanted) and jax.typeof(got).weak_type == jax.typeof(wanted).weak_type
    assert type(got) is type(wanted)


def test_observations_that_raise_anything_are_survived():
    class Hostile:
        def __array__(self, *_, **__):
            raise RuntimeError("no numbers here")

    TRACKING.act(np.ones(1))
    for seen in ([10**400], Hostile(), np.array([object()])):
        assert np.isfinite(TRACKING.act(seen)).all() and TRACKING.status == mpc.Status.NOT_FINITE


def test_the_first_observation_of_another_shape_is_logged(caplog, monkeypatch):
    TRACKING.act(np.ones(1))
    monkeypatch.setattr(TRACKING, "_warned", False)
    for _ in range(3):
        TRACKING.act(np.ones(2))
        assert TRACKING.status == mpc.Status.NOT_FINITE
    (record,) = (record for record in caplog.records if record.name == "mpc.controller")
    assert record.levelname == "WARNING" and "float32[1]" in record.getMessage()
