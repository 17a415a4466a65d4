"""The composition root: perceive, remember, plan, act, learn."""

from mpc.agent.agent import Agent
from mpc.agent.config import Settings
from mpc.agent.evaluation import evaluate

__all__ = ["Agent", "Settings", "evaluate"]
