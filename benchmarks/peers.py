"""Other people's solvers on the reference problems, each given what suits it best.

Every one is optional: a library that is not installed, or a solver that cannot take a problem, raises `Unavailable` with
a sentence that says so. Options are the libraries' own defaults unless a comment says otherwise.
"""

import contextlib
import importlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.problems import Maths, Reference, optimum
from mpc.rollout import energy


class Unavailable(Exception):
    """Why a solver does not take part."""


class Session(NamedTuple):
    """One solver made ready for one problem.

    `prepare(seed) -> input` and `prepare_warm() -> input` are not timed; `cold(input) -> actions` plans from the
    problem's start, `warm(input) -> actions` from the state after the first action of the best known plan, already
    knowing that plan. Actions are `[H, A]`. `curve(input)`, where there is one, yields ever better actions.
    """

    prepare: Callable[[int], Any]
    cold: Callable[[Any], Any]
    prepare_warm: Callable[[], Any]
    warm: Callable[[Any], Any]
    curve: Callable[[Any], Iterator[tuple[int, Any]]] | None = None


def library(name: str) -> Any:
    """Import an optional library, or say that it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Unavailable(f"{name.split('.')[0]} is not installed ({error})") from error


def casadi_maths() -> Maths:
    """The formulas' functions on CasADi expressions."""
    cs = library("casadi")
    return Maths(cs.sin, cs.cos, cs.tan, cs.sqrt, cs.vertcat)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Send what C++ prints to nowhere."""
    saved, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(nowhere)


class Transcription:
    """A reference problem as a sparse nonlinear programme over x[0], u[0], x[1], …, u[H-1], x[H] (multiple shooting).

    The constraints stand in the order that lets fatrop see the stages: per step, `x[t+1] - dynamics = 0`, then the limits
    on x[t] (at t = 0, that it is the start).
    """

    def __init__(self, reference: Reference, solver: str, options: dict[str, Any]):
        cs, m = library("casadi"), casadi_maths()
        self.reference, free = reference, np.inf
        states, actions, steps = len(reference.start), len(reference.low), reference.horizon
        start = cs.SX.sym("start", states)
        x = [cs.SX.sym(f"x{t}", states) for t in range(steps + 1)]
        u = [cs.SX.sym(f"u{t}", actions) for t in range(steps)]
        rows: list[tuple[Any, bool]] = []
        for t in range(steps + 1):
            if t < steps:
                rows.append((x[t + 1] - reference.dynamics(m, x[t], u[t]), True))
            if t == 0:
                rows.append((x[0] - start, True))
            else:
                rows += [(limit.function(m, x[t]), limit.equality) for limit in reference.limits if t >= limit.first]
        equality = [equal for expression, equal in rows for _ in range(expression.shape[0])]
        cost = sum((reference.stage(m, x[t], u[t]) for t in range(steps)), start=reference.terminal(m, x[-1]))
        variables = [v for t in range(steps) for v in (x[t], u[t])] + [x[-1]]
        programme = {"x": cs.vertcat(*variables), "f": cost, "g": cs.vertcat(*(e for e, _ in rows)), "p": start}
        if solver == "fatrop":
            options = {"structure_detection": "auto", "equality": equality} | options
        self.solver = cs.nlpsol("solver", solver, programme, {"print_time": False} | options)
        self.bounds = {
            "lbx": self.pack(np.full((steps + 1, states), -free), np.tile(reference.low, (steps, 1))),
            "ubx": self.pack(np.full((steps + 1, states), free), np.tile(reference.high, (steps, 1))),
            "lbg": np.where(equality, 0.0, -free),
            "ubg": np.zeros(len(equality)),
        }
        xs, us = cs.SX.sym("x", states), cs.SX.sym("u", actions)
        step = cs.Function("step", [xs, us], [reference.dynamics(m, xs, us)])
        self.rollout = step.mapaccum(steps)

    def pack(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """States `[H+1, S]` and actions `[H, A]` as the programme's variables."""
        return np.concatenate([np.concatenate([states[:-1], actions], axis=1).ravel(), states[-1]])

    def unpack(self, variables: Any) -> np.ndarray:
        """The actions `[H, A]` among the programme's variables, within their bounds to the last digit."""
        r = self.reference
        table = np.asarray(variables).ravel()[: -len(r.start)].reshape(r.horizon, -1)
        return np.clip(table[:, len(r.start) :], r.low, r.high)

    def imagine(self, start: Any, actions: np.ndarray) -> np.ndarray:
        """The states `[H+1, S]` that actions `[H, A]` lead to, as a first guess that satisfies the dynamics."""
        return np.concatenate([np.asarray(start)[None], np.asarray(self.rollout(start, actions.T)).T])

    def solve(self, start: Any, guess: np.ndarray) -> np.ndarray:
        """Actions `[H, A]` from the guessed variables."""
        return self.unpack(self.solver(x0=guess, p=start, **self.bounds)["x"])


def later(actions: np.ndarray) -> np.ndarray:
    """A plan one step later, its last action repeated."""
    return np.concatenate([actions[1:], actions[-1:]])


def interior_point(reference: Reference, solver: str, options: dict[str, Any], warm: dict[str, Any]) -> Session:
    """CasADi with an interior-point solver, in which `warm` are the solver's own further options for the next decision."""
    cold = Transcription(reference, solver, options)
    again = Transcription(reference, solver, options | {solver: options[solver] | warm}) if warm else cold

    def prepare(seed: int) -> np.ndarray:
        actions = reference.guess(seed)
        return cold.pack(cold.imagine(reference.start, actions), actions)

    def prepare_warm() -> tuple[np.ndarray, np.ndarray]:
        best = optimum(reference.name).actions
        start, actions = reference.successor(best), later(best)
        return start, again.pack(again.imagine(start, actions), actions)

    with silence():  # fatrop introduces itself at its first call
        cold.solve(reference.start, prepare(0))
    return Session(
        prepare, lambda guess: cold.solve(reference.start, guess), prepare_warm, lambda given: again.solve(*given)
    )


def fatrop(reference: Reference) -> Session:
    """CasADi and fatrop (Vanroye et al. 2023), an interior-point method that works along the stages."""
    return interior_point(reference, "fatrop", {"fatrop": {"print_level": 0}}, {})


def fatrop_tuned(reference: Reference) -> Session:
    """fatrop whose next decision begins with a barrier of 1e-3: the best of 1e-1 … 1e-6, half the time of the default."""
    return interior_point(reference, "fatrop", {"fatrop": {"print_level": 0}}, {"mu_init": 1e-3})


def fatrop_compiled(reference: Reference) -> Session:
    """fatrop with the problem's functions as C compiled by gcc -O2: minutes to build, several times quicker to solve."""
    if shutil.which("gcc") is None:
        raise Unavailable("gcc is not installed")
    flags = {"jit": True, "compiler": "shell", "jit_options": {"flags": ["-O2", "-march=native"]}}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # CasADi leaves its C files where it stands
        return interior_point(reference, "fatrop", flags | {"fatrop": {"print_level": 0}}, {"mu_init": 1e-3})


def ipopt(reference: Reference) -> Session:
    """CasADi and IPOPT (Wächter & Biegler 2006) on MUMPS; the next decision begins with the best barrier tried, 1e-3."""
    return interior_point(reference, "ipopt", {"ipopt": {"print_level": 0, "sb": "yes"}}, {"mu_init": 1e-3})


def lbfgsb(reference: Reference) -> Session:
    """SciPy's L-BFGS-B over the actions, with gradients by JAX in float64; bounds, but no constraints."""
    if reference.limits:
        raise Unavailable("L-BFGS-B takes bounds, but no constraints on states")
    optimize = library("scipy.optimize")
    shape = (reference.horizon, len(reference.low))
    bounds = np.stack([np.tile(reference.low, shape[0]), np.tile(reference.high, shape[0])], axis=1)
    with jax.enable_x64(True):
        slope = jax.jit(
            jax.value_and_grad(lambda flat, start: energy(reference.problem, None, start, flat.reshape(shape)))
        ).lower(jnp.zeros(shape[0] * shape[1]), jnp.zeros(len(reference.start)))
        slope = slope.compile()

    def solve(given: tuple[Any, np.ndarray]) -> np.ndarray:
        start, guess = given

        def evaluate(flat: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = slope(flat, start)
            return float(value), np.asarray(gradient)

        with jax.enable_x64(True):
            options = {"maxiter": 2000, "maxfun": 4000}
            found = optimize.minimize(evaluate, guess.ravel(), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        return found.x.reshape(shape)

    def prepare(seed: int) -> tuple[Any, np.ndarray]:
        return np.asarray(reference.start, np.float64), reference.guess(seed)

    def prepare_warm() -> tuple[Any, np.ndarray]:
        best = optimum(reference.name).actions
        return reference.successor(best), later(best)

    return Session(prepare, solve, prepare_warm, solve)


def torch_maths() -> Maths:
    """The formulas' functions on tensors whose leading axis is the coordinate, `[S, samples]`."""
    torch = library("torch")
    return Maths(torch.sin, torch.cos, torch.tan, torch.sqrt, lambda *rows: torch.stack(rows))


def pytorch_mppi(reference: Reference, samples: int = 512, iterations: int = 30) -> Session:
    """pytorch_mppi: 30 refinements with 512 samples each, noise of half the bounds' width, temperature 1."""
    if reference.limits:
        raise Unavailable("pytorch_mppi takes no constraints on states")
    torch, library_, m = library("torch"), library("pytorch_mppi"), torch_maths()
    torch.set_num_threads(1)
    half = 0.5 * (torch.tensor(reference.high) - torch.tensor(reference.low))

    def solve(given: tuple[Any, np.ndarray, int]) -> np.ndarray:
        start, guess, seed = given
        torch.manual_seed(seed)
        planner = library_.MPPI(
            lambda x, u: reference.dynamics(m, x.T, u.T).T,
            lambda x, u: reference.stage(m, x.T, u.T),
            len(reference.start),
            torch.diag((0.5 * half) ** 2),
            num_samples=samples,
            horizon=reference.horizon,
            terminal_state_cost=lambda xs, us: reference.terminal(m, xs[0, :, -1].T),
            u_min=torch.tensor(reference.low),
            u_max=torch.tensor(reference.high),
            U_init=torch.tensor(guess, dtype=torch.float32),
        )
        state = torch.tensor(np.asarray(start), dtype=torch.float32)
        for _ in range(iterations):
            planner.command(state, shift_nominal_trajectory=False)
        return np.clip(planner.U.numpy().astype(np.float64), reference.low, reference.high)

    def prepare(seed: int) -> tuple[Any, np.ndarray, int]:
        return reference.start, reference.guess(seed), seed

    def prepare_warm() -> tuple[Any, np.ndarray, int]:
        best = optimum(reference.name).actions
        return reference.successor(best), later(best), 0

    return Session(prepare, solve, prepare_warm, solve)


def stable_worldmodel(reference: Reference, samples: int = 512, iterations: int = 30, elites: int = 64) -> Session:
    """stable-worldmodel's CEM: 30 iterations of 512 samples, 64 elites, a deviation of half the bounds' width."""
    if reference.limits:
        raise Unavailable("stable-worldmodel's CEM takes no constraints on states")
    torch, solvers, m = library("torch"), library("stable_worldmodel.solver"), torch_maths()
    spaces = library("gymnasium.spaces")
    torch.set_num_threads(1)
    low, high = np.array(reference.low, np.float32), np.array(reference.high, np.float32)
    centre, half = torch.tensor(0.5 * (low + high)), torch.tensor(0.5 * (high - low))

    class Model:
        """What the solver asks for: costs `[1, samples]` of candidates `[1, samples, H, A]` in variables."""

        def get_cost(self, info: dict[str, Any], candidates: Any) -> Any:
            x = info["state"][0].T
            total = torch.zeros(candidates.shape[1])
            actions = centre + half * candidates[0].clamp(-1.0, 1.0)
            for t in range(reference.horizon):
                u = actions[:, t].T
                total = total + reference.stage(m, x, u)
                x = reference.dynamics(m, x, u)
            return (total + reference.terminal(m, x))[None]

    class Config:
        """The part of its configuration that the solver reads."""

        horizon, action_block = reference.horizon, 1

    def solve(given: tuple[Any, np.ndarray, int]) -> np.ndarray:
        start, guess, seed = given
        solver = solvers.CEMSolver(Model(), num_samples=samples, var_scale=0.5, n_steps=iterations, topk=elites, seed=seed)
        solver.configure(action_space=spaces.Box(low[None], high[None]), n_envs=1, config=Config())
        state = torch.tensor(np.asarray(start), dtype=torch.float32)[None]
        mean = ((torch.tensor(guess, dtype=torch.float32) - centre) / half)[None]
        with contextlib.redirect_stdout(io.StringIO()):
            found = solver.solve({"state": state}, init_action=mean)["actions"][0]
        return np.clip((centre + half * found).numpy().astype(np.float64), reference.low, reference.high)

    def prepare(seed: int) -> tuple[Any, np.ndarray, int]:
        return reference.start, reference.guess(seed), seed

    def prepare_warm() -> tuple[Any, np.ndarray, int]:
        best = optimum(reference.name).actions
        return reference.successor(best), later(best), 0

    return Session(prepare, solve, prepare_warm, solve)


PEERS: dict[str, Callable[[Reference], Session]] = {
    "fatrop": fatrop,
    "fatrop-tuned": fatrop_tuned,
    "ipopt": ipopt,
    "lbfgsb": lbfgsb,
    "pytorch_mppi": pytorch_mppi,
    "stable_worldmodel": stable_worldmodel,
}
ON_DEMAND: dict[str, Callable[[Reference], Session]] = {"fatrop-compiled": fatrop_compiled}  # take part only when named
