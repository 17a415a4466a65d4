"""An ensemble that learns rewards: it learns known dynamics, does not collapse, and disagrees where it has seen nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from world_models import data, ensemble_jepa, trainer
from world_models.ensemble import disagreement
from world_models.heads import Step, reward_errors
from world_models.training.diagnostics import effective_rank
from world_models.training.trainer import moments

STEPS = 600


def experience(key: int = 0) -> tuple[data.TrajectoryBuffer, np.ndarray]:
    """A damped point pushed by random actions: `x' = x + 0.1 v, v' = 0.95 v + 0.2 a`, reward `v`, never ending."""
    random = np.random.default_rng(key)
    state, seen = np.zeros(2), []
    buffer = data.create(STEPS + 1, 1, (2,), (1,))
    for t in range(STEPS):
        action = random.uniform(-1, 1, 1)
        row = data.Rows(state[None], action[None], state[1:], np.zeros(1, bool), np.array([t > 0]))
        buffer = data.append(buffer, row, np.ones(1, bool))
        seen.append(state)
        state = np.array([state[0] + 0.1 * state[1], 0.95 * state[1] + 0.2 * action[0]])
    return buffer, np.stack(seen)


@pytest.fixture(scope="module")
def learnt():
    """A model trained on that, and what it was trained on."""
    model = ensemble_jepa(2, 1, hidden=32, members=3)
    fit = trainer(model, updates=1500)
    buffer, seen = experience()
    training, metrics = fit.fit(fit.init(jax.random.key(0)), buffer)
    return model, training.params, seen, metrics


def test_rewards_are_predicted_several_steps_ahead(learnt):
    model, params, seen, _ = learnt
    random, errors, baseline = np.random.default_rng(5), [], []
    scale = params["scales"].reward_std
    predict = jax.jit(model.predict)
    for start in seen[100:500:20]:
        state, imagined = start, model.encode(params, jnp.asarray(start, jnp.float32))
        for _ in range(5):
            action = random.uniform(-1, 1, 1)
            discount = float(imagined.discount)
            imagined = predict(params, imagined, jnp.asarray(action, jnp.float32))
            errors.append(float(imagined.reward) / discount * float(scale) - state[1])
            baseline.append(state[1] - seen[:, 1].mean())
            state = np.array([state[0] + 0.1 * state[1], 0.95 * state[1] + 0.2 * action[0]])
    assert np.square(errors).mean() < 0.02 * np.square(baseline).mean()


def test_rare_rewards_far_from_all_others_do_not_drown_them():
    """One step in fifty pays -30 for no reason; the usual reward is the speed, of standard deviation 0.3."""
    buffer, seen = experience()
    rare = np.random.default_rng(1).random(buffer.rewards.shape) < 0.02
    buffer, following = buffer._replace(rewards=buffer.rewards - 30.0 * rare), seen[1:, 1] - seen[:, 1].mean()
    unexplained = {}
    for threshold in (None, 1.0):
        model = ensemble_jepa(2, 1, hidden=32, members=2, reward_threshold=threshold)
        fit = trainer(model, updates=800)
        training, _ = fit.fit(fit.init(jax.random.key(0)), buffer)
        params = training.params

        def reward(place, action, model=model, params=params):
            return model.predict(params, model.encode(params, place), action).reward * params["scales"].reward_std

        found = jax.jit(jax.vmap(reward))(jnp.asarray(seen[:-1], jnp.float32), buffer.actions[0, : len(seen) - 1])
        found -= found.mean()
        unexplained[threshold] = float(np.square(found - following).mean() / np.square(following).mean())
    assert unexplained[1.0] < 0.5 < 1.0 < unexplained[None], unexplained


@pytest.mark.parametrize("threshold", [None, 0.5, 2.0])
def test_errors_of_rewards_are_squared_up_to_a_threshold_and_linear_beyond(threshold):
    error = np.array([-3.0, -0.4, 0.0, 0.5, 2.0, 10.0])
    wanted = error**2
    if threshold is not None:
        wanted = np.where(np.abs(error) > threshold, threshold * (2 * np.abs(error) - threshold), wanted)
    np.testing.assert_allclose(reward_errors(jnp.asarray(error), jnp.zeros(6), threshold), wanted, rtol=1e-6)


def test_latents_do_not_collapse(learnt):
    model, params, seen, metrics = learnt
    latents = jax.vmap(lambda o: model.encode(params, o).latent)(jnp.asarray(seen, jnp.float32))
    assert float(effective_rank(latents)) > 1.9
    assert float(metrics["latent"]) < 0.05


def test_disagreement_is_larger_where_nothing_was_seen(learnt):
    model, params, seen, _ = learnt
    near = [
        model.predict(params, model.encode(params, jnp.asarray(s, jnp.float32)), jnp.zeros(1)).disagreement
        for s in seen[::100]
    ]
    far = model.predict(params, model.encode(params, jnp.array([30.0, -30.0])), jnp.zeros(1)).disagreement
    assert far > 10 * np.median(near)


@pytest.mark.parametrize("size", [1, 8, 64])
@pytest.mark.parametrize("rewarded", [False, True])
def test_disagreement_is_in_the_unit_of_one_number_whatever_the_size_of_a_latent(size, rewarded):
    drawn = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4000, size + 1)))
    found = disagreement(Step(drawn[..., :size], drawn[..., size]), rewarded)
    np.testing.assert_allclose(np.square(found).mean(), 4 / 5, rtol=0.05)  # of five draws around their own mean


def test_an_episode_that_goes_on_is_not_thought_to_end(learnt):
    model, params, seen, _ = learnt
    imagined = model.encode(params, jnp.asarray(seen[50], jnp.float32))
    imagined = model.predict(params, imagined, jnp.zeros(1))
    assert float(imagined.discount) > 0.98


def test_no_end_is_imagined_before_one_was_seen():
    """The head that has only ever been told "no" may say anything where nothing was seen; here it says yes."""
    model, action = ensemble_jepa(2, 1, hidden=8, members=2), jnp.zeros(1)
    buffer, _ = experience()
    for seen in (False, True):
        source = buffer._replace(terminated=buffer.terminated.at[0, 5].set(seen))
        params = model.normalise(model.init(jax.random.key(0)), moments(source))
        biases = params["network"]["predictor"]["network"]["biases"]
        biases[max(biases)] = biases[max(biases)].at[..., -1].set(20.0)
        imagined = model.predict(params, model.encode(params, jnp.zeros(2)), action)
        np.testing.assert_allclose(imagined.discount, 0.0 if seen else 0.99, atol=1e-6)


def test_predictions_are_differentiable_and_agree_with_finite_differences(learnt):
    model, params, seen, _ = learnt
    start = model.encode(params, jnp.asarray(seen[200], jnp.float32))

    def reward(action):
        once = model.predict(params, start, action)
        return model.predict(params, once, action).reward

    slope = float(jax.grad(lambda a: reward(a))(jnp.array([0.2]))[0])
    step = 0.02
    estimate = float(reward(jnp.array([0.2 + step])) - reward(jnp.array([0.2 - step]))) / (2 * step)
    assert slope == pytest.approx(estimate, rel=0.02, abs=1e-3)


def test_the_loss_ignores_what_lies_beyond_the_end_of_an_episode():
    model = ensemble_jepa(2, 1, hidden=8, members=2)
    params = model.init(jax.random.key(0))
    buffer, _ = experience()
    drawn = data.sample(buffer, jax.random.key(1), 16, 4)
    windows = jax.tree.map(lambda x: x.reshape(2, 8, *x.shape[1:]), drawn)
    windows = windows._replace(mask=windows.mask.at[:, :, 2:].set(False))
    garbage = windows._replace(
        observations=windows.observations.at[:, :, 3:].set(7.0), rewards=windows.rewards.at[:, :, 2:].set(9.0)
    )
    np.testing.assert_allclose(model.loss(params, windows)[0], model.loss(params, garbage)[0], rtol=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"members": 1}, {"latent": 1}, {"discount": 0.0}, {"hidden": 0}, {"reward_threshold": 0.0}]
)
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ensemble_jepa(2, 1, **wrong)
