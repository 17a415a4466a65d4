"""All numbers of the benchmark: settings of training and planning, compared planners, ablations."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mpc.agent import AgentConfig

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Recipe:
    """Settings of training and evaluation on one task."""

    settings: Settings
    """Settings of the agent that differ from the defaults for goals, by name."""
    trajectories: int
    """Number of training trajectories."""
    length: int = 91
    """Steps per trajectory."""
    explorer: tuple[tuple[str, Any], ...] = ()
    """Keywords of the task's explorer."""
    budget: int = 200
    """Environment steps per episode; success is evaluated after them."""
    episodes: int = 300
    """Number of episodes of the manifest."""
    sampled: int = 100
    """Number of episodes for sampling planners, which take ten times as long."""
    seeds: int = 3

    @property
    def config(self) -> AgentConfig:
        """Every setting of the agent."""
        return AgentConfig.of(self.settings, goals=True)

    def changed(self, changes: Settings) -> "Recipe":
        """Returns the recipe with some settings of the agent changed."""
        return replace(self, settings={**self.settings, **changes})


VICREG = {
    "variance_weight": 4.0,
    "covariance_weight": 0.25,
    "slowness_weight": 0.5,
    "episode_weight": 4.0,
    "contrast_weight": 2.0,
    "episode_floor": 0.7,
}
WEIGHTS = tuple(name for name in VICREG if name.endswith("_weight"))
ROOMS: Settings = {
    "latent": 128,
    "block": 4,
    "window": 1,
    "batch": 256,
    "offline_updates": 6000,
    "chained_steps": 1,
    "learning_rate": 3e-3,
    "encoder_options": {"fit": "crop", "levels": [[4, 32], [8, 128]], "dense": [256]},
    "objective": "vicreg",
    "objective_options": VICREG,
    "inverse_weight": 4.0,
    "finetune_updates": 6000,
    "finetune_sequences": 4000,
    "distance": "temporal",
    "horizon": 6,
    "starts": 8,
    "first_starts": 8,
    "first_iterations": 30,
    "iterations": 8,
    "step_size": 0.2,
    "action_limit": 0.53,  # 1.3 pixels, the explorer's largest move along an axis, relative to the bounds
    "buffer_mib": 1,  # nothing is learnt online
}
"""Settings for tasks with a dot between walls."""
FEW: Settings = {
    "latent": 32,
    "objective_options": {"variance_weight": 4.0, "covariance_weight": 1.0, "slowness_weight": 0.5},
    "finetune_updates": 3000,
    "finetune_sequences": 1000,
}
"""Changes for tasks with a fixed layout: only the dot changes, so a small latent without episode terms suffices."""

RECIPES = {
    "two_rooms": Recipe(ROOMS, trajectories=2_500, length=728, explorer=(("share", 0.5),)),
    "wall": Recipe(
        {
            **ROOMS,
            **FEW,
            "encoder_options": {"levels": [[14, 32], [8, 128]], "dense": [256]},
            "batch": 128,
            "offline_updates": 1000,
            "action_limit": 0.65,
        },
        trajectories=2_500,
        length=728,
        explorer=(("share", 0.5),),
        budget=300,
        episodes=100,
    ),
    "u_maze": Recipe(
        {
            **ROOMS,
            **FEW,
            "encoder_options": {"levels": [[4, 32], [8, 128]], "dense": [256]},
            "predictor": "recurrent",
            "predictor_options": {"units": 128},
            "inverse_weight": 0.0,  # two frames do not determine a force
            "action_limit": 1.0,
            "window": 6,
            "chained_steps": 4,
            "batch": 64,
            "offline_updates": 2000,
        },
        trajectories=2_500,
        length=728,
        budget=300,
        episodes=100,
    ),
    "teleport": Recipe(
        {**ROOMS, "distance_options": {"directed": 32}},  # the teleport is directed
        trajectories=2_500,
        length=728,
        explorer=(("share", 0.5),),
        episodes=200,
    ),
}
"""Recipe by task."""

PLANNERS: dict[str, dict[str, Any]] = {
    "gradient": {"planner": "gradient"},
    "gradient, 1 start": {"planner": "gradient", "starts": 1, "first_starts": 1},
    "gradient, no correction": {"planner": "gradient", "correction_memory": 0},
    "cem": {
        "planner": "cem",
        "samples": 256,
        "planner_options": {"elites": 25},
        "first_iterations": 20,
        "iterations": 10,
    },
    "icem": {
        "planner": "icem",
        "samples": 128,
        "planner_options": {"elites": 12},
        "first_iterations": 20,
        "iterations": 10,
    },
    "mppi": {"planner": "mppi", "samples": 256, "first_iterations": 20, "iterations": 10},
    "greedy": {
        "planner": "gradient",
        "horizon": 1,
        "starts": 8,
        "first_starts": 8,
        "first_iterations": 20,
        "iterations": 20,
        "cumulative_weight": 0.0,
        "terminal_weight": 1.0,
        "replan_every": None,
    },
}
"""Changes of the recipe's settings by planner name; `"random"` needs none."""
RANDOM = "random"

SEQUENCES = {"window": 2, "batch": 171}
"""Windows of three frames, which straightness needs, with as many frames per batch as the default."""

ABLATIONS: dict[str, dict[str, Any]] = {
    "without variance": {"objective_options": {"variance_weight": 0.0}},
    "without covariance": {"objective_options": {"covariance_weight": 0.0}},
    "without temporal": {"objective_options": {"slowness_weight": 0.0, "episode_weight": 0.0, "contrast_weight": 0.0}},
    "without inverse dynamics": {"inverse_weight": 0.0},
    "without anti-collapse terms": {"objective_options": dict.fromkeys(WEIGHTS, 0.0), "inverse_weight": 0.0},
    "straightened": SEQUENCES | {"straightness_weight": 1.0},
    "not straightened": SEQUENCES,
    "barlow_twins": {"objective": "barlow_twins", "objective_options": {}},
    "sigreg": {"objective": "sigreg", "objective_options": {}},
    "infonce": {"objective": "infonce", "objective_options": {}},
    "byol": {"objective": "byol", "objective_options": {}, "targets": "average"},
}
"""Changes of the recipe's settings before training, by name; changes of `objective_options` are merged."""

TWIN: dict[str, Any] = {"objective": "reconstruction", "objective_options": {}, "inverse_weight": 0.0}
"""Changes for a generative model of the same size."""
ACTION_FREE_SHARE = 0.9
"""Share of trajectories without actions in action-free training."""
LEAVES = {"leaves": True}
"""Settings of the environment with windy leaves."""


def ablations(names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Returns the named ablations, or all of them for `"all"`.

    Raises:
        ValueError: If a name is unknown.
    """
    if names == ("all",):
        return ABLATIONS
    unknown = [name for name in names if name not in ABLATIONS]
    if unknown:
        raise ValueError(f"ablations must be of {', '.join(ABLATIONS)}; got {', '.join(map(repr, unknown))}")
    return {name: ABLATIONS[name] for name in names}
