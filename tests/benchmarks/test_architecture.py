"""What the architecture's tables are made of: tasks that are understood, and objectives worked out by hand."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

import mpc
from benchmarks.architecture import actor_critic, configuring, hierarchy, latents
from benchmarks.architecture.guesses import MOST, guessed
from mpc.agent.configurator import task
from mpc.agent.configurator.task import Task, TaskSchema

WORDS = TaskSchema(
    {name: weight for name, (weight, _) in configuring.TERMS.items()}, ("speed", "east"), (4,), ("goal",), True
)


def test_ten_tasks_are_understood_and_no_two_are_alike():
    read = [task.read(file, WORDS) for file in sorted(configuring.TASKS.glob("*.toml"))]
    told = {(str(t.goal), str(t.weights), str(t.limits), t.risk, t.horizon) for t in read}
    assert len(read) == len(told) == 10
    assert {t.horizon for t in read} == {10, 20} and {t.risk for t in read} == {0.0, 1.0} and any(t.limits for t in read)


def test_an_objective_is_that_of_the_worst_share_of_episodes():
    """Two episodes of one step, one metre and two metres from the goal, the second 0.5 over the limit."""
    states = np.zeros((2, 2, 4), np.float32)
    states[0, 1, 0], states[1, 1, 0] = 1.0, 2.0
    actions = np.full((2, 1, 2), 0.5, np.float32)
    goal = np.array([0.0, np.nan, np.nan, np.nan], np.float32)
    plain = Task(goal, {"goal": 2.0, "effort": 4.0})
    each = np.array([2.0 * 0.5 * 1.0 + 4.0 * 0.25, 2.0 * 0.5 * 4.0 + 4.0 * 0.25])
    assert configuring.objective(plain, states, actions) == pytest.approx(each.mean(), rel=1e-5)
    wary = Task(goal, plain.weights, {"east": 1.5}, risk=0.0)
    wanted = each[1] + configuring.FOUL * 0.5
    assert configuring.objective(wary, states, actions) == pytest.approx(wanted, rel=1e-5)


def test_drivers_that_are_not_there_are_refused_before_anything_is_learnt():
    with pytest.raises(ValueError, match="no limit is called 'nothing'"):
        latents.run(latents.Latents(kinds=("nothing",)))
    with pytest.raises(ValueError, match="'discrete:brave' is no driver"):
        latents.run(latents.Latents(kinds=("discrete",), drivers=("discrete:brave",)))


def test_who_passes_by_a_goal_is_not_at_it_at_the_end():
    """Four episodes of two steps: stays, passes by, arrives, never comes."""
    success = np.array([[0, 1, 1], [0, 1, 0], [0, 0, 1], [0, 0, 0]], bool)
    row = hierarchy.judged("two levels", "far", 0, success)
    assert (row["success"], row["ever"], row["each"]) == (0.5, 0.75, [1, 0, 1, 0])
    other = hierarchy.judged("two levels", "far", 1, success[:2])
    assert hierarchy.share([row, other], "two levels", "far").startswith("50.0% [") and "of 6" in hierarchy.share(
        [row, other], "two levels", "far"
    )


def test_what_earlier_commands_measured_is_kept(tmp_path, monkeypatch):
    remembered = [
        {"task": "T-maze", "shown": shown, "seed": 0, "mean": mean, "random": 0.0}
        for shown, mean in (("everything", 1.0), ("memory", 0.5))
    ]
    seen = {"task": "pendulum", "seed": 0, "horizon": 5, "critic": True}
    old = {"command": "earlier", "memory": remembered, "critic": [seen | {"mean": -9.0}, seen | {"seed": 1, "mean": -3.0}]}
    (tmp_path / "architecture-minds.json").write_text(json.dumps(old))
    monkeypatch.setattr(actor_critic, "seeing", lambda *_: [seen | {"mean": -1.0}])
    which = {"tables": ("critic",), "pupils": ("pendulum",), "remembering": (), "seeds": 1}
    found = actor_critic.run(actor_critic.Minds(**which, out=tmp_path, runs=tmp_path / "runs"), tell=lambda _: None)
    assert found["memory"] == [{"command": "earlier"} | row for row in remembered]
    assert sorted(row["mean"] for row in found["critic"]) == [-3.0, -1.0]
    text = (tmp_path / "architecture-minds.md").read_text()
    assert "`earlier`" in text and "| T-maze | memory | 1 | 0.50 | 0.00 | 0.500 |" in text and "| 2 | -2.0 [" in text


def test_a_proposal_saves_the_iterations_that_come_to_as_little():
    """The best feedback leaves nothing to improve; doing nothing is worse than what is planned from noise."""
    from tests.agent.actor.test_distillation import EYES, PROBLEM, K

    planner = mpc.gradient(PROBLEM, starts=4)
    best, idle = (guessed(planner, EYES, jnp.asarray(gain), jnp.full((3, 1), 0.5), 0) for gain in (K, 0.0))
    assert best == {"iterations": 1.0, "never": 0.0}
    assert 5 < idle["iterations"] <= MOST
