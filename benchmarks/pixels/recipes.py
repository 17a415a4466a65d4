"""Every number of the benchmark: what is trained, what is planned with, what is compared, what is left out."""

from dataclasses import dataclass, replace
from typing import Any

from mpc.agent.goal_config import GoalSettings


@dataclass(frozen=True)
class Recipe:
    """What one task is trained with and judged by."""

    settings: GoalSettings
    trajectories: int
    """To learn from."""
    length: int = 91
    """Steps of each."""
    explorer: tuple[tuple[str, Any], ...] = ()
    """Keywords of the task's explorer."""
    budget: int = 200
    """Environment steps, after which success is judged."""
    episodes: int = 300
    """Starts and goals of the manifest, the first so many."""
    sampled: int = 100
    """The same for the sampling planners, which take ten times as long."""
    seeds: int = 3


VICREG = {
    "variance_weight": 4.0,
    "covariance_weight": 0.25,
    "slowness_weight": 0.5,
    "episode_weight": 4.0,
    "contrast_weight": 2.0,
    "episode_floor": 0.7,
}
WEIGHTS = tuple(name for name in VICREG if name.endswith("_weight"))
ROOMS = GoalSettings(
    latent=128,
    block=4,
    window=1,
    batch=256,
    updates=6000,
    steps=1,
    learning_rate=3e-3,
    encoder_settings={"fit": "crop", "levels": [[4, 32], [8, 128]], "dense": [256]},
    objective="vicreg",
    objective_settings=VICREG,
    inverse_weight=4.0,
    finetune_updates=6000,
    finetune_sequences=4000,
    distance="steps",
    horizon=6,
    starts=8,
    first_iterations=30,
    iterations=8,
    step_size=0.2,
    action_limit=0.53,  # 1.3 pixels, what the explorer does along an axis, as a share of the bounds
)
"""Of everything that is a dot between walls."""
FEW = {
    "latent": 32,
    "objective_settings": {"variance_weight": 4.0, "covariance_weight": 1.0, "slowness_weight": 0.5},
    "finetune_updates": 3000,
    "finetune_sequences": 1000,
}
"""Where there is one layout and nothing but the dot changes: nothing tells episodes apart, and few numbers say it all."""

RECIPES = {
    "two_rooms": Recipe(ROOMS, trajectories=2_500, length=728, explorer=(("share", 0.5),)),
    "wall": Recipe(
        replace(
            ROOMS,
            **FEW,
            encoder_settings={"levels": [[14, 32], [8, 128]], "dense": [256]},
            batch=128,
            updates=1000,
            action_limit=0.65,
        ),
        trajectories=2_500,
        length=728,
        explorer=(("share", 0.5),),
        budget=300,
        episodes=100,
    ),
    "u_maze": Recipe(
        replace(
            ROOMS,
            **FEW,
            encoder_settings={"levels": [[4, 32], [8, 128]], "dense": [256]},
            predictor="recurrent",
            predictor_settings={"units": 128},
            inverse_weight=0.0,  # no two frames tell a force
            action_limit=1.0,
            window=6,
            steps=4,
            batch=64,
            updates=2000,
        ),
        trajectories=2_500,
        length=728,
        budget=300,
        episodes=100,
    ),
    "teleport": Recipe(
        replace(ROOMS, distance_settings={"directed": 32}),  # it leads one way only
        trajectories=2_500,
        length=728,
        explorer=(("share", 0.5),),
        episodes=200,
    ),
}
"""Task: what it takes."""

PLANNERS: dict[str, dict[str, Any]] = {
    "gradient": {"planner": "gradient"},
    "gradient, 1 start": {"planner": "gradient", "starts": 1},
    "gradient, no recall": {"planner": "gradient", "correction_memory": 0},
    "cem": {"planner": "cem", "samples": 256, "first_iterations": 20, "iterations": 10},
    "icem": {"planner": "icem", "samples": 128, "first_iterations": 20, "iterations": 10},
    "mppi": {"planner": "mppi", "samples": 256, "first_iterations": 20, "iterations": 10},
    "greedy": {
        "planner": "gradient",
        "horizon": 1,
        "starts": 8,
        "first_iterations": 20,
        "iterations": 20,
        "cumulative_weight": 0.0,
        "terminal_weight": 1.0,
        "replan_every": None,
    },
}
"""Name: what to change of the recipe's settings. `"random"` is a floor that needs none."""
RANDOM = "random"

SEQUENCES = {"window": 2, "batch": 171}
"""Three frames in a row, as a bend needs, and as many of them in a batch as pairs have."""

ABLATIONS: dict[str, dict[str, Any]] = {
    "without variance": {"objective_settings": {"variance_weight": 0.0}},
    "without covariance": {"objective_settings": {"covariance_weight": 0.0}},
    "without temporal": {"objective_settings": {"slowness_weight": 0.0, "episode_weight": 0.0, "contrast_weight": 0.0}},
    "without inverse dynamics": {"inverse_weight": 0.0},
    "with nothing against collapse": {"objective_settings": dict.fromkeys(WEIGHTS, 0.0), "inverse_weight": 0.0},
    "straightened": SEQUENCES | {"straightness_weight": 1.0},
    "not straightened": SEQUENCES,
    "barlow_twins": {"objective": "barlow_twins", "objective_settings": {}},
    "sigreg": {"objective": "sigreg", "objective_settings": {}},
    "infonce": {"objective": "infonce", "objective_settings": {}},
    "byol": {"objective": "byol", "objective_settings": {}, "targets": "average"},
}
"""Name: what to change of the recipe's settings before training; of an objective's, where it stays the same, only these."""

TWIN: dict[str, Any] = {"objective": "reconstruction", "objective_settings": {}, "inverse_weight": 0.0}
"""The generative model of the same size."""
WATCHED = 0.9
"""Share of the trajectories that tell no actions, in learning by watching."""
LEAVES = {"leaves": True}
"""Settings of the environment under windy leaves."""


def chosen(names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """The ablations of these names, or all of them for `"all"`.

    Raises:
        ValueError: If one has another name, with those there are.
    """
    if names == ("all",):
        return ABLATIONS
    unknown = [name for name in names if name not in ABLATIONS]
    if unknown:
        raise ValueError(f"no ablation is called {', '.join(map(repr, unknown))}; there are {', '.join(ABLATIONS)}")
    return {name: ABLATIONS[name] for name in names}
