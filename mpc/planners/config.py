"""Planners by name: the one table from names to planners, and a configuration that a file can hold."""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import Any

from mpc.planners.anneal import anneal
from mpc.planners.base import Planner
from mpc.planners.chain import chain
from mpc.problem import Problem

Builder = Callable[..., Planner]


@dataclass(frozen=True)
class PlannerConfig:
    """Name and settings of a planner; None leaves a setting at the planner's own default.

    Args:
        name: A key of `PLANNERS`.
        starts: Number of starts, for planners that descend.
        samples: Futures imagined per iteration, for planners that sample.
        elites: How many of the samples a distribution is fitted to.
        spread: Standard deviation of the noise that starts or samples are drawn from, in variables, which span `[-1, 1]`.
        step_size: Adam's, in variables.
        decay_iterations: Iterations over which the step size falls along a cosine to a tenth; None keeps it. A gradient
            that is as long near a goal as far from it settles only with steps that shrink.
        anneal: Iterations over which relaxed choices are sharpened (see `mpc.anneal`); for planners that descend, over
            discrete actions.
        precision: `"float64"` or `"float32"` inside planners that take one (see `mpc.planners.precision`).
        stages: The two planners of a chain, as configurations or names.
        switch_after: Iterations of a chain's first planner.
        options: Further keywords of the planner's function.

    Example:
        >>> config = PlannerConfig("gradient", starts=8, step_size=0.15, options={"screen": (64, 1)})
        >>> PlannerConfig.from_dict(config.as_dict()) == config
        True
    """

    name: str
    starts: int | None = None
    samples: int | None = None
    elites: int | None = None
    spread: float | None = None
    step_size: float | None = None
    decay_iterations: int | None = None
    anneal: int | None = None
    precision: str | None = None
    stages: "tuple[PlannerConfig, ...]" = ()
    switch_after: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(map(as_config, self.stages)))
        object.__setattr__(self, "options", _frozen(dict(self.options)))

    def as_dict(self) -> dict[str, Any]:
        """The configuration as what JSON can hold, without the settings that are left at their defaults.

        Raises:
            ValueError: If an option is nothing that JSON can hold, such as an optax optimiser.
        """
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        held["stages"] = [stage.as_dict() for stage in self.stages]
        held = {name: value for name, value in held.items() if value is not None and value != [] and value != {}}
        try:
            return json.loads(json.dumps(held))
        except TypeError as error:
            raise ValueError(
                f"a planner's configuration is stored as JSON, and an option is nothing it knows: {error}"
            ) from None

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> "PlannerConfig":
        """The configuration that `as_dict` gave.

        Raises:
            ValueError: If there is no name, or a setting is unknown.
        """
        known = [f.name for f in fields(cls)]
        if "name" not in held or not set(held) <= set(known):
            raise ValueError(f"a planner's configuration has a name and may have {', '.join(known[1:])}; got {dict(held)}")
        return cls(**held)


def as_config(config: "PlannerConfig | str | Mapping[str, Any]") -> PlannerConfig:
    """A configuration, from itself, a planner's name or what `as_dict` gave."""
    if isinstance(config, PlannerConfig):
        return config
    return PlannerConfig(config) if isinstance(config, str) else PlannerConfig.from_dict(config)


def _chained(problem: Problem, *, stages: tuple[PlannerConfig, ...], switch_after: int) -> Planner:
    if len(stages) != 2:
        raise ValueError(f"chain needs two stages; got {len(stages)} (a stage may be a chain)")
    first, second = (make_planner(problem, stage) for stage in stages)
    return chain(first, second, switch_after=switch_after)


PLANNERS: dict[str, str | Builder] = {
    "gradient": "mpc.planners.gradient",
    "ilqr": "mpc.planners.ilqr",
    "collocation": "mpc.planners.collocation",
    "cem": "mpc.planners.cem",
    "icem": "mpc.planners.icem",
    "mppi": "mpc.planners.mppi",
    "predictive_sampling": "mpc.planners.predictive_sampling",
    "chain": _chained,
    "auto": "mpc.planners.auto",
}
"""Every planner's function `(problem, *, settings) -> planner`, or the module that has it under the planner's name.

Modules are imported when a planner is first asked for: not every process needs optax. A new planner joins by one more row;
the settings that it takes are its function's keywords, with `optimizer` for `step_size` and `decay_iterations`.
"""


def make_planner(problem: Problem, config: PlannerConfig | str) -> Planner:
    """Build the planner that a configuration names.

    Args:
        problem: The problem to plan for.
        config: The configuration, or only the name.

    Raises:
        ValueError: If there is no such planner, it does not take a setting or lacks one, or refuses a value.

    Example:
        >>> import mpc
        >>> step = lambda params, state, action: state + 0.1 * action
        >>> problem = mpc.Problem(step, lambda p, s, a, t: s @ s, horizon=10, action_space=mpc.Box([-1.0], [1.0]))
        >>> planner = mpc.make_planner(problem, mpc.PlannerConfig("cem", samples=64, elites=8))
    """
    config = as_config(config)
    build = _builder(config.name)
    settings = _settings(config, list(inspect.signature(build).parameters.values())[1:], problem)
    planner = build(problem, **settings)
    return planner if config.anneal is None else anneal(planner, steps=config.anneal)


def settings_of(name: str) -> set[str]:
    """Return the names of the fields of `PlannerConfig`, and the options, that a planner takes.

    Args:
        name: A key of `PLANNERS`.

    Raises:
        ValueError: If there is no such planner.
    """
    return _takes({p.name for p in list(inspect.signature(_builder(name)).parameters.values())[1:]})


def _builder(name: str) -> Builder:
    if name not in PLANNERS:
        raise ValueError(f"planner must be one of {', '.join(PLANNERS)}; got {name!r}")
    row = PLANNERS[name]
    return getattr(import_module(row), name) if isinstance(row, str) else row


def _takes(keywords: set[str]) -> set[str]:
    """Settings that a function with these keywords takes."""
    descends = {"step_size", "decay_iterations"} if "optimizer" in keywords else set()
    return keywords | descends | ({"anneal"} if "starts" in keywords else set())


def _settings(config: PlannerConfig, parameters: list[inspect.Parameter], problem: Problem) -> dict[str, Any]:
    """Keywords for a planner's function that has these parameters."""
    keywords = {p.name for p in parameters}
    given = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in ("name", "options")}
    given = {name: value for name, value in given.items() if value is not None and value != ()} | dict(config.options)
    takes = _takes(keywords)
    if not set(given) <= takes:
        raise ValueError(f"{config.name} takes {', '.join(sorted(takes))}; got {', '.join(sorted(set(given) - takes))}")
    missing = [p.name for p in parameters if p.default is p.empty and p.name not in given]
    if missing:
        raise ValueError(f"{config.name} needs {' and '.join(missing)}")
    if config.anneal is not None and problem.action_space.exact:
        raise ValueError(f"anneal sharpens relaxed choices, of which {type(problem.action_space).__name__} has none")
    if config.step_size is not None or config.decay_iterations is not None:
        if "optimizer" in given or config.step_size is None:
            raise ValueError("decay_iterations needs a step_size, and neither goes with an optimizer of one's own")
        given["optimizer"] = _adam(config.step_size, config.decay_iterations)
    return {name: value for name, value in given.items() if name in keywords}


def _adam(step_size: float, decay_iterations: int | None) -> Any:
    import optax  # not needed by planners that sample

    if decay_iterations is None:
        return optax.adam(step_size)
    return optax.adam(optax.cosine_decay_schedule(step_size, decay_iterations, alpha=0.1))


def _frozen(value: Any) -> Any:
    """A value whose lists are tuples: JSON gives back lists for both."""
    if isinstance(value, Mapping):
        return {name: _frozen(item) for name, item in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
