"""An ONNX file's protobuf messages: its size limit, the marker of its seal, and an iteration over all messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dlkit import export_metadata

MARKER = export_metadata.SEAL_KEY.encode() + b"\x12\x40"  # the end of the key, then: field 2, 64 bytes long
MAX_BYTES = (2 << 30) - 1  # of a protobuf message


def messages(message: Any) -> Iterator[Any]:
    """A protobuf message and all messages in it, except those in tensors, which may be large."""
    yield message
    if message.DESCRIPTOR.name == "TensorProto":
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if hasattr(value, "__len__") else [value]:
                yield from messages(inner)
