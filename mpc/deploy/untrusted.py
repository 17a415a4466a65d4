"""Reading of files that may be damaged or a forger's: sizes before memory is taken, and one class of error."""

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np


@contextmanager
def refusing(kind: type[ValueError], why: str) -> Iterator[None]:
    """Context manager that turns whatever a foreign file makes Python or a library raise into one error.

    Args:
        kind: Of the error.
        why: Beginning of the message.

    Raises:
        ValueError: Of that kind, from what was raised; one of that kind passes as it is.
    """
    try:
        yield
    except kind:
        raise
    except Exception as error:  # of parsers, which fail in ways of their own; MemoryError is one of them
        text = str(error).strip() or "no reason given"
        raise kind(f"{why}: {text[:2000]} ({type(error).__name__})") from error


def require_stored(archive: zipfile.ZipFile, size: int) -> None:
    """Refuses an archive that takes more memory once it is read than it does as a file.

    Args:
        archive: As it was opened.
        size: Bytes of the file.

    Raises:
        ValueError: If members are compressed, or claim more than that.
    """
    found = archive.infolist()
    if any(info.compress_type != zipfile.ZIP_STORED for info in found) or sum(info.file_size for info in found) > size:
        raise ValueError(f"its members claim more than its {size} bytes, or are compressed")


def read_array(archive: zipfile.ZipFile, member: str, shape: Sequence[int], dtype: str) -> np.ndarray:
    """Returns an array of an archive that `require_stored` let pass.

    Args:
        archive: As `numpy.savez` writes it.
        member: Name of the array.
        shape: As it has to be; the array's own header must say so, too, before memory is taken for it.
        dtype: Likewise.

    Raises:
        ValueError: If it is another array, or none.
    """
    kind = np.dtype(dtype)
    with archive.open(f"{member}.npy") as stream:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError(f"{member} is no array of version 1.0")
        found, _, stored = np.lib.format.read_array_header_1_0(stream)
        held = archive.getinfo(f"{member}.npy").file_size - stream.tell()
    same = stored == kind or (stored.kind == "V" and stored.itemsize == kind.itemsize)  # NumPy stores bfloat16 as bytes
    size = kind.itemsize
    for n in found:
        size *= n
    if list(found) != list(shape) or not same or kind.hasobject or held != size:
        raise ValueError(f"{member} must be {dtype}{list(shape)}; got {stored}{list(found)} in {held} bytes")
    with archive.open(f"{member}.npy") as stream:
        return np.lib.format.read_array(stream, allow_pickle=False).view(kind)
