"""Command line; see the package docstring."""

from typing import Annotated

import tyro

import benchmarks.architecture
from benchmarks.architecture import actor_critic, configuring, hierarchy, latents

Command = (
    Annotated[latents.Latents, tyro.conf.subcommand("latents")]
    | Annotated[configuring.Configuring, tyro.conf.subcommand("configurator")]
    | Annotated[hierarchy.Hierarchy, tyro.conf.subcommand("hierarchy")]
    | Annotated[actor_critic.ActorCritic, tyro.conf.subcommand("actor-critic")]
)


def main(command: Command) -> None:
    """Runs one benchmark."""
    if isinstance(command, latents.Latents):
        latents.run(command)
    elif isinstance(command, hierarchy.Hierarchy):
        hierarchy.run(command)
    elif isinstance(command, actor_critic.ActorCritic):
        actor_critic.run(command)
    else:
        configuring.run(command)


if __name__ == "__main__":
    main(tyro.cli(Command, description=benchmarks.architecture.__doc__))  # type: ignore[arg-type]
