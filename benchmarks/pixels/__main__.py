"""Command line; see the package docstring."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro

import benchmarks.pixels
from benchmarks.pixels import probes, recipes, report, study
from benchmarks.pixels.recipes import LEAVES, PLANNERS, RANDOM, RECIPES, TWIN, Recipe
from benchmarks.pixels.worlds import World, manifest, world
from benchmarks.provenance import invoked, provenance

PACKAGES = ("craik", "jax", "flax", "optax", "gymnasium", "numpy")
ROOT = Path(__file__).parents[1]
DEFAULT = "default"
"""Name of the variant without changes."""


@dataclass
class Options:
    """Options of the benchmark."""

    task: Literal["two_rooms", "wall", "u_maze", "teleport"] = "two_rooms"
    """Task."""
    seeds: int | None = None
    """Number of seeds, 0 … n-1; None uses the recipe's number."""
    updates: int | None = None
    """Gradient steps; None uses the recipe's number."""
    finetune_updates: int | None = None
    """Gradient steps on latents of the frozen encoder; None uses the recipe's number."""
    minutes: float | None = None
    """Time limit of training, including data collection."""
    trajectories: int | None = None
    """Number of training trajectories; None uses the recipe's number."""
    episodes: int | None = None
    """Number of episodes of the manifest; None uses the recipe's number."""
    sampled: int | None = None
    """Number of episodes for sampling planners, which take ten times as long."""
    planners: tuple[str, ...] = (*PLANNERS, RANDOM)
    """Planners to compare; ' | latent' after a name selects the plain distance between latents."""
    ablate: tuple[str, ...] = ()
    """Ablations to train and evaluate with the gradient planner, or 'all'."""
    leaves: bool = False
    """Add windy leaves: the JEPA and a generative model, with and without leaves."""
    action_free: bool = False
    """Add a variant trained on trajectories of which nine in ten have no actions."""
    resume: bool = False
    """Evaluate existing models instead of training again."""
    at_once: int = 20
    """Episodes per call of a compiled program."""
    out: Path = ROOT / "results"
    """Folder of the results."""
    runs: Path = Path("runs/pixels")
    """Folder of the trained models."""


@dataclass(frozen=True)
class Variant:
    """A recipe and the settings of its environment."""

    name: str
    recipe: Recipe
    settings: dict[str, Any]
    """Settings of the environment."""
    planners: tuple[str, ...]
    action_free: bool = False


def tailored(options: Options) -> Recipe:
    """Returns the task's recipe with the changes of the options."""
    recipe = RECIPES[options.task]

    def changes(*names: str) -> dict[str, Any]:
        return {name: getattr(options, name) for name in names if getattr(options, name) is not None}

    names = {"updates": "offline_updates", "finetune_updates": "finetune_updates"}
    learning = {names[name]: value for name, value in changes(*names).items()}
    return replace(recipe.changed(learning), **changes("trajectories", "episodes", "sampled", "seeds"))


def variants(options: Options) -> list[Variant]:
    """Returns the variants to train.

    Raises:
        ValueError: If a planner or an ablation is unknown.
    """
    recipe = tailored(options)
    for name in options.planners:
        if name.partition(" | ")[0] not in (*PLANNERS, RANDOM):
            raise ValueError(f"planners must be of {', '.join((*PLANNERS, RANDOM))}; got {name!r}")
    planners = options.planners
    if recipe.config.cost.distance != "latent" and "gradient" in planners:
        planners = (*planners, "gradient | latent")

    def changed(changes: dict[str, Any]) -> Recipe:
        if "objective" not in changes and "objective_options" in changes:
            merged = {**recipe.config.world_model.objective_options, **changes["objective_options"]}
            changes = changes | {"objective_options": merged}
        return recipe.changed(changes)

    result = [Variant(DEFAULT, recipe, {}, planners)]
    result += [Variant(n, changed(c), {}, ("gradient",)) for n, c in recipes.ablations(options.ablate).items()]
    if options.leaves:
        result += [
            Variant("windy leaves", recipe, LEAVES, ("gradient",)),
            Variant("reconstruction", changed(TWIN), {}, ("gradient",)),
            Variant("reconstruction, windy leaves", changed(TWIN), LEAVES, ("gradient",)),
        ]
    if options.action_free:
        result.append(Variant("action-free", recipe, {}, ("gradient",), action_free=True))
    return result


def run(options: Options, log: study.Log = study.print_now) -> list[dict[str, Any]]:
    """Trains, evaluates, draws and writes results after every model.

    Returns:
        A row for every variant, seed and planner.
    """
    plan, rows, models = variants(options), [], []
    stem = options.out / f"pixels-{options.task}"
    common = plan[0].recipe
    head = provenance(invoked("benchmarks.pixels"), PACKAGES) | {
        "task": options.task,
        "budget": common.budget,
        "settings": common.config.as_dict(),
        "planners": PLANNERS,
    }
    for variant in plan:
        place = world(options.task, **variant.settings)
        for seed in range(variant.recipe.seeds):
            log(f"{options.task}, {variant.name}, seed {seed}")
            made, model = one(options, place, variant, seed, stem if (variant.name, seed) == (DEFAULT, 0) else None, log)
            rows += made
            models.append(model)
            report.write(stem, head, rows, models)
    return rows


def one(
    options: Options, place: World, variant: Variant, seed: int, stem: Path | None, log: study.Log
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Trains and evaluates one model, and draws it if `stem` is given."""
    folder = options.runs / options.task / f"{variant.name.replace(', ', '-').replace(' ', '-')}-{seed}"
    arguments = {"resume": options.resume, "minutes": options.minutes, "action_free": variant.action_free, "log": log}
    trained = study.train(place, variant.recipe, seed, folder, **arguments)
    facts = {
        "variant": variant.name,
        "seed": seed,
        "training_seconds": trained.seconds,
        "updates": trained.updates,
        "alarm": trained.alarm,
    }
    starts = manifest(place, variant.recipe.episodes)
    model = facts | {"probes": probes.probes(place, trained.agent, variant.recipe)}
    model |= {"truth": probes.truth(place, trained.agent, starts)}
    log(f"  R² {model['probes']['r2']}; rank correlation of distances {model['truth']}")
    rows, outcomes = study.evaluate(place, variant.recipe, trained, seed, variant.planners, log=log, at_once=options.at_once)
    if stem is not None:
        name, outcome = next(iter(outcomes.items()))
        stem.parent.mkdir(parents=True, exist_ok=True)
        study.show(place, trained, starts, outcome, stem, f"{options.task}: {name}")
    return [facts | row for row in rows], model


if __name__ == "__main__":
    run(tyro.cli(Options, description=benchmarks.pixels.__doc__))
