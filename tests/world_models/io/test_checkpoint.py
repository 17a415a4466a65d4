"""Tests of checkpoints: round trips, killed writers, and errors."""

import json
import logging
import os
import random
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks import fuzzing_checkpoints
from world_models.io import atomic, checkpoint
from world_models.io.checkpoint import CheckpointError


class Pair(NamedTuple):
    left: Any
    right: Any


def _tree(seed: int = 0) -> dict[str, Any]:
    """Returns a tree with one leaf of every kind in a training state."""
    random = np.random.default_rng(seed)
    params = {"w": jnp.asarray(random.normal(size=(20, 30)), jnp.float32), "b": jnp.ones(3, jnp.bfloat16) * seed}
    return {
        "params": params,
        "optimizer": optax.chain(optax.clip(1.0), optax.adam(0.1)).init(params),
        "pair": Pair([jnp.arange(4), jnp.zeros((0, 3))], (jnp.array(True), None, {})),
        "keys": {"one": jax.random.key(seed), "many": jax.random.split(jax.random.key(seed, impl="rbg"), (2, 3))},
        "numpy": {"wide": random.normal(size=5), "small": np.uint8(7) * np.ones((2, 2), np.uint8), "no": np.array(False)},
        "counts": {"int": 2**40 + seed, "float": 0.1, "bool": True},
    }


def _equal(found: Any, wanted: Any) -> None:
    """Checks that structure, leaf types, dtypes and bits are equal."""
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert isinstance(a, jax.Array) == isinstance(b, jax.Array)
        if isinstance(b, jax.Array) and jnp.issubdtype(b.dtype, jax.dtypes.prng_key):
            assert a.dtype == b.dtype
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes two checkpoints once; tests that damage files use a copy."""
    path = tmp_path_factory.mktemp("written") / "checkpoint"
    for step in (400, 450):
        checkpoint.save(path, _tree(step), {"spaces": ["Box(3,)", None, 0.5], "step": step}, step=step)
    return path


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "copy"))


def test_tree_and_metadata_round_trip(written: Path):
    tree, metadata = checkpoint.load(written, _tree(1))
    _equal(tree, _tree(450))
    assert metadata == {"spaces": ["Box(3,)", None, 0.5], "step": 450}
    noise = jax.random.normal(tree["keys"]["many"][1, 2], (3,))
    np.testing.assert_array_equal(noise, jax.random.normal(_tree(450)["keys"]["many"][1, 2], (3,)))


def test_an_abstract_tree_suffices_to_load(written: Path):
    wanted = _tree(450)["params"], _tree(450)["optimizer"], _tree(450)["keys"]
    abstract = jax.eval_shape(lambda: wanted)
    like = {**_tree(0), **dict(zip(("params", "optimizer", "keys"), abstract, strict=True))}
    _equal(checkpoint.load(written, like)[0], _tree(450))


def test_without_a_tree_the_result_is_nested_dictionaries(written: Path):
    found, wanted = checkpoint.load(written)[0], _tree(450)
    assert set(found) == set(wanted)
    _equal(found["params"], wanted["params"])
    _equal(found["optimizer"]["1"]["0"]["mu"], wanted["optimizer"][1][0].mu)
    _equal(found["pair"]["left"]["0"], wanted["pair"].left[0])
    assert found["counts"] == wanted["counts"]


@pytest.mark.parametrize("tree", [jnp.arange(3), 5, {}, [], {"empty": jnp.zeros((2, 0))}])
def test_the_smallest_trees_round_trip(tmp_path: Path, tree: Any):
    checkpoint.save(tmp_path, tree, {}, step=0)
    _equal(checkpoint.load(tmp_path, tree)[0], tree)
    _equal(checkpoint.load(tmp_path)[0], {} if isinstance(tree, list) else tree)


def test_the_newest_is_loaded_and_the_oldest_are_deleted(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("not ours")
    for count, step in enumerate([5, 300, 20, 20], start=1):  # training may restart, or save a step twice
        folder = checkpoint.save(tmp_path, {"x": np.array(count)}, {"count": count}, step=step, keep=3)
        assert checkpoint.load(tmp_path)[1] == {"count": count}
        assert checkpoint.describe(tmp_path)["step"] == step
        assert checkpoint.load(folder)[0]["x"] == count
    names = sorted(child.name for child in tmp_path.iterdir())
    assert names == [f"checkpoint-00000{n}-step-{step}" for n, step in [(2, 300), (3, 20), (4, 20)]] + ["notes.txt"]


def test_a_checkpoint_may_be_moved_and_renamed(copy: Path, tmp_path: Path):
    best = (copy / "checkpoint-000001-step-400").rename(tmp_path / "best")
    _equal(checkpoint.load(best, _tree())[0], _tree(400))


def _files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.rglob("*")) if file.is_file()]


def _cut(content: bytes, random: np.random.Generator) -> bytes:
    return content[: random.integers(len(content))]


def _flip(content: bytes, random: np.random.Generator) -> bytes:
    place = random.integers(len(content))
    return content[:place] + bytes([content[place] ^ random.integers(1, 256)]) + content[place + 1 :]


def _grow(content: bytes, random: np.random.Generator) -> bytes:
    return content + random.bytes(3)


@pytest.mark.parametrize("damage", [_cut, _flip, _grow])
def test_damage_to_any_file_raises_with_its_name(copy: Path, damage: Callable):
    random, folder = np.random.default_rng(0), copy / "checkpoint-000002-step-450"
    assert len(_files(folder)) > 5
    for file in _files(folder):
        content = file.read_bytes()
        for _ in range(20):
            file.write_bytes(damage(content, random))
            with pytest.raises(CheckpointError, match=r"is damaged: .*|is not a checkpoint|format") as refusal:
                checkpoint.load(copy, _tree())
            assert file.relative_to(folder).as_posix() in str(refusal.value) or file.name == "metadata.json"
        file.write_bytes(content)
    _equal(checkpoint.load(copy, _tree())[0], _tree(450))


def test_a_missing_file_raises_and_names_the_earlier_checkpoint(copy: Path):
    folder, earlier = copy / "checkpoint-000002-step-450", copy / "checkpoint-000001-step-400"
    for file in _files(folder):
        content = file.read_bytes()
        file.unlink()
        with pytest.raises(CheckpointError) as refusal:
            checkpoint.load(copy)
        assert f"{file.relative_to(folder).as_posix()} is missing; an earlier one is {earlier}" in str(refusal.value)
        file.write_bytes(content)
    _equal(checkpoint.load(earlier, _tree())[0], _tree(400))


def _rewrite(path: Path, **changes: Any) -> None:
    """Writes another header with a valid digest."""
    for folder in path.iterdir():
        header = json.loads((folder / "metadata.json").read_text())
        del header["sha256"]
        (folder / "metadata.json").write_text(checkpoint._seal({**header, **changes}))


@pytest.mark.parametrize(("version", "age"), [(0, "an older format, 0"), (2, "a newer format, 2"), (None, "format")])
def test_another_format_version_raises(copy: Path, version: Any, age: str):
    _rewrite(copy, format_version=version, versions={"craik": "9.9"})
    with pytest.raises(CheckpointError, match=rf"{age}.*reads format 1.*load it with craik 9\.9"):
        checkpoint.load(copy)


def test_a_path_without_a_checkpoint_raises(copy: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match="nothing exists there"):
        checkpoint.load(tmp_path / "absent")
    (tmp_path / "model.zip").write_bytes(b"PK\3\4")
    with pytest.raises(CheckpointError, match="it is a file"):
        checkpoint.load(tmp_path / "model.zip")
    with pytest.raises(CheckpointError, match="it is a file"):
        checkpoint.save(tmp_path / "model.zip", {}, {}, step=0)
    (tmp_path / "foreign").mkdir()
    with pytest.raises(CheckpointError, match="holds no folder"):
        checkpoint.load(tmp_path / "foreign")
    for text in ["{}", "[1]", "null", '{"format": "other"}']:
        (tmp_path / "foreign" / "metadata.json").write_text(text)
        with pytest.raises(CheckpointError, match="written by something else"):
            checkpoint.load(tmp_path / "foreign")
    for text in ["", "PK", "[" * 100_000, '{"format": "craik"']:
        (tmp_path / "foreign" / "metadata.json").write_text(text)
        with pytest.raises(CheckpointError, match="not JSON"):
            checkpoint.load(tmp_path / "foreign")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["params"].update(w=jnp.zeros((20, 31))), r"params\.w is float32\[20, 30\].*float32\[20, 31\] was"),
        (lambda t: t["params"].update(b=jnp.zeros(3)), r"params\.b is bfloat16\[3\] in it, and float32\[3\] was wanted"),
        (lambda t: t["params"].update(extra=jnp.zeros(3)), r"params\.extra is absent in it, and float32\[3\] was wanted"),
        (lambda t: t["counts"].pop("int"), r"counts\.int is Python int in it, and absent was wanted"),
        (lambda t: t["counts"].update(int=1.0), r"counts\.int is Python int in it, and Python float was wanted"),
        (lambda t: t["keys"].update(one=jnp.zeros(())), r"keys\.one is key<fry>\[\].*float32\[\] was"),
        (lambda t: t["numpy"].update(wide=np.zeros(5, np.float32)), r"numpy\.wide is float64\[5\].*float32\[5\] was"),
        (lambda t: t.update(optimizer=optax.sgd(0.1).init(t["params"])), r"optimizer\.1\.0\.count is int32\[\].*absent"),
    ],
)
def test_a_different_tree_raises(written: Path, change: Callable, message: str):
    like = _tree()
    change(like)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(written, like)


def test_unsupported_values_raise_before_anything_is_written(tmp_path: Path):
    path = tmp_path / "checkpoint"
    with pytest.raises(CheckpointError, match=r"not 'Adam', at settings\.name"):
        checkpoint.save(path, {"settings": {"name": "Adam"}}, {}, step=0)
    for metadata in [{"low": np.zeros(3)}, {"best": float("nan")}]:
        with pytest.raises(CheckpointError, match="representable in JSON"):
            checkpoint.save(path, {}, metadata, step=0)
    with pytest.raises(CheckpointError, match="keep=0"):
        checkpoint.save(path, {}, {}, step=0, keep=0)
    assert not path.exists()


@pytest.mark.parametrize(
    "stage",
    [(checkpoint, "write_arrays"), (checkpoint, "_seal"), (atomic, "flush"), (checkpoint, "fingerprint")],
    ids=lambda stage: stage[1],
)
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_failed_write_keeps_earlier_checkpoints(
    copy: Path, monkeypatch: pytest.MonkeyPatch, stage: tuple[Any, str], error: type[BaseException]
):
    before = _files(copy)

    def fail(*_: Any) -> None:
        raise error("in the middle")

    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(*stage, fail)
        checkpoint.save(copy, _tree(500), {}, step=500)
    assert _files(copy) == before
    _equal(checkpoint.load(copy, _tree())[0], _tree(450))


def test_a_full_disk_keeps_earlier_checkpoints(copy: Path, capfd: pytest.CaptureFixture):
    before, limits = _files(copy), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match="could not be written"):
            checkpoint.save(copy, {"x": np.random.default_rng(0).random((300, 300))}, {}, step=500)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert _files(copy) == before
    assert capfd.readouterr() == ("", "")


_WRITER = """
import os, pathlib, random, shutil, signal, sys, time
import numpy as np
import optax, orbax.checkpoint
from world_models.io import checkpoint

root = pathlib.Path(sys.argv[1])
for attempt in range(8):
    child = os.fork()
    if not child:
        number = int((root / "finished").read_text() or 0)
        while True:
            number += 1
            tree = {str(i): np.full((100, 50), number) for i in range(60)}
            checkpoint.save(root / "checkpoint", tree, {"number": number}, step=number)
            (root / "next").write_text(str(number))
            (root / "next").rename(root / "finished")
    waited = (root / "finished").read_text()
    while (root / "finished").read_text() == waited:
        time.sleep(0.01)
    time.sleep(random.Random(attempt).uniform(0.0, 0.15))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    shutil.copytree(root / "checkpoint", root / f"killed-{attempt}")
    shutil.copy(root / "finished", root / f"killed-{attempt}")
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path):
    (tmp_path / "finished").write_text("")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", _WRITER, tmp_path], check=True, timeout=120, env=environment)
    leftovers = 0
    for snapshot in tmp_path.glob("killed-*"):
        tree, metadata = checkpoint.load(snapshot)
        assert metadata["number"] - int((snapshot / "finished").read_text()) in (0, 1)
        assert len(tree) == 60
        assert all((leaf == metadata["number"]).all() for leaf in tree.values())
        leftovers += len(list(snapshot.glob(".checkpoint-*.tmp")))
        checkpoint.save(snapshot, {}, {}, step=0)
        assert not list(snapshot.glob(".*"))
    assert leftovers > 0  # otherwise no writer was killed while writing


def test_saving_and_loading_are_silent(tmp_path: Path, capfd: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture):
    threads = set(threading.enumerate())
    with caplog.at_level(logging.INFO):
        checkpoint.save(tmp_path, _tree(), {}, step=0)
        checkpoint.load(tmp_path, _tree())
        assert not [record for record in caplog.records if record.name == "absl"]
    assert capfd.readouterr() == ("", "")
    assert set(threading.enumerate()) <= threads


def _forged(folder: Path, **changes: Any) -> None:
    """Changes the header of a checkpoint, and seals it as a forger would."""
    file = next(folder.glob("checkpoint-*/metadata.json"))
    header = json.loads(file.read_text()) | changes
    header.pop("sha256")
    file.write_text(atomic.sealed(header))


def test_sizes_are_compared_with_the_header_before_memory_is_taken(tmp_path: Path):
    checkpoint.save(tmp_path, {"x": np.zeros(1000, np.float32)}, {}, step=0)
    leaf = checkpoint.describe(tmp_path)["leaves"][0]
    for vast in ([10**12], [10**6, 10**6], [10**30]):
        _forged(tmp_path, leaves=[leaf | {"spec": [vast, "float32"], "stored": [vast, "float32"]}])
        with pytest.raises(CheckpointError, match="arrays cannot be read"):
            checkpoint.load(tmp_path)
    small = [[10], "float32"]
    _forged(tmp_path, leaves=[leaf | {"spec": small, "stored": small}])
    with pytest.raises(CheckpointError, match=r"array 0 is float32\[1000\], and metadata.json has float32\[10\]"):
        checkpoint.load(tmp_path, {"x": np.zeros(10, np.float32)})


@pytest.mark.parametrize(
    "changes",
    [
        {"leaves": None},
        {"leaves": [{}]},
        {"leaves": [{"keys": ["x"], "kind": "jax", "spec": [[1], "O"], "stored": [[1], "O"]}]},
        {"files": {"../../outside": {"size": 1, "sha256": ""}}},
        {"files": {"arrays/d": 7}},
        {"versions": 3},
        {"step": "now"},
        {"format_version": {"a": 1}},
    ],
)
def test_headers_of_another_form_are_refused(tmp_path: Path, changes: dict[str, Any]):
    checkpoint.save(tmp_path, {"x": np.zeros(3)}, {}, step=0)
    _forged(tmp_path, **changes)
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path, {"x": np.zeros(3)})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of TensorStore, after it has raised
def test_damage_with_right_checksums_is_refused_or_harmless():
    drawn, data = random.Random(0), fuzzing_checkpoints.small()
    outcomes = [fuzzing_checkpoints.CHECKPOINTS.attempt(fuzzing_checkpoints.damaged(drawn, data)[1]) for _ in range(60)]
    assert set(outcomes) == {"refused", "loaded"} and outcomes.count("refused") > 20


def test_links_among_checkpoints_are_left_alone(tmp_path: Path):
    first = checkpoint.save(tmp_path / "run", {"x": np.array(1)}, {}, step=1)
    (tmp_path / "run" / "checkpoint-000007-step-1").symlink_to(first)
    (tmp_path / "run" / "checkpoint-000008-step-2").symlink_to(tmp_path / "nowhere")
    (tmp_path / "run" / ".checkpoint-000001-step-9.tmp").symlink_to(tmp_path / "nowhere")
    for step in (2, 3):
        saved = checkpoint.save(tmp_path / "run", {"x": np.array(step)}, {}, step=step, keep=1)
        assert checkpoint.load(tmp_path / "run")[0]["x"] == step
    assert saved.name == "checkpoint-000010-step-3" and (tmp_path / "run" / "checkpoint-000007-step-1").is_symlink()


def test_writers_into_the_same_folder_wait_for_each_other(tmp_path: Path):
    failed: list[Exception] = []

    def write(name: int):
        try:
            for step in range(6):
                checkpoint.save(tmp_path, {"x": np.full(1000, name)}, {}, step=step)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed and checkpoint.describe(tmp_path)["step"] == 5
    assert max(int(child.name.split("-")[1]) for child in tmp_path.glob("checkpoint-*")) == 24
