"""Tests of the planner and throughput benchmarks: end-to-end runs in their smallest configurations."""

import csv
import json
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from benchmarks import peers, planners, throughput, throughput_chains
from benchmarks.formulas import optimum
from benchmarks.problems import REFERENCES
from mpc.rollout import energy


def test_the_smallest_run_writes_its_results(tmp_path):
    options = planners.Options(problems=("pendulum",), planners=("gradient", "cem"), seeds=1, quick=True, out=tmp_path)
    planners.run(options, partial(planners.write, tmp_path, {"command": "test", "processor": "test"}))
    stored = json.loads((tmp_path / "planners.json").read_text())["rows"]
    with open(tmp_path / "planners.csv") as file:
        table = list(csv.DictReader(file))
    assert [row["planner"] for row in stored] == [row["planner"] for row in table] == ["gradient", "cem"]
    for row in stored:
        assert row["cold_cpu_ms"] > 0 and row["warm_cpu_ms"] > 0 and row["seeds"] == 3
        assert row["cost_best"] >= optimum("pendulum").cost - 1e-3
        assert [p["iterations"] for p in row["curve"]] == sorted({p["iterations"] for p in row["curve"]})
    assert "best known 170.045" in (tmp_path / "planners.md").read_text()
    assert (tmp_path / "planners.png").stat().st_size > 1000


def test_unknown_names_raise():
    with pytest.raises(ValueError, match=r"problems must be of .*got 'pendulums'"):
        planners.run(planners.Options(problems=("pendulums",)), print)


@pytest.mark.parametrize("solver", ["fatrop", "ipopt", "lbfgsb"])
def test_other_solvers_find_the_pendulums_optimum(solver):
    pytest.importorskip("scipy" if solver == "lbfgsb" else "casadi")
    reference = REFERENCES["pendulum"]
    session = peers.PEERS[solver](reference)
    cost, violation = reference.measure(session.cold(session.prepare(0)))
    assert cost == pytest.approx(170.04488, abs=1e-4) and violation == 0.0
    best = optimum("pendulum")
    warm, _ = reference.measure(session.warm(session.prepare_warm()), reference.successor(best.actions))
    assert warm == pytest.approx(best.warm_cost, abs=1e-4)


def test_an_unavailable_solver_gives_the_reason():
    with pytest.raises(peers.Unavailable, match="does not support constraints"):
        peers.PEERS["lbfgsb"](REFERENCES["car"])
    with pytest.raises(peers.Unavailable, match="surely_missing is not installed"):
        peers.library("surely_missing")


def test_chains_of_operations_are_counted():
    def serial(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda c, _: (jnp.sin(c) * c, None), x, length=7)[0]

    def parallel(x: jax.Array) -> jax.Array:
        return jnp.sin(x) + jnp.cos(x)

    assert throughput_chains.chain(jax.make_jaxpr(serial)(1.0).jaxpr) == 14
    assert throughput_chains.chain(jax.make_jaxpr(parallel)(1.0).jaxpr) == 2


def test_the_hand_written_gradient_equals_the_planners():
    params = jax.tree.map(jnp.asarray, throughput.weights(throughput.MODELS["A"]))
    state, actions = jnp.ones(24), 0.5 * jax.random.normal(jax.random.key(0), (4, throughput.STEPS, throughput.ACTIONS))
    problem = throughput.task(throughput.STEPS)
    slopes = jax.vmap(jax.grad(lambda a: energy(problem, params, state, a)))(actions)
    moved = throughput.plain_gradient(params, state, actions)
    assert jnp.allclose(moved, jnp.clip(actions - 0.1 * slopes, -1.0, 1.0), atol=1e-6)


def test_the_smallest_throughput_run_writes_its_results(tmp_path):
    options = throughput.Options(parts=("depth",), quick=True, out=tmp_path)
    found = throughput.measure(options, 1)
    header = {"command": "test", "processor": "test"}
    throughput.write(tmp_path, header, [found], throughput.STEPS, throughput.STARTS)
    stored = json.loads((tmp_path / "throughput.json").read_text())["results"][0]
    chains = {(row["planner"], row["horizon"]): row["chain"] for row in stored["depth"]}
    each, left = divmod(chains["gradient", 100] - chains["gradient", 50], 50)
    assert each > 1 and left == 0  # every imagined step adds the same chain: forwards, and backwards again
    assert "| depth | gradient, 50 steps" in (tmp_path / "throughput.md").read_text()
