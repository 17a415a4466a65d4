"""Tests of the pixel benchmark: an end-to-end run in its smallest configuration, episodes, and true path lengths."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.pixels import __main__ as command
from benchmarks.pixels import episodes, probes, recipes, report, study, worlds
from mpc.agent import AgentConfig, offline
from world_models import analytic
from world_models.training.diagnostics import rank_correlation

TINY = {
    "distance": "latent",
    "finetune_updates": 2,
    "finetune_steps": 2,
    "latent": 8,
    "block": 4,
    "window": 2,
    "chained_steps": 1,
    "batch": 4,
    "offline_updates": 2,
    "horizon": 2,
    "starts": 2,
    "first_starts": 2,
    "samples": 10,
    "first_iterations": 1,
    "iterations": 1,
    "encoder_options": {"levels": [[8, 8]], "dense": [8], "fit": "crop"},
    "predictor_options": {"hidden": [8]},
    "buffer_mib": 1,
}
RECIPE = recipes.Recipe(TINY, trajectories=8, length=12, budget=10, episodes=3, seeds=1)


def test_the_smallest_run_trains_evaluates_draws_and_resumes(tmp_path, monkeypatch):
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
    folder = tmp_path / "runs/two_rooms/default-0"
    other = RECIPE.changed({"starts": 3})
    again = study.train(worlds.world("two_rooms"), other, 0, folder, resume=True, log=said.append)
    assert not said and again.updates == 2 and again.agent.config.actor.starts == 3


def test_an_interrupted_training_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(offline, "CHUNK", 10)
    world, recipe = worlds.world("two_rooms"), RECIPE.changed({"offline_updates": 110})

    def stop(text: str) -> None:
        if "updates" in text:  # logged after every ten chunks
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.train(world, recipe, 0, tmp_path, log=stop)
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["updates"] == 100 and not record["done"]
    made = study.train(world, recipe, 0, tmp_path, resume=True, log=lambda text: None)
    assert made.updates == 110 and made.seconds > record["seconds"]
    log = json.loads((tmp_path / "training.json").read_text())["metrics"]
    assert [row["updates"] for row in log] == list(range(10, 120, 10))


def test_the_true_model_reaches_goals_and_random_actions_do_not():
    """Plans with the exact dynamics of the dot, within one room."""
    world = worlds.world("two_rooms", observation="state")
    planning = {"distance": "latent", "block": 2, "horizon": 12, "starts": 4, "first_starts": 4, "first_iterations": 30}
    config = AgentConfig.of(planning | {"iterations": 15}, goals=True)
    reach = 2.45

    def move(params, position, actions):
        return position + reach * actions.reshape(-1, 2).sum(axis=0)

    exact = analytic(move, None, lambda observation: observation[:2], None)
    agent = study.goal_agent(world, config, 0, model=exact)
    starts = worlds.manifest(world, 16)
    starts = starts._replace(goal=starts.position + jnp.array([0.0, 12.0]) * jnp.sign(32 - starts.position[:, 1:]))
    outcome = episodes.play(world, agent, episodes.planning(agent), starts, 30, at_once=6)
    floor = episodes.play(world, agent, episodes.random(agent), starts, 30, at_once=6)
    assert outcome.success.shape == (16, 31) and outcome.states.position.shape == (16, 31, 2)
    assert outcome.success[:, -1].all() and floor.success[:, -1].mean() < 0.5
    moved = np.abs(np.diff(floor.states.position, axis=1))
    assert moved.max() <= reach + 0.5 and moved.mean() > 0.5


def test_the_manifest_is_fixed_and_paths_are_longer_than_straight_lines():
    for name in recipes.RECIPES:
        world = worlds.world(name)
        starts = worlds.manifest(world, 40)
        length = np.asarray(jax.jit(jax.vmap(lambda s, world=world: worlds.path_length(world, s)))(starts))
        straight = np.linalg.norm(starts.position - starts.goal, axis=1)
        assert np.isfinite(length).all()
        if name != "teleport":
            assert (length >= straight - 1e-3).all() and (length > straight + 0.1).any()
    assert np.asarray(starts.position)[0] == pytest.approx(json.loads(_manifest("teleport"))["start"][0])
    with pytest.raises(ValueError, match="has 300 episodes, but 301"):
        worlds.manifest(world, 301)


def _manifest(name: str) -> str:
    return (worlds.MANIFESTS / f"{name}.json").read_text()


def test_the_path_around_the_u_maze_slab_has_its_known_length():
    length = worlds._u_maze_path_length(jnp.array([1.0, 0.8]), jnp.array([1.0, 2.8]))
    corner = np.hypot(1.5, 0.3)
    assert float(length) == pytest.approx(2 * corner + 1.4, abs=1e-3)
    assert float(worlds._u_maze_path_length(jnp.array([1.0, 0.8]), jnp.array([2.0, 0.8]))) == pytest.approx(1.0)


def test_shortcuts_count_episodes_with_a_shorter_teleport_path():
    world = worlds.world("teleport")
    starts = worlds.manifest(world, 30)
    states = jax.tree.map(lambda x: jnp.repeat(x[:, None], 2, axis=1), starts)
    states = states._replace(jumps=jnp.ones_like(states.jumps))
    outcome = episodes.Outcome(states, np.ones((30, 2), bool), 0.0)
    found = study.shortcuts(outcome, starts)
    assert 0 < found["shorter"] < 30 and found["used_where_shorter"] == 1.0


def test_leaves_are_added_to_the_same_trajectories():
    world = worlds.world("two_rooms", leaves=True)
    data = worlds.walks(world, RECIPE, 0)
    frames = np.asarray(world.frames(jnp.asarray(data.observations[:2])))
    assert frames.shape == (2, 65, 65, 2) and (frames[0] != frames[1]).mean() > 0.1  # nearly all of it is leaves
    mixed = worlds.walks(worlds.world("two_rooms"), RECIPE, 0, action_free=True)
    assert mixed.actions is not None
    assert np.isnan(mixed.actions[mixed.first]).all(axis=1).sum() == 7  # of 8 trajectories


def test_variants_are_complete_and_unknown_names_raise():
    options = command.Options(ablate=("all",), leaves=True, action_free=True, finetune_updates=7)
    found = {variant.name: variant for variant in command.variants(options)}
    assert len(found) == 1 + len(recipes.ABLATIONS) + 3 + 1
    assert all(variant.recipe.settings["finetune_updates"] == 7 for variant in found.values())
    assert found["byol"].recipe.config.world_model.targets == "average"
    assert found["windy leaves"].settings == {"leaves": True}
    ours, less = command.variants(command.Options(task="wall", ablate=("without covariance",)))
    kept = {**ours.recipe.config.world_model.objective_options, "covariance_weight": 0.0}
    assert less.recipe.config == ours.recipe.config.changed({"objective_options": kept})  # and nothing else is changed
    with pytest.raises(ValueError, match=r"ablations must be of without variance.*got 'hope'"):
        command.variants(command.Options(ablate=("hope",)))
    with pytest.raises(ValueError, match=r"planners must be of .*got 'luck'"):
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
