"""These tests spend their time compiling many small programs once; half of it goes when XLA optimises less."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="package")
def compiled_quickly():
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
