"""Measures the share of the machine that planning through neural models uses, and how its time grows.

    python -m benchmarks.throughput                  # one core, two cores, an accelerator where there is one (minutes)
    python -m benchmarks.throughput --quick --parts models

| part | what is measured |
|---|---|
| long | a gradient step over 125 … 1,000 steps of a latent of 512, 64 starts: memory and time |
| models | a CEM iteration (512 × 15 steps) and a gradient step (64 × 15 steps) through A and B: share of the GEMM peak |
| scaling | a gradient step through B against horizon and against the number of starts |
| batch | 256 pendulum problems in one `vmap`ed call against 256 calls |
| depth | the longest chain of dependent operations in one step of a planner, for horizons of 50 … 1,600 |

Models are residual SiLU networks in float32, `x + W3 silu(W2 silu(W1 [x, a] + b1) + b2) + b3`; A: 24 + 6 → 256 → 256 → 24,
B: 128 + 6 → 512 → 512 → 128. Beside the planners stand the same two steps written by hand in plain `jax.jit`, and in eager
torch. A product of [m, k] and [k, n] counts 2mkn operations; a CEM iteration is the forward pass, a gradient twice that,
for the weights need none. The peak is the fastest product of those tried (`SHAPES`, the models' own among them) by XLA and
by NumPy, measured in the same process before, between and after; all of them are listed. Chains are counted in what JAX
traced, whatever the device; where a step branches (collocation synchronises now and then), the shortest way counts too.

Every number of cores is a process of its own, pinned to them before JAX starts. One core: CPU time; several: wall time;
the least of the repeats, for what else the machine does only adds.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import mpc
from benchmarks.formulas import SIDE_BY_SIDE
from benchmarks.peers import Unavailable, library
from benchmarks.planners import RESULTS, processor
from benchmarks.problems import REFERENCES
from benchmarks.throughput_chains import depth
from benchmarks.throughput_report import write
from world_models.io.checkpoint import versions

SHAPES = (
    (512, 256, 256),
    (512, 512, 512),
    (512, 134, 512),
    (64, 512, 512),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
)
CANDIDATES, STARTS, STEPS, ACTIONS = 512, 64, 15, 6


class Widths(NamedTuple):
    """Of a model: its state and its two hidden layers."""

    state: int
    hidden: int

    @property
    def operations(self) -> int:
        """Of one prediction for one state."""
        first, second, third = (self.state + ACTIONS) * self.hidden, self.hidden**2, self.hidden * self.state
        return 2 * (first + second + third)


MODELS = {"A": Widths(24, 256), "B": Widths(128, 512)}
LONG = Widths(512, 512)


@dataclass
class Options:
    """Parts to run, and their sizes."""

    parts: tuple[str, ...] = ("long", "models", "scaling", "batch", "depth")
    """Parts to run."""
    cores: tuple[int, ...] = (1, 2)
    """Numbers of cores, each in a process of its own; the last cores of the machine are taken."""
    quick: bool = False
    """Short repeats and small sizes: shows that everything runs."""
    json: bool = False
    """Print the results as JSON too."""
    out: Path = RESULTS
    """Folder of throughput.json, .csv, .md and .png."""
    child: int | None = None
    """Internal: the number of cores of this process, 0 for an accelerator."""


def weights(widths: Widths, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """A random model that neither explodes nor dies over long horizons."""
    rng = np.random.default_rng(seed)
    sizes = (widths.state + ACTIONS, widths.hidden, widths.hidden, widths.state)
    pairs = [(rng.standard_normal((a, b)) / np.sqrt(a), np.zeros(b)) for a, b in pairwise(sizes)]
    pairs[-1] = (0.02 * pairs[-1][0], pairs[-1][1])
    return [(w.astype(np.float32), b.astype(np.float32)) for w, b in pairs]


def predict(params: Any, x: jax.Array, action: jax.Array) -> jax.Array:
    """One step of a model: `[..., S]`, `[..., A]` to `[..., S]`."""
    (w1, b1), (w2, b2), (w3, b3) = params
    hidden = jax.nn.silu(jnp.concatenate([x, action], -1) @ w1 + b1)
    return x + jax.nn.silu(hidden @ w2 + b2) @ w3 + b3


def charge(params: Any, x: jax.Array, action: jax.Array, t: jax.Array) -> jax.Array:
    """The stage cost: mean square of the state, less a hundredth of the action's."""
    return jnp.mean(x * x) + 0.01 * jnp.mean(action * action)


def task(horizon: int) -> mpc.Problem:
    """Planning through a model, whose weights are the params."""
    return mpc.Problem(predict, charge, horizon=horizon, action_space=mpc.Box(-np.ones(ACTIONS), np.ones(ACTIONS)))


class Clock(NamedTuple):
    """Times by CPU or by wall clock, for at least so many seconds."""

    read: Callable[[], float]
    seconds: float

    def __call__(self, function: Callable[[], Any]) -> float:
        """The least time of a call, in ms, after two to warm up."""
        jax.block_until_ready(function())
        jax.block_until_ready(function())
        best, begun, count = np.inf, time.perf_counter(), 0
        while count < 5 or time.perf_counter() - begun < self.seconds:
            before = self.read()
            jax.block_until_ready(function())
            best, count = min(best, self.read() - before), count + 1
        return 1e3 * best


def products(clock: Clock, numpy: bool) -> dict[str, float]:
    """GFLOP/s of matrix products, by library and shape."""
    rates, rng = {}, np.random.default_rng(0)
    multiply = jax.jit(jnp.matmul)
    for m, k, n in SHAPES:
        a, b = (rng.standard_normal(s).astype(np.float32) for s in ((m, k), (k, n)))
        x, y = jnp.asarray(a), jnp.asarray(b)
        label = f"{m}x{k}x{n}"
        rates[f"XLA {label}"] = 2e-6 * m * k * n / clock(partial(multiply, x, y))
        if numpy:
            rates[f"NumPy {label}"] = 2e-6 * m * k * n / clock(partial(np.matmul, a, b))
    return rates


def plain_cem(params: Any, state: jax.Array, key: jax.Array, mean: jax.Array, std: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A CEM iteration as one would write it for one purpose."""
    noise = jax.random.normal(key, (CANDIDATES, STEPS, ACTIONS))
    actions = jnp.clip(mean + std * noise, -1.0, 1.0)

    def advance(carry: Any, action: jax.Array) -> Any:
        x, total = carry
        return (predict(params, x, action), total + jnp.mean(x * x, -1) + 0.01 * jnp.mean(action * action, -1)), None

    begin = (jnp.broadcast_to(state, (CANDIDATES, state.size)), jnp.zeros(CANDIDATES))
    (_, costs), _ = jax.lax.scan(advance, begin, actions.swapaxes(0, 1))
    elite = actions[jax.lax.top_k(-costs, 64)[1]]
    return elite.mean(0), elite.std(0)


def plain_gradient(params: Any, state: jax.Array, actions: jax.Array) -> jax.Array:
    """The gradient for `[starts, H, A]` actions as one would write it for one purpose, and a step along it."""

    def total(actions: jax.Array) -> jax.Array:
        def advance(x: jax.Array, action: jax.Array) -> Any:
            return predict(params, x, action), jnp.mean(x * x, -1) + 0.01 * jnp.mean(action * action, -1)

        begin = jnp.broadcast_to(state, (len(actions), state.size))
        return jnp.sum(jax.lax.scan(advance, begin, actions.swapaxes(0, 1))[1])

    return jnp.clip(actions - 0.1 * jax.grad(total)(actions), -1.0, 1.0)


def torch_calls(widths: Widths, threads: int) -> dict[str, Callable[[], Any]]:
    """The same two in eager torch."""
    torch = library("torch")
    torch.set_num_threads(threads)
    layers = [(torch.tensor(w), torch.tensor(b)) for w, b in weights(widths)]
    silu = torch.nn.functional.silu

    def costs(actions: Any) -> Any:
        x = torch.zeros(len(actions), widths.state)
        total = torch.zeros(len(actions))
        (w1, b1), (w2, b2), (w3, b3) = layers
        for t in range(STEPS):
            a = actions[:, t]
            total = total + (x * x).mean(-1) + 0.01 * (a * a).mean(-1)
            hidden = silu(torch.addmm(b1, torch.cat([x, a], -1), w1))
            x = x + torch.addmm(b3, silu(torch.addmm(b2, hidden, w2)), w3)
        return total

    def cem() -> Any:
        with torch.inference_mode():
            actions = (0.5 * torch.randn(CANDIDATES, STEPS, ACTIONS)).clamp(-1.0, 1.0)
            elite = actions[torch.topk(-costs(actions), 64).indices]
            return elite.mean(0), elite.std(0)

    def slope() -> Any:
        actions = torch.zeros(STARTS, STEPS, ACTIONS, requires_grad=True)
        costs(actions).sum().backward()
        return actions.grad

    return {"CEM": cem, "gradient": slope}


def step_of(planner: mpc.Planner, params: Any, state: jax.Array) -> Callable[[], Any]:
    """One compiled improvement of a planner, from the state it begins with."""
    planner_state = jax.jit(planner.init)(params, state, jax.random.key(0))
    step = jax.jit(planner.step)
    planner_state = step(params, state, planner_state)
    return partial(step, params, state, planner_state)


def models(clock: Clock, cores: int) -> dict[str, Any]:
    """CEM iterations and gradient steps through A and B, as shares of the GEMM peak."""
    on_cpu, rows = cores > 0, []
    rates = products(clock, on_cpu)
    for name, widths in MODELS.items():
        params, state = jax.tree.map(jnp.asarray, weights(widths)), jnp.zeros(widths.state)
        problem, key = task(STEPS), jax.random.key(1)
        spread = jnp.full((STEPS, ACTIONS), 0.5)
        actions = jax.random.normal(key, (STARTS, STEPS, ACTIONS))
        calls: dict[tuple[str, str], Callable[[], Any]] = {
            ("CEM", "mpc.cem"): step_of(mpc.cem(problem, samples=CANDIDATES, elites=64), params, state),
            ("CEM", "plain jit"): partial(jax.jit(plain_cem), params, state, key, 0 * spread, spread),
            ("gradient", "mpc.gradient"): step_of(mpc.gradient(problem, starts=STARTS), params, state),
            ("gradient", "plain jit"): partial(jax.jit(plain_gradient), params, state, actions),
        }
        if on_cpu:
            try:
                calls |= {(kind, "torch eager"): call for kind, call in torch_calls(widths, cores).items()}
            except Unavailable as reason:
                print(f"torch skipped: {reason}", file=sys.stderr)
        for (kind, who), call in calls.items():
            work = widths.operations * STEPS * (CANDIDATES if kind == "CEM" else 2 * STARTS) * 1e-9
            rows.append({"model": name, "kind": kind, "who": who, "gflop": work, "ms": clock(call)})
        again = products(clock, on_cpu)
        rates = {label: max(rate, again[label]) for label, rate in rates.items()}
    peak = max(rates.values())
    for row in rows:
        row["gflop_per_s"] = 1e3 * row["gflop"] / row["ms"]
        row["share"] = row["gflop_per_s"] / peak
    return {"peak_gflop_per_s": peak, "peak_is": max(rates, key=lambda label: rates[label]), "products": rates, "rows": rows}


def scaling(clock: Clock, quick: bool) -> list[dict[str, Any]]:
    """A gradient step through B against the horizon (64 starts) and the number of starts (15 steps)."""
    widths, rows = MODELS["B"], []
    params, state = jax.tree.map(jnp.asarray, weights(widths)), jnp.zeros(widths.state)
    sizes = [(h, STARTS) for h in ((15, 30) if quick else (15, 30, 60, 120, 240))]
    sizes += [(STEPS, s) for s in ((1, 4) if quick else (1, 4, 16, 64, 256, 1024))]
    for horizon, starts in sizes:
        ms = clock(step_of(mpc.gradient(task(horizon), starts=starts), params, state))
        work = 2e-9 * widths.operations * horizon * starts
        rows.append({"horizon": horizon, "starts": starts, "ms": ms, "gflop_per_s": 1e3 * work / ms})
    return rows


def batch(clock: Clock, quick: bool) -> dict[str, Any]:
    """256 pendulums from different states: one call for all against one call each."""
    count, iterations = (16 if quick else 256), (10 if quick else 100)
    problem = REFERENCES["pendulum"].posed(SIDE_BY_SIDE)
    states = jnp.asarray(np.random.default_rng(0).uniform([-np.pi, -1.0], [np.pi, 1.0], (count, 2)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), count)
    results: dict[str, Any] = {"problems": count, "iterations": iterations}
    for name, planner in {
        "gradient": mpc.gradient(problem, starts=1),
        "cem": mpc.cem(problem, samples=64, elites=8),
        "ilqr": mpc.ilqr(problem),
    }.items():
        solve = partial(mpc.solve, planner, None, iterations=iterations)
        together = jax.jit(jax.vmap(lambda s, k, solve=solve: solve(s, k).actions))

        def each(solve: Any = solve) -> list[jax.Array]:
            return [solve(s, k).actions for s, k in zip(states, keys, strict=True)]

        short = clock._replace(seconds=min(clock.seconds, 0.5))
        one, many = short(each), short(partial(together, states, keys))
        results[name] = {"calls_ms": one, "vmapped_ms": many, "throughput_ratio": one / many}
    return results


def long(clock: Clock, quick: bool) -> list[dict[str, Any]]:
    """One gradient step through a latent of 512 with 64 starts: memory XLA reserves, peak of the process, time."""
    params, state, rows = jax.tree.map(jnp.asarray, weights(LONG)), jnp.zeros(LONG.state), []
    for remat in (True, False):  # the frugal one first, for the peak of the process never falls
        for horizon in (10, 20) if quick else (125, 250, 500, 1000):
            planner = mpc.gradient(task(horizon), starts=STARTS, remat=remat)
            planner_state = jax.jit(planner.init)(params, state, jax.random.key(0))
            compiled = jax.jit(planner.step).lower(params, state, planner_state).compile()
            sizes: Any = compiled.memory_analysis()
            reserved = sizes.temp_size_in_bytes + sizes.argument_size_in_bytes + sizes.output_size_in_bytes
            ms = clock._replace(seconds=0.0)(partial(compiled, params, state, planner_state))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            row = {"remat": remat, "horizon": horizon, "ms": ms, "ms_per_step": ms / horizon}
            rows.append(row | {"reserved_gib": reserved / 2**30, "process_peak_gib": peak})
    return rows


def measure(options: Options, cores: int) -> dict[str, Any]:
    """All parts in this process, which is pinned already."""
    if cores == 0 and jax.default_backend() == "cpu":
        return {}
    read = time.process_time if cores == 1 else time.perf_counter
    clock = Clock(read, 0.02 if options.quick else 1.0)
    parts: dict[str, Callable[[], Any]] = {
        "long": partial(long, clock, options.quick),  # before anything else has raised the peak of the process
        "models": partial(models, clock, cores),
        "scaling": partial(scaling, clock, options.quick),
        "batch": partial(batch, clock, options.quick),
        "depth": partial(depth, options.quick),
    }
    found = {name: part() for name, part in parts.items() if name in options.parts and (name != "depth" or cores == 1)}
    return found | {"device": str(jax.devices()[0]), "cores": cores, "clock": "CPU" if cores == 1 else "wall"}


def spawn(options: Options, cores: int) -> dict[str, Any]:
    """The same in a process of its own, pinned to so many of the last cores before any library starts a thread."""
    command = [sys.executable, "-m", "benchmarks.throughput", "--child", str(cores), "--parts", *options.parts]
    command += ["--quick"] if options.quick else []
    count, environment = str(max(cores, 1)), dict(os.environ)
    if cores:
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), count)
        environment["JAX_PLATFORMS"] = "cpu"
        if hasattr(os, "sched_setaffinity"):
            allowed = sorted(os.sched_getaffinity(0))[-cores:]
            program = f"import os, sys; os.sched_setaffinity(0, {allowed}); os.execv(sys.executable, {command})"
            command = [sys.executable, "-c", program]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Run what the command line asks for."""
    options = tyro.cli(Options, description=__doc__)
    if options.child is not None:
        print(json.dumps(measure(options, options.child)))
        return
    header = {
        "command": " ".join(["python -m benchmarks.throughput", *sys.argv[1:]]),
        "processor": processor(),
        "python": platform.python_version(),
        "packages": versions(("craik", "jax", "jaxlib", "numpy", "torch")),
        "loops_hoisted": mpc.loops_hoisted,
    }
    results = [found for cores in (*options.cores, 0) if (found := spawn(options, cores))]
    write(options.out, header, results, STEPS, STARTS)
    print((options.out / "throughput.md").read_text())
    if options.json:
        print(json.dumps(header | {"results": results}))


if __name__ == "__main__":
    main()
