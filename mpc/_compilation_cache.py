"""Keep compiled programs in a folder of the user's, so that a second process starts without compiling.

JAX has a cache of compiled programs that is off unless it is given a folder. Importing `mpc` gives it one, unless the user
has: `$CRAIK_CACHE`, or `craik/compiled-…` in the system's folder for caches. Whoever can write there decides what this
user's processes run, so the folder belongs to the user and is closed to all others, or there is no cache.
"""

import hashlib
import os
import platform
import stat
import sys
from pathlib import Path

SWITCH = "CRAIK_CACHE"
MOST_BYTES = 1 << 30
"""Size from which on the oldest half of the programs is deleted at import; JAX itself deletes none."""
LEAST_SECONDS = 0.1
"""Time of compiling from which on a program is worth a file: reading one takes some 10 ms."""


def user_folder() -> Path:
    """Return the system's folder for what a user's programs can make anew."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def processor() -> str:
    """Return a name of this kind of processor: homes are shared by machines that cannot run each other's programs."""
    try:
        with open("/proc/cpuinfo") as lines:  # one processor's are enough: a large machine's take long to read
            told = next(line.rstrip("\n") for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        told = platform.processor()
    return hashlib.sha256(f"{platform.machine()} {told}".encode()).hexdigest()[:12]


def refusal(folder: Path) -> str | None:
    """Return why programs in a folder cannot be trusted; None where they can."""
    if not hasattr(os, "getuid"):
        return None
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        return f"{folder} is not a folder of this user's"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to {folder}"
    for above in folder.resolve().parents:  # whoever may write there can put another folder in this one's place
        held = above.stat()
        open_to_others = held.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not held.st_mode & stat.S_ISVTX
        if open_to_others or held.st_uid not in (0, os.getuid()):
            return f"others may replace {folder}, for they may write to {above}"
    if any(entry.stat(follow_symlinks=False).st_uid != os.getuid() for entry in list(os.scandir(folder))):
        return f"{folder} holds files of others"
    return None if os.access(folder, os.W_OK | os.X_OK) else f"{folder} cannot be written"


def prune(folder: Path, most: int = MOST_BYTES) -> None:
    """Delete the programs that were written first, until half of `most` bytes are left, where there are more than `most`."""
    files = sorted(
        (found.st_mtime, found.st_size, Path(entry))
        for entry in os.scandir(folder)
        if (found := entry.stat(follow_symlinks=False))
    )
    size = sum(bytes_ for _, bytes_, _ in files)
    for _, bytes_, path in files if size > most else ():
        if size > most // 2:
            path.unlink(missing_ok=True)
            size -= bytes_


def keep_programs() -> str:
    """Give JAX a folder for compiled programs, unless it has one.

    Returns:
        What came of it, for people: the folder, `"off (...)"` with the reason, or `"yours (...)"` with the user's own.
    """
    import jax

    if own := jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
        return f"yours ({own})"
    told = os.environ.get(SWITCH, "")
    if told.lower() in ("0", "false", "off"):
        return f"off ({SWITCH} is {told})"
    try:
        folder = Path(told).expanduser() if told else user_folder() / "craik" / f"compiled-{processor()}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if why := refusal(folder):
            return f"off ({why})"
        folder.chmod(0o700)
        prune(folder)
    except (OSError, RuntimeError) as error:  # no home, a full disk, a folder that may not be written
        return f"off ({error})"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
    return str(folder)
