"""The pixel benchmark runs end to end in its smallest configuration; its episodes and true distances are what they claim."""

import csv
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.pixels import __main__ as command
from benchmarks.pixels import episodes, probes, recipes, report, study, worlds
from mpc.agent import goal_agent as learning
from mpc.agent.goal_agent import GoalAgent
from mpc.agent.goal_config import GoalSettings
from tests.agent.test_goals import truth
from world_models.training.diagnostics import rank_correlation

TINY = GoalSettings(
    distance="latent",
    finetune_updates=2,
    finetune_steps=2,
    latent=8,
    block=4,
    window=2,
    steps=1,
    batch=4,
    updates=2,
    horizon=2,
    starts=2,
    samples=10,
    first_iterations=1,
    iterations=1,
    encoder_settings={"levels": [[8, 8]], "dense": [8], "fit": "crop"},
    predictor_settings={"hidden": [8]},
)
RECIPE = recipes.Recipe(TINY, trajectories=8, length=12, budget=10, episodes=3, seeds=1)


def test_the_smallest_run_trains_judges_draws_and_can_be_repeated(tmp_path, monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "two_rooms", RECIPE)
    monkeypatch.setattr(probes, "TRAJECTORIES", 4)
    monkeypatch.setattr(probes, "LENGTH", 12)
    said: list[str] = []
    options = command.Options(planners=("gradient", "random"), out=tmp_path, runs=tmp_path / "runs")
    rows = command.run(options, said.append)
    stored = json.loads((tmp_path / "pixels-two_rooms.json").read_text())
    with open(tmp_path / "pixels-two_rooms.csv") as file:
        table = list(csv.DictReader(file))
    assert [row["planner"] for row in rows] == [row["planner"] for row in table] == ["gradient", "random"]
    assert len(stored["each_episode"]) == 2 and all(len(bits) == 3 for bits in stored["each_episode"].values())
    assert rows[0]["ms_p50"] > 0 and set(stored["models"][0]["probes"]["r2"]) == {"position", "wall_x", "door_y"}
    assert -1 <= stored["models"][0]["truth"]["latent"] <= 1
    for suffix in (".png", ".mp4"):
        assert (tmp_path / f"pixels-two_rooms{suffix}").stat().st_size > 1000
    assert "gradient" in (tmp_path / "pixels-two_rooms.md").read_text()
    said.clear()
    folder = tmp_path / "runs/two_rooms/as-it-is-0"
    other = replace(RECIPE, settings=replace(TINY, starts=3))
    again = study.train(worlds.world("two_rooms"), other, 0, folder, resume=True, tell=said.append)
    assert not said and again.updates == 2 and again.agent.settings.starts == 3


def test_an_interrupted_training_is_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr(learning, "CHUNK", 10)
    world, recipe = worlds.world("two_rooms"), replace(RECIPE, settings=replace(TINY, updates=110))

    def stop(text: str) -> None:
        if "updates" in text:  # told after every ten chunks
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.train(world, recipe, 0, tmp_path, tell=stop)
    told = json.loads((tmp_path / "training.json").read_text())
    assert told["updates"] == 100 and not told["done"]
    made = study.train(world, recipe, 0, tmp_path, resume=True, tell=lambda text: None)
    assert made.updates == 110 and made.seconds > told["seconds"]
    log = json.loads((tmp_path / "training.json").read_text())["metrics"]
    assert [row["updates"] for row in log] == list(range(10, 120, 10))


def test_who_knows_the_truth_gets_there_and_who_moves_at_random_does_not():
    """The planner in the exact, wall-less dynamics of the dot, within one room."""
    world = worlds.world("two_rooms", observation="state")
    settings = GoalSettings(distance="latent", block=2, horizon=12, starts=4, first_iterations=30, iterations=15)
    model = truth(2)
    reach = 2.45

    def encode(params, observation):
        return model.encode(params, observation)._replace(latent=observation[:2])

    def predict(params, state, action):
        return state._replace(latent=state.latent + reach * action.reshape(-1, 2).sum(axis=0))

    exact = model._replace(encode=encode, predict=predict)
    agent = GoalAgent(world.env, settings=settings, model=exact)
    starts = worlds.manifest(world, 16)
    starts = starts._replace(goal=starts.position + jnp.array([0.0, 12.0]) * jnp.sign(32 - starts.position[:, 1:]))
    outcome = episodes.play(world, agent, episodes.planning(agent), starts, 30, at_once=6)
    floor = episodes.play(world, agent, episodes.random(agent), starts, 30, at_once=6)
    assert outcome.success.shape == (16, 31) and outcome.states.position.shape == (16, 31, 2)
    assert outcome.success[:, -1].all() and floor.success[:, -1].mean() < 0.5
    moved = np.abs(np.diff(floor.states.position, axis=1))
    assert moved.max() <= reach + 0.5 and moved.mean() > 0.5


def test_the_manifest_is_fixed_and_its_ways_are_longer_than_lines():
    for name in recipes.RECIPES:
        world = worlds.world(name)
        starts = worlds.manifest(world, 40)
        length = np.asarray(jax.jit(jax.vmap(lambda s, world=world: worlds.way(world, s)))(starts))
        straight = np.linalg.norm(starts.position - starts.goal, axis=1)
        assert np.isfinite(length).all()
        if name != "teleport":
            assert (length >= straight - 1e-3).all() and (length > straight + 0.1).any()
    assert np.asarray(starts.position)[0] == pytest.approx(json.loads(_manifest("teleport"))["start"][0])
    with pytest.raises(ValueError, match="holds 300 episodes, and 301"):
        worlds.manifest(world, 301)


def _manifest(name: str) -> str:
    return (worlds.MANIFESTS / f"{name}.json").read_text()


def test_the_way_round_the_bend_is_known():
    way = worlds._bend(jnp.array([1.0, 0.8]), jnp.array([1.0, 2.8]))
    corner = np.hypot(1.5, 0.3)
    assert float(way) == pytest.approx(2 * corner + 1.4, abs=1e-3)
    assert float(worlds._bend(jnp.array([1.0, 0.8]), jnp.array([2.0, 0.8]))) == pytest.approx(1.0)


def test_shortcuts_count_where_the_teleport_is_shorter():
    world = worlds.world("teleport")
    starts = worlds.manifest(world, 30)
    states = jax.tree.map(lambda x: jnp.repeat(x[:, None], 2, axis=1), starts)
    states = states._replace(jumps=jnp.ones_like(states.jumps))
    outcome = episodes.Outcome(states, np.ones((30, 2), bool), 0.0)
    found = study.shortcuts(outcome, starts)
    assert 0 < found["shorter"] < 30 and found["used_where_shorter"] == 1.0


def test_wind_is_collected_around_the_same_walks():
    world = worlds.world("two_rooms", leaves=True)
    data = worlds.walks(world, RECIPE, 0)
    frames = np.asarray(world.frames(jnp.asarray(data.observations[:2])))
    assert frames.shape == (2, 65, 65, 2) and (frames[0] != frames[1]).mean() > 0.1  # nearly all of it is leaves
    mixed = worlds.walks(worlds.world("two_rooms"), RECIPE, 0, watching=True)
    assert mixed.actions is not None
    assert np.isnan(mixed.actions[mixed.first]).all(axis=1).sum() == 7  # of 8 trajectories


def test_variants_are_named_and_unknown_ones_refused():
    options = command.Options(ablate=("all",), leaves=True, watching=True, finetune_updates=7)
    found = {variant.name: variant for variant in command.variants(options)}
    assert len(found) == 1 + len(recipes.ABLATIONS) + 3 + 1
    assert all(variant.recipe.settings.finetune_updates == 7 for variant in found.values())
    assert found["byol"].recipe.settings.targets == "average" and found["windy leaves"].settings == {"leaves": True}
    ours, less = command.variants(command.Options(task="wall", ablate=("without covariance",)))
    kept = {**ours.recipe.settings.objective_settings, "covariance_weight": 0.0}
    assert less.recipe.settings == replace(ours.recipe.settings, objective_settings=kept)  # and nothing else is changed
    with pytest.raises(ValueError, match="no ablation is called 'hope'; there are without variance"):
        command.variants(command.Options(ablate=("hope",)))
    with pytest.raises(ValueError, match="no planner is called 'luck'"):
        command.variants(command.Options(planners=("luck",)))


def test_intervals_are_of_all_episodes_of_all_seeds():
    row = {"variant": "v", "planner": "p", "distance": "d"}
    rows = [row | {"seed": s, "each": [s, 1] * 50, "success": 0.5 + s / 2, "ms_p50": 2.0 + s} for s in range(2)]
    (line,) = report.summary(rows)
    assert line["success"] == 0.75 and line["worst_seed"] == 0.5 and line["ms_p50"] == 2.5
    assert line["seeds"] == 2 and line["episodes"] == 200
    low, high = line["interval_95"]
    assert 0.65 < low < 0.72 and 0.78 < high < 0.85


def test_rank_correlation_agrees_with_known_values():
    a = jnp.arange(10.0)
    assert rank_correlation(a, a**3) == pytest.approx(1.0) and rank_correlation(a, -a) == pytest.approx(-1.0)
