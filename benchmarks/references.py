"""Search for the best known optima of the reference problems and of the problems from the literature.

    python -m benchmarks.references                       # the five reference problems, 200 starts each (minutes)
    python -m benchmarks.references --problems car --starts 50
    python -m benchmarks.references --problems acrobot --starts 40 --polish fatrop ilqr-4

CasADi and IPOPT (tolerance 1e-9) start from the shared guesses of the seeds 0 … n-1, and with `--polish` from what other
solvers and planners make of them. A solution counts if IPOPT reports
convergence and the actions, rolled out in float64, violate no limit by more than 1e-6. The best solution of each problem is
stored in the file of its table (`benchmarks.formulas.STORES`), with the basins found and the number of starts in each.
"""

import json
import platform
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.formulas import FEASIBLE, STORES, Reference
from benchmarks.literature import LITERATURE
from benchmarks.peers import PEERS, Transcription, library, shift
from benchmarks.planner_entries import PLANNERS
from benchmarks.planners import ours, outcome
from benchmarks.problems import REFERENCES


@dataclass
class Options:
    """Options of the search."""

    problems: tuple[str, ...] = tuple(REFERENCES)
    """Problems to solve, of both tables."""
    starts: int = 200
    """Starts per problem, the seeds 0 … n-1."""
    polish: tuple[str, ...] = ()
    """Solvers and planners of `benchmarks.planners` whose solutions IPOPT starts from as well."""
    out: Path | None = None
    """File to update; default: the one of the table that has the problem."""


def explore(reference: Reference, starts: int, polish: tuple[str, ...]) -> dict[str, Any]:
    """Returns the best optimum from many starts, and the basins found; counts are of the shared guesses only."""
    options = {"print_level": 0, "sb": "yes", "tol": 1e-9, "max_iter": 3000}
    program = Transcription(reference, "ipopt", {"ipopt": options})

    def attempt(start: Any, actions: np.ndarray, program: Transcription = program) -> tuple[float, float, np.ndarray]:
        found = program.solve(start, program.pack(program.imagine(start, actions), actions))
        cost, violation = reference.measure(found, start)
        converged = program.solver.stats()["success"] and violation <= FEASIBLE
        return (cost if converged else np.inf), violation, found

    tries = [attempt(reference.start, reference.guess(seed)) for seed in range(starts)]
    costs = np.array([cost for cost, _, _ in tries])
    close = Transcription(reference, "ipopt", {"ipopt": options | {"mu_init": 1e-6}})  # stays in the basin
    for name in polish:
        session = PEERS[name](reference) if name in PEERS else ours(PLANNERS[name], reference, double=True)
        found = [outcome(session.cold(session.prepare(seed)))[0] for seed in range(starts)]
        tries += [attempt(reference.start, np.asarray(actions), close) for actions in found]
    best, violation, actions = min(tries, key=lambda found: found[0])
    if not np.isfinite(best):
        raise RuntimeError(f"no start of {reference.name} ended in a feasible optimum")
    hits = np.flatnonzero(costs <= best + 1e-6 * max(1.0, abs(best)))
    begin, shifted = reference.successor(actions), shift(actions)
    warm_cost, warm_violation, _ = min((attempt(begin, shifted, p) for p in (program, close)), key=lambda found: found[0])
    basins = Counter(float(f"{cost:.7g}") for cost in costs if np.isfinite(cost))
    return {
        "cost": best,
        "violation": violation,
        "warm_cost": warm_cost,
        "warm_violation": warm_violation,
        "starts": starts,
        "polished": list(polish),
        "hits": len(hits),
        "feasible": int(np.isfinite(costs).sum()),
        "seeds_that_hit": hits.tolist(),
        "basins": [{"cost": cost, "starts": count} for cost, count in sorted(basins.items())[:20]],
        "actions": actions.tolist(),
    }


def main() -> None:
    """Runs the search."""
    options = tyro.cli(Options, description=__doc__)
    solver = {
        "name": "IPOPT in CasADi, multiple shooting, tolerance 1e-9",
        "casadi": library("casadi").__version__,
        "python": platform.python_version(),
        "command": "python -m benchmarks.references",
    }
    for name in options.problems:
        out = options.out or STORES[name in LITERATURE]
        found = explore((REFERENCES | LITERATURE)[name], options.starts, options.polish)
        stored = json.loads(out.read_text()) if out.exists() else {"problems": {}}
        stored["solver"] = solver
        stored["problems"][name] = found
        out.write_text(json.dumps(stored, indent=1) + "\n")
        print(f"{name}: {found['cost']:.6f}, {found['hits']} of {options.starts} starts, warm {found['warm_cost']:.6f}")


if __name__ == "__main__":
    main()
