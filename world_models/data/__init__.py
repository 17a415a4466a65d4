"""Recorded trajectories: replay buffer, datasets, file formats, and windows for training.

A dataset holds the rows of its episodes in sequence. A row is an observation, the action taken from it, the reward of that
action, and a flag that is True if the action terminated the episode. The last observation of an episode has a row with a
zero action as padding.

    walk/                     a folder, for arrays that are memory-mapped and read from disk on demand
        metadata.json         format, source, size and SHA-256 of every file
        observations.npy      [rows, ...]
        actions.npy           [rows, ...], absent in a dataset without actions
        rewards.npy, terminated.npy, lengths.npy
    walk.npz                  the same content in one file, which is read into memory

There are two ways to train on a dataset. `resident` copies it to the device, where `Trainer.fit` samples from it; use it
for data that fits in device memory, such as states from which frames are rendered. `batches` reads windows in a background
thread, ahead of `Trainer.fit_windows`.
"""

from world_models.data.dataset import About, Dataset, DatasetError
from world_models.data.episodes import gather, mixed
from world_models.data.files import FORMAT, FORMAT_VERSION, load, save
from world_models.data.minari import read_minari, write_minari
from world_models.data.normalisation import Moments, masked_moments, scale
from world_models.data.recorder import Recorder
from world_models.data.replay_buffer import (
    Rows,
    TrajectoryBuffer,
    Window,
    append,
    before_terminations,
    blocks,
    buffer_moments,
    create,
    observation_moments,
    sample,
)
from world_models.data.summary import summarise
from world_models.data.windows import Resident, batches, channel_moments, draw, encoded, moments, resident, starts, stratum

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "About",
    "Dataset",
    "DatasetError",
    "Moments",
    "Recorder",
    "Resident",
    "Rows",
    "TrajectoryBuffer",
    "Window",
    "append",
    "batches",
    "before_terminations",
    "blocks",
    "buffer_moments",
    "channel_moments",
    "create",
    "draw",
    "encoded",
    "gather",
    "load",
    "masked_moments",
    "mixed",
    "moments",
    "observation_moments",
    "read_minari",
    "resident",
    "sample",
    "save",
    "scale",
    "starts",
    "stratum",
    "summarise",
    "write_minari",
]
