"""Tests compile the same programs again and again, in several processes; here they share what they compiled."""

import os
import shutil
import tempfile

import jax
import pytest

import mpc  # noqa: F401  (before any test module has JAX run something, whichever is collected first)

SHARED = "JAX_COMPILATION_CACHE_DIR"
LEAST = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"  # what compiles faster than this is not worth a file
_owned: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    """Share one folder of compiled programs for this run, made by the process that starts the workers."""
    if SHARED not in os.environ:
        _owned.append(tempfile.mkdtemp(prefix="craik-tests-"))
        os.environ |= {SHARED: _owned[0], LEAST: "0.2"}
    jax.config.update(SHARED.lower(), os.environ[SHARED])
    jax.config.update(LEAST.lower(), float(os.environ.get(LEAST, "0.2")))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Throw the folder away."""
    for folder in _owned:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def compiled_quickly():
    """Compile without optimising, for programs that are small, and take longer to optimise than to run."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
