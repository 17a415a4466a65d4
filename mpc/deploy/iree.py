"""Artefacts without Python and JAX: the entry points as IREE modules, and the files a C program needs to call them.

    folder/
        init.vmfb, step.vmfb         for one kind of processor; react.vmfb where the policy has an actor
        planner.h                    sizes, and the files that hold every input and output, in the order of the
                                     arguments; those of `react` where REACT is defined
        weights/, state/, *.npy      those files: the weights, and the inputs of a loop that has not begun

`examples/iree/planner.c` plans with such a folder. IREE: Liu et al. 2022, "TinyIREE".
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from mpc.deploy.runtime import Artefact, ArtefactError

HEADER = """/* Written by mpc.deploy.iree: a planner whose observation is {observation} float32, and whose action is
{action}. */
#define OBSERVATION {observation}
#define ACTION {action}
#define HORIZON {horizon}
"""
ENTRY = """{guard}
static const char *{name}_INPUTS[] = {{{inputs}, 0}};
static const char *{name}_OUTPUTS[] = {{{outputs}, 0}};
#endif
"""


def compiled(artefact: Artefact, folder: str | os.PathLike[str], *, cpu: str = "host") -> Path:
    """Compiles an artefact for a processor, ahead of time.

    Args:
        artefact: Loaded on a CPU, for one observation at a time, of continuous actions.
        folder: Where to write; made when missing.
        cpu: As LLVM names it; "host" is that of this machine, "generic" any of its architecture.

    Returns:
        The folder.

    Raises:
        ImportError: If IREE's compiler is missing, with how to get it.
        ArtefactError: If the artefact has a batch, its actions are choices, or it cannot be compiled.
    """
    try:
        from iree.compiler import tools  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(f"this needs IREE's compiler ({error}): pip install 'craik[iree]'") from error
    if artefact.batch is not None:
        raise ArtefactError(f"IREE takes one observation at a time; the artefact has a batch of {artefact.batch}")
    if np.dtype(artefact.action.dtype) != np.float32 or np.dtype(artefact.observation.dtype) != np.float32:
        raise ArtefactError(f"IREE's header speaks of float32 alone; actions are {artefact.action.dtype}")
    root = Path(folder).expanduser()
    for place in (root, root / "weights", root / "state"):
        place.mkdir(parents=True, exist_ok=True)
    options = [f"--iree-llvmcpu-target-cpu={cpu}"]
    for name, entry in artefact.exported.items():
        module = entry.mlir_module()
        try:
            code = tools.compile_str(module, target_backends=["llvm-cpu"], input_type="stablehlo", extra_args=options)
        except tools.CompilerToolError as error:
            raise ArtefactError(f"IREE does not compile {name}: {error}") from error
        assert code is not None  # as no output file was asked for
        (root / f"{name}.vmfb").write_bytes(code)
    _store(artefact, root)
    return root


def _store(artefact: Artefact, root: Path) -> None:
    """Writes the inputs as files, and the header that lists them."""
    for index, weight in enumerate(artefact.weights):
        np.save(root / "weights" / f"{index}.npy", np.asarray(weight))
    given: dict[str, Any] = {"observation": np.zeros(artefact.observation.shape, np.float32), "key": artefact.keys(0)}
    nothing = artefact.nothing_sent()
    given |= {"sent": nothing.actions, "in_flight": nothing.count, "elapsed": np.int32(1)}
    for name, value in given.items():
        np.save(root / f"{name}.npy", value)
    weights = [f"weights/{index}.npy" for index in range(len(artefact.weights))]
    state = [f"state/{index}.npy" for index in range(len(artefact.manifest["state"]))]
    begins = [*weights, "observation.npy", "key.npy"], state
    decides = (
        [*weights, "observation.npy", *state, "sent.npy", "in_flight.npy", "elapsed.npy"],
        [*state, "actions.npy", "cost.npy", "status.npy"],
    )
    listed = []
    for name, entry in artefact.exported.items():
        inputs, outputs = begins if name == "init" else decides
        kept = [inputs[index] for index in entry.module_kept_var_idx]  # an input that is not used is no argument
        guard = "#ifdef REACT" if name == "react" else "#if 1"  # compilers warn of what a program does not use
        listed.append(ENTRY.format(guard=guard, name=name.upper(), inputs=_quoted(kept), outputs=_quoted(outputs)))
    sizes = {name: int(np.prod(getattr(artefact, name).shape)) for name in ("observation", "action")}
    (root / "planner.h").write_text(HEADER.format(**sizes, horizon=artefact.horizon) + "".join(listed))


def _quoted(files: list[str]) -> str:
    return ", ".join(f'"{file}"' for file in files)
