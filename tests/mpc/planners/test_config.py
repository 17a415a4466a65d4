"""The table of planners: every planner by its name, the same one as by its function, and configurations that files hold."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mpc
from mpc.planners import config as table
from mpc.planners.base import Planner

Config = mpc.PlannerConfig
DECAY = optax.cosine_decay_schedule(0.3, 20, alpha=0.1)
# a configuration, and what it is to build
ROWS = {
    "online agents": (
        Config("gradient", starts=8, step_size=0.15, spread=0.5),
        lambda p: mpc.gradient(p, optimizer=optax.adam(0.15), starts=8, spread=0.5),
    ),
    "online agents' sampling": (
        Config("cem", samples=32, elites=4, spread=0.5),
        lambda p: mpc.cem(p, samples=32, elites=4, spread=0.5),
    ),
    "goals": (
        Config("gradient", starts=4, step_size=0.3, decay_iterations=20, spread=0.5),
        lambda p: mpc.gradient(p, optimizer=optax.adam(DECAY), starts=4, spread=0.5),
    ),
    "screened": (
        Config("gradient", starts=2, options={"screen": (16, 1)}),
        lambda p: mpc.gradient(p, starts=2, screen=(16, 1)),
    ),
    "lbfgs": (
        Config("gradient", starts=2, options={"optimizer": "lbfgs"}),
        lambda p: mpc.gradient(p, optimizer="lbfgs", starts=2),
    ),
    "simulated robots": (Config("ilqr", options={"second_order": 0.0}), lambda p: mpc.ilqr(p, second_order=0.0)),
    "simulated robots' sampling": (
        Config("mppi", samples=160, spread=0.3),
        lambda p: mpc.mppi(p, samples=160, spread=0.3),
    ),
    "collocation": (
        Config("collocation", starts=2, step_size=0.1),
        lambda p: mpc.collocation(p, starts=2, optimizer=optax.adam(0.1)),
    ),
    "icem": (Config("icem", samples=32, elites=4), lambda p: mpc.icem(p, samples=32, elites=4)),
    "predictive sampling": (Config("predictive_sampling", samples=8), lambda p: mpc.predictive_sampling(p, samples=8)),
    "chain": (
        Config("chain", stages=(Config("cem", samples=16, elites=4), Config("ilqr")), switch_after=2),
        lambda p: mpc.chain(mpc.cem(p, samples=16, elites=4), mpc.ilqr(p), switch_after=2),
    ),
}


def problem(space: mpc.spaces.Space) -> mpc.Problem:
    return mpc.Problem(
        lambda p, s, a: s + 0.1 * a[:1],
        lambda p, s, a, t: (s[0] - 0.3) ** 2 + 0.01 * jnp.cos(9 * a[0]),
        horizon=5,
        action_space=space,
    )


BOX = mpc.Box([-1.0], [1.0])


def solve(planner: Planner) -> np.ndarray:
    return np.asarray(mpc.solve(planner, None, jnp.zeros(1), jax.random.key(3), iterations=4).actions)


@pytest.mark.parametrize("row", ROWS)
def test_a_configuration_builds_what_its_function_builds_and_survives_a_file(row):
    config, build = ROWS[row]
    again = Config.from_dict(json.loads(json.dumps(config.as_dict())))
    assert again == config
    task = problem(BOX)
    np.testing.assert_array_equal(solve(mpc.make_planner(task, again)), solve(build(task)))


def test_every_name_alone_builds_the_planners_defaults():
    task = problem(BOX)
    for name in set(table.PLANNERS) - {"chain"}:
        planner = mpc.make_planner(task, name)
        assert planner.problem is task, name
    assert Config("cem").as_dict() == {"name": "cem"}


def test_relaxed_choices_are_annealed():
    task = problem(mpc.Discrete(3))
    config = Config("gradient", starts=2, anneal=3)
    found = solve(mpc.make_planner(task, config))
    np.testing.assert_array_equal(found, solve(mpc.anneal(mpc.gradient(task, starts=2), steps=3)))


def test_a_new_planner_joins_by_one_row(monkeypatch):
    def random_shooting(problem: mpc.Problem, *, samples: int = 4) -> Planner:
        return mpc.predictive_sampling(problem, samples=samples, spread=1.0, scales=1)

    monkeypatch.setitem(table.PLANNERS, "random_shooting", random_shooting)
    task = problem(BOX)
    expected = solve(mpc.predictive_sampling(task, samples=6, spread=1.0, scales=1))
    np.testing.assert_array_equal(solve(mpc.make_planner(task, Config("random_shooting", samples=6))), expected)
    with pytest.raises(ValueError, match="random_shooting takes samples; got elites"):
        mpc.make_planner(task, Config("random_shooting", elites=2))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("newton", "planner must be one of gradient, ilqr, .*; got 'newton'"),
        (Config("cem", starts=4), "cem takes elites, .*; got starts"),
        (Config("cem", step_size=0.1), "got step_size"),
        (Config("ilqr", options={"sharpness": 1.0}), "ilqr takes .*; got sharpness"),
        (Config("gradient", decay_iterations=5), "needs a step_size"),
        (Config("gradient", step_size=0.1, options={"optimizer": "lbfgs"}), "optimizer of one's own"),
        (Config("gradient", anneal=5), "Box has none"),
        (Config("chain", switch_after=3), "chain needs stages"),
        (Config("chain", stages=(Config("cem"),), switch_after=3), "two stages"),
        (Config("cem", samples=4, elites=8), "elites"),
    ],
)
def test_what_a_planner_does_not_take_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        mpc.make_planner(problem(BOX), config)


def test_what_a_file_cannot_hold_or_does_not_name_is_refused():
    with pytest.raises(ValueError, match="stored as JSON"):
        Config("gradient", options={"optimizer": optax.sgd(0.1)}).as_dict()
    for held in ({"starts": 3}, {"name": "cem", "colour": 1}):
        with pytest.raises(ValueError, match="has a name and may have starts"):
            Config.from_dict(held)


def test_sampling_planners_do_without_optax():
    code = (
        "import sys, mpc\n"
        "p = mpc.Problem(lambda p, s, a: s, lambda p, s, a, t: 0.0, horizon=2, action_space=mpc.Box([-1.0], [1.0]))\n"
        "mpc.make_planner(p, mpc.PlannerConfig('cem', samples=4, elites=2))\n"
        "assert 'optax' not in sys.modules and 'flax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
