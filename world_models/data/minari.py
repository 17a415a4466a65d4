"""Conversion from and to Minari datasets (Farama Foundation)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from world_models.data.dataset import About, Dataset, DatasetError
from world_models.data.episodes import gather


def _minari() -> Any:
    try:
        import minari  # type: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("Minari datasets need the extra 'data': pip install 'craik[data]'") from error
    return minari


def read_minari(source: Any, *, observation: str | None = None, actions: bool = True, bad: str = "refuse") -> Dataset:
    """Reads a Minari dataset.

    Args:
        source: Id for `minari.load_dataset`, or the Minari dataset.
        observation: Key of the part to read from dictionary observations.
        actions: As for `gather`.
        bad: As for `gather`.

    Raises:
        ImportError: If an id is given and Minari is not installed.
        DatasetError: As `gather`, and if observations are dictionaries without a valid `observation` key.
    """
    dataset = _minari().load_dataset(source) if isinstance(source, str) else source
    spec = dataset.env_spec
    about = About(
        environment=dataset.id if spec is None else spec.id,
        observation_space=str(dataset.observation_space),
        action_space=str(dataset.action_space),
        notes={"minari": dataset.id},
    )

    def part(observations: Any) -> Any:
        if observation is None and isinstance(observations, Mapping):
            raise DatasetError(
                f"observations of {dataset.id} are dictionaries of {', '.join(observations)}: choose one by observation=..."
            )
        if observation is not None and (not isinstance(observations, Mapping) or observation not in observations):
            raise DatasetError(f"observations of {dataset.id} have no part {observation!r}")
        return observations if observation is None else observations[observation]

    episodes = (
        {
            "observations": part(episode.observations),
            "actions": episode.actions,
            "rewards": episode.rewards,
            "terminated": episode.terminations,
        }
        for episode in dataset.iterate_episodes()
    )
    return gather(episodes, about, actions=actions, bad=bad)


def write_minari(dataset: Dataset, name: str, *, observation_space: Any, action_space: Any, env: Any = None) -> Any:
    """Writes a dataset as a Minari dataset, without loss.

    Args:
        dataset: Dataset with actions.
        name: New id, `namespace/name-v0`.
        observation_space: Gymnasium space of the observations.
        action_space: Gymnasium space of the actions.
        env: Environment, its id or its spec, from which Minari can recreate it; optional.

    Returns:
        The Minari dataset.

    Raises:
        ImportError: If Minari is not installed.
        DatasetError: If the dataset has no actions.
    """
    if dataset.actions is None:
        raise DatasetError("a Minari dataset needs actions, but the dataset has none")
    minari = _minari()
    from minari.data_collector.episode_buffer import EpisodeBuffer  # type: ignore[reportMissingImports]

    def buffered(index: int) -> Any:
        episode = dataset.episode(index)
        steps = len(episode["rewards"])
        ended = np.arange(steps) == steps - 1
        return EpisodeBuffer(
            id=index,
            observations=episode["observations"],
            actions=episode["actions"],
            rewards=episode["rewards"].tolist(),
            terminations=episode["terminated"].tolist(),
            truncations=(ended & ~episode["terminated"]).tolist(),
        )

    return minari.create_dataset_from_buffers(
        name,
        [buffered(index) for index in range(len(dataset.lengths))],
        env=env,
        observation_space=observation_space,
        action_space=action_space,
        description=f"{dataset.about.environment}. {dataset.about.action_meaning}",
        jpeg_encoding=False,
    )
