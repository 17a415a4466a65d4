"""Public face of `mpc.deploy.runtime`: load an exported policy and call it, with JAX, NumPy and flatbuffers alone."""

from mpc.deploy.runtime import Artefact, ArtefactError, Decision, load, loads
from mpc.deploy.specs import InFlight, Signal

__all__ = ["Artefact", "ArtefactError", "Decision", "InFlight", "Signal", "load", "loads"]
