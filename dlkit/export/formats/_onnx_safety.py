"""Checks of an ONNX file of unknown origin before onnxruntime sees it. No torch.

onnxruntime gets the checked bytes, not a path. Weights in other files (external data) are loaded into the model by
onnx, which refuses files outside the model's folder, symbolic links and hard links; so the checked model is what runs.
"""

from __future__ import annotations

import os
import stat
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit.errors import ModelFileError
from dlkit.export.formats._onnx_proto import MARKER, MAX_BYTES, messages
from dlkit.export_metadata import KEY, ExportMetadata, check_seal
from dlkit.specs import ImageSpec, SequenceSpec

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

EXTERNAL_KEYS = {"location", "offset", "length", "checksum"}
Signature = dict[str, tuple[int, tuple[int | None, ...]]]  # type and shape by name

DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}  # of onnxruntime; others need a library of code


def read_file(path: Path) -> bytes:
    """A model file's bytes.

    Raises:
        ModelFileError: it is missing, empty, too large, or not a regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise ModelFileError(f"model file {path}: {error.strerror or error}.") from error
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ModelFileError(f"model file {path}: not a regular file.")
        if not 0 < status.st_size <= MAX_BYTES:
            raise ModelFileError(f"model file {path}: its size is {status.st_size:,} bytes; at most 2 GiB can be read.")
        return file.read()


def check_file(data: bytes, path: Path) -> tuple[bytes, ExportMetadata]:
    """The bytes for onnxruntime with all weights in them, and the file's description; `path` is the file's.

    Raises:
        ModelFileError: the file is malformed or hostile, or not an export of dlkit.
        VerificationError: it was changed after dlkit sealed it.
    """
    check_seal(data, MARKER)
    proto = _parse(data)
    external = False
    for message in messages(proto):
        kind = message.DESCRIPTOR.name
        if kind == "TensorProto":
            external |= _load_external_data(message, path)
        elif kind == "NodeProto" and message.domain not in DOMAINS:
            raise ModelFileError(f"it uses {message.domain}.{message.op_type}, which is not an ONNX operator.")
    about = _about(proto)
    _check_signature(proto, about)
    return (proto.SerializeToString() if external else data), about


def _parse(data: bytes) -> ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        proto = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ModelFileError("it is not an ONNX file, or it is damaged.") from error
    if not proto.graph.node or not proto.graph.output:
        raise ModelFileError("it is not an ONNX file, or it is damaged: it has no graph.")
    if not any(entry.domain in ("", "ai.onnx") and entry.version > 0 for entry in proto.opset_import):
        raise ModelFileError("it does not name its operator set (opset_import).")
    return proto


def _about(proto: ModelProto) -> ExportMetadata:
    texts = {entry.key: entry.value for entry in proto.metadata_props}
    if KEY not in texts:
        raise ModelFileError(
            "it was not exported by dlkit: it does not describe its inputs and classes. Use dlkit export --to onnx."
        )
    return ExportMetadata.from_json(texts[KEY])


def _check_signature(proto: ModelProto, about: ExportMetadata) -> None:
    """Raises: ModelFileError if the graph's inputs or outputs do not match the file's description."""
    from onnx import TensorProto

    constants = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in constants]
    names = dict.fromkeys([about.output, about.outputs or about.output])
    outputs: Signature = {name: (TensorProto.FLOAT, (None, len(about.spec.classes))) for name in names}
    for role, values, expected in (("input", inputs, _inputs(about)), ("output", list(proto.graph.output), outputs)):
        if [value.name for value in values] != list(expected):
            raise ModelFileError(f"its {role}s are {[value.name for value in values]}, not {list(expected)}.")
        for value, (kind, shape) in zip(values, expected.values(), strict=True):
            tensor = value.type.tensor_type
            actual = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
            if tensor.elem_type != kind or actual != shape:
                actual_text, text = _format_shape(actual), _format_shape(shape)
                raise ModelFileError(f"its {role} {value.name!r} has the shape {actual_text}, not {text}.")


def _inputs(about: ExportMetadata) -> Signature:
    from onnx import TensorProto

    spec = about.spec
    if isinstance(spec, SequenceSpec):
        return {"tokens": (TensorProto.INT64, (None, None)), "lengths": (TensorProto.INT64, (None,))}
    if not isinstance(spec, ImageSpec):
        raise ModelFileError(f"ONNX files of dlkit do not take {spec.kind}.")
    if about.feed == "normalised":
        return {"images": (TensorProto.FLOAT, (None, spec.channels, spec.height, spec.width))}
    sides = (None, None) if about.feed == "any_size" else (spec.height, spec.width)
    return {"images": (TensorProto.UINT8, (None, *sides, spec.channels))}


def _format_shape(shape: tuple[int | None, ...]) -> str:
    return "×".join("?" if side is None else str(side) for side in shape)


def _load_external_data(tensor: TensorProto, path: Path) -> bool:
    """Load the weights of a tensor from another file; returns whether there were any.

    Raises:
        ModelFileError: they are missing, in an unsafe location, or do not have the tensor's size.
    """
    from onnx import checker
    from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

    if min(tensor.dims, default=0) < 0:
        raise ModelFileError(f"its tensor {tensor.name!r} has a negative size.")
    if not uses_external_data(tensor) and not tensor.external_data:
        return False
    size = _bytes(tensor)
    if size > MAX_BYTES:
        raise ModelFileError(f"its tensor {tensor.name!r} has {size:,} bytes; an ONNX file has 2 GiB at most.")
    if unknown := {entry.key for entry in tensor.external_data} - EXTERNAL_KEYS:
        raise ModelFileError(f"its external data for {tensor.name!r} have the unknown key {sorted(unknown)[0]!r}.")
    try:
        load_external_data_for_tensor(tensor, str(path.resolve().parent))
    except (checker.ValidationError, OSError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:300].rstrip(".") + "."
        raise ModelFileError(
            f"its external data for {tensor.name!r} cannot be used: {reason} They must be files in the model's own "
            "folder, not links."
        ) from error
    if len(tensor.raw_data) != size:
        raise ModelFileError(f"its external data for {tensor.name!r} have {len(tensor.raw_data)} bytes, not {size}.")
    return True


def _bytes(tensor: TensorProto) -> int:
    from onnx import helper

    try:
        kind: Any = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, ValueError) as error:
        raise ModelFileError(f"its tensor {tensor.name!r} is of an unknown type, {tensor.data_type}.") from error
    return int(prod(tensor.dims) * kind.itemsize)
