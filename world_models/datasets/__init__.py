"""Recorded trajectories: checked on the way in, kept in files of our own or Minari's, and drawn from in windows.

A dataset holds the rows of all its episodes one after the other, each as in `world_models.data`: an observation, the action
taken from it, the reward of that action, and whether it terminated the episode; the last observation of an episode has a
zero action that nobody took.

    walk/                     a folder, for arrays that are read from the disk as they are needed
        metadata.json         what it is, where it was recorded, size and SHA-256 of every file
        observations.npy      [rows, ...]
        actions.npy           [rows, ...], absent where nobody told
        rewards.npy, terminated.npy, lengths.npy
    walk.npz                  or the same in one file, which is read whole

There are two ways to train on one. `resident` puts it on the device, where `Trainer.fit` draws from it: for what fits in
memory, such as states of which frames are rendered on the way. `batches` reads windows of it in a thread of its own, ahead
of `Trainer.fit_windows`.
"""

from world_models.datasets.dataset import About, Dataset, DatasetError
from world_models.datasets.episodes import gather, mixed
from world_models.datasets.files import FORMAT, FORMAT_VERSION, load, save
from world_models.datasets.minari import read_minari, write_minari
from world_models.datasets.windows import (
    Resident,
    batches,
    channel_moments,
    draw,
    encoded,
    moments,
    resident,
    starts,
    stratum,
)

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "About",
    "Dataset",
    "DatasetError",
    "Resident",
    "batches",
    "channel_moments",
    "draw",
    "encoded",
    "gather",
    "load",
    "mixed",
    "moments",
    "read_minari",
    "resident",
    "save",
    "starts",
    "stratum",
    "write_minari",
]
