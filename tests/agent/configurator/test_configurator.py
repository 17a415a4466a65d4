"""Tasks from files, and a planner that takes on one after the other: against closed forms, brute force, and fresh starts."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mpc
from mpc.agent.configurator import configurator as module
from mpc.agent.configurator.configurator import Configurator, OutOfDistributionGoal
from mpc.agent.configurator.task import Task, TaskError
from tests.agent.test_goals import QUICK, knowing
from world_models.base import WorldModel, initial_state

SPACE = mpc.Box([-1.0, -1.0], [1.0, 1.0])
HERE = np.array([0.1, -0.2], np.float32)


def puck(latents: int | None) -> WorldModel:
    """A puck that goes where it is pushed; with latents, by more or less."""

    def predict(params, state, action, latent=None):
        push = 1.0 if latent is None else 1.0 + 0.5 * latent[0]
        return initial_state(state.latent + params["gain"] * push * action)

    def nothing(params, windows):
        return jnp.zeros(()), {}

    return WorldModel(
        init=lambda key: {"gain": jnp.float32(1.0)},
        encode=lambda params, o: initial_state(o),
        predict=predict,
        normalise=lambda params, moments: params,
        loss=nothing,
        optimizer=optax.identity(),
        members=1,
        latents=latents,
    )


def made(latents: int | None = None, **given) -> Configurator:
    return Configurator(
        puck(latents),
        {"gain": jnp.float32(1.0)},
        SPACE,
        HERE,
        terms={"goal": (1.0, module.to_goal), "effort": (0.0, partial(module.effort, SPACE))},
        limits={"right": lambda p, s, a, t: s.latent[0], "top": lambda p, s, a, t: s.latent[1]},
        **given,
    )


@pytest.fixture(scope="module")
def certain():
    return made()


def one_step(goal, weights, **given) -> Task:
    return Task(np.asarray(goal, np.float32), weights=weights, horizon=1, iterations=80, starts=2, **given)


@pytest.mark.parametrize(
    ("goal", "weight", "effort", "limits"),
    [
        ((0.5, 0.3), 1.0, 0.0, {}),
        ((0.5, 0.3), 2.0, 1.5, {}),
        ((-0.4, np.nan), 1.0, 0.5, {}),
        ((0.8, 0.3), 1.0, 0.0, {"right": 0.3}),
    ],
)
def test_every_part_of_a_task_is_heeded(certain, goal, weight, effort, limits):
    """One step: minimise `w/2 |x + a - g|² + e/2 |a|²`, so that `a = w (g - x) / (w + e)`, and `x + a` at most the limit."""
    certain.configure(one_step(goal, {"goal": weight, "effort": effort}, limits=limits))
    wanted = weight * (np.nan_to_num(np.asarray(goal) - HERE)) / (weight + effort)
    wanted[0] = min(wanted[0], limits.get("right", np.inf) - HERE[0])
    np.testing.assert_allclose(certain.act(HERE), wanted, atol=0.02)


@pytest.mark.parametrize("risk", [1.0, 0.4, 0.0])
def test_risk_is_a_number_of_the_task(uncertain, risk):
    """Against every action on a grid, in the same futures."""
    uncertain.configure(one_step((0.9, -0.2), {"goal": 1.0}, risk=risk))
    push = 1.0 + 0.5 * np.random.default_rng(0).standard_normal((8, 1, 1))[:, 0, 0]
    actions = np.linspace(-1, 1, 2001)
    energies = 0.5 * (HERE[0] + push[:, None] * actions - 0.9) ** 2
    worst = np.array([float(mpc.risk.cvar(max(risk, 1e-3))(jnp.asarray(e))) for e in energies.T[::20]])
    np.testing.assert_allclose(uncertain.act(HERE)[0], actions[::20][worst.argmin()], atol=0.05)


@pytest.fixture(scope="module")
def uncertain():
    return made(latents=1)


def test_ten_tasks_compile_nothing_after_the_first_of_each_shape(certain):
    """And an episode in which the task changes goes on as one that began there."""
    random, compiled = np.random.default_rng(1), []
    shapes = {1: (), 2: (), 3: ("right",)}

    def task(horizon):
        limits = {name: float(random.uniform(0.2, 0.6)) for name in shapes[horizon]}
        weights = {"goal": float(random.uniform(0.5, 2.0)), "effort": float(random.uniform(0.0, 1.0))}
        goal = random.uniform(-0.5, 0.5, 2).astype(np.float32)
        return Task(goal, weights, limits, horizon=horizon, starts=2, iterations=int(random.integers(3, 9)))

    for horizon in shapes:
        certain.configure(task(horizon))
        certain.act(HERE)
    known, later = list(certain.shapes), [task(horizon) for horizon in (1, 2, 3, 3, 2, 1, 1, 3, 2, 2)]

    def hear(event: str, duration_secs: float, **_: str | int) -> None:
        compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(hear)
    try:
        jax.jit(lambda x: x + 1.5)(jnp.ones(3))
        assert any("compile" in name for name in compiled)  # the listener does hear of compilations
        compiled.clear()
        actions = []
        for one in later:
            certain.configure(one)
            actions.append([certain.act(HERE), certain.act(HERE)])
        assert not [name for name in compiled if "compile" in name]
    finally:
        jax.monitoring.clear_event_listeners()
    assert certain.shapes == known
    fresh = made()
    fresh.configure(later[-1])
    np.testing.assert_array_equal([fresh.act(HERE), fresh.act(HERE)], actions[-1])


BAD = """
goal = [1.0, 2.0, 3.0]
horizon = 0
risk = 0.5
speed = 3

[weights]
goal = -1.0
comfort = 2.0

[limits]
right = "near"
left = 1.0

[budget]
iterations = 2.5
"""


def test_a_bad_file_is_told_all_of_its_problems_and_where_they_are(certain, tmp_path):
    file = tmp_path / "task.toml"
    file.write_text(BAD)
    with pytest.raises(TaskError) as error:
        certain.read(file)
    told = error.value.problems
    for line, word in ((2, "shape"), (3, "horizon"), (4, "one future only"), (5, "speed is unknown"), (8, "weights.goal")):
        assert any(problem.startswith(f"line {line}:") and word in problem for problem in told), (line, told)
    for line, word in ((9, "comfort is unknown"), (12, "limits.right"), (13, "left is unknown"), (16, "whole number")):
        assert any(problem.startswith(f"line {line}:") and word in problem for problem in told), (line, told)
    assert len(told) == 9
    assert [int(problem.split(":")[0].split()[1]) for problem in told] == [2, 3, 4, 5, 8, 9, 12, 13, 16]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("goal = [1.0", "not TOML"),
        ("goal = 'none.npy'", "cannot be read"),
        ("goal = [nan, nan]", "cannot be all of them"),
        ("[weights]\ngoal = 1.0", "the task has none"),
        ("goal = [0.0, 0.0]\n[weights]\ngoal = 0.0\neffort = 1.0", "nothing would go there"),
        ("[weights]\ngoal = 0.0", "nothing to minimise"),
        ("weights = 3", "must be a table"),
    ],
)
def test_contradictions_are_refused(certain, tmp_path, text, said):
    file = tmp_path / "task.toml"
    file.write_text(text)
    with pytest.raises(TaskError, match=said):
        certain.read(file)


def test_a_file_says_what_code_says(certain, tmp_path):
    file = tmp_path / "task.toml"
    np.save(tmp_path / "goal.npy", np.array([0.4, 0.1], np.float32))
    file.write_text("goal = 'goal.npy'\nhorizon = 1\n[weights]\ngoal = 2\n[budget]\niterations = 80\nstarts = 2\n")
    certain.configure(certain.read(file))
    by_file = certain.act(HERE)
    certain.configure(one_step((0.4, 0.1), {"goal": 2.0}))
    np.testing.assert_array_equal(by_file, certain.act(HERE))


def test_code_is_held_to_what_files_are(certain):
    with pytest.raises(TaskError, match="comfort is unknown"):
        certain.configure(Task(HERE, {"comfort": 1.0}))
    with pytest.raises(ValueError, match="configure"):
        made().act(HERE)
    certain.configure(one_step((0.4, 0.1), {}))
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        certain.act(np.zeros(3))


def test_an_unfamiliar_goal_is_planned_for_with_a_warning():
    known = np.random.default_rng(0).uniform(-1, 1, (400, 2)).astype(np.float32)
    wary = made(disagreement=module.nearest_latent_distance(known[::2]), seen=known[1::2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wary.configure(one_step((0.5, 0.5), {}))
    with pytest.warns(OutOfDistributionGoal, match=r"disagreement there is 2\.\d"):  # about (4 - 1) sqrt(1/2)
        wary.configure(one_step((4.0, 0.5), {}))
    assert wary.act(HERE)[0] > 0.95


def test_a_goal_reaching_agent_is_configured_as_it_is():
    """What it knows exactly, its configurator plans in exactly: straight to the goal, at full speed, block by block."""
    agent = knowing(QUICK)
    agent.album = np.random.default_rng(0).uniform(1, 14, (200, 2)).astype(np.float32)
    planner, place = module.for_goals(agent), np.array([3.0, 5.0], np.float32)
    planner.configure(Task(np.array([9.0, 11.0], np.float32), horizon=6, starts=2, iterations=30))
    for _ in range(6):
        for move in planner.act(place).reshape(-1, 2):
            place = np.clip(place + move, 1.0, 14.0).astype(np.float32)
    assert np.linalg.norm(place - [9.0, 11.0]) < 0.3
    with pytest.warns(OutOfDistributionGoal):
        planner.configure(Task(np.array([40.0, 5.0], np.float32), horizon=6, starts=2, iterations=30))
