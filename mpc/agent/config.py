"""The one default configuration; sizes come from the environment's spaces, nothing from its name."""

import math
from dataclasses import asdict, dataclass
from typing import Any

FOR_IMAGES: dict[str, Any] = {
    "hidden": 128,
    "horizon": 10,
    "updates": 40,
    "actor_critic_updates": 20,
    "first_trainings": 20,
    "first_starts": 16,
    "first_iterations": 20,
}
"""What is otherwise where observations are images: a gradient step through them costs tens of times as much, and games show
several frames a step, so that the critic has to see from a nearer horizon."""
_MAY_BE_0 = (
    "intrinsic_only_until_informative",
    "disagreement",
    "exploration_bonus",
    "noise",
    "spread",
    "first_iterations",
    "actor_critic_updates",
    "train_growth",
)


@dataclass(frozen=True)
class Settings:
    """How an agent explores, learns and plans; the defaults are meant for every environment.

    The one number to turn is `update_ratio`: it trades compute for environment steps.

    Raises:
        ValueError: If a number is out of range.
    """

    update_ratio: float = 1.0
    """Factor on the gradient steps of model, actor and critic per environment step; more learns from fewer steps, and takes
    longer over each."""
    repeat: int = 1
    """Environment steps that every action is held for; the agent sees them as one, and plans as many times as far."""
    intrinsic_only_until_informative: bool = True
    """Whether to learn by going where the model is unsure, while rewards tell nothing about places."""
    random_steps: int = 100
    """Steps taken at random before the first model is learnt."""
    train_every: int = 10
    """Environment steps between two trainings."""
    train_growth: float = 0.05
    """Least growth of experience between two trainings, which makes them rarer in long runs; 0 for as many as ever."""
    updates: int = 300
    """Gradient steps of a training; more fit the data tighter and take longer."""
    first_trainings: int = 10
    """Trainings in a row on the random steps."""
    batch: int = 64
    """Windows per ensemble member and gradient step."""
    window: int = 4
    """Steps over which predictions are chained in training."""
    actor_critic_updates: int = 100
    """Gradient steps of the actor and the critic, in imagination, after each training; 0 for neither."""
    actor_critic_reset_growth: float = 1.5
    """Growth of experience after which the actor and the critic begin anew."""
    actor_critic_reset_rounds: int = 20
    """Practices in a row when they do."""
    imagination_horizon: int = 15
    """Steps imagined ahead in them."""
    memory: int = 1
    """Steps that the world model is shown, the newest included, and reads out by attention; more where one observation does
    not tell it all: 2 for speeds, as many as it takes for what was said at the beginning."""
    hidden: int = 64
    """Units of every hidden layer."""
    members: int = 5
    """Size of the ensemble."""
    discount: float = 0.99
    """Of imagined rewards, per step."""
    horizon: int = 40
    """Steps imagined ahead, with the critic behind them; with fewer, plans suffer from a critic that is still poor."""
    planner: str = "gradient"
    """How plans are improved: `"gradient"`, of choices through their relaxation; or `"cem"`, by sampling."""
    starts: int = 8
    """Starts of the gradient planner; a quarter of the samples of the other."""
    iterations: int = 6
    """Improvements per decision, from the last decision's plan."""
    first_starts: int = 32
    """Starts of an episode's first decision, which has no plan to begin with."""
    first_iterations: int = 60
    """Improvements of an episode's first decision."""
    step_size: float = 0.15
    """Of Adam, in planner variables, which span [-1, 1]."""
    spread: float = 0.5
    """Of the noise that fresh starts are drawn from, in planner variables."""
    disagreement: float = 0.2
    """Cost of the ensemble's disagreement; higher values keep closer to what has been seen."""
    exploration_bonus: float = 0.1
    """Reward of the same while learning, until an episode has terminated; higher values go sooner where it is unsure."""
    noise: float = 0.1
    """Of `predict(deterministic=False)`: deviation in planner variables; of choices, the share made at random."""
    capacity: int = 100_000
    """Steps remembered, over all environments."""
    buffer_mib: int = 512
    """MiB that observations may take up in memory: where they are large, fewer steps are remembered than `capacity`."""

    def __post_init__(self):
        for name, value in asdict(self).items():
            low = 0 if name in _MAY_BE_0 else 1
            if name in ("discount", "step_size"):
                if not 0 < value <= 1:
                    raise ValueError(f"{name} must lie in (0, 1]; got {value}")
            elif name == "update_ratio":
                if not 0 < value < math.inf:
                    raise ValueError(f"effort must be a positive number; got {value}")
            elif name == "planner":
                continue  # the objective knows which there are
            elif not value >= low or (self.__annotations__[name] is int and not isinstance(value, int)):
                raise ValueError(
                    f"{name} must be at least {low} and of type {self.__annotations__[name].__name__}; got {value}"
                )

    @classmethod
    def fitting(cls, image: bool, **given: Any) -> "Settings":
        """The defaults for images or for vectors, but for what was given.

        Raises:
            ValueError: If a number is out of range, or there is no such setting.
        """
        unknown = sorted(set(given) - set(cls.__annotations__))
        if unknown:
            raise ValueError(f"settings: there is no {', '.join(unknown)}; there are {', '.join(cls.__annotations__)}")
        return cls(**((FOR_IMAGES if image else {}) | given))

    def remembered(self, size: int, environments: int) -> int:
        """How many steps of each environment are remembered, where an observation takes so many bytes; at least 2."""
        return max(min(self.capacity, self.buffer_mib * 2**20 // size) // environments, 2)

    def spent(self, steps: int) -> int:
        """Gradient steps by the effort: `update_ratio` times as many, at least 1 unless there are none."""
        return max(round(self.update_ratio * steps), 1) if steps else 0

    def trainings(self, steps: int) -> int:
        """How many trainings are due until so many environment steps: ever fewer, as experience grows.

        n(t) = t / every,  up to t₀ = every / growth;        n(t) = (1 + ln(t / t₀)) / growth  from there
        """
        turn = self.train_every / self.train_growth if self.train_growth else math.inf
        return int(steps / self.train_every if steps <= turn else (1 + math.log(steps / turn)) / self.train_growth)

    def asdict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)
