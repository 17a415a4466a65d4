"""A policy as one ahead-of-time compiled artefact: one file that a robot loads without the code that made it.

    planner.craik                a ZIP archive without compression
        manifest.json            signals with names, units and bounds; sizes; versions; SHA-256 of everything
        cpu/begin, cpu/decide    the two entry points, StableHLO as `jax.export` serialises it; and so for every platform
        weights.npz              the parameters, which are arguments of both

    begin (weights, observation, key)                                    -> memory
    decide(weights, observation, memory, recent, flying, elapsed)        -> memory, actions, cost, status

Memory is a flat list of arrays, the control loop's warm start. `mpc.runtime` loads and calls what is written here.
"""

import io
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mpc.deploy.portability import portable
from mpc.deploy.runtime import ENTRIES, FORMAT, FORMAT_VERSION, ArtefactError, fingerprint, sealed, write
from mpc.deploy.specs import Signal
from mpc.planners.base import Status
from mpc.policy import Policy, predict_through_delay, skip

PyTree = Any

PACKAGES = ("craik", "jax", "jaxlib", "numpy", "optax")


def export(
    policy: Policy,
    params: PyTree,
    observation: Any,
    path: str | os.PathLike | None = None,
    *,
    observed: Mapping[str, Any] | None = None,
    acted: Mapping[str, Any] | None = None,
    period: float | None = None,
    delay: int = 0,
    batch: int | str | None = None,
    platforms: Sequence[str] = ("cpu", "cuda"),
    about: Mapping[str, Any] | None = None,
) -> bytes:
    """Write a policy as an artefact, atomically: the file is whole or as it was before.

    Args:
        policy: Of `mpc.policy(planner, ...)`, or an agent's `agent.policy`.
        params: Parameters of its planner's problem, stored as they are now.
        observation: An example of what will be observed, one array of floating-point numbers.
        path: The file, `.craik` by custom; None writes none.
        observed: What the observation is made of: `names`, `units`, `low`, `high`, as `mpc.deploy.specs.Signal` takes them.
        acted: `names` and `units` of the action; its bounds are those of the action space.
        period: Seconds of one step of the model, or None where it does not say.
        delay: Steps between an observation and the action planned from it that may be made up for.
        batch: Observations side by side: None for one at a time, a number, or a name, "b", for any number.
        platforms: Of "cpu", "cuda", "rocm" and "tpu".
        about: Whatever else the manifest should say; what JSON can hold.

    Returns:
        The artefact as bytes, for `mpc.runtime.loads`.

    Raises:
        ArtefactError: If the policy cannot be exported, because something in it calls back to Python, is not a function of
            its arguments, or needs a library that is not promised to be there; or the observation is not one array.
        OSError: If the file cannot be written.
    """
    if delay < 0 or (period is not None and not period > 0):
        raise ArtefactError(f"delay must be at least 0 and period positive or None; got delay={delay}, period={period}")
    seen = _one_array(observation)
    inputs = _signal("observed", seen.shape, seen.dtype, observed)
    example = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, params))
    entries = _entry_points(policy, jax.tree.structure(example), batch is not None)
    leaves, outputs = jax.tree.leaves(example), _action_signal(policy, acted)
    leading = () if batch is None else (batch,) if isinstance(batch, int) else _symbol(batch)
    key = jax.ShapeDtypeStruct((*leading, 2), np.uint32)
    seen = jax.ShapeDtypeStruct((*leading, *seen.shape), seen.dtype)
    recent = jax.ShapeDtypeStruct((*leading, delay + 1, *outputs.shape), outputs.dtype)
    memory = jax.eval_shape(entries["begin"], leaves, seen, key)
    count = jax.ShapeDtypeStruct((), np.int32)
    arguments = {"begin": (leaves, seen, key), "decide": (leaves, seen, memory, recent, count, count)}
    after = jax.eval_shape(entries["decide"], *arguments["decide"])[0]
    if [(m.shape, m.dtype) for m in memory] != [(m.shape, m.dtype) for m in after]:
        raise ArtefactError("the policy's memory must keep its shapes from one decision to the next")
    members = {"weights.npz": _stored(params)}
    for name in ENTRIES:
        found = portable(name, entries[name], arguments[name], platforms)
        members |= {f"{platform}/{name}": program for platform, program in found.items()}
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "versions": {package: _version(package) for package in PACKAGES},
        "platforms": list(platforms),
        "batch": batch,
        "observation": inputs.described(),
        "action": outputs.described(),
        "horizon": policy.planner.problem.horizon,
        "period": period,
        "delay": delay,
        "parameters": _listed(params),
        "memory": [{"shape": [n if isinstance(n, int) else str(n) for n in m.shape], "dtype": str(m.dtype)} for m in memory],
        "statuses": [status.name for status in Status],
        "about": dict(about or {}),
        "files": {name: fingerprint(content) for name, content in members.items()},
    }
    data = _packed(manifest, members)
    if path is not None:
        write(Path(path), data)
    return data


def _entry_points(policy: Policy, structure: Any, batched: bool) -> dict[str, Callable[..., Any]]:
    """`begin` and `decide` over flat lists of plain arrays."""
    space, kept = policy.planner.problem.action_space, {}

    def plain(leaves: list[Any]) -> list[Any]:
        pairs = zip(leaves, kept["keys"], strict=True)
        return [jax.random.key_data(leaf) if is_key else jnp.asarray(leaf) for leaf, is_key in pairs]

    def begin(weights: list[Any], observation: Any, key: Any) -> list[Any]:
        params = space.remember(jax.tree.unflatten(structure, weights), None)
        loop = policy.begin(params, policy.observe(params, observation), jax.random.wrap_key_data(key))
        flat, kept["loop"] = jax.tree.flatten(loop)
        kept["keys"] = [jnp.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key) for leaf in flat]
        return plain(flat)

    def decide(weights: list[Any], observation: Any, memory: list[Any], recent: Any, flying: Any, elapsed: Any):
        params = space.remember(jax.tree.unflatten(structure, weights), recent[-1])
        pairs = zip(memory, kept["keys"], strict=True)
        loop = jax.tree.unflatten(kept["loop"], [jax.random.wrap_key_data(x) if is_key else x for x, is_key in pairs])
        state = predict_through_delay(policy, params, policy.observe(params, observation), recent, flying)
        loop, plan, _ = policy.decide(params, state, skip(policy.planner, loop, elapsed - 1))
        return plain(jax.tree.leaves(loop)), plan.actions, plan.cost, plan.status

    if not batched:
        return {"begin": begin, "decide": decide}
    return {
        "begin": jax.vmap(begin, in_axes=(None, 0, 0)),
        "decide": jax.vmap(decide, in_axes=(None, 0, 0, 0, None, None)),
    }


def _one_array(observation: Any) -> jax.ShapeDtypeStruct:
    try:
        array = np.asarray(observation, jnp.result_type(float))
    except (TypeError, ValueError) as error:
        raise ArtefactError(
            f"an observation must be one array of numbers; got {type(observation).__name__}: give policy(..., "
            "observe=function) that makes a state of one array"
        ) from error
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


def _signal(what: str, shape: tuple[int, ...], dtype: Any, described: Mapping[str, Any] | None) -> Signal:
    try:
        return Signal(shape, dtype, **(described or {}))
    except (TypeError, ValueError) as error:
        raise ArtefactError(f"{what} takes names, units, low and high: {error}") from error


def _action_signal(policy: Policy, described: Mapping[str, Any] | None) -> Signal:
    space: Any = policy.planner.problem.action_space
    decided = jax.eval_shape(space.decide, jax.ShapeDtypeStruct((policy.planner.problem.horizon, space.size), np.float32))
    inner = space
    while hasattr(inner, "inner"):
        inner = inner.inner
    if hasattr(inner, "choices"):
        low = np.asarray(inner.start)
        high = low + np.asarray(inner.choices) - 1
    else:
        low, high = inner.low, inner.high
    shape = decided.shape[1:]
    bounds = {"low": np.reshape(low, shape), "high": np.reshape(high, shape)}
    return _signal("acted", shape, decided.dtype, {**(described or {}), **bounds})


def _symbol(name: str) -> tuple[Any, ...]:
    from jax import export as jax_export

    try:
        return tuple(jax_export.symbolic_shape(name))
    except Exception as error:  # of the parser of JAX's symbolic dimensions, which says what it expected
        raise ArtefactError(f"batch must be a number, a name such as 'b', or None; got {name!r} ({error})") from error


def _stored(params: PyTree) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for index, leaf in enumerate(jax.tree.leaves(params)):
            one = io.BytesIO()
            np.lib.format.write_array(one, np.asarray(jnp.asarray(leaf)), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{index}.npy"), one.getvalue())
    return buffer.getvalue()


def _listed(params: PyTree) -> list[dict[str, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    arrays = [(jax.tree_util.keystr(keys, simple=True, separator="."), jnp.asarray(leaf)) for keys, leaf in leaves]
    return [{"name": name, "shape": list(array.shape), "dtype": str(array.dtype)} for name, array in arrays]


def _packed(manifest: dict[str, Any], members: Mapping[str, bytes]) -> bytes:
    """The archive; its dates say nothing, so that the same policy gives the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {"manifest.json": sealed(manifest), **members}.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def _version(package: str) -> str:
    from importlib import metadata  # slow to import, and only wanted here

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
