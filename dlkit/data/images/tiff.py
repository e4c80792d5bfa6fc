"""Damage in TIFF files that Pillow ignores: libtiff's warnings, and truncated strips.

libtiff continues after a bad code word and prints a warning to stderr. Handlers here collect its messages per thread; a
message from one of its decoders means that the image is damaged.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from PIL import Image, _imaging

from dlkit.data.images.formats import BadImageError

COMPRESSION, FILL_ORDER, OFFSETS, COUNTS = 259, 266, (273, 324), (279, 325)  # tags; offsets of strips, of tiles
GROUP4, JPEG, DEFLATE = 4, 7, (8, 32946)
END_OF_BLOCK = 0x001001  # of Group 4, ITU-T T.6: two end-of-line codes
END_OF_IMAGE = b"\xff\xd9"
DECODERS = (b"Decode", b"JPEG", b"LZW")  # parts of the names of libtiff's decoders

_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
_messages = threading.local()


def _handle(module: bytes | None, message: bytes | None, values: int | None) -> None:
    if hasattr(_messages, "modules"):
        _messages.modules.append(module or b"")


_handler = _HANDLER(_handle)  # a global, because libtiff keeps the pointer


@functools.cache
def _install_handlers() -> None:
    """Sets libtiff's handlers, unless Pillow hides its libtiff."""
    try:
        library = ctypes.CDLL(_imaging.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            function = getattr(library, name)
            function.restype = ctypes.c_void_p
            function(_handler)
    except (AttributeError, OSError):
        return


@contextmanager
def warnings_as_errors() -> Iterator[None]:
    """Raises: DataError if a decoder of libtiff reported an error in the block."""
    _install_handlers()
    _messages.modules = []
    try:
        yield
        damaged = [module for module in _messages.modules if any(name in module for name in DECODERS)]
    finally:
        del _messages.modules
    if damaged:
        raise BadImageError(f"the image is damaged: {damaged[0].decode(errors='replace')} could not read its data.")


def check_strips(image: Image.Image, file: IO[bytes]) -> None:
    """Raises: DataError if a strip or tile of an open TIFF lacks the end mark of its compression."""
    tags: Any = getattr(image, "tag_v2", {})
    compression = tags.get(COMPRESSION)
    check = {GROUP4: _ends_group4, JPEG: _ends_jpeg, **dict.fromkeys(DEFLATE, _ends_deflate)}.get(compression)
    if check is None:
        return
    offsets, counts = (next((tags[tag] for tag in kinds if tag in tags), ()) for kinds in (OFFSETS, COUNTS))
    before = file.tell()
    for offset, count in zip(offsets, counts, strict=False):
        file.seek(offset)
        if not check(file.read(count), tags):
            raise BadImageError("the image is damaged: a strip of it is truncated.")
    file.seek(before)


def _ends_group4(data: bytes, tags: Any) -> bool:
    tail = data.rstrip(b"\0")[-4:]
    if tags.get(FILL_ORDER) == 2:  # least significant bit first
        tail = bytes(int(f"{byte:08b}"[::-1], 2) for byte in tail)
    bits = int.from_bytes(tail, "big")
    return bool(bits) and (bits // (bits & -bits)) & 0xFFFFFF == END_OF_BLOCK


def _ends_jpeg(data: bytes, tags: Any) -> bool:
    return data.rstrip(b"\0").endswith(END_OF_IMAGE)


def _ends_deflate(data: bytes, tags: Any) -> bool:
    """Whether the stream is complete and its checksum correct."""
    stream = zlib.decompressobj()
    try:
        while data and not stream.eof:
            stream.decompress(data, 1 << 20)
            data = stream.unconsumed_tail
    except zlib.error:
        return False
    return stream.eof
