"""Reaching goals that are given as observations, with world models learnt from what was recorded."""

from mpc.agent.goals.agent import GoalAgent
from mpc.agent.goals.collecting import collect, rendering
from mpc.agent.goals.settings import GoalSettings

__all__ = ["GoalAgent", "GoalSettings", "collect", "rendering"]
