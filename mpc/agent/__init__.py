"""The agent: one `Agent` with six modules, its settings, tasks and evaluation."""

from mpc.agent.agent import Agent, Progress
from mpc.agent.config import AgentConfig
from mpc.agent.configurator.task import Task, TaskError
from mpc.agent.evaluation import evaluate

__all__ = ["Agent", "AgentConfig", "Progress", "Task", "TaskError", "evaluate"]
