"""Export of a policy as one ahead-of-time compiled artefact: one file that a robot loads without the code that made it.

    planner.craik                       a ZIP archive without compression
        manifest.json                   signals with names, units and bounds; sizes; versions; SHA-256 of everything
        cpu/init, cpu/step, cpu/react   the entry points, StableHLO as `jax.export` serialises it; and so for every platform;
                                        `react` is there where the policy has an actor
        weights.npz                     the parameters, which are arguments of every entry point

    init (weights, observation, key)                               -> state
    step (weights, observation, state, actions, count, elapsed)    -> state, plan, cost, status
    react(weights, observation, state, actions, count, elapsed)    -> state, plan, cost, status

`key` is the words of a PRNG key. The state is a flat list of arrays, the warm start of the next decision. `actions` and
`count` are those of `mpc.InFlight`. `elapsed` is the number of steps since the last decision. `mpc.runtime` loads and calls
what is written here, in the precision and with the kind of key of the process that wrote it.
"""

import io
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mpc.deploy.archive import FORMAT, FORMAT_VERSION, ArtefactError, fingerprint, require_folder, sealed, write
from mpc.deploy.host import on_host
from mpc.deploy.portability import portable
from mpc.deploy.specs import InFlight, Signal
from mpc.planners.base import Status
from mpc.policy import Policy
from mpc.problem import with_usual_promotion

PyTree = Any

PACKAGES = ("craik", "jax", "jaxlib", "numpy", "optax")


@on_host
def export(
    policy: Policy,
    params: PyTree,
    observation: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    observed: Mapping[str, Any] | None = None,
    acted: Mapping[str, Any] | None = None,
    period: float | None = None,
    delay: int = 0,
    batch: int | str | None = None,
    platforms: Sequence[str] = ("cpu", "cuda"),
    about: Mapping[str, Any] | None = None,
) -> bytes:
    """Writes a policy as an artefact, atomically: the file is whole or as it was before.

    Args:
        policy: Any, of `mpc.policy(planner, ...)` for example, or an agent's `agent.policy`.
        params: Its parameters, stored as they are now.
        observation: An example of what will be observed, one array of numbers.
        path: The file, `.craik` by custom; None writes none.
        observed: `names`, `units`, `low`, `high` of the observation, as `mpc.deploy.specs.Signal` takes them.
        acted: `names` and `units` of the action; its bounds are those of the action space.
        period: Seconds of one step of the model, or None where it does not say.
        delay: Steps between an observation and the action planned from it that can be compensated, at most.
        batch: Observations side by side: None for one at a time, a number, or a name, "b", for any number.
        platforms: Of "cpu", "cuda", "rocm" and "tpu".
        about: Anything else the manifest should say that JSON can hold.

    Returns:
        The artefact as bytes, for `mpc.runtime.loads`.

    Raises:
        ArtefactError: If the policy calls back to Python, is not a function of its arguments, or needs a library that a
            robot need not have; or the observation is not one array.
        ValueError: If the delay cannot be compensated (see `mpc.policy`).
        OSError: If the file cannot be written.
    """
    if delay < 0 or (period is not None and not period > 0):
        raise ArtefactError(f"delay must be at least 0 and period positive or None; got delay={delay}, period={period}")
    target = None if path is None else Path(path).expanduser()
    if target is not None:
        require_folder(target)
    inputs, outputs = _observation_signal(observation, observed), _action_signal(policy, acted)
    entries, state, outputs = _entries(policy, params, inputs, outputs, delay, batch)
    members = {"weights.npz": _stored(params)}
    for name, (function, arguments) in entries.items():
        found = portable(name, function, arguments, platforms)
        members |= {f"{platform}/{name}": program for platform, program in found.items()}
    said = {"horizon": policy.horizon, "period": period, "delay": delay, "batch": batch, "about": dict(about or {})}
    said |= {"observation": inputs.described(), "action": outputs.described(), "state": state}
    said |= {"entries": list(entries), "platforms": list(platforms), "parameters": _listed(params)}
    said |= {"key": _key_described(), "x64": bool(jax.config.read("jax_enable_x64"))}
    data = _packed(said, members)
    if target is not None:
        write(target, data)
    return data


class _Flat(NamedTuple):
    """Conversion between a tree and the flat list of plain arrays that stands for it in an artefact.

    `structure`: of the tree. `leaves`: shapes and dtypes of the list. `keys`: implementations of the leaves that are PRNG
    keys, which the list holds as their words; None of the others.
    """

    structure: Any
    leaves: list[jax.ShapeDtypeStruct]
    keys: list[str | None]

    @classmethod
    def of(cls, tree: PyTree) -> "_Flat":
        """Returns the conversion for trees like one of shapes and dtypes."""
        leaves, structure = jax.tree.flatten(tree)
        keys: list[str | None] = []

        def flatten(*leaves: Any) -> list[jax.Array]:
            keys.extend(str(jax.random.key_impl(x)) if _is_key(x) else None for x in leaves)
            return [_words(x) for x in leaves]

        return cls(structure, jax.eval_shape(flatten, *leaves), keys)

    def flatten(self, tree: PyTree) -> list[jax.Array]:
        """Returns the list for a tree."""
        leaves, structure = jax.tree.flatten(tree)
        if structure != self.structure:
            raise ArtefactError(f"the policy's state must keep its structure, {self.structure}; got {structure}")
        return [_words(leaf) for leaf in leaves]

    def unflatten(self, leaves: Sequence[Any]) -> PyTree:
        """Returns the tree for a list."""
        pairs = zip(leaves, self.keys, strict=True)
        wrapped = [x if kind is None else jax.random.wrap_key_data(x, impl=kind) for x, kind in pairs]
        return jax.tree.unflatten(self.structure, wrapped)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)


def _words(leaf: Any) -> jax.Array:
    return jax.random.key_data(leaf) if _is_key(leaf) else jnp.asarray(leaf)


Entry = tuple[Callable[..., Any], tuple[Any, ...]]


def _entries(
    policy: Policy, params: PyTree, seen: Signal, acted: Signal, delay: int, batch: int | str | None
) -> tuple[dict[str, Entry], list[dict[str, Any]], Signal]:
    """Returns every entry point with the shapes of its arguments, the state as the manifest lists it, and what is acted."""
    weights, structure = jax.tree.flatten(jax.eval_shape(lambda: jax.tree.map(jnp.asarray, params)))
    given = (seen.shape, seen.dtype), ((_key_described()["words"],), np.uint32), ((), np.int32)
    one, words, number = (jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in given)
    sent = jax.ShapeDtypeStruct((delay + 1, *acted.shape), acted.dtype)
    begun = jax.eval_shape(partial(_begun, policy, structure), weights, one, words)
    state = _Flat.of(begun)
    verbs = {"step": policy.step} | ({} if policy.react is None else {"react": policy.react})
    functions = {name: partial(_decided, policy, verb, structure, state) for name, verb in verbs.items()}
    for name, function in functions.items():
        after, plan, *_ = jax.eval_shape(function, weights, one, state.leaves, sent, number, number)
        if [(x.shape, x.dtype) for x in state.leaves] != [(x.shape, x.dtype) for x in after]:
            raise ArtefactError(f"the policy's state must keep its shapes and dtypes; {name} changes them")
        acted = replace(acted, dtype=plan.dtype)  # which may differ from what the space decides by default
    sent = jax.ShapeDtypeStruct(sent.shape, acted.dtype)

    leading = () if batch is None else (batch,) if isinstance(batch, int) else _symbol(batch)

    def many(like: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*leading, *like.shape), like.dtype)

    flat = [many(leaf) for leaf in state.leaves]
    arguments = weights, many(one), flat, many(sent), number, number
    init = lambda *a: state.flatten(_begun(policy, structure, *a))  # noqa: E731
    if batch is not None:
        init = jax.vmap(init, in_axes=(None, 0, 0))
        functions = {name: jax.vmap(f, in_axes=(None, 0, 0, 0, None, None)) for name, f in functions.items()}
    entries: dict[str, Entry] = {"init": (init, (weights, many(one), many(words)))}
    entries |= {name: (function, arguments) for name, function in functions.items()}
    listed = [{"shape": [n if isinstance(n, int) else str(n) for n in x.shape], "dtype": str(x.dtype)} for x in flat]
    return entries, listed, acted


def _key_described() -> dict[str, Any]:
    """Returns the implementation of this process's PRNG keys and the number of their words."""
    key = jax.random.key(0)
    return {"implementation": str(jax.random.key_impl(key)), "words": jax.random.key_data(key).size}


def _begun(policy: Policy, structure: Any, weights: list[Any], observation: Any, words: Any) -> PyTree:
    """Returns the state at the beginning of an episode."""
    key = jax.random.wrap_key_data(words, impl=_key_described()["implementation"])
    return policy.init(jax.tree.unflatten(structure, weights), observation, key)


def _decided(
    policy: Policy,
    verb: Callable[..., Any],
    structure: Any,
    state: _Flat,
    weights: list[Any],
    observation: Any,
    before: list[Any],
    actions: Any,
    count: Any,
    elapsed: Any,
) -> tuple[list[Any], jax.Array, jax.Array, jax.Array]:
    """Decides by `step` or `react`, over flat lists of plain arrays."""
    params = jax.tree.unflatten(structure, weights)
    shifted = policy.skip(state.unflatten(before), elapsed - 1)
    after, decision = verb(params, observation, shifted, InFlight(actions, count))
    return state.flatten(after), decision.plan.actions, decision.plan.cost, decision.status


def _observation_signal(observation: Any, described: Mapping[str, Any] | None) -> Signal:
    try:
        array = np.asarray(observation)
        kind = jnp.result_type(array)
        wide = jnp.issubdtype(kind, jnp.floating) and kind.itemsize >= 4
        array = array.astype(kind if wide else jnp.result_type(float))
    except (TypeError, ValueError) as error:
        raise ArtefactError(
            f"an observation must be one array of numbers; got {type(observation).__name__}: give policy(..., "
            "observe=function) that makes a state of one array"
        ) from error
    return _signal("observed", array.shape, array.dtype, described)


def _signal(what: str, shape: tuple[int, ...], dtype: Any, described: Mapping[str, Any] | None) -> Signal:
    try:
        return Signal(shape, dtype, **(described or {}))
    except (TypeError, ValueError) as error:
        raise ArtefactError(f"{what} takes names, units, low and high: {error}") from error


def _action_signal(policy: Policy, described: Mapping[str, Any] | None) -> Signal:
    space: Any = policy.action_space
    decided = jax.eval_shape(
        with_usual_promotion(space.decide), jax.ShapeDtypeStruct((policy.horizon, space.size), jnp.result_type(float))
    )
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


def _packed(said: dict[str, Any], members: Mapping[str, bytes]) -> bytes:
    """Returns the archive; it holds no dates, so that the same policy gives the same bytes.

    Args:
        said: The part of the manifest that depends on the policy.
        members: Content by name.
    """
    manifest = {"format": FORMAT, "format_version": FORMAT_VERSION, "statuses": [status.name for status in Status], **said}
    manifest |= {"versions": {package: _version(package) for package in PACKAGES}}
    manifest |= {"files": {name: fingerprint(content) for name, content in members.items()}}
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
