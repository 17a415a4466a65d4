"""Functions that compute in double precision inside programs that do not.

`jax.enable_x64` lets a function be traced in double precision, but JAX's transformations look at the process's option again
when they come to batch, differentiate and lower what was traced, and would then cut numbers to 32 bits. Here what was traced
is one operation for those who transform it, and what becomes of it is always worked out under that option.
"""

import weakref
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from mpc.planners.reverse import refuse

PyTree = Any

double_call = Primitive("double_call")
double_call.multiple_results = True


def in_double(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """A function traced under `jax.enable_x64`: whatever it makes of its arguments may have 64 bits.

    It can be transformed by `jit`, `vmap` and `jvp`, but not differentiated in reverse. Called with numbers it is compiled:
    keep what this returns.

    Args:
        function: Of pytrees of arrays, to a pytree of arrays; types of arguments stay as they are.
    """

    @jax.jit
    def compiled(*args: PyTree) -> PyTree:
        return called(*args)

    @wraps(function)
    def called(*args: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten(args)
        if not any(isinstance(leaf, Tracer) for leaf in leaves):
            return compiled(*args)
        leaves = [jnp.asarray(leaf) for leaf in leaves]
        with jax.enable_x64(True):
            traced, shapes = jax.make_jaxpr(
                lambda *leaves: jax.tree.map(jnp.asarray, function(*jax.tree.unflatten(structure, leaves))),
                return_shape=True,
            )(*leaves)
        return jax.tree.unflatten(jax.tree.structure(shapes), _bind(traced, leaves))

    return called


def _bind(traced: ClosedJaxpr, args: Sequence[Any]) -> list[Any]:
    """Call a traced function; what it closes over may be traced by others, and becomes an argument like the rest."""
    with jax.enable_x64(True):  # NumPy's numbers would else lose digits on the way
        constants = [jnp.asarray(x) for x in traced.consts]
    return double_call.bind(*constants, *args, jaxpr=traced.jaxpr, constants=len(constants))


def _function(jaxpr: Any, constants: int) -> Callable[..., list[Any]]:
    return lambda *args: jaxpr_as_fun(ClosedJaxpr(jaxpr, args[:constants]))(*args[constants:])


def _traced(function: Callable[..., Any], args: Sequence[Any]) -> ClosedJaxpr:
    """A function of arrays traced in double precision, for arguments of these types."""
    with jax.enable_x64(True):
        return jax.make_jaxpr(function)(*args)


@double_call.def_impl
def _called(*args: Any, jaxpr: Any, constants: int) -> Any:
    with jax.enable_x64(True):
        return jax.jit(_function(jaxpr, constants))(*args)


@double_call.def_abstract_eval
def _types(*_: Any, jaxpr: Any, constants: int) -> list[Any]:
    return [variable.aval for variable in jaxpr.outvars]


def _lowered(context: Any, *args: Any, jaxpr: Any, constants: int) -> Any:
    with jax.enable_x64(True):
        return mlir.lower_fun(_function(jaxpr, constants), multiple_results=True)(context, *args)


mlir.register_lowering(double_call, _lowered)


def _batched(args: Sequence[Any], axes: Sequence[Any], *, jaxpr: Any, constants: int) -> tuple[list[Any], list[int]]:
    found = _bind(_traced(jax.vmap(_function(jaxpr, constants), in_axes=list(axes)), args), args)
    return found, [0] * len(found)


batching.primitive_batchers[double_call] = _batched


def _differentiated(primals: Sequence[Any], tangents: Sequence[Any], *, jaxpr: Any, constants: int) -> tuple[Any, Any]:
    """Values and tangents are two calls, so that the values are known where only the tangents are transformed further."""
    function, count = _function(jaxpr, constants), len(primals)
    moving = [i for i, tangent in enumerate(tangents) if not isinstance(tangent, ad.Zero)]

    def push(*args: Any) -> list[Any]:
        given = dict(zip(moving, args[count:], strict=True))
        every = [given.get(i, _still(primal)) for i, primal in enumerate(args[:count])]
        pushed = jax.jvp(function, args[:count], tuple(every))[1]
        return [tangent for tangent in pushed if tangent.dtype != jax.dtypes.float0]

    values = double_call.bind(*primals, jaxpr=jaxpr, constants=constants)
    args = [*primals, *(tangents[i] for i in moving)]
    pushed = iter(_bind(_traced(push, args), args))
    found = [next(pushed) if _is_inexact(x) else ad.Zero(jax.typeof(x).to_tangent_aval()) for x in values]
    return values, found


ad.primitive_jvps[double_call] = _differentiated


def _transposed(*_: Any, **__: Any) -> None:
    refuse()


ad.primitive_transposes[double_call] = _transposed


def _keep_constants_apart() -> None:
    """Let JAX canonicalise a NumPy constant anew for every precision that it is traced in.

    JAX 0.10 keeps one canonical copy of a NumPy array that functions close over, whichever precision it was made for: a
    function traced in 32 bits and then in 64, or the other way round, meets a constant of the wrong type.
    """
    from jax._src import dtypes, literals  # there is no public way

    copies: weakref.WeakValueDictionary[tuple[int, Any], Any] = weakref.WeakValueDictionary()

    def canonical(array: np.ndarray) -> Any:
        key = id(array), jax.dtypes.canonicalize_dtype(array.dtype)
        copy = copies.get(key)
        if copy is None:
            copy = copies[key] = literals.TypedNdArray(np.asarray(array, key[1]))
            weakref.finalize(array, copies.pop, key, None)  # another array may have its number afterwards
        return copy

    register = getattr(dtypes, "register_canonicalize_value_handler", None)
    if register is not None:  # of JAX 0.10; others may do without
        register(np.ndarray, canonical)


_keep_constants_apart()


def _is_inexact(x: Any) -> bool:
    return jnp.issubdtype(jax.typeof(x).dtype, jnp.inexact)


def _still(x: Any) -> Any:
    return jnp.zeros_like(x) if _is_inexact(x) else np.zeros(jnp.shape(x), jax.dtypes.float0)
