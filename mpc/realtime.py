"""Public face of `mpc.deploy.realtime`: a control loop that has an action for every tick."""

from mpc.deploy.realtime import RealTime

__all__ = ["RealTime"]
