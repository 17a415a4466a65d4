"""Shared by the tests of world models."""

import jax
import pytest


@pytest.fixture(scope="module")
def compiled_quickly():
    """Compile without optimising: these programs are small, and take longer to optimise than to run."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
