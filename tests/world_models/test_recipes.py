"""Worlds seen through pixels, end to end: a dot that moves."""

import warnings
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mpc
from tests.world_models import dots
from world_models import data, jepa, reconstruction, trainer
from world_models.losses import anticollapse
from world_models.networks import (
    CausalPredictor,
    Identity,
    MLPPredictor,
    PatchDecoder,
    PatchEncoder,
    RecurrentPredictor,
    VectorEncoder,
)
from world_models.training import action_labels
from world_models.training.diagnostics import (
    CollapseMonitor,
    CollapseWarning,
    distance_correlation,
    linear_probe_r2,
    prediction_errors,
)
from world_models.training.trainer import moments

SHAPE = (dots.SIZE, dots.SIZE, 1)
SIZES = {"levels": ((4, 16), (2, 32)), "dense": (64,)}
SMALL: dict[str, Any] = {
    "latent": 16,
    "encoder": partial(PatchEncoder, **SIZES),
    "predictor": partial(MLPPredictor, hidden=(64,)),
}
VICREG = partial(anticollapse.vicreg, variance_weight=4.0, covariance_weight=1.0, slowness_weight=0.1)
OFF = partial(anticollapse.vicreg, variance_weight=0.0, covariance_weight=0.0)


@pytest.fixture(scope="module")
def walks():
    return data.resident(dots.dataset(), 8, dots.render)


@pytest.fixture(scope="module")
def begun():
    """Untrained weights, the same for all models of these sizes: drawing them takes longer to compile than to do."""
    return trainer(jepa(SHAPE, 2, **SMALL)).init(jax.random.key(0))


def learn(model, source, training, calls, alarm=None, block=1):
    fit = trainer(model, batch=48, length=4, updates=100, averaging=0.98, render=dots.render, block=block).fit
    training, metrics = jax.tree.map(jnp.copy, training), {}
    for _ in range(calls):
        training, metrics = fit(training, source)
        if alarm is not None:
            alarm(metrics, int(training.updates))
    return training, metrics


def seen(model, params, episodes=30, seed=9):
    """Positions never learnt from, and their latents."""
    positions = jnp.asarray(dots.dataset(episodes, seed).observations)
    return positions, jax.jit(jax.vmap(lambda o: model.encode(params, o).latent))(dots.render(positions))


@pytest.fixture(scope="module")
def learnt(walks, begun):
    model = jepa(SHAPE, 2, objective=VICREG, steps=3, **SMALL)
    alarm = CollapseMonitor()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training, metrics = learn(model, walks, begun, 6, alarm)
    assert alarm.raised is None
    return model, training.params, metrics


def test_a_jepa_finds_the_dot(learnt):
    model, params, metrics = learnt
    positions, latents = seen(model, params)
    assert jax.jit(linear_probe_r2)(latents, positions).min() > 0.95
    assert metrics["rank_share"] > 0.7 and metrics["std_mean"] > 0.8
    pairs = jnp.asarray(np.random.default_rng(0).integers(len(positions), size=(500, 2)))
    gaps = jnp.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1)
    assert jax.jit(distance_correlation)(latents, pairs, gaps) > 0.5


def test_predictions_beat_standing_still_and_stay_under_what_has_to_be_told_apart(learnt):
    model, params, _ = learnt
    source = data.resident(dots.dataset(30, 9), 4, dots.render)
    windows = data.draw(source, jax.random.key(0), 64, 4)
    windows = windows._replace(observations=dots.render(windows.observations))
    found = jax.jit(partial(prediction_errors, model))(params, windows)
    assert found["error"].shape == found["moved"].shape == (4,)
    assert (found["error"] < 0.7 * found["moved"]).all() and found["error"][3] < 0.5 * found["apart"]


def test_the_inverse_model_reads_actions_in_the_environments_unit(learnt):
    model, params, _ = learnt
    told = dots.dataset(10, 9)
    assert told.actions is not None
    labelled = action_labels.label(model, params, told, render=dots.render, batch=64)
    assert labelled.actions is not None
    free = np.all((told.observations > 1.5) & (told.observations < dots.SIZE - 2.5), axis=1)  # nothing in the way
    inside = free & np.roll(free, -1)
    inside[told.first + told.lengths] = False
    error = np.square(labelled.actions[inside] - told.actions[inside]).mean()
    assert error < 0.1 * np.square(told.actions[inside]).mean()
    np.testing.assert_array_equal(labelled.actions[told.first + told.lengths], 0.0)


def test_a_plan_in_the_latent_space_gets_there(learnt):
    model, params, _ = learnt

    def far(params, state, *_):
        return jnp.sum((state.latent - params["goal"]) ** 2)

    space = mpc.Box([-dots.STEP] * 2, [dots.STEP] * 2)
    problem = mpc.Problem(
        lambda params, state, action: model.predict(params["model"], state, action), far, far, horizon=6, action_space=space
    )
    # within reach, and many: an encoder learnt for a few seconds has regions that a plan gets stuck in
    starts = jax.random.uniform(jax.random.key(1), (24, 2), minval=4.0, maxval=11.0)
    goals = jnp.clip(starts + jax.random.uniform(jax.random.key(2), (24, 2), minval=-5.0, maxval=5.0), 3.0, 12.0)
    planner = mpc.gradient(problem, optimizer=optax.adam(0.1), starts=8)

    def plan(start, goal):
        given = {"model": params, "goal": model.encode(params, dots.render(goal)).latent}
        return mpc.solve(planner, given, model.encode(params, dots.render(start)), jax.random.key(0), 60).actions

    actions = jax.jit(jax.vmap(plan))(starts, goals)
    left = jnp.linalg.norm(starts + actions.sum(axis=1) - goals, axis=1)
    share = left / jnp.linalg.norm(starts - goals, axis=1)
    assert jnp.median(share) < 0.5 and (share < 1.0).mean() > 0.9


@pytest.mark.parametrize("inverse_weight", [0.0, 1.0])
def test_the_alarm_is_raised_where_nothing_keeps_the_encoder_from_collapsing(walks, begun, inverse_weight):
    alarm = CollapseMonitor()
    with pytest.warns(CollapseWarning, match="all at one point" if inverse_weight == 0 else "few directions"):
        learn(jepa(SHAPE, 2, objective=OFF, inverse_weight=inverse_weight, **SMALL), walks, begun, 3, alarm)
    assert alarm.raised is not None


def test_an_alarm_is_raised_once_and_looks_at_what_is_not_finite():
    alarm = CollapseMonitor(after=10)
    good = {"std_mean": 1.0, "effective_rank": 12.0, "rank_share": 0.8}
    assert alarm(good | {"std_mean": 0.0}, 9) is None and alarm(good, 10) is None
    with pytest.warns(CollapseWarning, match="all at one point"):
        alarm(good | {"std_mean": float("nan")}, 20)
    assert "few directions" in (alarm(good | {"rank_share": 0.1}, 30) or "")  # and no second warning


def test_a_slow_copy_keeps_the_position(walks, begun):
    model = jepa(SHAPE, 2, objective=anticollapse.byol, targets="average", **SMALL)
    alarm = CollapseMonitor(share=0.1)
    training, _ = learn(model, walks, begun, 3, alarm)
    positions, latents = seen(model, training.params)
    assert alarm.raised is None
    assert jax.jit(linear_probe_r2)(latents, positions).min() > 0.9


def test_the_generative_twin_draws_what_it_will_see(walks):
    model = reconstruction(SHAPE, 2, decoder=partial(PatchDecoder, **SIZES), steps=2, **SMALL)
    training, metrics = learn(model, walks, trainer(model).init(jax.random.key(0)), 6)
    positions, latents = seen(model, training.params)
    assert jax.jit(linear_probe_r2)(latents, positions).min() > 0.9
    assert metrics["reconstruction"] < 0.2 and metrics["prediction"] < 0.5  # of 1, the variance of a normalised pixel


def misread(model, params):
    """Squared error of the actions that the inverse model reads off walks never learnt from, of 1."""
    told = dots.dataset(20, 9)
    labelled = action_labels.label(model, params, told, render=dots.render)
    assert told.actions is not None and labelled.actions is not None
    return np.square(labelled.actions - told.actions).mean() / np.square(told.actions).mean()


def test_actions_that_nobody_told_are_read_off_and_not_learnt_from(begun):
    """The loss of silent windows is that of windows told what the inverse model says, but for its own term."""
    silent = data.mixed(dots.dataset(4, 1), dots.dataset(4, 2))
    model = jepa(SHAPE, 2, objective=VICREG, **SMALL)
    drawn = data.draw(data.resident(silent, 2, dots.render), jax.random.key(0), 6, 2)
    params = model.normalise(jax.tree.map(jnp.copy, begun.params), data.moments(silent, dots.render))
    windows = jax.tree.map(lambda x: x[None], drawn._replace(observations=dots.render(drawn.observations)))
    unknown = jnp.isnan(windows.actions)
    assert 0 < unknown.mean() < 1
    states = jax.jit(jax.vmap(jax.vmap(lambda o: model.encode(params, o))))(windows.observations[0])
    before, after = (jax.tree.map(lambda s, c=cut: s[:, c], states) for cut in (slice(0, -1), slice(1, None)))
    assert model.infer_action is not None
    guessed = model.infer_action(params, before, after)[:, :, 0]
    told = windows._replace(actions=jnp.where(unknown, guessed, windows.actions))
    loss = jax.jit(model.loss)
    found, wanted = loss(params, windows)[1], loss(params, told)[1]
    np.testing.assert_allclose(found["latent"], wanted["latent"], rtol=1e-4)
    # what was guessed is right by construction, so that told's mean error is over all, and ours over what was told
    np.testing.assert_allclose(found["inverse"] * (1 - unknown.mean()), wanted["inverse"], rtol=1e-3)


def test_a_watchers_encoder_is_adopted_and_kept(walks, begun):
    """Walks without actions, then 24 that tell them, beside a random encoder that is kept as well."""
    watcher = jepa(SHAPE, 2, inferred=True, inverse_weight=0.0, objective=VICREG, **SMALL)
    watched, _ = learn(watcher, walks._replace(actions=jnp.zeros((len(walks.actions), 0))), begun, 3)
    few = data.resident(dots.dataset(24, 1), 8, dots.render)
    model = jepa(SHAPE, 2, objective=VICREG, encoder_rate=0.0, **SMALL)
    adopted, _ = learn(model, few, action_labels.adopt(begun, watched.params), 3)
    random, _ = learn(model, few, begun, 3)
    for a, b in zip(*map(jax.tree.leaves, (adopted.network["encoder"], watched.params["network"]["encoder"])), strict=True):
        np.testing.assert_array_equal(a, b)
    assert misread(model, adopted.params) < 0.75 * misread(model, random.params)


SPEEDS = (-0.3, 0.3)


def drifting(episodes: int = 200, steps: int = 5) -> data.Dataset:
    """`x' = x + a + v`, with a speed v of either sign that is the same in an episode and cannot be seen."""
    random = np.random.default_rng(0)
    actions = random.uniform(-1, 1, (episodes, steps, 1)).astype(np.float32)
    begin, speed = random.uniform(-1, 1, (episodes, 1, 1)), random.choice(SPEEDS, (episodes, 1, 1))
    places = begin + np.concatenate([np.zeros((episodes, 1, 1)), np.cumsum(actions + speed, axis=1)], axis=1)
    walks = zip(places.astype(np.float32), actions, strict=True)
    return data.gather([{"observations": o, "actions": a} for o, a in walks], dots.ABOUT)


@pytest.mark.parametrize(
    "predictor",
    [partial(RecurrentPredictor, units=16, hidden=(16,)), partial(CausalPredictor, window=4, width=16, depth=1, heads=2)],
)
def test_a_carry_finds_a_hidden_speed_and_plans_with_it(predictor):
    """Without a carry, the best prediction is that of the mean speed, 0: an error of 0.3 a step, and of 0.6 after two."""
    model = jepa(
        *((1,), 1),
        **{"latent": 1, "encoder": Identity, "predictor": predictor, "objective": OFF, "inverse_weight": None},
        learning_rate=5e-3,
    )
    fit = trainer(model, batch=64, length=5, updates=400, averaging=0.98)
    training, _ = fit.fit(fit.init(jax.random.key(0)), data.resident(drifting(), 5))
    params, space, decode = training.params, mpc.Box([-1.0], [1.0]), model.decode
    assert decode is not None

    def far(given, state, *_):
        return jnp.sum((state.latent - given["goal"]) ** 2)

    problem = mpc.Problem(
        lambda given, state, action: model.predict(given["model"], state, action), far, far, horizon=2, action_space=space
    )
    planner = mpc.gradient(problem, optimizer=optax.adam(0.1), starts=2)

    @jax.jit
    def missed(speed, goal):
        place, state = jnp.zeros(1), model.encode(params, jnp.zeros(1))
        for action in (jnp.array([0.4]), jnp.array([-0.2])):  # two steps are seen
            place = place + action + speed
            state = model.predict(params, state, action)
            state = state._replace(latent=model.encode(params, place).latent)
        following = decode(params, model.predict(params, state, jnp.zeros(1)))
        given = {"model": params, "goal": model.encode(params, goal).latent}
        actions = mpc.solve(planner, given, state, jax.random.key(0), 60).actions
        return jnp.abs(following - place - speed)[0], jnp.abs(place + actions.sum(axis=0) + 2 * speed - goal)[0]

    for speed in SPEEDS:
        error, left = missed(speed, jnp.array([0.5]))
        assert error < 0.1 and left < 0.2


def test_chained_predictions_are_the_models_own(begun):
    """The loss of two chained steps is what `encode` and `predict` give, window by window, padding left out."""
    model = jepa(SHAPE, 2, objective=OFF, inverse_weight=0.0, steps=2, decay=0.5, **SMALL)
    params = begun.params
    source = data.resident(dots.dataset(20), 3, dots.render)
    windows = data.draw(source, jax.random.key(0), 4, 3)
    windows = windows._replace(observations=dots.render(windows.observations), mask=windows.mask.at[0, 2].set(False))
    loss, metrics = jax.jit(model.loss)(params, jax.tree.map(lambda x: x[None], windows))
    errors: dict[int, list[float]] = {1: [], 2: []}
    encode, predict = jax.jit(model.encode), jax.jit(model.predict)
    for b in range(4):
        for t in range(3):
            state = encode(params, windows.observations[b, t])
            for k in (1, 2):
                if t + k > 3 or not windows.mask[b, t + k - 1]:
                    break
                state = predict(params, state, windows.actions[b, t + k - 1])
                gap = state.latent - encode(params, windows.observations[b, t + k]).latent
                errors[k].append(float(jnp.mean(gap**2)))
    wanted = (np.mean(errors[1]) + 0.5 * np.mean(errors[2])) / 1.5
    np.testing.assert_allclose(metrics["latent"], wanted, rtol=1e-4)
    np.testing.assert_allclose(loss, wanted, rtol=1e-4)


def test_blocks_and_scales_are_taken_from_a_buffer():
    buffer = data.create(40, 1, (2,), (2,))
    walk = dots.trajectories(1)[0]
    for t, action in enumerate(walk["actions"]):
        row = data.Rows(walk["observations"][t][None], action[None], np.ones(1), np.zeros(1, bool), np.array([t > 0]))
        buffer = data.append(buffer, row, np.ones(1, bool))
    found = jax.jit(moments)(buffer)
    np.testing.assert_allclose(found.action_std, walk["actions"][:-1].std(axis=0), rtol=1e-4)
    np.testing.assert_allclose(found.observation_mean, walk["observations"][:-1].mean(axis=0), rtol=1e-4)
    windows = data.sample(buffer, jax.random.key(0), 32, 3, block=2)
    assert windows.actions.shape == (32, 3, 2, 2) and windows.mask[:, 0].all()
    for b in range(32):
        start = np.flatnonzero((walk["observations"] == windows.observations[b, 0]).all(axis=1))[0]
        steps = int(windows.mask[b].sum())
        np.testing.assert_array_equal(windows.observations[b, : steps + 1], walk["observations"][start::2][: steps + 1])
        np.testing.assert_array_equal(windows.actions[b, :steps].reshape(-1, 2), walk["actions"][start : start + 2 * steps])
        np.testing.assert_array_equal(windows.rewards[b, :steps], 2.0)
        assert steps == min(3, (23 - start) // 2)


def test_windows_read_elsewhere_teach_what_windows_drawn_here_teach():
    model = jepa((2,), 2, encoder=partial(VectorEncoder, hidden=(8,)), latent=4, predictor=SMALL["predictor"])
    fit = trainer(model, batch=4, length=3, updates=3)
    source = data.resident(dots.dataset(4), 3)
    training = fit.init(jax.random.key(0))
    training = training._replace(params=model.normalise(training.params, source.moments))
    keys = jax.random.split(jax.random.split(training.key)[1], 3)
    windows = jax.vmap(lambda key: data.draw(source, key, 4, 3))(keys)
    read, measured = fit.fit_windows(jax.tree.map(jnp.copy, training), jax.tree.map(lambda x: x[:, None], windows))
    drawn, wanted = fit.fit(jax.tree.map(jnp.copy, training), source)
    for a, b in zip(*map(jax.tree.leaves, (read.params, drawn.params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert int(read.updates) == 3 and measured.keys() == wanted.keys()


def test_frames_in_a_buffer_are_scaled_by_channel():
    buffer = data.create(10, 1, (8, 8, 2), (1,), observation_dtype=np.uint8)
    frames = np.random.default_rng(0).integers(0, 255, (6, 1, 8, 8, 2)).astype(np.uint8) // np.array([1, 4], np.uint8)
    for t, frame in enumerate(frames):
        row = data.Rows(frame, np.ones((1, 1)), np.zeros(1), np.zeros(1, bool), np.array([t > 0]))
        buffer = data.append(buffer, row, np.ones(1, bool))
    found = jax.jit(moments)(buffer)
    np.testing.assert_allclose(found.observation_std, (frames / 255).std(axis=(0, 1, 2, 3)), rtol=0.02)
    np.testing.assert_allclose(found.observation_mean, (frames / 255).mean(axis=(0, 1, 2, 3)), rtol=0.02)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"targets": "other"}, "targets"),
        ({"inferred": True}, "inferred actions need inverse_weight=0"),
        ({"block": 0}, "block"),
        ({"decay": 0.0}, "decay"),
        ({"encoder_rate": -1.0}, "encoder_rate"),
    ],
)
def test_impossible_settings_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        jepa(SHAPE, 2, **SMALL, **wrong)


def test_what_does_not_fit_is_refused_by_name(begun):
    model = jepa(SHAPE, 2, block=2, **SMALL)
    params = jax.jit(model.init)(jax.random.key(0))
    with pytest.raises(ValueError, match=r"\[16, 16, 1\].*\[16, 8, 1\]"):
        model.encode(params, jnp.zeros((16, 8, 1)))
    with pytest.raises(ValueError, match="int32"):
        model.encode(params, jnp.zeros(SHAPE, jnp.int32))
    state = jax.jit(model.encode)(params, jnp.zeros(SHAPE))
    with pytest.raises(ValueError, match=r"block of 2 of size 2.*\[2\]"):
        model.predict(params, state, jnp.zeros(2))
    windows = data.draw(data.resident(dots.dataset(2), 3), jax.random.key(0), 2, 3)
    with pytest.raises(ValueError, match=r"block of 2 of size 2.*\[2\]"):
        frames = dots.render(windows.observations)
        model.loss(params, jax.tree.map(lambda x: x[None], windows._replace(observations=frames)))
    bent = jepa(SHAPE, 2, straightness_weight=1.0, **SMALL)
    pair = data.draw(data.resident(dots.dataset(2), 1), jax.random.key(0), 2, 1)
    pair = jax.tree.map(lambda x: x[None], pair._replace(observations=dots.render(pair.observations)))
    with pytest.raises(ValueError, match="windows of at least two"):
        jax.eval_shape(bent.loss, begun.params, pair)
    blind = jepa(SHAPE, 2, inverse_weight=0.0, **SMALL)
    with pytest.raises(ValueError, match="no actions to infer"):
        action_labels.label(blind, params, dots.dataset(2))
    sizes: dict[str, Any] = SMALL | {"latent": 8}
    small = jepa(SHAPE, 2, **sizes)
    with pytest.raises(ValueError, match="other shapes"):
        action_labels.adopt(begun, jax.jit(small.init)(jax.random.key(0)))
    with pytest.raises(ValueError, match="'decoder'"):
        action_labels.adopt(begun, params, ("decoder",))
