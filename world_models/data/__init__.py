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

from world_models.data.dataset import About, Dataset, DatasetError
from world_models.data.episodes import gather, mixed
from world_models.data.files import FORMAT, FORMAT_VERSION, load, save
from world_models.data.minari import read_minari, write_minari
from world_models.data.normalisation import Moments
from world_models.data.recorder import Recorder
from world_models.data.replay_buffer import (
    Rows,
    TrajectoryBuffer,
    Window,
    append,
    before_terminations,
    blocks,
    create,
    observation_moments,
    sample,
)
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
    "channel_moments",
    "create",
    "draw",
    "encoded",
    "gather",
    "load",
    "mixed",
    "moments",
    "observation_moments",
    "read_minari",
    "resident",
    "sample",
    "save",
    "starts",
    "stratum",
    "write_minari",
]
