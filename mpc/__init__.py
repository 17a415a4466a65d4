"""craik's core: infer action sequences by minimising the energy of imagined futures."""

import importlib
from typing import TYPE_CHECKING, Any

from mpc import _compilation_cache, _xla_flags, cascade, constraints, costs, estimation, risk, spaces, trigonometry
from mpc._version import __version__
from mpc.controller import Controller
from mpc.export import export
from mpc.planners.anneal import anneal
from mpc.planners.base import Plan, Planner, Status
from mpc.planners.categorical import categorical_cem
from mpc.planners.cem import cem
from mpc.planners.chain import chain
from mpc.planners.config import PlannerConfig, make_planner
from mpc.planners.icem import icem
from mpc.planners.ilqr import ilqr
from mpc.planners.implicit import implicit
from mpc.planners.lagrangian import lagrangian
from mpc.planners.mppi import mppi
from mpc.planners.multistart import multistart
from mpc.planners.predictive_sampling import predictive_sampling
from mpc.planners.solve import solve
from mpc.policy import Decision, InFlight, Phases, Policy, policy
from mpc.problem import Problem
from mpc.rollout import Rollout, costates, energy, rollout
from mpc.safety import SafetyFilter, safety_filter
from mpc.spaces import Box, Discrete, MultiBinary, MultiDiscrete

if TYPE_CHECKING:
    from mpc.agent import Agent, AgentConfig, Task
    from mpc.planners.collocation import collocation
    from mpc.planners.gradient import gradient

loops_hoisted: str = _xla_flags.hoist_loops()
compiled_programs: str = _compilation_cache.keep_programs()

LATER: dict[str, str] = {
    "Agent": "mpc.agent",  # brings the world models, Flax and Gymnasium along
    "AgentConfig": "mpc.agent",
    "Task": "mpc.agent",
    "collocation": "mpc.planners.collocation",  # these two bring optax
    "gradient": "mpc.planners.gradient",
}
"""Names imported when they are first asked for, and their modules: a robot's process does without."""

__all__ = [
    "Agent",
    "AgentConfig",
    "Box",
    "Controller",
    "Decision",
    "Discrete",
    "InFlight",
    "MultiBinary",
    "MultiDiscrete",
    "Phases",
    "Plan",
    "Planner",
    "PlannerConfig",
    "Policy",
    "Problem",
    "Rollout",
    "SafetyFilter",
    "Status",
    "Task",
    "__version__",
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
    "estimation",
    "export",
    "gradient",
    "icem",
    "ilqr",
    "implicit",
    "lagrangian",
    "make_planner",
    "mppi",
    "multistart",
    "policy",
    "predictive_sampling",
    "risk",
    "rollout",
    "safety_filter",
    "solve",
    "spaces",
    "trigonometry",
]


FACES = ("realtime", "runtime", "serving")
"""Modules that are imported when they are first asked for."""


def __getattr__(name: str) -> Any:
    if name in FACES:
        return importlib.import_module(f"mpc.{name}")
    if name not in LATER:
        raise AttributeError(f"module 'mpc' has no attribute {name!r}")
    found = getattr(importlib.import_module(LATER[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *LATER})
