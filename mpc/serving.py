"""Public face of `mpc.deploy.server`: decisions over ZeroMQ."""

from mpc.deploy.server import LOOPBACK, Client, Server, ServingError

__all__ = ["LOOPBACK", "Client", "Server", "ServingError"]
