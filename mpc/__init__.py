"""craik's core: infer action sequences by minimising the energy of imagined futures."""

import importlib

from mpc import constraints, costs, hoisting, risk, spaces, trigonometry
from mpc.controller import Controller
from mpc.planners.anneal import anneal
from mpc.planners.base import Plan, Planner, Status, solve
from mpc.planners.categorical import categorical_cem
from mpc.planners.cem import cem
from mpc.planners.chain import chain
from mpc.planners.collocation import collocation
from mpc.planners.gradient import gradient
from mpc.planners.icem import icem
from mpc.planners.ilqr import ilqr
from mpc.planners.implicit import implicit
from mpc.planners.lagrangian import lagrangian
from mpc.planners.mppi import mppi
from mpc.planners.multistart import multistart
from mpc.planners.predictive import predictive_sampling
from mpc.problem import Problem
from mpc.rollout import Rollout, costates, energy, rollout
from mpc.spaces import Box, Discrete, MultiBinary, MultiDiscrete

loops_hoisted: str = hoisting.hoist_loops()

__all__ = [
    "Agent",
    "Box",
    "Controller",
    "Discrete",
    "MultiBinary",
    "MultiDiscrete",
    "Plan",
    "Planner",
    "Problem",
    "Rollout",
    "Status",
    "anneal",
    "categorical_cem",
    "cem",
    "chain",
    "collocation",
    "constraints",
    "costates",
    "costs",
    "energy",
    "gradient",
    "icem",
    "ilqr",
    "implicit",
    "lagrangian",
    "mppi",
    "multistart",
    "predictive_sampling",
    "risk",
    "rollout",
    "solve",
    "spaces",
    "trigonometry",
]


def __getattr__(name: str):
    """`mpc.Agent` brings the world models along; the core alone does without Flax and Gymnasium."""
    if name == "Agent":
        return importlib.import_module("mpc.agent").Agent
    raise AttributeError(f"module 'mpc' has no attribute {name!r}")
