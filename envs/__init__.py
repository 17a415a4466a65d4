"""Tasks as pure JAX functions: batchable, differentiable, and the same as their Gymnasium counterparts."""

from envs import pendulum

__all__ = ["pendulum"]
