"""Ask XLA's CPU compiler to run a planner's small loops as one compiled loop.

Left to itself XLA:CPU dispatches a `scan` step by step unless the loop touches few bytes; a planner's loops over time and
over iterations are small in work but not in bytes, and then run many times slower. The threshold is an option of the
backend, read once when it starts, so it is set when `mpc` is imported, beside whatever the user's `XLA_FLAGS` say.
"""

import os
import warnings

OPTION = "xla_cpu_small_while_loop_byte_threshold"
SWITCH = "CRAIK_HOIST_LOOPS"


def backend_started() -> bool:
    """Return whether JAX has started a backend, after which its options are fixed."""
    from jax._src import xla_bridge  # no public function tells without starting one

    return xla_bridge.backends_are_initialized()


def hoist_loops() -> str:
    """Set the option unless told otherwise.

    Returns:
        What came of it, for people: `"on"`, `"off (...)"` with the reason, or `"yours (...)"` where the user's own flags
        already name the option.

    Warns:
        RuntimeWarning: If JAX had started already, with what is lost.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if os.environ.get(SWITCH, "1").lower() in ("0", "false", "off"):
        return f"off ({SWITCH} is {os.environ[SWITCH]})"
    if OPTION in flags:
        return f"yours ({flags})"
    if backend_started():
        warnings.warn(
            "JAX had already run something when mpc was imported, so XLA:CPU will not hoist a planner's small loops and "
            f"planning with small models may take several times longer; import mpc first, or set {SWITCH}=0 to be silent",
            RuntimeWarning,
            stacklevel=3,
        )
        return "off (JAX had started before mpc was imported)"
    extra = "--xla_backend_extra_options="
    ours = f"{extra}{OPTION}=100000000"
    os.environ["XLA_FLAGS"] = flags.replace(extra, f"{ours},", 1) if extra in flags else f"{flags} {ours}".strip()
    return "on"
