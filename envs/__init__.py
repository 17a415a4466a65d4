"""Tasks as pure JAX functions: batchable, differentiable, and the same as their Gymnasium counterparts."""

from envs import pendulum

DISTRIBUTION = "craik"  # tells this package from another one called envs

__all__ = ["DISTRIBUTION", "pendulum"]
