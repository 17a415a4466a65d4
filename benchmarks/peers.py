"""Solvers of other libraries on the reference problems, each with the problem formulation that suits it best.

Every solver is optional: if a library is not installed or a solver does not support a problem, `Unavailable` is raised with
the reason. Options are the defaults of the libraries unless a comment states otherwise.
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

from benchmarks.formulas import Maths, Reference, optimum
from mpc.rollout import energy


class Unavailable(Exception):
    """Raised with the reason why a solver cannot be used."""


class Session(NamedTuple):
    """A solver prepared for a problem.

    `prepare(seed) -> input` and `prepare_warm() -> input` are not timed. `cold(input) -> actions` plans from the problem's
    start. `warm(input) -> actions` plans from the state after the first action of the best known plan, with that plan as
    the warm start. Actions are `[H, A]`. `curve(input)`, if available, yields actions of increasing quality.
    """

    prepare: Callable[[int], Any]
    cold: Callable[[Any], Any]
    prepare_warm: Callable[[], Any]
    warm: Callable[[Any], Any]
    curve: Callable[[Any], Iterator[tuple[int, Any]]] | None = None


def library(name: str) -> Any:
    """Imports an optional library; raises `Unavailable` if it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Unavailable(f"{name.split('.')[0]} is not installed ({error})") from error


def casadi_maths() -> Maths:
    """Returns the functions of the formulas for CasADi expressions."""
    cs = library("casadi")
    return Maths(cs.sin, cs.cos, cs.tan, cs.sqrt, cs.exp, cs.vertcat)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Context manager that discards the standard output of C++ code."""
    saved, devnull = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(devnull)


class Transcription:
    """A reference problem as a sparse nonlinear program over x[0], u[0], x[1], …, u[H-1], x[H] (multiple shooting).

    The order of the constraints lets fatrop detect the stages: per step, `x[t+1] - dynamics = 0`, then the limits on x[t]
    (at t = 0 the initial condition) and on u[t].
    """

    def __init__(self, reference: Reference, solver: str, options: dict[str, Any]):
        cs, m = library("casadi"), casadi_maths()
        self.reference, free = reference, np.inf
        states, actions, steps = len(reference.start), len(reference.low), reference.horizon
        start = cs.SX.sym("start", states)
        x = [cs.SX.sym(f"x{t}", states) for t in range(steps + 1)]
        u = [cs.SX.sym(f"u{t}", actions) for t in range(steps)]
        of_states = [limit for limit in reference.limits if not limit.of_actions]
        rows: list[tuple[Any, bool]] = []
        for t in range(steps + 1):
            if t < steps:
                rows.append((x[t + 1] - reference.dynamics(m, x[t], u[t]), True))
            if t == 0:
                rows.append((x[0] - start, True))
            else:
                rows += [(limit.function(m, x[t]), limit.equality) for limit in of_states if limit.active(t)]
            if t < steps:
                rows += [(limit.function(m, u[t]), limit.equality) for limit in reference.limits if limit.of_actions]
        equality = [equal for expression, equal in rows for _ in range(expression.shape[0])]
        cost = sum((reference.stage(m, x[t], u[t]) for t in range(steps)), start=reference.terminal(m, x[-1]))
        variables = [v for t in range(steps) for v in (x[t], u[t])] + [x[-1]]
        program = {"x": cs.vertcat(*variables), "f": cost, "g": cs.vertcat(*(e for e, _ in rows)), "p": start}
        if solver == "fatrop":
            options = {"structure_detection": "auto", "equality": equality} | options
        self.solver = cs.nlpsol("solver", solver, program, {"print_time": False} | options)
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
        """Returns the program's variables for states `[H+1, S]` and actions `[H, A]`."""
        return np.concatenate([np.concatenate([states[:-1], actions], axis=1).ravel(), states[-1]])

    def unpack(self, variables: Any) -> np.ndarray:
        """Returns the actions `[H, A]` in the program's variables, clipped to their bounds."""
        r = self.reference
        table = np.asarray(variables).ravel()[: -len(r.start)].reshape(r.horizon, -1)
        return np.clip(table[:, len(r.start) :], r.low, r.high)

    def imagine(self, start: Any, actions: np.ndarray) -> np.ndarray:
        """Returns the states `[H+1, S]` of a rollout of actions `[H, A]`, a guess that satisfies the dynamics."""
        return np.concatenate([np.asarray(start)[None], np.asarray(self.rollout(start, actions.T)).T])

    def solve(self, start: Any, guess: np.ndarray) -> np.ndarray:
        """Solves the program from guessed variables and returns the actions `[H, A]`."""
        return self.unpack(self.solver(x0=guess, p=start, **self.bounds)["x"])


def shift(actions: np.ndarray) -> np.ndarray:
    """Returns a plan shifted by one step, with its last action repeated."""
    return np.concatenate([actions[1:], actions[-1:]])


def interior_point(reference: Reference, solver: str, options: dict[str, Any], warm: dict[str, Any]) -> Session:
    """Returns CasADi with an interior-point solver; `warm` are additional solver options for the warm start."""
    cold = Transcription(reference, solver, options)
    again = Transcription(reference, solver, options | {solver: options[solver] | warm}) if warm else cold

    def prepare(seed: int) -> np.ndarray:
        actions = reference.guess(seed)
        return cold.pack(cold.imagine(reference.start, actions), actions)

    def prepare_warm() -> tuple[np.ndarray, np.ndarray]:
        best = optimum(reference.name).actions
        start, actions = reference.successor(best), shift(best)
        return start, again.pack(again.imagine(start, actions), actions)

    with silence():  # fatrop prints a banner in its first call
        cold.solve(reference.start, prepare(0))
    return Session(
        prepare, lambda guess: cold.solve(reference.start, guess), prepare_warm, lambda given: again.solve(*given)
    )


def fatrop(reference: Reference) -> Session:
    """Returns CasADi with fatrop (Vanroye et al. 2023), an interior-point method that exploits the stage structure."""
    return interior_point(reference, "fatrop", {"fatrop": {"print_level": 0}}, {})


def fatrop_tuned(reference: Reference) -> Session:
    """Returns fatrop with a barrier of 1e-3 for warm starts: the best of 1e-1 … 1e-6, twice as fast as the default."""
    return interior_point(reference, "fatrop", {"fatrop": {"print_level": 0}}, {"mu_init": 1e-3})


def fatrop_compiled(reference: Reference) -> Session:
    """Returns fatrop with the problem compiled by gcc -O2: minutes to build, several times faster to solve."""
    if shutil.which("gcc") is None:
        raise Unavailable("gcc is not installed")
    flags = {"jit": True, "compiler": "shell", "jit_options": {"flags": ["-O2", "-march=native"]}}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # CasADi writes C files to the working directory
        return interior_point(reference, "fatrop", flags | {"fatrop": {"print_level": 0}}, {"mu_init": 1e-3})


def ipopt(reference: Reference) -> Session:
    """Returns CasADi with IPOPT (Wächter & Biegler 2006) and MUMPS; warm starts use an initial barrier of 1e-3."""
    return interior_point(reference, "ipopt", {"ipopt": {"print_level": 0, "sb": "yes"}}, {"mu_init": 1e-3})


def lbfgsb(reference: Reference) -> Session:
    """Returns SciPy's L-BFGS-B over the actions, with float64 gradients from JAX; it supports bounds only."""
    if reference.limits:
        raise Unavailable("L-BFGS-B does not support constraints on states")
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
        return reference.successor(best), shift(best)

    return Session(prepare, solve, prepare_warm, solve)


def torch_maths() -> Maths:
    """Returns the functions of the formulas for tensors `[S, samples]`."""
    torch = library("torch")
    return Maths(torch.sin, torch.cos, torch.tan, torch.sqrt, torch.exp, lambda *rows: torch.stack(rows))


def pytorch_mppi(reference: Reference, samples: int = 512, iterations: int = 30) -> Session:
    """Returns pytorch_mppi: 30 iterations of 512 samples, noise of half the bounds' width, temperature 1."""
    if reference.limits:
        raise Unavailable("pytorch_mppi does not support constraints on states")
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
        return reference.successor(best), shift(best), 0

    return Session(prepare, solve, prepare_warm, solve)


def stable_worldmodel(reference: Reference, samples: int = 512, iterations: int = 30, elites: int = 64) -> Session:
    """Returns stable-worldmodel's CEM: 30 iterations of 512 samples, 64 elites, deviation of half the bounds' width."""
    if reference.limits:
        raise Unavailable("stable-worldmodel's CEM does not support constraints on states")
    torch, solvers, m = library("torch"), library("stable_worldmodel.solver"), torch_maths()
    spaces = library("gymnasium.spaces")
    torch.set_num_threads(1)
    low, high = np.array(reference.low, np.float32), np.array(reference.high, np.float32)
    centre, half = torch.tensor(0.5 * (low + high)), torch.tensor(0.5 * (high - low))

    class Model:
        """Interface of the solver: costs `[1, samples]` of candidates `[1, samples, H, A]`."""

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
        """Configuration values that the solver reads."""

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
        return reference.successor(best), shift(best), 0

    return Session(prepare, solve, prepare_warm, solve)


PEERS: dict[str, Callable[[Reference], Session]] = {
    "fatrop": fatrop,
    "fatrop-tuned": fatrop_tuned,
    "ipopt": ipopt,
    "lbfgsb": lbfgsb,
    "pytorch_mppi": pytorch_mppi,
    "stable_worldmodel": stable_worldmodel,
}
ON_DEMAND: dict[str, Callable[[Reference], Session]] = {"fatrop-compiled": fatrop_compiled}  # used only if named explicitly
