"""Public face of `mpc.deploy.server`: decisions over ZeroMQ."""

from mpc.deploy.curve import make_keys
from mpc.deploy.server import LOOPBACK, Client, Server, ServingError

__all__ = ["LOOPBACK", "Client", "Server", "ServingError", "make_keys"]
