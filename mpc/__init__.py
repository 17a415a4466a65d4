"""craik's core: infer action sequences by minimising the energy of imagined futures."""

import importlib
from typing import TYPE_CHECKING

from mpc import _xla_flags, cascade, constraints, costs, risk, spaces, trigonometry
from mpc.controller import Controller
from mpc.export import export
from mpc.planners.anneal import anneal
from mpc.planners.base import Plan, Planner, Status, solve
from mpc.planners.categorical import categorical_cem
from mpc.planners.cem import cem
from mpc.planners.chain import chain
from mpc.planners.icem import icem
from mpc.planners.ilqr import ilqr
from mpc.planners.implicit import implicit
from mpc.planners.lagrangian import lagrangian
from mpc.planners.mppi import mppi
from mpc.planners.multistart import multistart
from mpc.planners.predictive_sampling import predictive_sampling
from mpc.policy import Policy, policy
from mpc.problem import Problem
from mpc.rollout import Rollout, costates, energy, rollout
from mpc.spaces import Box, Discrete, MultiBinary, MultiDiscrete

if TYPE_CHECKING:
    from mpc.planners.collocation import collocation
    from mpc.planners.gradient import gradient

loops_hoisted: str = _xla_flags.hoist_loops()

LATER: dict[str, str] = {
    "Agent": "mpc.agent",  # brings the world models, Flax and Gymnasium along
    "collocation": "mpc.planners.collocation",  # these two bring optax
    "gradient": "mpc.planners.gradient",
}
"""What is imported when it is first asked for, and from where: a robot's process does without."""

__all__ = [
    "Agent",
    "Box",
    "Controller",
    "Discrete",
    "MultiBinary",
    "MultiDiscrete",
    "Plan",
    "Planner",
    "Policy",
    "Problem",
    "Rollout",
    "Status",
    "anneal",
    "cascade",
    "categorical_cem",
    "cem",
    "chain",
    "collocation",
    "constraints",
    "costates",
    "costs",
    "energy",
    "export",
    "gradient",
    "icem",
    "ilqr",
    "implicit",
    "lagrangian",
    "mppi",
    "multistart",
    "policy",
    "predictive_sampling",
    "risk",
    "rollout",
    "solve",
    "spaces",
    "trigonometry",
]


def __getattr__(name: str):
    if name not in LATER:
        raise AttributeError(f"module 'mpc' has no attribute {name!r}")
    found = getattr(importlib.import_module(LATER[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *LATER})
