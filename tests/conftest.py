"""Tests spend most of their time compiling: here they share what they compiled, and ask XLA to optimise less of it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

import mpc  # noqa: F401  (before any test module has JAX run something, whichever is collected first)

SHARED = "JAX_COMPILATION_CACHE_DIR"
LEAST = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"  # what compiles faster than this is not worth a file
PLAIN = "JAX_DISABLE_MOST_OPTIMIZATIONS"  # programs that are small take longer to optimise than to run
QUICK = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"  # a third less time to compile
MAPPED = 30_000  # mappings after which a module's compiled programs are let go
_owned: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    """Set what this process and those it starts compile with; the folder is made by the one that starts the workers."""
    if SHARED not in os.environ:
        _owned.append(tempfile.mkdtemp(prefix="craik-tests-"))
        os.environ |= {SHARED: _owned[0], LEAST: "0.2"}
    jax.config.update(SHARED.lower(), os.environ[SHARED])
    jax.config.update(LEAST.lower(), float(os.environ.get(LEAST, "0.2")))
    os.environ[PLAIN] = "1"
    if QUICK not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}".strip()
    jax.config.update(PLAIN.lower(), True)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Throw the folder away."""
    for folder in _owned:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def room_for_programs() -> Iterator[None]:
    """Every compiled program takes mappings of memory, of which a process may have 65,530; beyond that, XLA crashes."""
    yield
    mapped = Path("/proc/self/maps")
    if mapped.exists() and mapped.read_bytes().count(b"\n") > MAPPED:
        jax.clear_caches()


@pytest.fixture
def optimised(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compile as users do, for what runs long enough to be worth it."""
    monkeypatch.setenv(PLAIN, "0")
    jax.config.update(PLAIN.lower(), False)
    yield
    jax.config.update(PLAIN.lower(), True)
