"""Public face of `mpc.deploy.runtime`: load an exported policy and call it, with JAX and NumPy alone."""

from mpc.deploy.runtime import Artefact, ArtefactError, Decision, load, loads
from mpc.deploy.specs import InFlight

__all__ = ["Artefact", "ArtefactError", "Decision", "InFlight", "load", "loads"]
