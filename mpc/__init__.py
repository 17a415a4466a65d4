"""craik's core: infer action sequences by minimising the energy of imagined futures."""

from mpc import costs, hoisting, spaces
from mpc.planners.base import Plan, Planner, Status, solve
from mpc.planners.gradient import gradient
from mpc.problem import Problem
from mpc.rollout import Rollout, costates, energy, rollout
from mpc.spaces import Box, Discrete, MultiBinary, MultiDiscrete

loops_hoisted: str = hoisting.hoist_loops()

__all__ = [
    "Box",
    "Discrete",
    "MultiBinary",
    "MultiDiscrete",
    "Plan",
    "Planner",
    "Problem",
    "Rollout",
    "Status",
    "costates",
    "costs",
    "energy",
    "gradient",
    "rollout",
    "solve",
    "spaces",
]
