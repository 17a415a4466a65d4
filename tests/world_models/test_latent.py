"""The latent world model: numbers of the models that it replaced, and what only the one model can do."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from world_models import WorldModel, data, ensemble_jepa, jepa, latent_variable_model, latent_world_model, reconstruction
from world_models.data import Moments, Window
from world_models.losses import anticollapse
from world_models.networks import (
    CausalPredictor,
    Identity,
    MLPPosterior,
    MLPPredictor,
    PatchDecoder,
    PatchEncoder,
    RecurrentPredictor,
    VectorDecoder,
    VectorEncoder,
)
from world_models.training.trainer import trainer

REFERENCE = json.loads((Path(__file__).parent / "reference.json").read_text())
"""Of `jepa.py` and `pixels.py`, the two families that this model replaced, at fixed seeds."""

PATCHES: Any = partial(PatchEncoder, levels=((4, 8), (2, 16)), dense=(32,))
DECODER: Any = partial(PatchDecoder, levels=((4, 8), (2, 16)), dense=(32,))
VECTOR: Any = partial(VectorEncoder, hidden=(16,))
MLP: Any = partial(MLPPredictor, hidden=(16,))
RECURRENT: Any = partial(RecurrentPredictor, units=12, hidden=(16,))
CAUSAL: Any = partial(CausalPredictor, window=3, width=16, depth=2, heads=2)
POSTERIOR: Any = partial(MLPPosterior, hidden=(16,))
SLOW = partial(anticollapse.vicreg, variance_weight=4.0, slowness_weight=1.0)
OFF = partial(anticollapse.vicreg, variance_weight=0.0, covariance_weight=0.0)

CASES: dict[str, tuple[Callable[[], WorldModel], tuple[int, ...], int, int, int]] = {
    # model, shape of what it takes, size of an action, block, members that windows are drawn for
    # those models learnt rewards by squared error
    "vector": (lambda: ensemble_jepa(3, 1, reward_threshold=None), (3,), 1, 1, 5),
    "history": (lambda: ensemble_jepa(3, 1, history=2, members=3, reward_threshold=None), (6,), 1, 1, 3),
    "image": (lambda: ensemble_jepa((10, 10, 4), 3, hidden=32, reward_threshold=None), (10, 10, 4), 3, 1, 1),
    "blocks": (
        lambda: jepa((65, 65, 2), 2, block=4, encoder=partial(PatchEncoder, fit="crop"), objective=SLOW, steps=2),
        *((65, 65, 2), 2, 4, 1),
    ),
    "recurrent": (
        lambda: jepa(
            (16, 16, 1),
            2,
            **{"latent": 16, "encoder": PATCHES, "predictor": RECURRENT, "objective": SLOW},
            **{"steps": 3, "straightness_weight": 0.5},
        ),
        *((16, 16, 1), 2, 1, 1),
    ),
    "causal": (
        lambda: jepa(
            (16, 16, 1),
            2,
            **{"block": 2, "latent": 16, "encoder": PATCHES, "predictor": CAUSAL, "objective": anticollapse.infonce},
            **{"targets": "stop_gradient", "steps": 2, "encoder_rate": 0.5},
        ),
        *((16, 16, 1), 2, 2, 1),
    ),
    "vector encoder": (
        lambda: jepa((3,), 2, latent=6, encoder=VECTOR, predictor=MLP, objective=anticollapse.sigreg, steps=3),
        *((3,), 2, 1, 1),
    ),
    "reconstruction": (
        lambda: reconstruction(
            (16, 16, 1),
            2,
            decoder=DECODER,
            **{"block": 2, "latent": 16, "encoder": PATCHES, "predictor": MLP, "steps": 2, "latent_weight": 0.5},
        ),
        *((16, 16, 1), 2, 2, 1),
    ),
    "latent variable": (
        lambda: latent_variable_model(3, 2, latents=2, block=2, predictor=MLP, posterior=POSTERIOR, steps=2),
        *((3,), 2, 2, 1),
    ),
}


def windows(shape: tuple[int, ...], action: int, *, block: int = 1, members: int = 1) -> Window:
    """A fixed random batch, some of whose windows end early."""
    random, batch, length = np.random.default_rng(0), 6, 3
    if len(shape) == 3:
        observations = random.integers(0, 256, (members, batch, length + 1, *shape)).astype(np.uint8)
    else:
        observations = random.normal(size=(members, batch, length + 1, *shape)).astype(np.float32)
    drawn = (
        observations,
        random.uniform(-1, 1, (members, batch, length, *(() if block == 1 else (block,)), action)).astype(np.float32),
        random.normal(size=(members, batch, length)).astype(np.float32),
        random.random((members, batch, length)) < 0.2,
        np.cumprod(random.random((members, batch, length)) < 0.85, axis=-1) > 0,
    )
    return Window(*map(jnp.asarray, drawn))


def scales(channels: int, action: int) -> Moments:
    """Fixed random scales."""
    random = np.random.default_rng(1)

    def some(*shape: int) -> jax.Array:
        return jnp.asarray(random.uniform(0.3, 0.9, shape), jnp.float32)

    observation, reward = (some(channels), some(channels)), (some(), some())
    return Moments(*observation, *reward, jnp.float32(1.7), some(action), some(action), jnp.asarray(True))


def measured(model: WorldModel, given: Window, moments: Moments) -> dict[str, Any]:
    """Loss, metrics, latents, three predictions, what is inferred, and the loss after 20 updates."""

    def updated(params: Any) -> jax.Array:
        def update(carry: Any, _: None) -> tuple[Any, None]:
            network, state = carry
            slopes = jax.grad(lambda n: model.loss(params | {"network": n}, given)[0])(network)
            steps, state = model.optimizer.update(slopes, state, network)
            return (optax.apply_updates(network, steps), state), None

        begun = (params["network"], model.optimizer.init(params["network"]))
        (network, _), _ = jax.lax.scan(update, begun, length=20)
        return model.loss(params | {"network": network}, given)[0]

    @jax.jit
    def everything(key: jax.Array) -> dict[str, Any]:
        params = model.normalise(model.init(key), moments)
        average = jax.tree.map(lambda x: 0.9 * x, params["network"])
        training = params | {"average": average, "key": jax.random.key(5)}
        loss, metrics = model.loss(training, given)
        state, following = (model.encode(params, given.observations[0, 0, t]) for t in (0, 1))
        actions, latent = given.actions[0, 0], () if model.latents is None else (jnp.linspace(-1, 1, model.latents),)
        found: dict[str, Any] = {"loss": loss, "metrics": metrics, "latent": state.latent[:8], "predictions": []}
        if model.infer_action is not None:
            found["inferred"] = model.infer_action(params, state, following).ravel()
        if model.infer_latent is not None:
            found["inferred_latent"] = model.infer_latent(params, state, actions[0], following)
        for action in actions:
            state = model.predict(params, state, action, *latent)
            scalars = {name: getattr(state, name) for name in ("reward", "discount", "disagreement")}
            scalars["disagreement"] *= (state.latent.size + model.has_reward) ** 0.5  # they summed over these numbers
            found["predictions"].append({"latent": state.latent[:8]} | scalars)
        return found | {"after": updated(training)}

    return everything(jax.random.key(3))


@pytest.mark.parametrize("case", CASES)
def test_losses_states_and_learning_are_those_of_the_models_it_replaced(case: str):
    make, shape, action, block, members = CASES[case]
    found = measured(make(), windows(shape, action, block=block, members=members), scales(shape[-1], action))
    compare(REFERENCE[case], found, case)


def compare(wanted: Any, found: Any, where: str) -> None:
    """Everything in `wanted` is in `found`, to 1e-5 of the largest of its numbers."""
    if isinstance(wanted, dict):
        for name, part in wanted.items():
            compare(part, found[name], f"{where}: {name}")
    elif isinstance(wanted, list) and isinstance(wanted[0], dict):
        for step, (one, other) in enumerate(zip(wanted, found, strict=True)):
            compare(one, other, f"{where} {step}")
    else:
        least = 1e-5 * np.abs(wanted).max() + 1e-7
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=least, err_msg=where)


def world() -> data.TrajectoryBuffer:
    """A replay buffer of a pushed point, `x' = 0.9 x + 0.5 a`, with reward `x + a`; the episode terminates at its end."""
    random, steps = np.random.default_rng(0), 400
    buffer, place = data.create(steps + 2, 1, (1,), (1,)), np.zeros(1)
    for t in range(steps):
        action = random.uniform(-1, 1, 1)
        row = data.Rows(place[None], action[None], place + action, np.array([t == steps - 1]), np.array([t > 0]))
        buffer = data.append(buffer, row, np.ones(1, bool))
        place = 0.9 * place + 0.5 * action
    last = data.Rows(place[None], np.zeros((1, 1)), np.zeros(1), np.zeros(1, bool), np.ones(1, bool))
    return data.append(buffer, last, np.ones(1, bool))


@pytest.mark.parametrize("predictor", [MLP, RECURRENT, CAUSAL])
@pytest.mark.parametrize("shape", [(3,), (16, 16, 1)])
def test_heads_lose_what_predict_predicts(predictor: Any, shape: tuple[int, ...]):
    """Errors of rewards and terminations along one chain of blocks, from the states that `predict` gives."""
    encoder = VECTOR if len(shape) == 1 else PATCHES
    settings = {"latent": 6, "encoder": encoder, "predictor": predictor, "reward": True, "starts": "first", "steps": None}
    settings |= {"reward_threshold": None}
    model = latent_world_model(shape, 2, block=2, decay=0.5, discount=0.9, objective=OFF, **settings)
    given = windows(shape, 2, block=2)
    given = given._replace(mask=jnp.ones_like(given.mask))
    moments = scales(shape[-1], 2)._replace(reward_best=jnp.float32(100.0))
    mean, std = 2 * moments.reward_mean, 2 * moments.reward_std  # the reward of a block is a sum over it

    @jax.jit
    def losses(key: jax.Array) -> tuple[Any, ...]:
        params = model.normalise(model.init(key), moments)

        def chain(observation: jax.Array, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
            state, found = model.encode(params, observation), []
            for action in actions:
                before, state = state.discount, model.predict(params, state, action)
                found.append((state.reward / before - mean / std, state.discount / before / 0.9))
            rewards, going_on = map(jnp.stack, zip(*found, strict=True))
            return rewards, going_on

        return model.loss(params, given)[1], jax.vmap(chain)(given.observations[0, :, 0], given.actions[0])

    metrics, (rewards, going_on) = losses(jax.random.key(0))
    weights = 0.5 ** np.arange(3)
    seen, ended = (given.rewards[0] - mean) / std, np.asarray(given.terminated[0])
    wanted = (weights * np.square(rewards - seen)).sum(axis=1).mean()
    np.testing.assert_allclose(metrics["reward"], wanted, rtol=1e-4)
    likely = np.where(ended, 1 - np.asarray(going_on), going_on)
    np.testing.assert_allclose(metrics["termination"], -(weights * np.log(likely)).sum(axis=1).mean(), rtol=1e-4)
    assert model.has_reward


def test_rewards_of_blocks_are_learnt_from_a_replay_buffer():
    """`r = x + a`, then `x' + a'`: their sum over a block of two is linear in state and block."""
    model = latent_world_model(
        (1,), 1, latent=1, encoder=Identity, predictor=MLP, block=2, reward=True, objective=OFF, learning_rate=1e-2
    )
    buffer = world()
    fit = trainer(model, batch=64, length=1, updates=800, block=2, averaging=0.98)
    training, _ = fit.fit(fit.init(jax.random.key(0)), buffer)
    places, blocks = jnp.linspace(-0.8, 0.8, 9)[:, None], jnp.tile(jnp.array([[0.5, -0.3], [-0.9, 0.7], [0.2, 0.8]]), (3, 1))
    params, decode = training.params, model.decode
    assert decode is not None

    def after(place: jax.Array, block: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = model.predict(params, model.encode(params, place), block)
        return state.reward * params["scales"].reward_std, decode(params, state)

    rewards, following = jax.jit(jax.vmap(after))(places, blocks)
    middle = 0.9 * places[:, 0] + 0.5 * blocks[:, 0]
    np.testing.assert_allclose(rewards, places[:, 0] + blocks[:, 0] + middle + blocks[:, 1], atol=0.15)
    np.testing.assert_allclose(following[:, 0], 0.9 * middle + 0.5 * blocks[:, 1], atol=0.1)


def pushes(recorded: int) -> data.Dataset:
    """Episodes of a point in the plane, `z' = z + a / 2`, of which only some have actions."""
    random, steps = np.random.default_rng(0), 10
    actions = random.uniform(-1, 1, (100, steps, 2)).astype(np.float32)
    begin = random.uniform(-1, 1, (100, 1, 2)).astype(np.float32)
    places = np.concatenate([begin, begin + np.cumsum(actions / 2, axis=1)], axis=1)
    about = data.About("point")
    rows = [{"observations": o, "actions": a} for o, a in zip(places, actions, strict=True)]
    given, silent = (data.gather(part, about) for part in (rows[:recorded], rows[recorded:]))
    return data.mixed(given, silent)


def test_an_ensemble_infers_the_actions_that_were_not_recorded():
    dataset = pushes(20)
    assert dataset.actions is not None and np.isnan(dataset.actions).mean() > 0.7
    model = ensemble_jepa(2, 2, hidden=32, members=2, inverse_weight=1.0)
    fit = trainer(model, batch=64, length=3, updates=600, averaging=0.98)
    training, metrics = fit.fit(fit.init(jax.random.key(0)), data.resident(dataset, 3))
    random = np.random.default_rng(1)
    places, actions = (jnp.asarray(random.uniform(-1, 1, (50, 2)), jnp.float32) for _ in range(2))
    params, infer_action = training.params, model.infer_action
    assert infer_action is not None

    def both(place: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        state, following = (model.encode(params, o) for o in (place, place + action / 2))
        return infer_action(params, state, following)[0], model.predict(params, state, action).latent - following.latent

    inferred, error = jax.jit(jax.vmap(both))(places, actions)
    assert np.square(inferred - actions).mean() < 0.03 * np.square(actions).mean()
    assert np.square(error).mean() < 0.05 * np.square(actions / 2).mean() / (1 / 3) and np.isfinite(metrics["latent"])


@pytest.mark.parametrize("kind", ["ensemble", "history", "recurrent"])
def test_a_decoder_head_is_scored_by_what_decode_gives_and_has_no_say_in_the_rest(kind: str):
    makes: dict[str, Callable[..., WorldModel]] = {
        "ensemble": partial(ensemble_jepa, 2, 1, members=2, hidden=8),
        "history": partial(ensemble_jepa, 1, 1, members=2, hidden=8, history=2),
        "recurrent": partial(jepa, (2,), 1, latent=4, encoder=VECTOR, predictor=RECURRENT),
    }
    without, model = makes[kind](), makes[kind](decoder=partial(VectorDecoder, hidden=(8,)))
    given = windows((2,), 1, members=model.members)
    given = given._replace(mask=given.mask.at[:, :, 0].set(True))
    moments = scales(2, 1)
    assert without.decode is None and model.decode is not None
    decode = model.decode

    @jax.jit
    def found(key: jax.Array) -> tuple[Any, ...]:
        slopes = []
        for each in (without, model):
            params = each.normalise(each.init(key), moments)
            loss = partial(lambda each, params, n: each.loss(params | {"network": n}, given), each, params)
            slopes.append(jax.grad(loss, has_aux=True)(params["network"]))
        rows = given.observations.reshape(-1, 2)
        decoded = jax.vmap(lambda o: decode(params, model.encode(params, o)))(rows)
        return *slopes, params["scales"].observation_std, decoded.reshape(given.observations.shape)

    (plain, _), (slopes, metrics), std, decoded = found(jax.random.key(0))
    for name, part in plain.items():
        for a, b in zip(*map(jax.tree.leaves, (part, slopes[name])), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=name)
    reached = np.concatenate([given.mask[..., :1], given.mask], axis=-1)
    error = np.square((decoded - given.observations) / std)[reached].mean()
    np.testing.assert_allclose(metrics["decoder"], error, rtol=1e-4)


def test_latents_that_hold_the_observation_are_decoded_exactly():
    model = latent_variable_model(3, 1, latents=1, predictor=MLP, posterior=POSTERIOR)
    params = model.normalise(model.init(jax.random.key(0)), scales(3, 1))
    seen = jnp.array([0.3, -2.0, 5.0])
    assert model.decode is not None
    np.testing.assert_allclose(model.decode(params, model.encode(params, seen)), seen, rtol=1e-5)
    frames = reconstruction((16, 16, 1), 1, latent=8, encoder=PATCHES, predictor=MLP, decoder=DECODER)
    assert frames.decode is not None
    params = frames.init(jax.random.key(0))
    drawn = frames.decode(params, frames.encode(params, jnp.zeros((16, 16, 1), jnp.uint8)))
    assert drawn.shape == (16, 16, 1)


@pytest.mark.parametrize("starts", ["every", "first"])
@pytest.mark.parametrize("objective", [SLOW, anticollapse.barlow_twins, anticollapse.infonce])
def test_ensembles_take_any_objective_and_any_starts(starts: str, objective: Any):
    """Members that share windows lose as much as with copies of windows of their own; what is shared is one mean."""
    settings = {"starts": starts, "steps": 2 if starts == "every" else None, "objective": objective}
    model = ensemble_jepa(3, 1, members=3, hidden=8, **settings)
    given = windows((3,), 1)
    owned = jax.tree.map(lambda x: jnp.repeat(x, 3, axis=0), given)
    loss = jax.jit(lambda given: model.loss(model.init(jax.random.key(0)), given)[1])
    shared, apart = loss(given), loss(owned)
    for name in ("latent", "reward", "termination"):
        np.testing.assert_allclose(shared[name], apart[name], rtol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"targets": "own"}, "targets must be one of online, stop_gradient, average"),
        ({"starts": "last"}, "starts one of every, first"),
        ({"starts": "first", "steps": 2}, "steps must be None; got steps=2"),
        ({"discount": 0.0}, "got decay=0.9, discount=0.0"),
        ({"history": 2, "encoder": PATCHES}, "stack frames as channels"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(wrong: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        latent_world_model((16, 16, 1), 2, **({"encoder": PATCHES} | wrong))


def test_unknown_settings_and_windows_of_other_members_are_refused():
    with pytest.raises(TypeError, match="zeal"):
        jepa((3,), 1, zeal=1)
    model = ensemble_jepa(3, 1, members=3, hidden=8)
    with pytest.raises(ValueError, match="of 1 or of 3 members; got 2"):
        model.loss(model.init(jax.random.key(0)), windows((3,), 1, members=2))
