"""Every setting of an agent, grouped by the module that it belongs to.

No two groups share a name, so a flat mapping, `{"horizon": 20, "latent": 32}`, says which settings differ from the defaults
for the task and the observations at hand (`AgentConfig.of`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import jax
import numpy as np

from mpc.planners.config import PlannerConfig, settings_of
from world_models.training import schedule

Options = Mapping[str, Any]


@dataclass(frozen=True)
class PerceptionConfig:
    """Settings of perception."""

    history: int = 1
    """Observations that the model sees at once, the newest included; more where one observation does not tell the state."""
    action_repeat: int = 1
    """Environment steps that every action is held for; the agent counts them as one step."""


@dataclass(frozen=True)
class WorldModelConfig:
    """Settings of the world model: its networks and its loss."""

    latent: int | None = None
    """Size of a latent; None for what suits the observations."""
    block: int = 1
    """Environment actions in one step of the model; more where one action changes too little to be told from noise."""
    encoder: str = "auto"
    """`"patch"`, `"vit"`, `"vector"`, `"residual"` (the identity and a learnt residual); `"auto"` by the observations."""
    encoder_options: Options = field(default_factory=dict)
    """Keywords of the encoder."""
    predictor: str = "ensemble"
    """`"ensemble"`, `"mlp"`, `"recurrent"` or `"causal"`; the last two carry a memory of earlier steps."""
    predictor_options: Options = field(default_factory=dict)
    """Keywords of the predictor."""
    hidden: int = 64
    """Units of the hidden layers of the ensemble, the actor and the critic."""
    members: int = 5
    """Members of the ensemble."""
    objective: str = "variance_covariance"
    """Objective against collapse, by its name in `world_models.losses.anticollapse`; or `"reconstruction"`."""
    objective_options: Options = field(default_factory=dict)
    """Keywords of the objective."""
    targets: str = "stop_gradient"
    """Targets of predictions: the encoder's latents, `"online"` or `"stop_gradient"`, or `"average"`."""
    chained_steps: int = 4
    """Predictions chained in the loss."""
    prediction_weight: float = 1.0
    """Weight of the prediction error."""
    inverse_weight: float = 0.0
    """Weight of the error of reading actions off latents, which recordings without actions need."""
    straightness_weight: float = 0.0
    """Weight of the curvature of latent trajectories."""
    reward_heads: bool = True
    """True predicts rewards and terminations."""
    decoder: bool = False
    """True adds a head that decodes observations from latents; known costs and limits on observations need one."""
    discount: float = 0.99
    """Discount of imagined rewards, per step."""
    learning_rate: float = 1e-3
    """Step size of AdamW."""
    averaging: float = 0.995
    """Share of the running average of the weights that is kept at every update."""


@dataclass(frozen=True)
class CostConfig:
    """Settings of the cost: weights of its terms, and the distance to goals."""

    disagreement_weight: float = 0.6
    """Weight of the ensemble's disagreement; higher values stay closer to what was experienced."""
    exploration_bonus: float = 0.3
    """Reward for disagreement while learning, until an episode terminates."""
    intrinsic_only_until_informative: bool = True
    """True seeks disagreement alone while rewards do not depend on the state."""
    intrinsic_only_steps: int = 5_000
    """Environment steps after which rewards count in any case; they begin to at half of that."""
    distance: str = "none"
    """Distance to goals: `"latent"`, `"temporal"`, `"shortest_path"`, or `"none"` where no goals are reached."""
    distance_options: Options = field(default_factory=dict)
    """Keywords of the distance."""
    cumulative_weight: float = 1.0
    """Weight of the mean distance to the goal along a plan."""
    terminal_weight: float = 1.0
    """Weight of the distance to the goal at the end of a plan."""
    effort_weight: float = 0.0
    """Weight of the mean square of actions, 1 being the largest action."""


@dataclass(frozen=True)
class ActorConfig:
    """Settings of the actor: planning (Mode 2) and the learnt policy (Mode 1)."""

    planner: str = "gradient"
    """Name of the planner, as `mpc.PlannerConfig` takes it."""
    planner_options: Options = field(default_factory=dict)
    """Further fields of `mpc.PlannerConfig`."""
    starts: int = 8
    """Starts of planners that descend."""
    samples: int | None = 32
    """Futures per iteration of planners that sample; None for the planner's own number."""
    spread: float = 0.5
    """Standard deviation of fresh starts or samples, in planner variables, which span [-1, 1]."""
    step_size: float = 0.15
    """Step size of Adam, in planner variables."""
    step_size_decays: bool = False
    """True lets it fall to a tenth along a cosine over the iterations of a plan."""
    horizon: int = 40
    """Steps of the model that are imagined ahead."""
    iterations: int = 6
    """Improvements of a plan per decision, from the last decision's plan."""
    first_starts: int = 32
    """Starts of an episode's first plan."""
    first_iterations: int = 60
    """Improvements of an episode's first plan."""
    replan_every: int | None = None
    """Environment steps from one plan to the next; None for one step of the model."""
    action_limit: float | None = None
    """Planned continuous actions lie within plus or minus this, in the environment's units; None for its bounds."""
    noise: float = 0.1
    """Noise of exploring actions: standard deviation in planner variables; of choices, the share made at random."""
    actor_critic_updates: int = 100
    """Gradient steps of the actor and the critic after each training; 0 for neither."""
    actor_critic_reset_growth: float = 1.5
    """Growth of experience after which the actor and the critic are learnt anew."""
    actor_critic_reset_rounds: int = 20
    """Rounds of updates after they were reset."""
    imagination_horizon: int = 15
    """Steps imagined ahead to train the actor and the critic."""


@dataclass(frozen=True)
class MemoryConfig:
    """Settings of memory."""

    capacity: int = 100_000
    """Steps in the replay buffer, over all environments."""
    buffer_mib: int = 512
    """Most memory that the observations in the buffer take, in MiB."""
    correction_memory: int = 0
    """Model steps whose prediction errors correct later predictions; 0 for none."""


@dataclass(frozen=True)
class LearningConfig:
    """Settings of training."""

    update_ratio: float = 1.0
    """Factor on all gradient steps per environment step: more learns from fewer steps and takes longer."""
    random_steps: int = 100
    """Steps of random actions before the first training."""
    train_every: int = 10
    """Environment steps between two trainings."""
    train_growth: float = 0.05
    """Least growth of experience between two trainings; 0 for as many trainings late as early."""
    least_updates: float = 1.0
    """Gradient steps of the model per environment step below which growth does not let them fall; 0 for no such floor."""
    updates: int = 300
    """Gradient steps of one training on the replay buffer."""
    first_trainings: int = 10
    """Trainings in a row after the random steps."""
    offline_updates: int = 3000
    """Gradient steps on a dataset."""
    learning_rate_decays: bool = False
    """True lets the learning rate fall along a cosine over `offline_updates`."""
    batch: int = 64
    """Windows per member of the ensemble and gradient step."""
    window: int = 4
    """Model steps in a window."""
    finetune_updates: int = 0
    """Gradient steps, once the encoder is fixed, of the distance and of long predictions; 0 for none."""
    finetune_steps: int = 6
    """Predictions chained while fine-tuning."""
    finetune_sequences: int = 16_000
    """Most trajectories to fine-tune on, each a model step apart."""


@dataclass(frozen=True)
class MacroConfig:
    """Settings of slower levels above the model, which plan in macro-actions (`world_models.macro`)."""

    strides: tuple[int, ...] = ()
    """Model steps in one step of each slower level, the lowest first; empty for no slower level."""
    macro: int = 2
    """Size of a macro-action."""
    macro_sigma: float = 0.1
    """Prediction error that macro-actions need not explain, in units of latents; higher values inform less."""
    macro_horizon: int = 6
    """Steps that each slower level imagines ahead."""
    near: float = 1.5
    """Distance below which a place counts as near the goal."""
    prior_weight: float = 0.1
    """Weight of how unlikely macro-actions are."""
    reachability_weight: float = 0.0
    """Weight of steps longer than the distance allows, for a distance whose unit is a model step."""
    candidates: int = 64
    """Plans that an episode begins with, of which the best are improved."""
    macro_starts: int = 16
    """Plans of a slower level that are improved side by side."""
    macro_first_iterations: int = 60
    """Iterations of a slower level's first plan."""
    macro_iterations: int = 20
    """Iterations of its later plans."""
    macro_updates: int = 4000
    """Gradient steps of each slower level."""
    macro_hidden: tuple[int, ...] = (256, 256)
    """Units of its hidden layers."""


GROUPS: dict[str, type] = {
    "perception": PerceptionConfig,
    "world_model": WorldModelConfig,
    "cost": CostConfig,
    "actor": ActorConfig,
    "memory": MemoryConfig,
    "learning": LearningConfig,
    "macro_levels": MacroConfig,
}
_GROUP_OF: dict[str, str] = {f.name: group for group, kind in GROUPS.items() for f in fields(kind)}

FOR_IMAGES: dict[str, Any] = {
    "hidden": 128,
    "disagreement_weight": 1.15,
    "exploration_bonus": 0.57,
    "horizon": 10,
    "updates": 40,
    "least_updates": 0.25,
    "actor_critic_updates": 20,
    "first_trainings": 20,
    "first_starts": 16,
    "first_iterations": 20,
}
"""Other defaults for rewards from images: a gradient step on images costs tens of times as much, and games show several
frames a step, so that the critic has to judge from a nearer horizon. Disagreement, a mean over the 32 numbers of a latent,
weighs √(33 / 9) times what it does for vectors of at most 8, as when the games were measured, by its sum."""

FOR_GOALS: dict[str, Any] = {
    "latent": 64,
    "block": 4,
    "predictor": "mlp",
    "members": 1,
    "objective": "vicreg",
    "objective_options": {
        "variance_weight": 4.0,
        "covariance_weight": 1.0,
        "slowness_weight": 1.0,
        "episode_weight": 1.0,
    },
    "targets": "online",
    "inverse_weight": 4.0,
    "reward_heads": False,
    "disagreement_weight": 0.0,
    "exploration_bonus": 0.0,
    "distance": "temporal",
    "effort_weight": 1e-3,
    "starts": 32,
    "samples": 256,
    "step_size": 0.1,
    "step_size_decays": True,
    "horizon": 16,
    "iterations": 10,
    "first_starts": 32,
    "actor_critic_updates": 0,
    "correction_memory": 16,
    "random_steps": 1000,
    "train_every": 100,
    "updates": 200,
    "offline_updates": 6000,
    "learning_rate_decays": True,
    "window": 8,
    "finetune_updates": 4000,
}
"""Other defaults for goals that observations show, learnt mostly from recordings."""


@dataclass(frozen=True)
class AgentConfig:
    """Every setting of an agent, by module.

    The one number to turn first is `learning.update_ratio`: it trades compute for environment steps.

    Raises:
        ValueError: If a setting is out of range; see `check`.
    """

    perception: PerceptionConfig = field(default_factory=PerceptionConfig)
    world_model: WorldModelConfig = field(default_factory=WorldModelConfig)
    cost: CostConfig = field(default_factory=CostConfig)
    actor: ActorConfig = field(default_factory=ActorConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    learning: LearningConfig = field(default_factory=LearningConfig)
    macro_levels: MacroConfig = field(default_factory=MacroConfig)

    def __post_init__(self) -> None:
        from mpc.agent.config_checks import check  # which knows the groups defined here

        for group in GROUPS:
            object.__setattr__(self, group, replace(getattr(self, group), **plain(vars(getattr(self, group)))))
        check(self)

    @classmethod
    def of(
        cls, changes: "AgentConfig | Mapping[str, Any] | None" = None, *, goals: bool = False, image: bool = False
    ) -> "AgentConfig":
        """Return the defaults for a kind of task, with changes.

        Args:
            changes: A whole configuration, which is returned as it is; or settings by name, flat or by group.
            goals: Whether the agent reaches goals rather than seeks rewards.
            image: Whether observations are images.

        Raises:
            ValueError: If there is no such setting, or a value is out of range.
        """
        if isinstance(changes, AgentConfig):
            return changes
        return cls().changed(FOR_GOALS if goals else FOR_IMAGES if image else {}).changed(changes or {})

    def changed(self, changes: Mapping[str, Any]) -> "AgentConfig":
        """Return the configuration with some settings changed.

        Args:
            changes: Settings by name, `{"horizon": 20}`, or by group, `{"actor": {"horizon": 20}}`.

        Raises:
            ValueError: If there is no such setting, or a value is out of range.
        """
        grouped: dict[str, dict[str, Any]] = {}
        for name, value in changes.items():
            if name in GROUPS and isinstance(value, Mapping):
                for inner, one in value.items():
                    _put(grouped, inner, one, group=name)
            else:
                _put(grouped, name, value)
        return replace(self, **{group: replace(getattr(self, group), **some) for group, some in grouped.items()})

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold and `AgentConfig().changed` takes."""
        return asdict(self)

    @property
    def every(self) -> int:
        """Environment steps from one plan to the next."""
        return self.world_model.block if self.actor.replan_every is None else self.actor.replan_every

    def planner(self, iterations: int, starts: int | None = None) -> PlannerConfig:
        """Return the planner's configuration for plans of so many iterations, with those of the settings that it takes.

        Args:
            iterations: Improvements of a plan.
            starts: Number of starts; the configured one if None.
        """
        a = self.actor
        given: dict[str, Any] = {"starts": a.starts if starts is None else starts, "samples": a.samples, "spread": a.spread}
        given |= {"step_size": a.step_size, "decay_iterations": iterations if a.step_size_decays else None}
        given |= {"elites": None if a.samples is None else max(a.samples // 8, 1), "precision": "float32"}  # as networks
        taken = settings_of(a.planner)
        return PlannerConfig(a.planner, **({k: v for k, v in given.items() if k in taken} | dict(a.planner_options)))

    def buffer_rows(self, size: int, environments: int) -> int:
        """Return the rows of the replay buffer for each environment, where an observation takes `size` bytes."""
        return max(min(self.memory.capacity, self.memory.buffer_mib * 2**20 // size) // environments, 2)

    def scaled(self, steps: int) -> int:
        """Return gradient steps times the update ratio, at least 1 unless there are none."""
        return max(round(self.learning.update_ratio * steps), 1) if steps else 0

    def trainings(self, steps: int) -> int:
        """Return how many trainings are due after so many environment steps, see `world_models.training.schedule`."""
        learning = self.learning
        least = learning.least_updates / learning.updates
        return schedule.trainings(steps, every=learning.train_every, growth=learning.train_growth, least=least)


def _put(grouped: dict[str, dict[str, Any]], name: str, value: Any, group: str | None = None) -> None:
    if name not in _GROUP_OF or (group is not None and _GROUP_OF[name] != group):
        where = "" if group is None else f" in {group}"
        raise ValueError(f"there is no setting {name!r}{where}; there are {', '.join(sorted(_GROUP_OF))}")
    grouped.setdefault(_GROUP_OF[name], {})[name] = value


def plain(value: Any) -> Any:
    """Return numbers of NumPy and JAX as Python's, and lists, which JSON makes of tuples, as tuples."""
    if isinstance(value, np.generic | np.ndarray | jax.Array) and value.ndim == 0:
        return value.item()
    if isinstance(value, list | tuple):
        return tuple(map(plain, value))
    return {name: plain(part) for name, part in value.items()} if isinstance(value, Mapping) else value
