"""An artefact without Python and JAX: its two entry points as IREE modules, and what a C program needs to call them.

    folder/
        begin.vmfb, decide.vmfb      for one kind of processor
        planner.h                    sizes, and the files that hold every input and output, in the order of the arguments
        weights/, memory/, *.npy     those files: the weights, and the inputs of a loop that has not begun

`examples/iree/planner.c` plans with such a folder. IREE: Liu et al. 2022, "TinyIREE".
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from mpc.deploy.runtime import ENTRIES, Artefact, ArtefactError

HEADER = """/* Written by mpc.deploy.iree: a planner whose observation is {observation} float32, and whose action is
{action}. */
#define OBSERVATION {observation}
#define ACTION {action}
#define HORIZON {horizon}
static const char *BEGIN_INPUTS[] = {{{begin_inputs}, 0}};
static const char *BEGIN_OUTPUTS[] = {{{begin_outputs}, 0}};
static const char *DECIDE_INPUTS[] = {{{decide_inputs}, 0}};
static const char *DECIDE_OUTPUTS[] = {{{decide_outputs}, 0}};
"""


def compiled(artefact: Artefact, folder: str | os.PathLike, *, cpu: str = "host") -> Path:
    """Compile an artefact for a processor, ahead of time.

    Args:
        artefact: Loaded on a CPU, for one observation at a time, of continuous actions.
        folder: Where to write; made when missing.
        cpu: As LLVM names it; "host" is this machine's, "generic" any of its architecture.

    Returns:
        The folder.

    Raises:
        ImportError: If IREE's compiler is missing, with how to get it.
        ArtefactError: If the artefact has a batch, its actions are counted, or it cannot be compiled.
    """
    try:
        from iree.compiler import tools  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(f"this needs IREE's compiler ({error}): pip install 'craik[iree]'") from error
    if artefact.batch is not None:
        raise ArtefactError(f"IREE takes one observation at a time; the artefact has a batch of {artefact.batch}")
    if np.dtype(artefact.action.dtype) != np.float32 or np.dtype(artefact.observation.dtype) != np.float32:
        raise ArtefactError(f"IREE's header speaks of float32 alone; actions are {artefact.action.dtype}")
    root = Path(folder)
    for place in (root, root / "weights", root / "memory"):
        place.mkdir(parents=True, exist_ok=True)
    options = [f"--iree-llvmcpu-target-cpu={cpu}"]
    for name in ENTRIES:
        module = artefact.exported[name].mlir_module()
        try:
            code = tools.compile_str(module, target_backends=["llvm-cpu"], input_type="stablehlo", extra_args=options)
        except tools.CompilerToolError as error:
            raise ArtefactError(f"IREE does not compile {name}: {error}") from error
        assert code is not None  # as no output file was asked for
        (root / f"{name}.vmfb").write_bytes(code)
    _store(artefact, root)
    return root


def _store(artefact: Artefact, root: Path) -> None:
    """The inputs as files, and the header that lists them."""
    for index, weight in enumerate(artefact.weights):
        np.save(root / "weights" / f"{index}.npy", np.asarray(weight))
    inputs: dict[str, Any] = {"observation": np.zeros(artefact.observation.shape, np.float32), "key": artefact.keys(0)}
    inputs |= {"recent": artefact.nothing_sent(), "flying": np.int32(0), "elapsed": np.int32(1)}
    for name, value in inputs.items():
        np.save(root / f"{name}.npy", value)
    weights = [f"weights/{index}.npy" for index in range(len(artefact.weights))]
    memory = [f"memory/{index}.npy" for index in range(len(artefact.manifest["memory"]))]
    arguments = {
        "begin": [*weights, "observation.npy", "key.npy"],
        "decide": [*weights, "observation.npy", *memory, "recent.npy", "flying.npy", "elapsed.npy"],
    }
    listed = {}
    for name, files in arguments.items():  # what the program does not look at is no argument of it
        listed[f"{name}_inputs"] = _quoted([files[index] for index in artefact.exported[name].module_kept_var_idx])
    listed |= {
        "begin_outputs": _quoted(memory),
        "decide_outputs": _quoted([*memory, "actions.npy", "cost.npy", "status.npy"]),
    }
    sizes = {name: int(np.prod(getattr(artefact, name).shape)) for name in ("observation", "action")}
    (root / "planner.h").write_text(HEADER.format(**sizes, **listed, horizon=artefact.horizon))


def _quoted(files: list[str]) -> str:
    return ", ".join(f'"{file}"' for file in files)
