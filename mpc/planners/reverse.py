"""Identities that say no when they are differentiated in reverse, before what stands behind them fails obscurely."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

PyTree = Any

guard = Primitive("reverse_guard")
guard.def_impl(lambda x, try_reverse: x)
guard.def_abstract_eval(lambda x, try_reverse: x)
batching.defvectorized(guard)
mlir.register_lowering(guard, lambda context, x, try_reverse: [x])


def _transposed(cotangent: Any, x: Any, try_reverse: Callable[[], None]) -> list[Any]:
    try_reverse()
    return [cotangent]


ad.deflinear2(guard, _transposed)


def refuse() -> None:
    """Raise, as a planner does whose iterations say nothing about how the optimum moves."""
    raise ValueError("this planner's iterations have no derivatives in reverse: differentiate mpc.implicit")


def unless_refused(tree: PyTree, try_reverse: Callable[[], None]) -> PyTree:
    """The tree itself; a derivative of it in reverse first calls `try_reverse`, which raises where there is none."""
    return jax.tree.map(lambda x: guard.bind(x, try_reverse=try_reverse), tree)
