"""Risk: one objective for many energies of the same actions, one per model of an ensemble or per draw of a latent.

    minimise over u   ρ(E_1(u), …, E_N(u)),        E_i the energy of the same actions in the i-th imagined world

`over_models` and `over_latents` turn a problem into an ordinary one whose state holds all N worlds side by side, with what
each has cost so far, so that every planner works with it unchanged and constraints hold in every world. `solve` and
`Controller` take the plain state as before. Measures are functions of the N energies: `mean`, `worst_case`, `optimistic`,
`cvar(alpha)`, `cvar_from_params()`, `entropic(aversion)`, or one's own.

Latents need not be drawn: `with_latents_as_actions` infers them together with the actions, at a cost for unlikely ones.
"""

from mpc.risk.ensemble import ScenarioState, over_models
from mpc.risk.latents import LATENT_BOUND, over_latents, with_latents_as_actions
from mpc.risk.measures import Measure, ParametricCVaR, cvar, cvar_from_params, entropic, mean, optimistic, worst_case

__all__ = [
    "LATENT_BOUND",
    "Measure",
    "ParametricCVaR",
    "ScenarioState",
    "cvar",
    "cvar_from_params",
    "entropic",
    "mean",
    "optimistic",
    "over_latents",
    "over_models",
    "with_latents_as_actions",
    "worst_case",
]
