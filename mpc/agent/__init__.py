"""The composition root: perceive, remember, plan, act, learn."""

from mpc.agent.agent import Agent
from mpc.agent.evaluation import evaluate
from mpc.agent.settings import Settings

__all__ = ["Agent", "Settings", "evaluate"]
