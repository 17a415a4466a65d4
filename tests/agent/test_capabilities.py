"""Every kind of agent can do everything an agent can: one table of kinds and capabilities.

Each kind is trained once, for a moment, and saved; every cell of the table begins with the checkpoint. No cell is empty.
"""

import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import jax
import msgpack
import numpy as np
import pytest

import mpc
from mpc.agent import Agent
from mpc.agent.configurator.task import Task
from mpc.agent.memory.collect import collect
from mpc.deploy.server import Server
from tests.agent import toys
from tests.agent.toys import ACTOR, SMALL, START, Dot, exact, exact_agent, frame, image_agent
from tests.world_models import dots
from world_models.data import Dataset

SAMPLING = {"planner": "predictive_sampling", "samples": 8}  # quicker to compile than descent
OTHER = np.array([5.0, 6.0], np.float32)


class Kind(NamedTuple):
    """One kind of agent.

    `make(env)`: an agent that learnt nothing. `env()`: its environment. `recordings()`: to learn from. `task`: another one
    than it was made for, of the same shape. `seen`: two observations that follow each other; `shown(observation)`: as
    exported policies take them. `given`: what `Agent.load` has to be given. `steps`: environment steps after which it has
    planned and trained.
    """

    make: Callable[[Any], Agent]
    env: Callable[[], Any]
    recordings: Callable[[], Dataset]
    task: Task
    seen: tuple[np.ndarray, np.ndarray]
    shown: Callable[[np.ndarray], np.ndarray] = np.asarray
    given: dict[str, Any] = {}  # noqa: RUF012
    steps: int = 36


@cache
def swings() -> Dataset:
    """A few moments of the pendulum, with rewards."""
    return collect("Pendulum-v1", 2, length=20)


def walks() -> Dataset:
    """Random walks of the dot."""
    return dots.dataset(6)


def pendulum() -> gymnasium.Env:
    """An environment with rewards to collect."""
    return gymnasium.make("Pendulum-v1")


SWUNG = np.array([1.0, 0.0, 0.5], np.float32), np.array([0.99, 0.1, 0.4], np.float32)
PUSHED = START, START + np.float32(0.5)
KINDS = {
    "reward": Kind(
        lambda env: Agent(env, config=SMALL | ACTOR, seed=3),
        pendulum,
        swings,
        Task(weights={"disagreement": 0.5}, iterations=3),
        SWUNG,
        steps=24,
    ),
    "goal": Kind(exact_agent, Dot, walks, Task(goal=OTHER, iterations=5), PUSHED, given={"model": exact()}),
    "several levels": Kind(
        lambda env: exact_agent(env, config=toys.LEVELS | SAMPLING),
        Dot,
        walks,
        Task(goal=OTHER, iterations=5),
        PUSHED,
        given={"model": exact()},
    ),
    "history": Kind(
        lambda env: Agent(env, config=SMALL | ACTOR | {"history": 2}, seed=3),
        pendulum,
        swings,
        Task(weights={"disagreement": 0.5}, iterations=3),
        SWUNG,
        steps=24,
    ),
    "image": Kind(
        lambda env: image_agent(env, config=SAMPLING),
        lambda: Dot(image=True),
        walks,
        Task(goal=frame(OTHER), iterations=2),
        (frame(START), frame(START + 0.5)),
        lambda image: image / np.float32(255),
        {"render": dots.render},
    ),
    "latent risk": Kind(
        lambda env: exact_agent(env, config=SAMPLING, model=exact(latents=1)),
        Dot,
        walks,
        Task(goal=OTHER, iterations=5, risk=0.25),
        PUSHED,
        given={"model": exact(latents=1)},
    ),
}


class Trained(NamedTuple):
    """A kind, its checkpoint, and the agent that was saved."""

    kind: Kind
    path: Path
    agent: Agent

    def fresh(self) -> Agent:
        """Return a copy of the agent as it was saved, in an environment of its own."""
        return Agent.load(self.path, self.kind.env(), **self.kind.given)


@pytest.fixture(scope="module", autouse=True)
def quick_lessons() -> Iterator[None]:
    """Teach actors in a moment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mpc.agent.actor.distillation.IMITATIONS", 20)
        patch.setattr("mpc.agent.actor.goal_actor.DRAWN", 2_000)
        patch.setattr("mpc.agent.actor.goal_actor.KEPT", 1_000)
        yield


@pytest.fixture(scope="module", params=KINDS)
def trained(request, tmp_path_factory) -> Trained:
    """An agent of each kind that has acted and learnt for a moment."""
    kind = KINDS[request.param]
    agent = kind.make(kind.env()).learn(kind.steps, progress_bar=False)
    path = tmp_path_factory.mktemp("kind") / "run"
    agent.save(path)
    return Trained(kind, path, agent)


@pytest.fixture(scope="module")
def artefact(trained) -> Any:
    """The policy as a robot loads it."""
    return mpc.runtime.loads(trained.agent.export(platforms=("cpu",), period=60.0))


def first_decision(kind: Kind, artefact: Any) -> Any:
    """A policy's decision at the beginning of an episode."""
    seen = kind.shown(kind.seen[0])
    return artefact.step(seen, artefact.init(seen))


def test_learn(trained):
    """Every step is in the replay buffer, and what can be trained was."""
    kind, _, agent = trained
    assert agent.num_timesteps == kind.steps and agent.learner.trained
    assert kind.steps - 1 <= int(agent.buffer.follows.sum()) <= kind.steps  # the last one is pending, unless an episode ends
    config = agent.config
    trainings = (
        config.learning.first_trainings + config.trainings(kind.steps) - config.trainings(config.learning.random_steps)
    )
    assert agent.learner.updates == trainings * config.learning.updates
    action, _ = agent.predict(agent.observation_space.sample())
    assert agent.action_space.contains(action)


def test_learn_from(trained):
    """Recordings are trained on as often as configured, beside what was learnt before."""
    agent = trained.fresh()
    before = agent.learner.updates
    agent.learn_from(trained.kind.recordings(), updates=2, progress_bar=False)
    assert agent.learner.updates == before + 2
    assert agent.samples is not None and len(agent.samples) == min(len(trained.kind.recordings().observations), 512)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(agent.params))


def test_resume(trained):
    """A loaded agent decides and learns on as the saved one does."""
    one, other = trained.fresh(), trained.fresh()
    observation = one.observation_space.sample()
    np.testing.assert_array_equal(one.predict(observation)[0], trained.agent.predict(observation)[0])
    for agent in (one, other):
        agent.learn(8, progress_bar=False)
    assert one.num_timesteps == trained.kind.steps + 8
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)


def test_configure(trained):
    """Another task of the same shape compiles nothing, and is what plans are made for."""
    agent, task = trained.fresh(), trained.kind.task
    observation = agent.observation_space.sample()
    agent.predict(observation)
    program, compiled = agent.program, agent.program.decide._cache_size()  # type: ignore[attr-defined]
    agent.configure(task)
    action, _ = agent.predict(observation)
    assert agent.action_space.contains(action)
    assert agent.program is program and program.decide._cache_size() == compiled  # type: ignore[attr-defined]
    assert int(agent.params["iterations"]) == task.iterations
    if task.goal is not None:
        np.testing.assert_allclose(agent.params["cost"]["goal"], agent.encode(task.goal), rtol=1e-5)
    for name, weight in task.weights.items():
        assert agent.params["cost"]["weights"][name] == np.float32(weight)


def test_export(trained, artefact):
    """The artefact decides as the agent does, for as long as an episode lasts."""
    kind, agent = trained.kind, trained.agent
    words = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(agent.seed), 1)[0]))  # as agents draw theirs
    state, robots = None, artefact.init(kind.shown(kind.seen[0]), words)
    for observation in (*kind.seen, kind.seen[0]):
        action, state = agent.predict(observation, state)
        decision = artefact.step(kind.shown(observation), robots)
        robots = decision.state
        np.testing.assert_allclose(decision.action, action, atol=1e-4)


def test_real_time(trained, artefact):
    """A control loop sends what the artefact decides."""
    middle = 0.5 * (trained.agent.action_space.low + trained.agent.action_space.high)
    seen, expected = trained.kind.shown(trained.kind.seen[0]), first_decision(trained.kind, artefact).action
    with mpc.realtime.RealTime(artefact, safe=middle, deadline=50.0) as loop:
        np.testing.assert_allclose(loop.tick(seen, time.monotonic()), expected, atol=1e-5)
        assert loop.health.faults.total() == 0


def test_serve(trained, artefact):
    """A server answers with what the artefact decides."""
    server = Server(artefact, "tcp://127.0.0.1:*")
    try:
        seen = np.asarray(trained.kind.shown(trained.kind.seen[0]), "<f4").tobytes()
        answer = server.reply([msgpack.packb({"craik": 1, "do": "act", "observation": seen, "loop": "a"}) or b""])
    finally:
        server.close()
        server.run()
    assert answer["ok"], answer
    plan = np.frombuffer(answer["plan"], "<f4").reshape(-1, *artefact.action.shape)
    np.testing.assert_allclose(plan, first_decision(trained.kind, artefact).actions, atol=1e-5)


def test_distil(trained):
    """There is an actor afterwards that reacts without planning, within bounds."""
    agent = trained.fresh()
    assert agent.distil(rounds=0)["imitation"] >= 0
    action, state = agent.predict(agent.observation_space.sample(), mode="react")
    assert agent.action_space.contains(action) and np.isinf(np.asarray(state.policy.plan.cost)).all()
