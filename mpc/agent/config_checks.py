"""Checks of an agent's settings: each by itself, and those that must fit each other."""

import math
from collections.abc import Collection
from dataclasses import fields
from typing import Any

from mpc.agent.config import GROUPS, AgentConfig, WorldModelConfig
from mpc.planners.config import PLANNERS

_MAY_BE_0 = {
    "disagreement_weight", "exploration_bonus", "cumulative_weight", "terminal_weight", "effort_weight", "noise", "spread",
    "first_iterations", "actor_critic_updates", "train_growth", "prediction_weight", "inverse_weight", "straightness_weight",
    "least_updates", "correction_memory", "finetune_updates", "prior_weight", "reachability_weight", "averaging",
}  # fmt: skip
_AT_MOST_1 = {"discount", "step_size", "averaging"}
_CHOICES: dict[str, Collection[str]] = {
    "predictor": ("ensemble", "mlp", "recurrent", "causal"),
    "encoder": ("auto", "patch", "vit", "vector", "residual"),
    "distance": ("none", "latent", "temporal", "shortest_path"),
    "targets": ("online", "stop_gradient", "average"),
    "planner": PLANNERS,  # looked up at every check: others may have joined the table
}


def check(config: AgentConfig) -> None:
    """Refuse settings that make no sense, by themselves or together.

    Raises:
        ValueError: With the setting, its value, and what was wanted.
    """
    for group, kind in GROUPS.items():
        for one in fields(kind):
            _check_number(one.name, one.type, getattr(getattr(config, group), one.name))
            if one.name in _CHOICES and getattr(getattr(config, group), one.name) not in _CHOICES[one.name]:
                value = getattr(getattr(config, group), one.name)
                raise ValueError(f"{one.name} must be one of {', '.join(_CHOICES[one.name])}; got {value!r}")
    model, actor, learning = config.world_model, config.actor, config.learning
    try:
        config.planner(actor.iterations)
    except TypeError as error:  # of a field that no planner's configuration has
        raise ValueError(f"planner_options don't fit: {error}") from error
    if model.predictor != "ensemble" and model.chained_steps > learning.window:  # an ensemble chains the whole window
        raise ValueError(f"a window of {learning.window} steps cannot chain chained_steps={model.chained_steps} predictions")
    if model.straightness_weight and learning.window < 2:
        raise ValueError(f"straightness_weight needs a window of at least 2 steps; got window={learning.window}")
    if config.every > actor.horizon * model.block:
        raise ValueError(
            f"replan_every={config.every} is longer than a plan of {actor.horizon} steps of {model.block} actions"
        )
    if model.predictor in ("recurrent", "causal") and config.every % model.block:
        raise ValueError(
            f"a {model.predictor} predictor carries a state from block to block: replan_every must be a multiple of "
            f"block={model.block}; got {config.every}"
        )
    if config.cost.distance != "none" and not config.cost.cumulative_weight + config.cost.terminal_weight > 0:
        raise ValueError("one of cumulative_weight and terminal_weight must be positive, or no plan would go to a goal")
    if model.predictor == "ensemble" and model.members < 2:
        raise ValueError(f"an ensemble needs at least 2 members, between which to disagree; got members={model.members}")
    _check_used(model)
    _check_strides(config)


def _check_used(model: WorldModelConfig) -> None:
    """Refuse settings that this kind of model would ignore."""
    unused, defaults = ["straightness_weight"] if model.objective == "reconstruction" else [], WorldModelConfig()
    if model.predictor == "ensemble":
        unused = ["predictor_options", "prediction_weight", "straightness_weight"]
        unused += ["encoder_options"] if model.encoder in ("auto", "residual") else []
    for name in unused:
        value = getattr(model, name)
        if value != getattr(defaults, name):
            kind = "an ensemble" if model.predictor == "ensemble" else "a model with objective='reconstruction'"
            raise ValueError(
                f"{kind} has no {name}; got {name}={value!r}: leave it out, or set another predictor or encoder"
            )


def _check_strides(config: AgentConfig) -> None:
    below = 1
    for stride in config.macro_levels.strides:
        if stride <= below or stride % below:
            raise ValueError(f"strides must each be a longer multiple of the one below; got {config.macro_levels.strides}")
        below = stride
    macro = config.macro_levels
    if macro.strides and config.every % config.world_model.block:
        raise ValueError(
            f"slower levels plan in whole steps of the model: replan_every must be a multiple of block="
            f"{config.world_model.block}; got {config.every}"
        )
    if macro.strides and macro.strides[0] > config.actor.horizon:
        raise ValueError(f"a stride of {macro.strides[0]} steps is longer than the horizon of {config.actor.horizon}")
    if macro.candidates < macro.macro_starts:
        raise ValueError(f"macro_starts are the best of candidates; got {macro.macro_starts} of {macro.candidates}")


def _check_number(name: str, kind: Any, value: Any) -> None:
    kind = str(getattr(kind, "__name__", kind))
    if value is None and "None" in kind:
        return
    if "bool" in kind:
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be True or False; got {value!r}")
        return
    if ("int" not in kind and "float" not in kind) or "tuple" in kind:
        return
    allowed = int | float if "float" in kind else int
    if not isinstance(value, allowed) or isinstance(value, bool):
        raise ValueError(f"{name} must be a {'number' if 'float' in kind else 'whole number'}; got {value!r}")
    low = 0 if name in _MAY_BE_0 else None
    fine = value >= 0 if low == 0 else (value >= 1 if "float" not in kind else value > 0)
    if not (fine and math.isfinite(value)) or (name in _AT_MOST_1 and value > 1):
        least = "at least 0" if low == 0 else "at least 1" if "float" not in kind else "positive"
        raise ValueError(f"{name} must be {least}{' and at most 1' if name in _AT_MOST_1 else ''}; got {value!r}")
