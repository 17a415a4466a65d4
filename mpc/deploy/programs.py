"""The programs of an artefact: what they may call, and whether they are the ones that the manifest describes."""

import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mpc.deploy.archive import ArtefactError
from mpc.deploy.untrusted import refusing

HARMLESS = {"Sharding", "cu_threefry2x32_ffi", "shape_assertion"}  # of any custom calls: JAX's own, of promised stability
OUTSIDE = ("infeed", "outfeed", "send", "recv")
"""Operations that wait for somebody outside of the program, who is not there on a robot."""

PARSE = """
import sys
from jax import export
while size := int.from_bytes(sys.stdin.buffer.read(8), "big"):
    program = bytearray(sys.stdin.buffer.read(size))
    try:
        export.deserialize(program).mlir_module()
    except Exception:  # the process that waits for this one finds it, too, and says it better
        pass
"""
SECONDS = 60
"""Time of parsing after which a program is refused."""
_parsed: set[bytes] = set()
"""Digests of programs that this process wrote, or that did no harm to a parser."""


def note_parsed(program: bytes) -> None:
    """Notes that a program can be parsed in this process, for it was written here."""
    _parsed.add(hashlib.sha256(program).digest())


def parse_apart(programs: Iterable[bytes]) -> None:
    """Parses foreign programs in another process first, for some that are damaged crash the parser.

    Where Python is part of another program, there is no interpreter to run, and nothing is done.

    Args:
        programs: As they were serialised.

    Raises:
        ArtefactError: If the process died or took too long.
    """
    unknown = [program for program in programs if hashlib.sha256(program).digest() not in _parsed]
    if not unknown or not Path(sys.executable or "").name.startswith(("python", "pypy")):
        return
    given = b"".join(len(program).to_bytes(8, "big") + program for program in unknown)
    paths = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", PARSE]
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, timeout=SECONDS, env=os.environ | paths, check=False
        )
    except subprocess.TimeoutExpired:
        raise ArtefactError(f"the programs could not be parsed within {SECONDS} seconds") from None
    if done.returncode < 0:
        raise ArtefactError(f"the programs crash the parser ({signal.Signals(-done.returncode).name}): they are damaged")
    for program in unknown:
        note_parsed(program)


def foreign_calls(module: str) -> set[str]:
    """Returns the names of what a program calls besides JAX's own, and of operations that leave it.

    Args:
        module: StableHLO as text.
    """
    calls = re.findall(r'\bcustom_call\b"?\s*(?:@([\w.$]+)(?=\())?', re.sub(r"@custom_call\b", "", module))
    named = {target or "something without a plain name" for target in calls} - HARMLESS
    return named | {name for name in OUTSIDE if re.search(rf"\bstablehlo\.{name}\b", module)}


def read_program(name: str, program: bytes, manifest: dict[str, Any]) -> Any:
    """Returns one entry point of an artefact as `jax.export` reads it.

    Args:
        name: Of the entry.
        program: As it was serialised.
        manifest: Of the artefact, checked.

    Raises:
        ArtefactError: If this version of JAX cannot read it, or it takes or returns something else than the manifest says,
            or calls anything but JAX's own.
    """
    from jax import export as jax_export

    versions = f"written by JAX {manifest['versions'].get('jax')}, cannot be read by JAX {jax.__version__}"
    with refusing(ArtefactError, f"the program {name}, {versions}"):
        exported = jax_export.deserialize(bytearray(program))
        module = exported.mlir_module()
        if exported.nr_devices != 1:
            raise ArtefactError(f"the program {name}, {versions}: it is for {exported.nr_devices} devices")
        if exported.ordered_effects or exported.unordered_effects:
            raise ArtefactError(f"the program {name} has effects besides what it returns")
    if foreign := foreign_calls(module):
        raise ArtefactError(f"the program {name} calls {', '.join(sorted(foreign))}, which JAX does not promise to be there")
    with refusing(ArtefactError, f"the program {name} is not the one that the manifest describes"):
        _check_arguments(name, exported, _arguments(name, manifest))
        _check_results(name, exported, manifest)
    return exported


def _leading(manifest: dict[str, Any]) -> list[Any]:
    """Returns the axes in front of everything that depends on the observation; None stands for any size."""
    batch = manifest["batch"]
    return [] if batch is None else [batch if isinstance(batch, int) else None]


def _state(manifest: dict[str, Any]) -> list[tuple[list[Any], str]]:
    return [(part["shape"], part["dtype"]) for part in manifest["state"]]


def _arguments(name: str, manifest: dict[str, Any]) -> tuple[Any, ...]:
    """Returns shapes and dtypes of the arguments of an entry, as `mpc.export` lists them."""
    lead, seen, acted = _leading(manifest), manifest["observation"], manifest["action"]
    weights = [(part["shape"], part["dtype"]) for part in manifest["parameters"]]
    observation = ([*lead, *seen["shape"]], seen["dtype"])
    if name == "init":
        return weights, observation, ([*lead, manifest.get("key", {}).get("words", 2)], "uint32")
    sent, number = ([*lead, manifest["delay"] + 1, *acted["shape"]], acted["dtype"]), ([], "int32")
    return weights, observation, _state(manifest), sent, number, number


def _is_array(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], str)


def _check_arguments(name: str, exported: Any, wanted: tuple[Any, ...]) -> None:
    leaves, structure = jax.tree.flatten((wanted, {}), is_leaf=_is_array)
    if exported.in_tree != structure:
        raise ArtefactError(f"the program {name} takes {exported.in_tree}, and {structure} was wanted")
    _compare(f"the program {name} takes", exported.in_avals, leaves)


def _check_results(name: str, exported: Any, manifest: dict[str, Any]) -> None:
    lead, state = _leading(manifest), _state(manifest)
    if name == "init":
        wanted, rest = state, []
    else:
        acted = manifest["action"]
        rest = [([*lead, manifest["horizon"], *acted["shape"]], acted["dtype"]), (lead, "f"), (lead, "i")]
        wanted = (state, *rest)
    if exported.out_tree != jax.tree.structure(wanted, is_leaf=_is_array):
        raise ArtefactError(f"the program {name} returns {exported.out_tree}")
    _compare(f"the program {name} returns", exported.out_avals, [*state, *rest])


def _compare(does: str, avals: Sequence[Any], wanted: Sequence[tuple[list[Any], str]]) -> None:
    """Refuses arrays of other shapes or dtypes; a dtype of one letter stands for all of that kind."""
    for aval, (shape, dtype) in zip(avals, wanted, strict=True):
        found = [n if isinstance(n, int) else str(n) for n in aval.shape]
        sizes = len(found) == len(shape) and all(b is None or a == b for a, b in zip(found, shape, strict=True))
        kinds = np.dtype(aval.dtype).kind == dtype if len(dtype) == 1 else str(aval.dtype) == dtype
        if not sizes or not kinds:
            raise ArtefactError(f"{does} {aval.dtype}{found}, and the manifest says {dtype}{shape}")
