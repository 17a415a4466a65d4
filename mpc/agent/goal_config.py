"""The one place for what a goal-reaching agent learns with and plans with."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

PLANNERS = ("gradient", "cem", "icem", "mppi")
DISTANCES = ("latent", "steps", "ways")
_ZERO = (
    "prediction_weight",
    "inverse_weight",
    "straightness_weight",
    "cumulative_weight",
    "terminal_weight",
    "effort_weight",
    "noise",
    "spread",
)
"""Numbers that may be 0."""


@dataclass(frozen=True)
class GoalSettings:
    """How a goal-reaching agent learns offline, and plans; names are resolved by `mpc.agent.world_model.build`.

    Raises:
        ValueError: If a number is out of range, or a name is none of the choices.
    """

    latent: int = 64
    """Size of a latent."""
    block: int = 4
    """Environment actions in a step of the model: one alone moves too little to be told from noise."""
    window: int = 8
    """Steps of the model in a window of training."""
    batch: int = 64
    """Windows per update."""
    updates: int = 6000
    """Gradient steps of a whole training."""
    steps: int = 4
    """Predictions chained in the loss."""
    learning_rate: float = 1e-3
    """Of AdamW at the beginning; it falls along a cosine while a training's `updates` are taken."""
    averaging: float = 0.995
    """Share of the running average of the weights kept at each update."""
    encoder: str = "auto"
    """`"patch"`, `"vit"`, `"vector"`; `"auto"`: patches for frames, else vector."""
    encoder_settings: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of the encoder."""
    predictor: str = "mlp"
    """`"mlp"`, `"recurrent"` or `"causal"`: the last two remember, where one frame does not tell velocities."""
    predictor_settings: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of the predictor."""
    objective: str = "vicreg"
    """Of `world_models.losses.anticollapse`; or `"reconstruction"`, the generative twin of the same size."""
    objective_settings: Mapping[str, Any] = field(
        default_factory=lambda: {
            "variance_weight": 4.0,
            "covariance_weight": 1.0,
            "slowness_weight": 1.0,
            "episode_weight": 1.0,
        }
    )
    """Keywords of the objective."""
    targets: str = "own"
    """What predictions are held against, see `pixel_jepa`."""
    prediction_weight: float = 1.0
    """Of the prediction error."""
    inverse_weight: float = 4.0
    """Of reading actions off latents."""
    straightness_weight: float = 0.0
    """Of latent trajectories' bending, which windows of at least two steps show."""
    finetune_updates: int = 4000
    """Gradient steps on the latents of the encoder once it stands still: of the distance, where it is learnt, and of the
    predictor, over `finetune_steps`."""
    finetune_steps: int = 6
    """Predictions chained in them."""
    finetune_sequences: int = 16_000
    """Trajectories, at most, that they are taken on, seen a block apart: a recorded one is several, by where it begins."""
    distance: str = "steps"
    """What is minimised: `"latent"`, the distance between latents; `"steps"`, learnt steps to go; or `"ways"`, the same
    where walls differ from recording to recording."""
    distance_settings: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of the distance."""

    planner: str = "gradient"
    """`"gradient"`, `"cem"`, `"icem"` or `"mppi"`."""
    horizon: int = 16
    """Blocks imagined ahead."""
    starts: int = 32
    """Starts of the gradient planner."""
    samples: int = 256
    """Futures per iteration of the sampling planners."""
    first_iterations: int = 60
    """Iterations of an episode's first plan, which has none to begin with."""
    iterations: int = 10
    """Iterations of every later plan, from the one before."""
    step_size: float = 0.1
    """Of Adam, in planner variables, which span [-1, 1]."""
    spread: float = 0.5
    """Of what starts and samples are drawn from, in planner variables."""
    cumulative_weight: float = 1.0
    """Of the mean distance along a plan."""
    terminal_weight: float = 1.0
    """Of the distance at its end."""
    effort_weight: float = 1e-3
    """Of the mean square of planned actions, 1 being the largest: of ways within a block that lead to the same, the calm."""
    replan_every: int | None = None
    """Environment steps from plan to plan; a block if None."""
    correction_memory: int = 16
    """Blocks just taken whose outcome corrects predictions in later plans, see
    `mpc.agent.world_model.residual_correction`; 0 for none."""
    action_limit: float | None = None
    """Planned actions lie within ± this, in the environment's units, and within its bounds in any case; None: its bounds.
    What the data never did, the model need not know."""
    noise: float = 0.1
    """Of `predict(deterministic=False)`: deviation in planner variables."""

    def __post_init__(self):
        for one in fields(self):
            value, kind = getattr(self, one.name), one.type
            fewest = 0 if one.name == "correction_memory" else 1
            if kind is int and not (isinstance(value, int) and value >= fewest):
                raise ValueError(f"{one.name} must be a whole number, at least {fewest}; got {value!r}")
            low = 0.0 if one.name in _ZERO else None
            if kind is float and not (value >= low if low is not None else value > 0):
                raise ValueError(f"{one.name} must be {'at least 0' if low is not None else 'positive'}; got {value!r}")
        if self.straightness_weight and self.window < 2:
            raise ValueError(f"a window of {self.window} step bends nowhere: straightness_weight needs 2 or more")
        if self.averaging >= 1:
            raise ValueError(f"averaging must lie in (0, 1); got {self.averaging!r}")
        if self.replan_every is not None and self.replan_every < 1:
            raise ValueError(f"replan_every must be at least 1 or None; got {self.replan_every!r}")
        if self.action_limit is not None and not self.action_limit > 0:
            raise ValueError(f"action_limit must be positive or None; got {self.action_limit!r}")
        if self.every > self.horizon * self.block:
            raise ValueError(f"replan_every={self.every} is longer than a plan of {self.horizon} blocks of {self.block}")
        for name, choices in (("planner", PLANNERS), ("distance", DISTANCES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}; got {getattr(self, name)!r}")
        if not self.cumulative_weight + self.terminal_weight > 0:
            raise ValueError(
                "one of cumulative_weight and terminal_weight must be positive, or there is nothing to minimise"
            )

    @property
    def every(self) -> int:
        """Environment steps from plan to plan."""
        return self.block if self.replan_every is None else self.replan_every

    def asdict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)
