"""Artefacts that a forger could have written: each is refused with one class of error, before it can do harm."""

import hashlib
import io
import random
import zipfile
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export

from benchmarks import fuzzing_artefacts as fuzzing
from mpc.deploy import archive, programs, runtime
from mpc.deploy.runtime import ArtefactError


@pytest.fixture(scope="module")
def data():
    return fuzzing.small()


def with_program(data, change):
    """The artefact with another `step`, its hashes right."""
    manifest, members = runtime.unpack(data)
    program = jax_export.deserialize(bytearray(members["cpu/step"]))
    return fuzzing.sealed_with(manifest, members | {"cpu/step": bytes(change(program).serialize())})


def loads(data):
    """Loads an artefact without another process, as its hash is known."""
    return runtime.loads(data, sha256=hashlib.sha256(data).hexdigest())


def calling(target):
    """Returns a function that replaces a program by one that calls a library besides."""

    def change(program):
        def step(weights, seen, state, sent, count, elapsed):
            found = program.call(weights, seen, state, sent, count, elapsed)
            called = jax.ffi.ffi_call(target, jax.ShapeDtypeStruct((), jnp.float32))()
            return (*found[:2], found[2] + called, found[3])

        arguments, _ = jax.tree.unflatten(program.in_tree, program.in_avals)
        allowed = [jax_export.DisabledSafetyCheck.custom_call(target)]
        return jax_export.export(jax.jit(step), platforms=["cpu"], disabled_checks=allowed)(*arguments)

    return change


@pytest.mark.parametrize("target", ["xla_ffi_python_cpu_callback", "any other name", "Sharding!"])
def test_a_program_that_calls_something_foreign_is_refused_at_load(data, target):
    with pytest.raises(ArtefactError, match=r"step calls (xla_ffi_python_cpu_callback|something without a plain name)"):
        loads(with_program(data, calling(target)))


def test_a_program_for_other_devices_names_both_versions(data):
    wrong = with_program(data, lambda program: replace(program, nr_devices=4))
    with pytest.raises(ArtefactError, match=rf"written by JAX {jax.__version__}, cannot be read by JAX .* for 4 devices"):
        loads(wrong)


def test_a_program_that_takes_something_else_than_the_manifest_says_is_refused(data):
    manifest, members = runtime.unpack(data)
    with pytest.raises(ArtefactError, match=r"step takes float32\[2, 1\], and the manifest says float32\[3, 1\]"):
        runtime.loads(fuzzing.sealed_with(manifest | {"delay": 2}, members))
    with pytest.raises(ArtefactError, match="horizon must be a number of steps"):
        runtime.loads(fuzzing.sealed_with(manifest | {"horizon": "2"}, members))


def test_what_takes_more_memory_than_its_file_is_refused(data):
    manifest, members = runtime.unpack(data)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in {"manifest.json": archive.sealed(manifest), **members}.items():
            packed.writestr(name, content)
    with pytest.raises(ArtefactError, match="or are compressed"):
        runtime.loads(buffer.getvalue())
    weights = io.BytesIO()
    with zipfile.ZipFile(weights, "w") as packed:
        claimed = io.BytesIO()
        np.lib.format.write_array_header_1_0(claimed, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
        packed.writestr("0.npy", claimed.getvalue())
    vast = [{"name": "gain", "shape": [10**9], "dtype": "float32"}]
    for changes in ({}, {"parameters": vast}):
        forged = fuzzing.sealed_with(manifest | changes, members | {"weights.npz": weights.getvalue()})
        with pytest.raises(ArtefactError, match="0 must be float32"):
            runtime.loads(forged)


def test_damage_with_right_hashes_is_refused_or_harmless(data):
    drawn, outcomes = random.Random(0), []
    while len(outcomes) < 60:
        kind, bad = fuzzing.damaged(drawn, data)
        if kind != "program":
            outcomes.append(fuzzing.ARTEFACTS.attempt(bad))
    assert set(outcomes) == {"refused", "loaded"} and outcomes.count("refused") > 30


def test_programs_that_crash_the_parser_do_it_elsewhere(data, monkeypatch):
    program = runtime.unpack(data)[1]["cpu/step"]
    monkeypatch.setattr(programs, "PARSE", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    programs.parse_apart([program])  # written by this process
    with pytest.raises(ArtefactError, match=r"crash the parser \(SIGSEGV\)"):
        programs.parse_apart([program + b"\0"])


def test_a_foreign_program_is_parsed_once_apart(data):
    program = runtime.unpack(data)[1]["cpu/step"]
    damaged = program[: len(program) // 2]
    programs.parse_apart([damaged])  # no crash, and an error for this process to tell
    with pytest.raises(ArtefactError, match="cannot be read by JAX"):
        programs.read_program("step", damaged, runtime.unpack(data)[0])
