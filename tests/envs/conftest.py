"""These tests spend their time compiling many small programs once; half of it goes when XLA optimises less."""

import pytest


@pytest.fixture(autouse=True)
def quick(compiled_quickly):
    """All of them."""
