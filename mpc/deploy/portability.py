"""Serialisation of functions for a robot: they may depend on their arguments alone, and need no Python and no library."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax

from mpc.deploy.archive import ArtefactError
from mpc.deploy.programs import foreign_calls, note_parsed


def portable(
    name: str, function: Callable[..., Any], arguments: tuple[Any, ...], platforms: Sequence[str]
) -> dict[str, bytes]:
    """Serialises a function for every platform, after a check that it depends on its arguments alone.

    Args:
        name: Of the function, for error messages.
        function: Pure, of arrays.
        arguments: Their shapes and dtypes.
        platforms: As JAX names them.

    Raises:
        ArtefactError: If it calls back to Python, differs when it is traced again, or calls a library.
    """
    _refuse_callbacks(name, jax.make_jaxpr(function)(*arguments).jaxpr)
    return {platform: _serialised(name, function, arguments, platform) for platform in platforms}


def _serialised(name: str, function: Callable[..., Any], arguments: tuple[Any, ...], platform: str) -> bytes:
    from jax import export as jax_export

    try:
        with _without_locations():
            twice = [jax_export.export(jax.jit(lambda *a: function(*a)), platforms=[platform])(*arguments) for _ in range(2)]
    except (NotImplementedError, ValueError, TypeError) as error:
        raise ArtefactError(f"{name} cannot be exported for {platform}: {error}") from error
    if twice[0].mlir_module() != twice[1].mlir_module():
        raise ArtefactError(
            f"{name} differed when it was traced again: something in the model, the cost or the planner is not a function "
            "of its arguments, but depends on a clock, on random numbers or on a variable that is changed elsewhere"
        )
    _refuse_libraries(name, twice[0].mlir_module())
    program = bytes(twice[0].serialize())
    note_parsed(program)
    return program


@contextmanager
def _without_locations() -> Iterator[None]:
    """Lowers without the source files of operations: robots do not need them, and the bytes stay the same."""
    option = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, option)
    jax.config.update(option, 0)
    try:
        yield
    finally:
        jax.config.update(option, before)


def _refuse_callbacks(name: str, jaxpr: Any) -> None:
    """Walks a jaxpr and everything in it.

    Raises:
        ArtefactError: If it calls back to Python.
    """
    for equation in jaxpr.eqns:
        if "callback" in equation.primitive.name or equation.effects:
            raise ArtefactError(
                f"{name} calls back to Python ({equation.primitive.name}), which is not there on a robot: take "
                "jax.debug.print, pure_callback and their like out of the model, the cost and the planner"
            )
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(inner):
                _refuse_callbacks(name, getattr(inner, "jaxpr", inner))


def _is_jaxpr(value: Any) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


def _refuse_libraries(name: str, module: str) -> None:
    """Looks for calls of anything but JAX's own.

    Raises:
        ArtefactError: If there are some, with their names.
    """
    targets = foreign_calls(module)
    if "stablehlo.dynamic_rng_bit_generator" in targets:
        raise ArtefactError(
            f"{name} draws for any number of observations, which keys of jax_default_prng_impl='rbg' cannot: export with "
            "jax_default_prng_impl='threefry2x32', or with a number as batch"
        )
    if targets:
        raise ArtefactError(
            f"{name} calls {', '.join(sorted(targets))}, of a library that need not be there on a robot: names with "
            "lapack_ or cusolver_ come from jnp.linalg in the model, the cost or the planner"
        )
