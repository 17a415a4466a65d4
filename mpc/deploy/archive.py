"""The file of an artefact: an archive without compression whose manifest has the SHA-256 of everything.

What is read may be damaged or a forger's, so nothing is believed before it is checked: sizes before memory is taken, every
hash, and the header of every array. Whatever is wrong is an `ArtefactError`.
"""

import errno
import hashlib
import io
import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from mpc.deploy.untrusted import read_array, refusing, require_stored

FORMAT, FORMAT_VERSION = "craik-artefact", 2


class ArtefactError(ValueError):
    """An artefact that cannot be written or used, and why."""


def require_folder(path: Path) -> None:
    """Refuses a file to write whose folder does not exist.

    Raises:
        FileNotFoundError: With the file.
    """
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "cannot be written, for its folder does not exist", str(path))


def write(path: Path, data: bytes) -> None:
    """Writes a file atomically: it is whole, or as it was before.

    Raises:
        OSError: If it cannot be written.
    """
    require_folder(path)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def unpack(data: bytes, name: str = "the artefact") -> tuple[dict[str, Any], dict[str, bytes]]:
    """Returns the manifest and the members of an artefact, after a check of every hash.

    Raises:
        ArtefactError: If it is foreign, damaged or of another format.
    """
    with (
        refusing(ArtefactError, f"{name} is not an artefact of craik, or damaged"),
        zipfile.ZipFile(io.BytesIO(data)) as archive,
    ):
        require_stored(archive, len(data))
        text = archive.read("manifest.json")
        manifest = json.loads(text)
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise ArtefactError(f"{name} is not an artefact of craik: its manifest was written by something else")
        if manifest.get("format_version") != FORMAT_VERSION:
            raise ArtefactError(
                f"{name} is in format {manifest.get('format_version')!r}, and this version of craik reads {FORMAT_VERSION}"
            )
        if sealed(manifest) != text:
            raise ArtefactError(f"{name} is damaged: its manifest is not as it was written")
        members = {member: archive.read(member) for member in dict(manifest["files"])}
    for member, content in members.items():
        if fingerprint(content) != manifest["files"][member]:
            raise ArtefactError(f"{name} is damaged: {member} is not as it was written")
    return manifest, members


def arrays(content: bytes, wanted: list[dict[str, Any]]) -> list[np.ndarray]:
    """Returns the arrays of an archive of `.npy` files that are named by their numbers.

    Args:
        content: Of `weights.npz`.
        wanted: `shape` and `dtype` of each, which its own header must have, too, before memory is taken for it.

    Raises:
        ArtefactError: If one is missing, damaged or another.
    """
    with refusing(ArtefactError, "the weights cannot be read"), zipfile.ZipFile(io.BytesIO(content)) as archive:
        require_stored(archive, len(content))
        return [read_array(archive, str(i), part["shape"], part["dtype"]) for i, part in enumerate(wanted)]


def fingerprint(content: bytes) -> dict[str, Any]:
    """Returns the size and the SHA-256 of a member."""
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def sealed(manifest: dict[str, Any]) -> bytes:
    """Returns the manifest as bytes, with the digest of the rest inside."""
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**rest, "sha256": digest}, sort_keys=True, indent=1) + "\n").encode()
