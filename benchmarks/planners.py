"""Planners on the reference problems or the literature's, beside solvers of other libraries, in one process on one core.

    python -m benchmarks.planners                                   # everything (about an hour on one core)
    python -m benchmarks.planners --quick                           # a minute: fewer seeds, shorter searches
    python -m benchmarks.planners --problems pendulum cartpole --planners ilqr fatrop --seeds 20
    python -m benchmarks.planners --problems literature --planners fatrop ilqr ilqr-4 --double --cold --out /tmp/literature

Figures per planner and problem:

- compile time: CPU seconds of the first cold solve minus those of a later one;
- CPU and wall time of a cold solve from the shared initial guesses;
- CPU and wall time of a warm solve, the next receding-horizon decision: the start is the state after the first action of the
  best known plan, and the warm start is that plan shifted by one step;
- cost of the actions rolled out in float64, and largest violation of a limit;
- success: fraction of seeds that reach the best known optimum (relative cost excess <= 1e-4, violation <= 1e-6).

A baseline (fatrop with default options, if no other is named) solves the same seed right before each cold and warm solve, so
ratios to it are per pair.

The process is pinned to one core before JAX starts, so JAX's thread pool has one thread. Times are `time.process_time`,
which counts all threads. For problems with limits, planners run in float64 like the other solvers, because float32 cannot
resolve a violation of 1e-6. With `--double` they do so for all problems.
"""

import contextlib
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import mpc
from benchmarks.formulas import FEASIBLE, Reference, optimum
from benchmarks.literature import LITERATURE
from benchmarks.peers import ON_DEMAND, PEERS, Session, Unavailable
from benchmarks.planner_entries import PLANNERS, Entry, shortened
from benchmarks.planner_report import reached, write
from benchmarks.problems import REFERENCES
from world_models.io.checkpoint import versions

PROBLEMS = REFERENCES | LITERATURE
RESULTS = Path(__file__).parent / "results"
TRAPS = {"cartpole": 65.34448}  # cost of the local optimum that most solvers find


@dataclass
class Options:
    """Options of the benchmark."""

    problems: tuple[str, ...] = tuple(REFERENCES)
    """Problems of both tables; `literature` stands for all of the literature."""
    planners: tuple[str, ...] = ()
    """Names of planners and other solvers; default: all except fatrop-compiled, which takes minutes to build."""
    seeds: int = 20
    """Initial guesses, the seeds 0 … n-1."""
    seconds: float = 60.0
    """Approximate time per planner and problem without compilation; at least three seeds run."""
    quick: bool = False
    """Smoke test: three seeds and a tenth of the iterations."""
    json: bool = False
    """Also print the results as JSON."""
    double: bool = False
    """Run planners in float64 on problems without limits as well."""
    cold: bool = False
    """Measure cold solves only; there are no figures of warm solves and no curves."""
    baseline: str = "fatrop"
    """Solver of another library for the ratios."""
    core: int = 0
    """Core to run on."""
    out: Path = RESULTS
    """Folder of planners.json, .csv, .md and .png."""


def one_core(core: int) -> None:
    """Pins this process to one core; if JAX has not started yet, its thread pool then has one thread."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def precision(reference: Reference, double: bool = False) -> contextlib.AbstractContextManager[Any]:
    """Returns the context for float64 if the problem has limits or `double` is set, else for float32."""
    return jax.enable_x64(double or bool(reference.limits))


@partial(jax.jit, static_argnames=("planner", "iterations", "tolerance"))
def resume(
    planner: mpc.Planner, state: jax.Array, planner_state: Any, iterations: int, tolerance: float | None
) -> tuple[jax.Array, Any]:
    """Returns the actions and the planner state after the iterations of a controller's next decision."""

    def unfinished(carry: tuple[jax.Array, Any]) -> jax.Array:
        count, planner_state = carry
        converged = False if tolerance is None else (count > 0) & (planner_state.optimality <= tolerance)
        return (count < iterations) & ~jnp.asarray(converged)

    def improve(carry: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
        return carry[0] + 1, planner.step(None, state, carry[1])

    planner_state = jax.lax.while_loop(unfinished, improve, (jnp.asarray(0), planner_state))[1]
    return planner.plan(None, state, planner_state).actions, planner_state


@partial(jax.jit, static_argnames=("planner",))
def begin(planner: mpc.Planner, state: jax.Array, key: jax.Array, guess: jax.Array) -> Any:
    """Returns a planner's state before its first iteration."""
    return planner.init(None, state, key, guess)


@partial(jax.jit, static_argnames=("planner",))
def advance(planner: mpc.Planner, state: jax.Array, planner_state: Any, count: jax.Array) -> tuple[Any, jax.Array]:
    """Returns the planner state after further iterations, and its actions."""
    planner_state = jax.lax.fori_loop(0, count, lambda _, m: planner.step(None, state, m), planner_state)
    return planner_state, planner.plan(None, state, planner_state).actions


def ours(entry: Entry, reference: Reference, double: bool = False) -> Session:
    """Returns a session for a planner of this library; its cold solves return plans."""
    entry, precise = entry.on(reference), partial(precision, reference, double)
    with precise():
        planner = entry.build(reference.problem)
        start = jnp.asarray(reference.start)

    def within(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(given: Any) -> Any:
            with precise():
                return jax.block_until_ready(function(given))

        return call

    def prepare(seed: int) -> tuple[jax.Array, jax.Array]:
        with precise():
            return jax.random.key(seed), jnp.asarray(reference.guess(seed))

    def cold(given: tuple[jax.Array, jax.Array]) -> mpc.Plan:
        key, guess = given
        solve = partial(mpc.solve, planner, None, start, key, entry.iterations, guess=guess, tolerance=entry.tolerance)
        return solve()

    def prepare_warm() -> tuple[jax.Array, Any]:
        best = optimum(reference.name).actions
        with precise():
            planner_state = begin(planner, start, jax.random.key(0), jnp.asarray(best))
            planner_state = resume(planner, start, planner_state, entry.iterations, entry.tolerance)[1]
            return jnp.asarray(reference.successor(best), start.dtype), planner.shift(planner_state)

    def warm(given: tuple[jax.Array, Any]) -> jax.Array:
        state, planner_state = given
        return resume(planner, state, planner_state, entry.warm, entry.tolerance)[0]

    def curve(given: tuple[jax.Array, jax.Array]) -> Iterator[tuple[int, jax.Array]]:
        key, guess = given
        with precise():
            planner_state = begin(planner, start, key, guess)
        done = 0
        while done < entry.iterations:
            more = min(max(done, 1), entry.iterations - done)
            with precise():
                planner_state, actions = jax.block_until_ready(advance(planner, start, planner_state, jnp.asarray(more)))
            done += more
            yield done, actions

    return Session(prepare, within(cold), prepare_warm, within(warm), curve)


def timed(function: Callable[[Any], Any], given: Any) -> tuple[Any, float, float]:
    """Returns the result of a call, its CPU time and its wall time in ms."""
    wall, cpu = time.perf_counter(), time.process_time()
    answer = function(given)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return answer, 1e3 * cpu, 1e3 * wall


def trace(session: Session, reference: Reference) -> list[dict[str, float]]:
    """Returns cost and violation over CPU time for seed 0; compilation is excluded."""
    if session.curve is None:
        return []
    for _ in session.curve(session.prepare(0)):
        pass
    points, spent, given = [], 0.0, session.prepare(0)
    steps = session.curve(given)
    while True:
        found, cpu, _ = timed(lambda it: next(it, None), steps)
        if found is None:
            return points
        spent += cpu
        cost, violation = reference.measure(found[1])
        points.append({"iterations": found[0], "cpu_ms": spent, "cost": cost, "violation": violation})


def outcome(answer: Any) -> tuple[Any, str | None]:
    """Returns the actions and the name of the status of a solver's answer; solvers of other libraries have no status."""
    return (answer.actions, mpc.Status(int(answer.status)).name) if isinstance(answer, mpc.Plan) else (answer, None)


def cold_solves(
    session: Session, baseline: Session | None, reference: Reference, seeds: int, seconds: float
) -> tuple[np.ndarray, Counter[str]]:
    """Returns CPU time, wall time, cost, violation and the baseline's CPU time `[5, seeds]`, and how often each status is
    returned."""
    rows, statuses, begun = [], Counter(), time.perf_counter()
    for seed in range(seeds):
        baseline_cpu = timed(baseline.cold, baseline.prepare(seed))[1] if baseline else np.nan
        answer, cpu, wall = timed(session.cold, session.prepare(seed))
        actions, status = outcome(answer)
        rows.append((cpu, wall, *reference.measure(actions), baseline_cpu))
        statuses.update([status] if status else [])
        if seed >= 2 and time.perf_counter() - begun > seconds:
            break
    return np.array(rows).T, statuses


def warm_solves(session: Session, baseline: Session | None, reference: Reference, seeds: int, seconds: float) -> np.ndarray:
    """Returns the figures of `cold_solves` for warm solves, `[5, turns]`."""
    rows, begun, state = [], time.perf_counter(), reference.successor(optimum(reference.name).actions)
    for turn in range(max(3, min(20, seeds))):
        baseline_cpu = timed(baseline.warm, baseline.prepare_warm())[1] if baseline else np.nan
        actions, cpu, wall = timed(session.warm, session.prepare_warm())
        rows.append((cpu, wall, *reference.measure(actions, state), baseline_cpu))
        if turn >= 2 and time.perf_counter() - begun > 0.5 * seconds:
            break
    return np.array(rows).T


def compete(
    make: Callable[[Reference], Session], baseline: Session | None, reference: Reference, options: Options
) -> dict[str, Any]:
    """Measures one solver on one problem and returns a row of results."""
    seeds, seconds = 3 if options.quick else options.seeds, options.seconds
    best = optimum(reference.name)
    session, build, _ = timed(make, reference)
    given = session.prepare(0)
    compile_cold = build + timed(session.cold, given)[1] - timed(session.cold, given)[1]
    c, statuses = cold_solves(session, baseline, reference, seeds, seconds)
    w, compile_warm = np.full((5, 1), np.nan), np.nan
    if not options.cold:
        again, preparing, _ = timed(lambda _: session.prepare_warm(), None)
        compile_warm = preparing + timed(session.warm, again)[1] - timed(session.warm, again)[1]
        w = warm_solves(session, baseline, reference, seeds, seconds)
    feasible = c[3] <= FEASIBLE

    hit = feasible & reached(c[2], best.cost)
    trap = TRAPS.get(reference.name)
    return {
        "compile_s": 1e-3 * max(compile_cold, 0.0),
        "compile_warm_s": 1e-3 * float(np.maximum(compile_warm, 0.0)),
        "cold_cpu_ms": float(np.median(c[0])),
        "cold_cpu_ms_min": float(c[0].min()),
        "cold_cpu_ms_max": float(c[0].max()),
        "cold_wall_ms": float(np.median(c[1])),
        "cold_ratio": float(np.median(c[0] / c[4])),
        "cold_ratio_95": float(np.quantile(c[0] / c[4], 0.95)),
        "warm_cpu_ms": float(np.median(w[0])),
        "warm_wall_ms": float(np.median(w[1])),
        "warm_ratio": float(np.median(w[0] / w[4])),
        "cost_best": float(np.where(feasible, c[2], np.inf).min()),
        "cost_median": float(np.median(c[2])),
        "violation_median": float(np.median(c[3])),
        "violation_max": float(c[3].max()),
        "feasible": float(feasible.mean()),
        "success": float(hit.mean()),
        "success_trap": None if trap is None else float((feasible & reached(c[2], trap)).mean()),
        "seeds": len(c[0]),
        "statuses": ", ".join(f"{status} {count}" for status, count in statuses.most_common()),
        "warm_cost": float(np.median(w[2])),
        "warm_violation": float(w[3].max()),
        "warm_success": float(((w[3] <= FEASIBLE) & reached(w[2], best.warm_cost)).mean()),
        "costs": c[2].tolist(),
        "violations": c[3].tolist(),
        "curve": [] if options.cold else trace(session, reference),
    }


def run(options: Options, save: Callable[[list[dict[str, Any]]], None]) -> list[dict[str, Any]]:
    """Runs every selected planner on every selected problem; `save` receives all rows after each problem.

    Raises:
        ValueError: If a problem or a planner is unknown.
    """
    entries = {name: shortened(e) if options.quick else e for name, e in PLANNERS.items()}
    makers = PEERS | {name: partial(ours, entry, double=options.double) for name, entry in entries.items()}
    selected = options.planners or tuple(makers)
    makers |= ON_DEMAND
    problems = tuple(LITERATURE) if options.problems == ("literature",) else options.problems
    checks = ("problems", problems, PROBLEMS), ("planners", selected, makers), ("baseline", [options.baseline], PEERS)
    for option, names, available in checks:
        if unknown := [name for name in names if name not in available]:
            raise ValueError(f"{option} must be of {', '.join(available)}; got {unknown[0]!r}")
    rows: list[dict[str, Any]] = []
    for name in problems:
        reference = PROBLEMS[name]
        try:
            baseline = PEERS[options.baseline](reference)
        except Unavailable as reason:
            baseline = None
            print(f"{name}: no ratios: {reason}", file=sys.stderr)
        for planner in selected:
            row: dict[str, Any] = {"problem": name, "planner": planner}
            rows.append(row)
            try:
                row |= compete(makers[planner], baseline, reference, options)
            except Unavailable as reason:
                row["skipped"] = str(reason)
                print(f"{name:>11} {planner:<20} skipped: {reason}", flush=True)
                continue
            print(
                f"{name:>11} {planner:<20} compile {row['compile_s']:5.1f} s, cold {row['cold_cpu_ms']:8.2f} ms "
                f"(x {row['cold_ratio']:.2f}), warm {row['warm_cpu_ms']:8.2f} ms (x {row['warm_ratio']:.2f}), "
                f"median {row['cost_median']:.5g}, violation {row['violation_max']:.0e}, success {row['success']:.0%} "
                f"{row['statuses']}",
                flush=True,
            )
        save(rows)
    return rows


def processor() -> str:
    """Returns the name of the processor."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def main() -> None:
    """Runs the benchmark."""
    options = tyro.cli(Options, description=__doc__)
    one_core(options.core)
    names = ("craik", "jax", "jaxlib", "optax", "numpy", "casadi", "scipy", "torch", "pytorch_mppi", "stable-worldmodel")
    header = {
        "command": " ".join(["python -m benchmarks.planners", *sys.argv[1:]]),
        "processor": processor(),
        "python": platform.python_version(),
        "packages": versions(names),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "loops_hoisted": mpc.loops_hoisted,
        "baseline": options.baseline,
    }
    rows = run(options, partial(write, options.out, header))
    if options.json:
        print(json.dumps(header | {"rows": rows}))


if __name__ == "__main__":
    main()
