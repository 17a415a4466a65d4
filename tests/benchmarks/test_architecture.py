"""Tests of the architecture benchmarks: task files, objectives computed by hand, and merging of results."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

import mpc
from benchmarks.architecture import actor_critic, configuring, hierarchy, latents
from benchmarks.architecture.proposals import MOST, proposal_iterations
from mpc.agent.configurator import configurator, task
from mpc.agent.configurator.task import Task, TaskSchema

WORDS = TaskSchema(
    dict.fromkeys(("observation_goal", "effort", "cost"), 1.0), tuple(configuring.LIMITS), (4,), ("observation_goal",), True
)


def test_the_ten_task_files_are_valid_and_distinct():
    read = [task.read(file, WORDS) for file in sorted(configuring.TASKS.glob("*.toml"))]
    distinct = {(str(t.goal), str(t.weights), str(t.limits), t.risk, t.horizon) for t in read}
    assert len(read) == len(distinct) == 10
    assert (
        {t.horizon for t in read} == {10, 20}
        and {configuring.risk(t) for t in read} == {0.0, 1.0}
        and any(t.limits for t in read)
    )


def test_the_agent_takes_every_task_without_learning_anything():
    agent = configuring.configurable()
    assert configurator.schema(agent.components) == WORDS
    for file in configuring.TASKS.glob("*.toml"):
        agent.configure(file)
    programs = [agent.components.program(*shape) for shape in agent.components.shapes]
    assert programs and not any(p.decide._cache_size() or p.init._cache_size() for p in programs)  # type: ignore[attr-defined]


def test_an_objective_averages_the_worst_share_of_episodes():
    """Two episodes of one step end 1 m and 2 m from the goal; the second exceeds the limit by 0.5."""
    states = np.zeros((2, 2, 4), np.float32)
    states[0, 1, 0], states[1, 1, 0] = 1.0, 2.0
    actions = np.full((2, 1, 2), 0.5, np.float32)
    goal = np.array([0.0, np.nan, np.nan, np.nan], np.float32)
    plain = Task(goal, {"observation_goal": 2.0, "effort": 4.0})
    each = np.array([2.0 * 0.5 * 1.0 + 4.0 * 0.25, 2.0 * 0.5 * 4.0 + 4.0 * 0.25])
    assert configuring.objective(plain, states, actions) == pytest.approx(each.mean(), rel=1e-5)
    wary = Task(goal, plain.weights, {"east": 1.5}, risk=0.0)
    wanted = each[1] + configuring.VIOLATION_COST * 0.5
    assert configuring.objective(wary, states, actions) == pytest.approx(wanted, rel=1e-5)


def test_unknown_drivers_raise_before_training():
    with pytest.raises(ValueError, match=r"kinds must be of .*got 'nothing'"):
        latents.run(latents.Latents(kinds=("nothing",)))
    with pytest.raises(ValueError, match=r"REGULARIZER:MEASURE.*got 'discrete:brave'"):
        latents.run(latents.Latents(kinds=("discrete",), drivers=("discrete:brave",)))


def test_passing_the_goal_is_not_success_at_the_end():
    """Four episodes of two steps: stays at the goal, passes it, arrives, never arrives."""
    success = np.array([[0, 1, 1], [0, 1, 0], [0, 0, 1], [0, 0, 0]], bool)
    row = hierarchy.result_row("two levels", "far", 0, success)
    assert (row["success"], row["ever"], row["each"]) == (0.5, 0.75, [1, 0, 1, 0])
    other = hierarchy.result_row("two levels", "far", 1, success[:2])
    assert hierarchy.share([row, other], "two levels", "far").startswith("50.0% [") and "of 6" in hierarchy.share(
        [row, other], "two levels", "far"
    )


def test_rows_of_earlier_commands_are_kept(tmp_path, monkeypatch):
    history = [
        {"task": "T-maze", "observed": observed, "seed": 0, "mean": mean, "random": 0.0}
        for observed, mean in (("full state", 1.0), ("history", 0.5))
    ]
    row = {"task": "pendulum", "seed": 0, "horizon": 5, "critic": True}
    old = {"command": "earlier", "history": history, "critic": [row | {"mean": -9.0}, row | {"seed": 1, "mean": -3.0}]}
    (tmp_path / "architecture-actor-critic.json").write_text(json.dumps(old))
    monkeypatch.setattr(actor_critic, "critic_rows", lambda *_: [row | {"mean": -1.0}])
    settings = {"tables": ("critic",), "agents": ("pendulum",), "history_tasks": (), "seeds": 1}
    options = actor_critic.ActorCritic(**settings, out=tmp_path, runs=tmp_path / "runs")
    found = actor_critic.run(options, log=lambda _: None)
    assert found["history"] == [{"command": "earlier"} | row for row in history]
    assert sorted(row["mean"] for row in found["critic"]) == [-3.0, -1.0]
    text = (tmp_path / "architecture-actor-critic.md").read_text()
    assert "`earlier`" in text and "| T-maze | history | 1 | 0.50 | 0.00 | 0.500 |" in text and "| 2 | -2.0 [" in text


def test_a_good_proposal_needs_fewer_iterations_than_noise():
    """The optimal feedback needs one iteration; a zero proposal needs more than five."""
    from tests.agent.actor.test_distillation import ADAPTER, PROBLEM, K

    planner = mpc.gradient(PROBLEM, starts=4)
    best, idle = (proposal_iterations(planner, ADAPTER, jnp.asarray(gain), jnp.full((3, 1), 0.5), 0) for gain in (K, 0.0))
    assert best == {"iterations": 1.0, "never": 0.0}
    assert 5 < idle["iterations"] <= MOST
