"""Tasks from code and files, and agents that take on one after the other: against closed forms and brute force."""

import warnings
from functools import cache

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mpc
from mpc.agent import Agent, Task, TaskError
from mpc.agent.configurator.configurator import OutOfDistributionGoal
from tests.agent.toys import EXACT, exact, exact_agent
from world_models.base import WorldModel, initial_state

SPACE = gymnasium.spaces.Box(-1.0, 1.0, (2,))
HERE = np.array([0.1, -0.2], np.float32)
LIMITS = {"right": lambda params, observation, action, t: observation[0], "top": lambda p, o, a, t: o[1]}
CONFIG = EXACT | {
    "distance": "none",
    "block": 1,
    "horizon": 1,
    "starts": 2,
    "first_starts": 2,
    "first_iterations": 40,
    "iterations": 80,
    "effort_weight": 1e-9,
}


@cache
def puck(latents: int | None = None) -> WorldModel:
    """A puck that goes where it is pushed; with a latent variable, by more or less."""

    def predict(params, state, action, latent=None):
        push = 1.0 if latent is None else 1.0 + 0.5 * latent[0]
        return initial_state(state.latent + push * action)

    return exact(1)._replace(predict=predict, latents=latents)


def made(latents: int | None = None, config: dict | None = None) -> Agent:
    """An agent that knows the puck, and measures goals by observations."""
    return Agent(
        None,
        task=Task(goal=np.zeros(2)),
        config=CONFIG | (config or {}),
        model=puck(latents),
        limits=LIMITS,
        observation_space=gymnasium.spaces.Box(-9.0, 9.0, (2,)),
        action_space=SPACE,
    )


@pytest.fixture(scope="module")
def certain():
    return made()


@pytest.fixture(scope="module")
def uncertain():
    return made(latents=1)


def acted(agent: Agent, task: Task) -> np.ndarray:
    return agent.configure(task).predict(HERE)[0]


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
    weights = {"observation_goal": weight} | ({"effort": effort} if effort else {})
    action = acted(certain, Task(np.asarray(goal), weights=weights, limits=limits))
    wanted = weight * (np.nan_to_num(np.asarray(goal) - HERE)) / (weight + effort)
    wanted[0] = min(wanted[0], limits.get("right", np.inf) - HERE[0])
    np.testing.assert_allclose(action, wanted, atol=0.02)


@pytest.mark.parametrize("risk", [1.0, 0.4, 0.0])
def test_risk_is_a_number_of_the_task(uncertain, risk):
    """Against every action on a grid, in the same futures."""
    action = acted(uncertain, Task(np.array([0.9, -0.2]), risk=risk))
    push = 1.0 + 0.5 * np.random.default_rng(0).standard_normal((8, 1, 1))[:, 0, 0]
    actions = np.linspace(-1, 1, 101)
    energies = 0.5 * (HERE[0] + push[:, None] * actions - 0.9) ** 2
    worst = np.array([float(mpc.risk.cvar(max(risk, 1e-3))(jnp.asarray(e))) for e in energies.T])
    np.testing.assert_allclose(action[0], actions[worst.argmin()], atol=0.05)


def test_nothing_is_compiled_after_the_first_task_of_each_shape(certain, uncertain):
    """Goals, weights, bounds, risk and iterations are parameters; and agents that were told before decide alike."""
    random, compiled = np.random.default_rng(1), []

    def task(limited: bool, risky: bool) -> Task:
        weights = {"observation_goal": float(random.uniform(0.5, 2.0)), "effort": float(random.uniform(0.1, 1.0))}
        return Task(
            random.uniform(-0.5, 0.5, 2),
            weights,
            {"right": float(random.uniform(0.2, 0.6))} if limited else {},
            risk=float(random.uniform(0.2, 1.0)) if risky else None,
            iterations=int(random.integers(3, 9)),
        )

    def act_on_all() -> None:
        for agent, limited in ((certain, False), (certain, True), (uncertain, False)):
            agent.configure(task(limited, agent is uncertain))
            _, state = agent.predict(HERE)
            agent.predict(HERE, state)

    def hear(event: str, duration_secs: float, **_: str | int) -> None:
        compiled.append(event)

    act_on_all()
    shapes = len(certain.components.shapes), len(uncertain.components.shapes)
    jax.monitoring.register_event_duration_secs_listener(hear)
    try:
        jax.jit(lambda x: x + 1.5)(jnp.ones(3))
        assert any("compile" in name for name in compiled)  # the listener does hear of compilations
        compiled.clear()
        for _ in range(3):
            act_on_all()
        assert not [name for name in compiled if "compile" in name]
    finally:
        jax.monitoring.clear_event_listeners()
    assert shapes == (len(certain.components.shapes), len(uncertain.components.shapes))
    one = task(limited=True, risky=False)
    np.testing.assert_array_equal(acted(made(), one), acted(certain, one))


def test_a_shorter_horizon_and_fewer_starts_are_a_program_of_their_own(certain):
    shapes = len(certain.components.shapes)
    certain.configure(Task(HERE, horizon=3, starts=1))
    assert len(certain.components.shapes) == shapes + 1
    assert certain.policy.horizon == certain.program.problem.horizon == 3
    certain.configure(Task(HERE + 0.1, horizon=3, starts=1))
    assert len(certain.components.shapes) == shapes + 1


BAD = """
goal = [1.0, 2.0, 3.0]
horizon = 0
risk = 0.5
speed = 3

[weights]
observation_goal = -1.0
comfort = 2.0

[limits]
right = "near"
left = 1.0

[budget]
iterations = 2.5
"""


def test_all_problems_of_a_file_are_named_with_their_lines(certain, tmp_path):
    file = tmp_path / "task.toml"
    file.write_text(BAD)
    with pytest.raises(TaskError) as error:
        certain.configure(file)
    found = error.value.problems
    for line, word in (
        (2, "shape"),
        (3, "horizon"),
        (4, "one future only"),
        (5, "speed is unknown"),
        (8, "observation_goal"),
    ):
        assert any(problem.startswith(f"line {line}:") and word in problem for problem in found), (line, found)
    for line, word in ((9, "comfort is unknown"), (12, "limits.right"), (13, "left is unknown"), (16, "whole number")):
        assert any(problem.startswith(f"line {line}:") and word in problem for problem in found), (line, found)
    assert [int(problem.split(":")[0].split()[1]) for problem in found] == [2, 3, 4, 5, 8, 9, 12, 13, 16]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("goal = [1.0", "not TOML"),
        ("goal = 'none.npy'", "cannot be read"),
        ("goal = [nan, nan]", "cannot be all of them"),
        ("[weights]\nobservation_goal = 1.0", "the task has none"),
        ("goal = [0.0, 0.0]\n[weights]\nobservation_goal = 0.0\neffort = 1.0", "nothing would go there"),
        ("[weights]\nobservation_goal = 0.0\neffort = 0.0", "nothing to minimise"),
        ("weights = 3", "must be a table"),
    ],
)
def test_contradictions_are_refused(certain, tmp_path, text, said):
    file = tmp_path / "task.toml"
    file.write_text(text)
    with pytest.raises(TaskError, match=said):
        certain.configure(file)


def test_a_file_says_what_code_says(certain, tmp_path):
    file = tmp_path / "task.toml"
    np.save(tmp_path / "goal.npy", np.array([0.4, 0.1], np.float32))
    file.write_text("goal = 'goal.npy'\n[weights]\nobservation_goal = 2\n[budget]\niterations = 60\nstarts = 2\n")
    by_file = certain.configure(file).predict(HERE)[0]
    by_code = acted(certain, Task(np.array([0.4, 0.1]), weights={"observation_goal": 2.0}, iterations=60, starts=2))
    np.testing.assert_array_equal(by_file, by_code)


def test_a_goal_in_a_file_is_the_goal_itself(certain, tmp_path):
    goal = np.array([0.4, 0.1], np.float32)
    np.save(tmp_path / "goal.npy", goal)
    direct = acted(certain, Task(goal=goal))
    np.testing.assert_array_equal(acted(certain, Task(goal=tmp_path / "goal.npy")), direct)
    np.testing.assert_array_equal(certain.task.goal, goal)
    with pytest.raises(TaskError, match="goal cannot be read"):
        certain.configure(Task(goal=str(tmp_path / "none.npy")))


def test_a_task_that_is_refused_leaves_the_one_before(certain):
    certain.configure(Task(HERE))
    before = certain.task
    for task in (Task(HERE, {"comfort": 1.0}), Task(np.zeros(3)), Task(HERE, risk=0.5)):
        with pytest.raises(TaskError):
            certain.configure(task)
    assert certain.task is before


def test_plans_of_another_task_are_begun_anew(certain):
    certain.configure(Task(np.array([0.5, 0.3])))
    _, state = certain.predict(HERE)
    certain.configure(Task(np.array([-0.5, 0.3])))
    np.testing.assert_array_equal(certain.predict(HERE, state)[0], certain.predict(HERE)[0])


def test_fewer_iterations_are_spent_where_there_is_little_time(certain):
    goal = np.array([0.5, 0.3])
    plenty = acted(certain, Task(goal, iterations=70))
    for _ in range(2):  # durations are known after the first, which compiles
        certain.predict(HERE)
    np.testing.assert_array_equal(acted(certain, Task(goal, iterations=70, milliseconds=1e9)), plenty)
    np.testing.assert_array_equal(
        acted(certain, Task(goal, iterations=70, milliseconds=1e-3)), acted(certain, Task(goal, iterations=1))
    )


def test_an_unfamiliar_goal_is_planned_for_with_a_warning():
    """Goals whose nearest experience is further than nearly all experience is from itself."""
    agent = exact_agent()
    agent.samples = np.random.default_rng(0).uniform(1, 14, (400, 2)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent.configure(Task(np.array([9.0, 11.0])))
    with pytest.warns(OutOfDistributionGoal, match=r"18\.\d* from the nearest latent"):  # about (40 - 14) / sqrt(2)
        agent.configure(Task(np.array([40.0, 5.0])))
    assert agent.predict(np.array([3.0, 5.0], np.float32))[0][0] > 1.0
