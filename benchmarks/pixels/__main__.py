"""The command; see the package."""

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
OURS = "as it is"
"""The variant that nothing is left out of."""


@dataclass
class Options:
    """What to run."""

    task: Literal["two_rooms", "wall", "u_maze", "teleport"] = "two_rooms"
    """Where."""
    seeds: int | None = None
    """Seeds 0 … n-1; the recipe's number if None."""
    updates: int | None = None
    """Gradient steps; the recipe's number if None."""
    finetune_updates: int | None = None
    """Gradient steps on what the encoder gives once it stands still; the recipe's number if None."""
    minutes: float | None = None
    """When training ends at the latest, collection included."""
    trajectories: int | None = None
    """To learn from; the recipe's number if None."""
    episodes: int | None = None
    """Of the manifest, the first so many; the recipe's number if None."""
    sampled: int | None = None
    """The same for the sampling planners, which take ten times as long."""
    planners: tuple[str, ...] = (*PLANNERS, RANDOM)
    """To compare; with ' | latent' after a name, in the plain distance between latents."""
    ablate: tuple[str, ...] = ()
    """Ablations to train and evaluate with the gradient planner, or 'all'."""
    leaves: bool = False
    """Windy leaves: the JEPA and its generative twin, in still air and in wind."""
    watching: bool = False
    """Learn also from trajectories of which nine in ten tell no actions."""
    resume: bool = False
    """Evaluate what was trained before instead of training it again."""
    at_once: int = 20
    """Episodes in one call of a compiled program."""
    out: Path = ROOT / "results"
    """Where the figures go."""
    runs: Path = Path("runs/pixels")
    """Where what was trained is kept."""


@dataclass(frozen=True)
class Variant:
    """A world and a recipe to compare with others."""

    name: str
    recipe: Recipe
    settings: dict[str, Any]
    """Of the environment."""
    planners: tuple[str, ...]
    watching: bool = False


def tailored(options: Options) -> Recipe:
    """The task's recipe with what was asked for otherwise."""
    recipe = RECIPES[options.task]

    def given(*names: str) -> dict[str, Any]:
        return {name: getattr(options, name) for name in names if getattr(options, name) is not None}

    settings = replace(recipe.settings, **given("updates", "finetune_updates"))
    return replace(recipe, settings=settings, **given("trajectories", "episodes", "sampled", "seeds"))


def variants(options: Options) -> list[Variant]:
    """Everything that is to be trained.

    Raises:
        ValueError: If a planner or an ablation has no such name.
    """
    recipe = tailored(options)
    for name in options.planners:
        if name.partition(" | ")[0] not in (*PLANNERS, RANDOM):
            raise ValueError(f"no planner is called {name!r}; there are {', '.join((*PLANNERS, RANDOM))}")
    planners = options.planners
    if recipe.settings.distance != "latent" and "gradient" in planners:
        planners = (*planners, "gradient | latent")

    def changed(changes: dict[str, Any]) -> Recipe:
        if "objective" not in changes and "objective_settings" in changes:
            whole = {**recipe.settings.objective_settings, **changes["objective_settings"]}
            changes = changes | {"objective_settings": whole}
        return replace(recipe, settings=replace(recipe.settings, **changes))

    found = [Variant(OURS, recipe, {}, planners)]
    found += [Variant(n, changed(c), {}, ("gradient",)) for n, c in recipes.chosen(options.ablate).items()]
    if options.leaves:
        found += [
            Variant("windy leaves", recipe, LEAVES, ("gradient",)),
            Variant("reconstruction", changed(TWIN), {}, ("gradient",)),
            Variant("reconstruction, windy leaves", changed(TWIN), LEAVES, ("gradient",)),
        ]
    if options.watching:
        found.append(Variant("watching", recipe, {}, ("gradient",), watching=True))
    return found


def run(options: Options, tell: study.Tell = study.say) -> list[dict[str, Any]]:
    """Train, evaluate, write down and draw; results are saved after every model.

    Returns:
        A row for every variant, seed and planner.
    """
    plan, rows, models = variants(options), [], []
    stem = options.out / f"pixels-{options.task}"
    common = plan[0].recipe
    head = provenance(invoked("benchmarks.pixels"), PACKAGES) | {
        "task": options.task,
        "budget": common.budget,
        "settings": common.settings.asdict(),
        "planners": PLANNERS,
    }
    for variant in plan:
        place = world(options.task, **variant.settings)
        for seed in range(variant.recipe.seeds):
            tell(f"{options.task}, {variant.name}, seed {seed}")
            made, model = one(options, place, variant, seed, stem if (variant.name, seed) == (OURS, 0) else None, tell)
            rows += made
            models.append(model)
            report.write(stem, head, rows, models)
    return rows


def one(
    options: Options, place: World, variant: Variant, seed: int, stem: Path | None, tell: study.Tell
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train and evaluate one model; draw it, too, where there is a name for the pictures."""
    folder = options.runs / options.task / f"{variant.name.replace(', ', '-').replace(' ', '-')}-{seed}"
    given = {"resume": options.resume, "minutes": options.minutes, "watching": variant.watching, "tell": tell}
    trained = study.train(place, variant.recipe, seed, folder, **given)
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
    tell(f"  R² {model['probes']['r2']}; distance against truth {model['truth']}")
    rows, outcomes = study.evaluate(
        place, variant.recipe, trained, seed, variant.planners, tell=tell, at_once=options.at_once
    )
    if stem is not None:
        name, outcome = next(iter(outcomes.items()))
        stem.parent.mkdir(parents=True, exist_ok=True)
        study.show(place, trained, starts, outcome, stem, f"{options.task}: {name}")
    return [facts | row for row in rows], model


if __name__ == "__main__":
    run(tyro.cli(Options, description=benchmarks.pixels.__doc__))
