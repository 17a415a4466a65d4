"""Planners of the benchmark `benchmarks.planners`, each with its settings and iterations."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import mpc
from benchmarks.formulas import FEASIBLE, Reference


class Entry(NamedTuple):
    """A planner of the benchmark, with its iterations for a cold and for a warm solve.

    For problems with limits, iterations are multiplied by `rounds`, the rounds of the augmented Lagrangian. A solve stops
    early when the planner's optimality measure is below `tolerance`, if one is given. With limits, the measure includes
    their violation and must fall below the feasibility limit.
    """

    build: Callable[[mpc.Problem], mpc.Planner]
    iterations: int = 100
    warm: int = 30
    rounds: int = 10
    tolerance: float | None = None

    def on(self, reference: Reference) -> "Entry":
        """Returns the entry with its iterations for a problem."""
        if not reference.limits:
            return self
        tolerance = None if self.tolerance is None else 0.5 * FEASIBLE
        return self._replace(iterations=self.rounds * self.iterations, warm=self.rounds * self.warm, tolerance=tolerance)


def cem_then_ilqr(problem: mpc.Problem) -> mpc.Planner:
    """Returns ten iterations of CEM, which select a basin, followed by iLQR."""
    return mpc.chain(mpc.cem(problem), mpc.ilqr(problem), switch_after=10)


def shortened(entry: Entry) -> Entry:
    """Returns an entry with a tenth of its iterations."""
    return entry._replace(iterations=max(entry.iterations // 10, 2), warm=max(entry.warm // 10, 1))


PLANNERS: dict[str, Entry] = {
    "auto": Entry(lambda problem: mpc.make_planner(problem, "auto"), tolerance=1e-3, rounds=3),
    "gradient": Entry(partial(mpc.gradient, starts=1), 300, 100),
    "gradient-16": Entry(partial(mpc.gradient, starts=16), 300, 100),
    "lbfgs": Entry(partial(mpc.gradient, optimizer="lbfgs", starts=1), tolerance=1e-3),
    "ilqr": Entry(mpc.ilqr, tolerance=1e-3, rounds=3),
    "ilqr-4": Entry(partial(mpc.ilqr, starts=4, screen=(16, 10)), tolerance=1e-3, rounds=3),
    "ilqr-16": Entry(partial(mpc.ilqr, starts=16, screen=(64, 8)), tolerance=1e-3, rounds=3),
    "ilqr-continued-8": Entry(partial(mpc.ilqr, starts=8, continuation=20), tolerance=1e-3, rounds=3),
    "collocation": Entry(mpc.collocation),
    "cem": Entry(mpc.cem),
    "icem": Entry(mpc.icem),
    "mppi": Entry(mpc.mppi),
    "predictive-sampling": Entry(mpc.predictive_sampling),
    "cem-ilqr": Entry(cem_then_ilqr, tolerance=1e-3, rounds=3),
}
