"""An ONNX file, looked through before onnxruntime sees it: nothing is read outside its folder, nothing is a link.

onnxruntime gets the checked bytes, not a path. Weights in files beside (external data) are read here, each part opened
without following links, and put into the model; so that what was checked is what runs. No torch.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit.errors import ModelFileError
from dlkit.export.formats._onnx_proto import MARKER, MAX_BYTES, messages
from dlkit.export_metadata import KEY, About, check_seal
from dlkit.specs import ImageSpec, SequenceSpec

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

EXTERNAL_KEYS = {"location", "offset", "length", "checksum"}
Ends = dict[str, tuple[int, tuple[int | None, ...]]]  # by name: the type and the shape of each

DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}  # onnxruntime's own; another one needs a library of code


def read_file(path: Path) -> bytes:
    """A model file's bytes.

    Raises:
        ModelFileError: it is missing, empty, too large, or no file but a pipe, a device or a folder.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise ModelFileError(f"model file {path}: {error.strerror or error}.") from error
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ModelFileError(f"model file {path}: not a file.")
        if not 0 < status.st_size <= MAX_BYTES:
            raise ModelFileError(f"model file {path}: it has {status.st_size:,} bytes; 1 to 2 GiB can be read.")
        return file.read()


def checked(data: bytes, path: Path) -> tuple[bytes, About]:
    """The bytes for onnxruntime, all weights in them, and what the file says of itself. `path` is where they came from.

    Raises:
        ModelFileError: the file is malformed or hostile, or not an export of dlkit.
        VerificationError: it was changed since dlkit sealed it.
    """
    check_seal(data, MARKER)
    proto = _parsed(data)
    external = False
    for message in messages(proto):
        kind = message.DESCRIPTOR.name
        if kind == "TensorProto":
            external |= _check_tensor(message, path)
        elif kind == "NodeProto" and message.domain not in DOMAINS:
            raise ModelFileError(f"it calls {message.domain}.{message.op_type}, which is not an operator of ONNX.")
    about = _about(proto)
    _check_ends(proto, about)
    return (proto.SerializeToString() if external else data), about


def _parsed(data: bytes) -> ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        proto = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ModelFileError("it is no ONNX file, or damaged.") from error
    if not proto.graph.node or not proto.graph.output:
        raise ModelFileError("it is no ONNX file, or damaged: it has no graph.")
    if not any(entry.domain in ("", "ai.onnx") and entry.version > 0 for entry in proto.opset_import):
        raise ModelFileError("it does not say which operator set it uses (opset_import).")
    return proto


def _about(proto: ModelProto) -> About:
    texts = {entry.key: entry.value for entry in proto.metadata_props}
    if KEY not in texts:
        raise ModelFileError(
            "it does not say which inputs and classes it is for: no export of dlkit. Make one: dlkit export --to onnx."
        )
    return About.from_json(texts[KEY])


def _check_ends(proto: ModelProto, about: About) -> None:
    """Raises: ModelFileError where the graph takes or gives other than the file says."""
    from onnx import TensorProto

    given = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in given]
    names = dict.fromkeys([about.output, about.outputs or about.output])
    outputs: Ends = {name: (TensorProto.FLOAT, (None, len(about.spec.classes))) for name in names}
    for what, values, ends in (("input", inputs, _inputs(about)), ("output", list(proto.graph.output), outputs)):
        if [value.name for value in values] != list(ends):
            raise ModelFileError(f"its {what}s are {[value.name for value in values]}, not {list(ends)}.")
        for value, (kind, shape) in zip(values, ends.values(), strict=True):
            tensor = value.type.tensor_type
            found = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
            if tensor.elem_type != kind or found != shape:
                raise ModelFileError(f"its {what} {value.name!r} has the shape {_shown(found)}, not {_shown(shape)}.")


def _inputs(about: About) -> Ends:
    from onnx import TensorProto

    spec = about.spec
    if isinstance(spec, SequenceSpec):
        return {"tokens": (TensorProto.INT64, (None, None)), "lengths": (TensorProto.INT64, (None,))}
    if not isinstance(spec, ImageSpec):
        raise ModelFileError(f"no ONNX file of dlkit reads {spec.kind}.")
    if about.feed == "normalised":
        return {"images": (TensorProto.FLOAT, (None, spec.channels, spec.height, spec.width))}
    sides = (None, None) if about.feed == "any_size" else (spec.height, spec.width)
    return {"images": (TensorProto.UINT8, (None, *sides, spec.channels))}


def _shown(shape: tuple[int | None, ...]) -> str:
    return "×".join("?" if side is None else str(side) for side in shape)


def _check_tensor(tensor: TensorProto, path: Path) -> bool:
    """Take the weights that are in a file beside into the tensor; returns whether they were.

    Raises:
        ModelFileError: they are nowhere, or where they must not be.
    """
    if min(tensor.dims, default=0) < 0:
        raise ModelFileError(f"its tensor {tensor.name!r} has a negative size.")
    if tensor.data_location != tensor.EXTERNAL and not tensor.external_data:
        return False
    rules: dict[str, str] = {}
    for entry in tensor.external_data:
        if entry.key not in EXTERNAL_KEYS or entry.key in rules:
            raise ModelFileError(f"its external data have the key {entry.key!r}, which is unknown or given twice.")
        rules[entry.key] = entry.value
    data = _beside(tensor, rules, path)
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
    tensor.raw_data = data
    return True


def _beside(tensor: TensorProto, rules: dict[str, str], path: Path) -> bytes:
    parts = _location(rules.get("location", ""))
    offset, wanted = _number(rules.get("offset", "0")), _bytes(tensor)
    length = _number(rules.get("length", str(wanted)))
    if length != wanted:
        raise ModelFileError(f"its tensor {tensor.name!r} has {wanted} bytes; its external data say {length}.")
    with _opened(path.resolve().parent, parts) as descriptor:
        size = os.fstat(descriptor).st_size
        if offset + length > size or length > MAX_BYTES:
            raise ModelFileError(f"its external data {'/'.join(parts)} end before the tensor {tensor.name!r} does.")
        return os.pread(descriptor, length, offset)


def _location(text: str) -> list[str]:
    parts = text.split("/")
    if any(part in ("", ".", "..") or "\\" in part or ":" in part or "\0" in part for part in parts):
        raise ModelFileError(f"its external data are at {text!r}; they may only be in the model's own folder.")
    return parts


def _number(text: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", text):
        raise ModelFileError(f"its external data have the offset or length {text!r}.")
    return int(text)


def _bytes(tensor: TensorProto) -> int:
    from onnx import helper

    try:
        kind: Any = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, ValueError) as error:
        raise ModelFileError(f"its tensor {tensor.name!r} is of an unknown type, {tensor.data_type}.") from error
    return int(prod(tensor.dims) * kind.itemsize)


@contextmanager
def _opened(folder: Path, parts: list[str]) -> Iterator[int]:
    """A file below a folder, opened part by part so that no link is followed, not even one that appears just now."""
    held: list[int] = []
    try:
        held.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
        for part in parts[:-1]:
            held.append(os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=held[-1]))
        held.append(os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=held[-1]))
        status = os.fstat(held[-1])
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise ModelFileError(f"its external data {'/'.join(parts)} are a link, or no file.")
        yield held[-1]
    except OSError as error:
        raise ModelFileError(
            f"its external data {'/'.join(parts)} cannot be read, or are a link: {error.strerror or error}."
        ) from error
    finally:
        for descriptor in held:
            os.close(descriptor)
