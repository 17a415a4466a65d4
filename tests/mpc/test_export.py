"""An artefact does what the policy it was made of does, in a process that knows nothing of it; and says no with a reason."""

import hashlib
import io
import json
import os
import random
import subprocess
import sys
import zipfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mpc
from mpc.deploy import runtime
from mpc.deploy.archive import sealed
from mpc.deploy.runtime import ArtefactError
from mpc.deploy.specs import InFlight, Signal
from mpc.policy import Decision, PolicyState, shift


def cart(params, state, action):
    """A point on a line: position in m, velocity in m/s."""
    return state + 0.1 * jnp.stack([state[1], params["gain"] * action[0]])


def cost(params, state, action, t):
    return (state[0] - params["goal"]) ** 2 + 0.1 * state[1] ** 2 + 0.001 * action @ action


def problem(dynamics=cart, stage=cost, space=None):
    return mpc.Problem(dynamics, stage, horizon=8, action_space=space or mpc.Box([-1.0], [1.0]))


PARAMS = {"gain": jnp.asarray(1.5), "goal": jnp.asarray(0.5)}
PLANNER = mpc.gradient(problem(), starts=2)
POLICY = mpc.policy(PLANNER, iterations=4)
SEEN = {"names": ["position", "velocity"], "units": ["m", "m/s"], "low": -5.0, "high": 5.0}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("artefacts") / "cart.craik"
    mpc.export(POLICY, PARAMS, np.zeros(2), path, observed=SEEN, period=0.1, delay=2, platforms=("cpu",))
    return path


@pytest.fixture(scope="module")
def artefact(file):
    return runtime.load(file)


def test_actions_are_those_of_the_controller(artefact):
    controller = mpc.Controller(PLANNER, PARAMS, observation=jnp.zeros(2), iterations=4)
    state = np.array([0.0, 0.3], np.float32)
    artefact_state = artefact.init(state)
    for _ in range(12):
        decision = artefact.step(state, artefact_state)
        artefact_state, action = decision.state, controller.act(state)
        np.testing.assert_array_equal(decision.action, action)
        assert decision.status == "ITERATIONS" and decision.actions.shape == (8, 1)
        state = np.asarray(cart(PARAMS, state, action))
    assert abs(state[0] - 0.5) < 0.1


def test_a_fresh_process_needs_neither_planners_nor_optax_and_decides_the_same(file, artefact):
    program = (
        "import sys; from mpc import runtime\n"
        f"a = runtime.load({str(file)!r}, prepare=False)\n"
        "print(a.step([0.0, 0.3], a.init([0.0, 0.3])).actions.tobytes().hex())\n"
        "print([m for m in ('optax', 'flax', 'gymnasium', 'mpc.planners.gradient') if m in sys.modules])\n"
    )
    options = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False, env=os.environ | options
    )
    assert done.returncode == 0, done.stderr
    actions, loaded = done.stdout.splitlines()
    assert bytes.fromhex(actions) == artefact.step([0.0, 0.3], artefact.init([0.0, 0.3])).actions.tobytes()
    assert loaded == "[]"


def test_the_manifest_says_what_goes_in_and_out(file, artefact):
    assert artefact.manifest["observation"] | {"low": 0, "high": 0} == {
        "shape": [2], "dtype": "float32", "names": ["position", "velocity"], "units": ["m", "m/s"], "low": 0, "high": 0
    }  # fmt: skip
    np.testing.assert_array_equal(artefact.action.low, [-1.0])
    assert [p["name"] for p in artefact.manifest["parameters"]] == ["gain", "goal"]
    assert artefact.manifest["entries"] == ["init", "step"] and artefact.react is None
    assert artefact.period == 0.1 and artefact.manifest["versions"]["jax"] == jax.__version__
    assert file.stat().st_size < 1 << 20


def test_delays_are_made_up_for_by_planning_from_the_state_that_will_be(artefact):
    state, sent = np.array([0.2, -0.4], np.float32), np.array([[0.9], [-1.0], [0.7]], np.float32)
    begun = artefact.init(state)
    for count in (0, 1, 2):
        ahead = state
        for action in sent[3 - count :]:
            ahead = np.asarray(cart(PARAMS, ahead, action))
        compensated = artefact.step(state, begun, InFlight(sent, count))
        np.testing.assert_allclose(compensated.actions, artefact.step(ahead, begun).actions, atol=1e-4)


def test_a_plan_made_later_is_shifted_by_as_much(artefact):
    state, blind = np.array([0.0, 0.0], np.float32), np.full(2, np.nan, np.float32)
    first = artefact.step(state, artefact.init(state))
    for elapsed in (1, 2, 3):  # what cannot be seen gets the last plan's action for that time
        late = artefact.step(blind, first.state, elapsed=elapsed)
        assert late.status == "NOT_FINITE"
        np.testing.assert_array_equal(late.action, first.actions[elapsed])


def test_actions_of_limited_rate_start_from_what_was_sent_last():
    limited = mpc.policy(
        mpc.gradient(problem(space=mpc.spaces.rate_limited(mpc.Box([-1.0], [1.0]), 0.1)), starts=1), iterations=3
    )
    data = mpc.export(limited, PARAMS, np.zeros(2), platforms=("cpu",))
    artefact = runtime.loads(data, prepare=False)
    begun = artefact.init([0.0, 0.0])
    decision = artefact.step([0.0, 0.0], begun, InFlight(np.array([[-0.8]], np.float32), 0))
    assert -0.9 <= decision.action[0] <= -0.7
    assert np.abs(np.diff(decision.actions[:, 0])).max() <= 0.1
    later = artefact.step([0.0, 0.0], decision.state)  # what was decided was sent, unless something else is told
    assert abs(later.action[0] - decision.action[0]) <= 0.1 + 1e-6


def test_any_number_of_observations_at_once_and_both_platforms_from_one_file():
    one = mpc.policy(mpc.predictive_sampling(problem(), samples=4), iterations=1)
    data = mpc.export(one, PARAMS, np.zeros(2), batch="b")
    assert {"cpu/init", "cpu/step", "cuda/init", "cuda/step"} <= set(runtime.unpack(data)[1])
    artefact = runtime.loads(data)
    states = np.array([[0.0, 0.3], [1.0, -0.2], [-2.0, 0.0]], np.float32)
    many = artefact.step(states, artefact.init(states))
    assert many.action.shape == (3, 1) and many.status == ["ITERATIONS"] * 3
    keys = artefact.keys(0, 3)
    for i, state in enumerate(states):
        begun = one.init(PARAMS, jnp.asarray(state), jax.random.wrap_key_data(keys[i]))
        np.testing.assert_allclose(one.step(PARAMS, jnp.asarray(state), begun)[1].action, many.action[i], atol=1e-4)
    with pytest.raises(ArtefactError, match="behind a batch axis"):
        artefact.init(np.zeros(2))


def reacting(planner, iterations=2) -> mpc.Policy:
    """A policy that knows how to act without planning: push towards the goal."""
    base = mpc.policy(planner, iterations=iterations)

    def react(params, observation, state, in_flight=None):
        action = jnp.clip(params["goal"] - observation[:1], -1.0, 1.0)
        actions = jnp.concatenate([action[None], state.controller.fallback[1:]])
        status = jnp.asarray(mpc.Status.ITERATIONS)
        plan = mpc.Plan(actions, None, jnp.asarray(jnp.inf), {}, status, {})
        return PolicyState(shift(planner, state.controller), action), Decision(action, plan, status)

    return base._replace(react=react)


@pytest.mark.parametrize("batch", [None, 2])
def test_a_policy_that_reacts_reacts_as_an_artefact_too(batch):
    """Reacting takes no planning, and planning goes on from the plan that is left."""
    policy = reacting(PLANNER)
    artefact = runtime.loads(mpc.export(policy, PARAMS, np.zeros(2), batch=batch, platforms=("cpu",)))
    assert artefact.manifest["entries"] == ["init", "step", "react"] and artefact.react is not None
    state = np.array([0.2, 0.1], np.float32)
    seen, lead = (state, ()) if batch is None else (np.stack([state] * batch), (0,))
    planned = artefact.step(seen, artefact.init(seen))
    reacted = artefact.react(seen, planned.state)
    np.testing.assert_allclose(reacted.action[lead], [0.3], atol=1e-6)
    np.testing.assert_array_equal(reacted.actions[lead][1:-1], planned.actions[lead][2:])
    blind = artefact.step(np.full_like(seen, np.nan), reacted.state)
    np.testing.assert_array_equal(blind.action[lead], planned.actions[lead][2])


def test_states_that_change_their_make_are_refused():
    base = mpc.policy(mpc.predictive_sampling(problem(), samples=2), iterations=1)

    def grows(params, observation, state, in_flight=None):
        state, decision = base.step(params, observation, state, in_flight)
        return state._replace(last_action=jnp.zeros(3)), decision

    def changes(params, observation, state, in_flight=None):
        state, decision = base.step(params, observation, state, in_flight)
        return (state, state), decision

    for step, said in ((grows, "keep its shapes"), (changes, "keep its structure")):
        with pytest.raises(ArtefactError, match=said):
            mpc.export(base._replace(step=step), PARAMS, np.zeros(2), platforms=("cpu",))


def calls_back(params, state, action):
    jax.debug.print("{}", state)
    return cart(params, state, action)


def asks_the_host(params, state, action):
    later = jax.lax.stop_gradient(cart(params, state, action))
    return jax.pure_callback(lambda s: s, jax.ShapeDtypeStruct((2,), np.float32), later, vmap_method="sequential")


def solves(params, state, action):
    return jnp.linalg.solve(jnp.eye(2) + params["gain"] * jnp.ones((2, 2)), cart(params, state, action))


def draws(params, state, action):
    return cart(params, state, action) + random.random()


@pytest.mark.parametrize(
    ("dynamics", "reason"),
    [(calls_back, "calls back to Python"), (asks_the_host, "callback"), (solves, "lapack"), (draws, "traced again")],
)
def test_what_needs_more_than_its_arguments_is_refused(dynamics, reason, tmp_path):
    decisions = mpc.policy(mpc.predictive_sampling(problem(dynamics), samples=4), iterations=1)
    with pytest.raises(ArtefactError, match=reason):
        mpc.export(decisions, PARAMS, np.zeros(2), tmp_path / "never.craik", platforms=("cpu",))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("observation", [[0.0, 0.0, 0.0], [[0.0, 0.0]], "text", None, {"a": 1.0}, [1.0, "x"]])
def test_observations_of_another_make_are_refused(artefact, observation):
    with pytest.raises(ArtefactError, match="observation must be"):
        artefact.step(observation, artefact.init([0.0, 0.0]))


def test_a_tree_is_no_observation_and_signals_have_names_units_and_bounds(tmp_path):
    with pytest.raises(ArtefactError, match="observed takes names, units"):
        mpc.export(POLICY, PARAMS, np.zeros(2), observed={"colour": "red"})
    with pytest.raises(ArtefactError, match="observe="):
        mpc.export(POLICY, PARAMS, {"position": 0.0}, tmp_path / "never.craik")


def repacked(data, **changes):
    """The artefact with another manifest, sealed as a forger would seal it."""
    manifest, members = runtime.unpack(data)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {"manifest.json": sealed(manifest | changes), **members}.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_goals_and_weights_are_inputs_of_an_artefact(file):
    """With another goal, an artefact decides as one exported with it, and compiles nothing."""
    artefact, state = runtime.load(file, prepare=False), np.array([0.0, 0.3], np.float32)
    for goal in (0.5, -0.7):
        artefact.configure({"goal": goal})
        given = PARAMS | {"goal": jnp.asarray(goal)}
        controller = mpc.Controller(PLANNER, given, observation=jnp.zeros(2), iterations=4)
        np.testing.assert_array_equal(artefact.step(state, artefact.init(state)).action, controller.act(state))
    assert {name: float(value) for name, value in artefact.parameters.items()} == {"gain": 1.5, "goal": np.float32(-0.7)}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"gain": 2.0, "target": 1.0}, "no parameter 'target'; it has gain, goal"),
        ({"goal": [1.0, 2.0]}, "goal must be finite float32"),
        ({"goal": 1e300}, "goal must be finite float32"),
        ({"goal": "far"}, "goal cannot be 'far'"),
    ]
    for changes, reason in wrong:
        with pytest.raises(ArtefactError, match=reason):
            artefact.configure(changes)
    assert float(artefact.parameters["gain"]) == 1.5


def test_plans_from_outside_the_declared_range_say_so(file):
    artefact = runtime.load(file, prepare=False)
    high = float(np.asarray(artefact.observation.high)[0])
    begun = artefact.init([0.0, 0.0])
    assert artefact.step([high, 0.0], begun).status == "ITERATIONS"
    assert artefact.step([high + 1.0, 0.0], begun).status == "OUT_OF_RANGE"
    assert artefact.step([np.inf, 0.0], begun).status == "NOT_FINITE"


def test_damage_other_versions_and_platforms_are_refused(file):
    data = file.read_bytes()
    drawn = random.Random(0)
    for _ in range(40):
        place = drawn.randrange(len(data))
        damaged = data[:place] + bytes([data[place] ^ 1 << drawn.randrange(8)]) + data[place + 1 :]
        try:
            _, members = runtime.unpack(damaged)
        except ArtefactError:
            continue
        assert members == runtime.unpack(data)[1]  # a bit of the archive's own that nothing hangs on, such as a date
    for short in (data[:100], data[:-30], b"", b"PK"):
        with pytest.raises(ArtefactError, match="damaged"):
            runtime.loads(short)
    with pytest.raises(ArtefactError, match="was expected"):
        runtime.load(file, sha256="0" * 64)
    assert runtime.load(file, sha256=hashlib.sha256(data).hexdigest(), prepare=False).delay == 2
    with pytest.raises(ArtefactError, match="format 7"):
        runtime.loads(repacked(data, format_version=7))
    with pytest.raises(ArtefactError, match="written by something else"):
        runtime.loads(repacked(data, format="other"))
    with pytest.raises(ArtefactError, match=r"is for tpu; this process runs on cpu"):
        runtime.loads(repacked(data, platforms=["tpu"]))
    with pytest.raises(ArtefactError, match="cannot be read"):
        runtime.load(file.with_name("nowhere.craik"))


def test_programs_of_a_foreign_jax_are_refused_with_both_versions(file):
    manifest, _ = runtime.unpack(file.read_bytes())
    manifest["versions"]["jax"] = "99.0"
    with pytest.raises(ArtefactError, match=r"written by JAX 99\.0, cannot be read by JAX"):
        runtime.Artefact(manifest, dict.fromkeys(manifest["entries"], b"not a program"), [])


def test_writing_that_fails_leaves_what_was_there(file, tmp_path, monkeypatch):
    path = tmp_path / "cart.craik"
    path.write_bytes(b"before")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk on fire")))
    with pytest.raises(OSError, match="on fire"):
        mpc.export(mpc.policy(mpc.predictive_sampling(problem(), samples=2), iterations=1), PARAMS, np.zeros(2), path)
    assert path.read_bytes() == b"before" and [p.name for p in tmp_path.iterdir()] == ["cart.craik"]


def test_the_same_policy_gives_the_same_bytes(file, tmp_path):
    again = tmp_path / "again.craik"
    mpc.export(POLICY, PARAMS, np.zeros(2), again, observed=SEEN, period=0.1, delay=2, platforms=("cpu",))
    assert again.read_bytes() == file.read_bytes()


def test_actions_in_flight_of_another_number_are_refused(file):
    with pytest.raises(ArtefactError, match=r"actions in flight must be of shape \[3, 1\]; got \[2, 1\]"):
        runtime.load(file).step([0.5, -0.1], [], InFlight(np.zeros((2, 1)), 0))


def test_signals_say_what_is_wrong():
    signal = Signal((2,), low=[-1.0, 0.0], high=[1.0, np.inf], units="rad")
    assert Signal.rebuilt(json.loads(json.dumps(signal.described()))).described() == signal.described()
    wrong = {
        "missing": None, "not numbers": "text", "wrong shape": [1.0], "not finite": [np.nan, 1.0], "out of range": [2.0, 0.0]
    }  # fmt: skip
    for reason, value in wrong.items():
        assert signal.read(value) == (None, reason)
    assert signal.read([[1.0, 2.0], [3.0]])[1] == "not numbers"
    array, reason = signal.read([0.5, 7])
    assert reason is None and array is not None and array.dtype == np.float32
    narrow = Signal((1,), low=0.1, high=0.3)
    assert (narrow.clip(np.array([9.0])).astype(np.float64) <= 0.3).all()
    assert (narrow.clip(np.array([-9.0])).astype(np.float64) >= 0.1).all()
    wrongs: list[dict[str, Any]] = [
        {"names": ["one"]},
        {"units": ["a", "b", "c"]},
        {"low": np.nan},
        {"low": 2.0, "high": 1.0},
        {"low": [1, 2, 3]},
    ]
    for bad in wrongs:
        with pytest.raises(ValueError, match=r"names|units|bounds|low"):
            Signal((2,), **bad)
