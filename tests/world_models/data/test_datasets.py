"""Tests of datasets: round trips, windows compared with recordings, and errors."""

import itertools
import json
import sys
import threading
import types
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from world_models import data
from world_models.data import About, Dataset, DatasetError, files, windows

ABOUT = About("Walk-v0", "Box(3,)", "Box(2,)", "metres east and north", {"seed": 3})


def episodes(lengths: tuple[int, ...] = (4, 7, 5)) -> list[dict[str, np.ndarray]]:
    """Yields episodes in which every number encodes its position: 1000 times the episode, plus the step."""
    made = []
    for index, length in enumerate(lengths):
        steps = 1000.0 * index + np.arange(length + 1)
        made.append(
            {
                "observations": np.stack([steps, -steps, 0 * steps], axis=1).astype(np.float32),
                "actions": np.stack([steps[:-1], 0.5 + 0 * steps[:-1]], axis=1).astype(np.float32),
                "rewards": steps[:-1] / 10,
                "terminated": np.arange(length) == length - 1,
            }
        )
    return made


@pytest.fixture
def walk() -> Dataset:
    return data.gather(episodes(), ABOUT)


def same(a: Dataset, b: Dataset) -> None:
    assert a.about == b.about
    for name in ("observations", "actions", "rewards", "terminated", "lengths"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert getattr(a, name).dtype == getattr(b, name).dtype


def test_gather_preserves_episodes(walk: Dataset):
    assert walk.transitions == 16 and len(walk.observations) == 19
    for index, given in enumerate(episodes()):
        found = walk.episode(index)
        for name, array in given.items():
            np.testing.assert_array_equal(found[name], array.astype(found[name].dtype))


@pytest.mark.parametrize("name", ["walk", "walk.npz", "deep/er/walk"])
@pytest.mark.parametrize("with_actions", [True, False])
def test_save_and_load_round_trip(tmp_path: Path, walk: Dataset, name: str, with_actions: bool):
    if not with_actions:
        walk = data.gather(episodes(), ABOUT, actions=False)
        assert walk.actions is None
    place = data.save(tmp_path / name, walk)
    found = data.load(place, environment="Walk-v0")
    if with_actions:
        same(found, walk)
    else:
        assert found.actions is None and len(found.observations) == 19
    assert isinstance(found.observations, np.memmap) == (place.suffix != ".npz")
    assert [file.name for file in place.parent.iterdir()] == [place.name]
    with pytest.raises(DatasetError, match="exists already"):
        data.save(place, walk)


def test_another_environment_or_shape_raises(tmp_path: Path, walk: Dataset):
    place = data.save(tmp_path / "walk", walk)
    with pytest.raises(DatasetError, match=r"'Walk-v0'.*'Run-v0'"):
        data.load(place, environment="Run-v0")
    with pytest.raises(DatasetError, match=r"\[3\], \[64, 64, 1\] was wanted"):
        walk.require(observation=(64, 64, 1))
    with pytest.raises(DatasetError, match=r"\[2\], \[1\] was wanted"):
        walk.require(action=(1,))
    assert walk.require(environment="Walk-v0", observation=(3,), action=(2,)) is walk


@pytest.mark.parametrize("name", ["observations.npy", "lengths.npy", "metadata.json"])
def test_a_changed_folder_raises_with_the_name_of_the_file(tmp_path: Path, walk: Dataset, name: str):
    place = data.save(tmp_path / "walk", walk)
    content = bytearray((place / name).read_bytes())
    content[-3] ^= 1
    (place / name).write_bytes(content)
    with pytest.raises(DatasetError, match=name.removesuffix(".json")):
        data.load(place)
    (place / name).write_bytes(content[:-8])
    with pytest.raises(DatasetError, match=name.removesuffix(".json")):
        data.load(place, verify=False)
    (place / name).unlink()
    with pytest.raises(DatasetError, match=name.removesuffix(".json")):
        data.load(place, verify=False)


def test_a_changed_file_raises(tmp_path: Path, walk: Dataset):
    place = data.save(tmp_path / "walk.npz", walk)
    whole = place.read_bytes()
    for at in (10, 200, len(whole) // 2, len(whole) - 30):
        place.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        try:
            same(data.load(place), walk)  # the changed byte affects no number
        except DatasetError as error:
            assert str(place) in str(error)
    place.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match="damaged"):
        data.load(place)
    with pytest.raises(DatasetError, match="nothing exists"):
        data.load(tmp_path / "other")
    np.savez(tmp_path / "foreign.npz", x=np.ones(3))
    with pytest.raises(DatasetError, match="not a dataset"):
        data.load(tmp_path / "foreign.npz")


def test_arrays_that_unpack_to_more_than_their_file_are_refused(tmp_path: Path, walk: Dataset):
    path = data.save(tmp_path / "walk.npz", walk)
    with np.load(path) as archive:
        arrays: dict[str, Any] = dict(archive)
    np.savez_compressed(tmp_path / "small.npz", **arrays)
    with pytest.raises(DatasetError, match="or are compressed"):
        data.load(tmp_path / "small.npz")
    arrays["rewards"] = np.zeros(100_000, np.float32)
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(DatasetError, match="rewards must be float32"):
        data.load(tmp_path / "other.npz")


@pytest.mark.parametrize(
    "changes", [{"arrays": None}, {"arrays": {"rewards": 3}}, {"about": []}, {"arrays": {"lengths": [[10**12], "int64"]}}]
)
@pytest.mark.parametrize("name", ["walk.npz", "walk"])
def test_headers_of_another_form_raise(tmp_path: Path, walk: Dataset, name: str, changes: dict):
    path = data.save(tmp_path / name, walk)
    if path.is_dir():
        header = json.loads((path / "metadata.json").read_text())
        (path / "metadata.json").write_text(files.sealed({k: v for k, v in (header | changes).items() if k != "sha256"}))
    else:
        with np.load(path) as archive:
            arrays: dict[str, Any] = dict(archive)
        header = json.loads(arrays["metadata"].tobytes()) | changes
        text = files.sealed({k: v for k, v in header.items() if k != "sha256"})
        arrays["metadata"] = np.frombuffer(text.encode(), np.uint8)
        np.savez(path, **arrays)
    with pytest.raises(DatasetError):
        data.load(path)


def test_another_format_raises(tmp_path: Path, walk: Dataset):
    place = data.save(tmp_path / "walk", walk)
    header = json.loads((place / "metadata.json").read_text())
    (place / "metadata.json").write_text(json.dumps(header | {"format_version": 99}))
    with pytest.raises(DatasetError, match="format 99"):
        data.load(place)
    (place / "metadata.json").write_text(json.dumps(header | {"format": "other"}))
    with pytest.raises(DatasetError, match="something else"):
        data.load(place)


def test_a_failed_write_leaves_no_files(tmp_path: Path, walk: Dataset, monkeypatch: pytest.MonkeyPatch):
    for name in ("walk", "walk.npz"):
        for stage in ((files, "flush"), (files, "whole"), (np, "save"), (np, "savez")):
            with monkeypatch.context() as patch:

                def fail(*_, **__):
                    raise OSError("disk full")

                patch.setattr(*stage, fail)
                relevant = (stage[1] in ("flush", "savez")) == (name == "walk.npz")
                if relevant:
                    with pytest.raises(OSError, match="disk full"):
                        data.save(tmp_path / name, walk)
                    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DatasetError, match="JSON"):
        data.save(tmp_path / "walk", data.gather(episodes(), About("x", notes={"bad": {1, 2}})))


def broken() -> dict[str, tuple[dict, str]]:
    """Returns an invalid episode and a part of the expected message."""
    good = episodes()[1]
    bad = {name: array.copy() for name, array in good.items()}
    bad["observations"][3, 1] = np.nan
    return {
        "keys": ({"observations": good["observations"]}, "lacks actions; it has observations"),
        "nothing": ({}, "lacks observations and actions; it has nothing"),
        "nan": (bad, "observations are not finite from step 3 on"),
        "inf": (good | {"rewards": np.full(7, np.inf)}, "rewards are not finite from step 0 on"),
        "ragged": (good | {"actions": good["actions"][:5]}, "has 8 observations and 5 actions, 7 are needed"),
        "uneven": (good | {"observations": [[1.0, 2.0], [3.0]]}, "not an array"),
        "shape": (good | {"observations": good["observations"][:, :2]}, r"observations are float32\[2\]"),
        "dtype": (good | {"actions": good["actions"].astype(np.int32)}, r"actions are int32\[2\]"),
        "short": ({name: array[:1] if name == "observations" else array[:0] for name, array in good.items()}, "needs 2"),
        "text": (good | {"actions": ["up"] * 7}, "not numeric"),
    }


@pytest.mark.parametrize("case", broken())
def test_bad_episodes_raise_or_are_skipped_with_their_index(case: str):
    bad, said = broken()[case]
    given = [episodes()[0], bad, episodes()[2]]
    with pytest.raises(DatasetError, match=f"episode 1: .*{said}"):
        data.gather(given, ABOUT)
    with pytest.warns(UserWarning, match=f"skipped 1 of 3 episodes: episode 1: .*{said}"):
        found = data.gather(given, ABOUT, bad="skip")
    np.testing.assert_array_equal(found.lengths, [4, 5])
    same_rows = data.gather([episodes()[0], episodes()[2]], ABOUT)
    same(found, same_rows)


def test_a_dataset_needs_valid_episodes_and_consistent_arrays(walk: Dataset):
    with pytest.raises(DatasetError, match="no good episodes"):
        data.gather([], ABOUT)
    with pytest.raises(DatasetError, match="no good episodes: episode 0"):
        data.gather([{}], ABOUT, bad="skip")
    with pytest.raises(DatasetError, match="'refuse' or 'skip'"):
        data.gather(episodes(), ABOUT, bad="ignore")
    with pytest.raises(DatasetError, match="rewards has 3 rows"):
        Dataset(walk.observations, walk.actions, walk.rewards[:3], walk.terminated, walk.lengths, ABOUT)


def test_unknown_actions_are_nan(walk: Dataset):
    silent = data.gather(episodes((3, 6)), ABOUT, actions=False)
    both = data.mixed(walk, silent)
    assert both.actions is not None and both.transitions == 25
    assert np.isfinite(both.actions[:19]).all() and np.isnan(both.actions).sum() == 2 * silent.transitions
    np.testing.assert_array_equal(data.moments(both).action_std, data.moments(walk).action_std)
    with pytest.raises(DatasetError, match="must have actions"):
        data.mixed(silent, walk)
    with pytest.raises(DatasetError, match="'Run-v0'"):
        data.mixed(walk, data.gather(episodes(), About("Run-v0")))


def check_windows(window: data.Window, length: int, block: int) -> set[float]:
    """Checks that windows equal the recorded rows, and returns their starts."""
    first = window.observations[:, :1, 0]
    np.testing.assert_array_equal(window.observations[..., 0], first + block * np.arange(length + 1))
    steps = first + np.arange(length * block)
    actions = window.actions.reshape(len(first), length * block, 2)
    np.testing.assert_array_equal(actions[..., 0], steps)
    np.testing.assert_allclose(window.rewards, steps.reshape(len(first), length, block).sum(axis=2) / 10, rtol=1e-5)
    ends = steps.reshape(len(first), length, block)[..., -1]
    np.testing.assert_array_equal(window.terminated, np.isin(ends, [3.0, 1006.0, 2004.0]))
    assert window.mask.all()
    return set(np.ravel(first).tolist())


@pytest.mark.parametrize(("length", "block"), [(1, 1), (4, 1), (2, 2), (1, 4)])
def test_windows_equal_the_recorded_rows_at_every_start(walk: Dataset, length: int, block: int):
    lengths = {0: 4, 1: 7, 2: 5}
    starts = {1000.0 * e + t for e, n in lengths.items() for t in range(n - length * block + 1)}
    drawn = data.draw(data.resident(walk, length * block), jax.random.key(0), 400, length, block)
    assert check_windows(jax.tree.map(np.asarray, drawn), length, block) == starts
    reading = data.batches(walk, seed=0, batch=100, length=length, block=block, updates=2, members=2)
    bundle = jax.tree.map(np.asarray, next(reading))
    assert bundle.observations.shape == (2, 2, 100, length + 1, 3)
    assert bundle.actions.shape == ((2, 2, 100, length, block, 2) if block > 1 else (2, 2, 100, length, 2))
    assert check_windows(jax.tree.map(lambda x: x.reshape(400, *x.shape[3:]), bundle), length, block) == starts
    reading.close()


def test_reading_ahead_is_reproducible_and_stops_with_the_generator(walk: Dataset, tmp_path: Path):
    mapped = data.load(data.save(tmp_path / "walk", walk))
    before = threading.active_count()
    readers = [data.batches(d, seed=s, batch=3, length=2) for d, s in ((walk, 0), (mapped, 0), (walk, 1))]
    one, other, third = ([np.asarray(w.observations) for w in itertools.islice(r, 4)] for r in readers)
    np.testing.assert_array_equal(one, other)
    assert (np.asarray(one) != np.asarray(third)).any() and (one[0] != one[1]).any()
    for reader in readers:
        reader.close()
    assert threading.active_count() == before


def test_an_error_while_reading_ahead_is_raised(walk: Dataset):
    def fail(random):
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        next(windows._read_ahead(fail, 0, 2))


def test_too_short_episodes_cause_a_warning_or_an_error(walk: Dataset):
    with pytest.warns(UserWarning, match="2 of 3 episodes have fewer than 6 transitions"):
        data.resident(walk, 6)
    with pytest.raises(DatasetError, match=r"no episode has 8 transitions.*longest episode has 7"):
        data.resident(walk, 8)
    with pytest.raises(DatasetError, match="no episode has"):
        data.batches(walk, seed=0, batch=2, length=4, block=2)


def test_moments_exclude_the_padding_rows(walk: Dataset):
    found = data.moments(walk)
    assert found.action_mean is not None and found.action_std is not None
    actions = np.concatenate([episode["actions"] for episode in episodes()])
    np.testing.assert_allclose(found.action_mean, actions.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.action_std, [actions[:, 0].std(), 1e-3], rtol=1e-5)
    np.testing.assert_allclose(found.observation_mean, walk.observations.mean(axis=0), rtol=1e-5)
    assert found.reward_best == np.float32(200.4)
    frames = data.moments(walk, lambda s: jnp.broadcast_to(s[:, :1, None, None], (len(s), 4, 4, 1)))
    np.testing.assert_allclose(frames.observation_mean, walk.observations[:, 0].mean(), rtol=1e-5)


# Minari: what reads needs no more than a dataset that looks like one of Minari's


class Space(str):
    """A space with a text representation."""


def minari_like(part: str | None = None, spec: bool = True) -> types.SimpleNamespace:
    def wrapped(observations):
        return observations if part is None else {part: observations, "other": observations * 0}

    found = [
        types.SimpleNamespace(
            observations=wrapped(e["observations"]), actions=e["actions"], rewards=e["rewards"], terminations=e["terminated"]
        )
        for e in episodes()
    ]
    return types.SimpleNamespace(
        id="walk/random-v0",
        env_spec=types.SimpleNamespace(id="Walk-v0") if spec else None,
        observation_space=Space("Box(3,)"),
        action_space=Space("Box(2,)"),
        iterate_episodes=lambda: iter(found),
    )


@pytest.mark.parametrize("part", [None, "pixels"])
def test_minari_datasets_are_read(walk: Dataset, part: str | None):
    found = data.read_minari(minari_like(part), observation=part)
    np.testing.assert_array_equal(found.observations, walk.observations)
    np.testing.assert_array_equal(found.terminated, walk.terminated)
    assert found.about.environment == "Walk-v0" and found.about.action_space == "Box(2,)"
    assert data.read_minari(minari_like(spec=False)).about.environment == "walk/random-v0"


def test_dictionary_observations_need_a_key():
    with pytest.raises(DatasetError, match="dictionaries of pixels, other"):
        data.read_minari(minari_like("pixels"))
    with pytest.raises(DatasetError, match="no part 'sound'"):
        data.read_minari(minari_like("pixels"), observation="sound")


def test_a_missing_minari_names_the_extra_to_install(walk: Dataset, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(ImportError, match=r"craik\[data\]"):
        data.read_minari("walk/random-v0")
    with pytest.raises(ImportError, match=r"craik\[data\]"):
        data.write_minari(walk, "walk/random-v0", observation_space=None, action_space=None)
    with pytest.raises(DatasetError, match="has none"):
        silent = data.gather(episodes(), ABOUT, actions=False)
        data.write_minari(silent, "walk/random-v0", observation_space=None, action_space=None)


def test_minari_round_trip(walk: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("minari")
    import gymnasium

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    sizes = {"observation_space": 3, "action_space": 2}
    boxes = {name: gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32) for name, size in sizes.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Minari asks for authors and code
        data.write_minari(walk, "walk/random-v0", **boxes)
        found = data.read_minari("walk/random-v0")
    np.testing.assert_array_equal(found.observations, walk.observations)
    np.testing.assert_array_equal(found.actions, walk.actions)
    np.testing.assert_array_equal(found.lengths, walk.lengths)
