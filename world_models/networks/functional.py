"""Conversion of networks to pure functions of their weights."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from flax import nnx
from jaxtyping import Array

PyTree = Any
M = TypeVar("M", bound=nnx.Module)


def functional(build: Callable[[nnx.Rngs], M]) -> tuple[Callable[[Array], PyTree], Callable[[PyTree], M]]:
    """Returns `init(key) -> weights` and `network(weights) -> module`; the weights are a plain pytree."""
    graph = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))[0]

    def init(key: Array) -> PyTree:
        return nnx.to_pure_dict(nnx.split(build(nnx.Rngs(params=key)))[1])

    return init, partial(nnx.merge, graph)
