"""Action spaces; `mpc.spaces.base` describes the interface between planners and spaces."""

from mpc.spaces.base import Space
from mpc.spaces.box import Box
from mpc.spaces.discrete import Discrete, MultiBinary, MultiDiscrete
from mpc.spaces.transforms import Held, RateLimited, expanded, held, rate_limited

__all__ = [
    "Box",
    "Discrete",
    "Held",
    "MultiBinary",
    "MultiDiscrete",
    "RateLimited",
    "Space",
    "expanded",
    "held",
    "rate_limited",
]
