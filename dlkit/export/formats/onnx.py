"""ONNX: one file for onnxruntime and similar runtimes, with preprocessing and link function in the graph.

Bai, Lu, Zhang et al., "ONNX: Open Neural Network Exchange", 2019, https://github.com/onnx/onnx. Created by torch's
dynamo exporter, for any batch size. Inputs are `images` (uint8, N×H×W×C), or for text `tokens` (int64, N×T, word ids,
padded at the end) and `lengths` (int64, N); the output is `probabilities` (float32, N×K). Unless the link is a softmax,
the second output is the network's `logits`.

raw=True exports the bare network: normalized float32 N×C×H×W in, `logits` out. resize=True takes images of any size and
resizes and center-crops them bit for bit like dlkit.data.images.resize_crop.prepare. All weights are in the one file,
so a network of more than 2 GiB cannot be exported.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dlkit import export_metadata
from dlkit.errors import ModelFileError, UsageError
from dlkit.export.formats._graph_classifier import Feeds, GraphClassifier
from dlkit.export.formats._onnx_proto import MARKER, MAX_BYTES, messages
from dlkit.export_metadata import ExportMetadata
from dlkit.inference.classifier import Classifier
from dlkit.specs import ImageSpec, Spec

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

TAKES = ("images", "sequences")
SUFFIX = ".onnx"
NEEDS = ("onnx", "onnxscript", "onnxruntime")
OPSETS = (18, 19, 20, 21, 22, 23)  # supported by torch's exporter


def export(
    model: nn.Module, spec: Spec, about: ExportMetadata, *, raw: bool = False, resize: bool = False, opset: int = 20
) -> bytes:
    if raw and resize:
        raise UsageError("--raw and --resize exclude each other: raw files take preprocessed images. Remove one.")
    if resize and not isinstance(spec, ImageSpec):
        raise UsageError(f"--resize is for models of images; this one takes {spec.kind}.")
    if resize and isinstance(spec, ImageSpec) and spec.interpolation != "bilinear":
        raise UsageError(f"--resize is bilinear, but this model's preprocessing is {spec.interpolation}. Remove it.")
    if opset not in OPSETS:
        raise UsageError(f"--opset {opset}: must be one of {', '.join(map(str, OPSETS))}.")
    about = about.raw() if raw else about
    proto = _trace(model, about, opset)
    _name_dynamic_axes(proto, ("N",) if isinstance(spec, ImageSpec) else ("N", "T"))
    for message in messages(proto):
        for name in ("metadata_props", "doc_string"):  # the exporter's stack traces, with paths of this machine
            if name in message.DESCRIPTOR.fields_by_name:
                message.ClearField(name)
    if resize:
        assert isinstance(spec, ImageSpec)
        from dlkit.export.formats._onnx_resize import prepend_resize

        prepend_resize(proto.graph, spec)
        about = about.with_(feed="any_size")
    return serialize(proto, about.with_(opset=opset))


def serialize(proto: ModelProto, about: ExportMetadata) -> bytes:
    """The sealed file, with its description."""
    import onnx

    onnx.helper.set_model_props(
        proto, {export_metadata.KEY: about.to_json(), export_metadata.SEAL_KEY: export_metadata.UNSEALED}
    )
    if proto.ByteSize() > MAX_BYTES:
        raise UsageError(f"model {about.model!r} is too large for an ONNX file: 2 GiB at most. Use --to safetensors.")
    return export_metadata.seal(proto.SerializeToString(), MARKER)


def classifier(data: bytes, about: ExportMetadata, device: str = "auto") -> Classifier:
    """The file's classifier in onnxruntime. The bytes must have been checked by _onnx_safety.py.

    Raises:
        ModelFileError: onnxruntime refuses the file, or its outputs do not match its description.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4  # fatal: errors are exceptions
    try:
        session = onnxruntime.InferenceSession(data, settings, providers=_providers(device))
    except Exception as error:  # onnxruntime's own exceptions have no common class
        raise ModelFileError(f"onnxruntime refuses it: {_short_reason(error)}") from error

    def compute(feeds: Feeds, output: str) -> npt.NDArray[np.float32]:
        try:
            values: npt.NDArray[np.float32] = session.run([output], dict(feeds))[0]
        except Exception as error:  # as above
            raise ModelFileError(f"onnxruntime cannot run it: {_short_reason(error)}") from error
        return values

    return GraphClassifier(about, compute)


def runtime() -> str:
    return f"onnxruntime {version('onnxruntime')}"


def _trace(model: nn.Module, about: ExportMetadata, opset: int) -> ModelProto:
    import torch

    from dlkit.export.formats._recurrent import translations
    from dlkit.export.formats._tracing import failure_reason, trace, tracing

    inputs = ["images"] if isinstance(about.spec, ImageSpec) else ["tokens", "lengths"]
    outputs = [about.output] if about.outputs in (None, about.output) else [about.output, about.outputs]
    try:
        with tracing():
            program = torch.onnx.export(
                trace(model, about, about.output == "logits", len(outputs) > 1), dynamo=True, opset_version=opset,
                input_names=inputs, output_names=outputs, custom_translation_table=translations(),
                external_data=False, verbose=False,
            )  # fmt: skip
    except Exception as error:  # the tracer executes the model's code, which can raise any exception
        raise UsageError(
            f"model {about.model!r} cannot be exported to onnx: {failure_reason(error)} Use --to safetensors."
        ) from error
    assert program is not None
    return program.model_proto


def _name_dynamic_axes(proto: ModelProto, names: tuple[str, ...]) -> None:
    """Rename the dynamic dimensions of the first input, which the tracer calls s0, s1, …, throughout the graph."""
    symbols = [dim.dim_param for dim in proto.graph.input[0].type.tensor_type.shape.dim if dim.dim_param]
    renamed = dict(zip(symbols, names, strict=True))
    for message in messages(proto):
        if message.DESCRIPTOR.name == "Dimension" and message.dim_param in renamed:
            message.dim_param = renamed[message.dim_param]


def _providers(device: str) -> list[str]:
    import onnxruntime

    kind, _, number = device.partition(":")
    if kind in ("auto", "cpu") and not number:
        return ["CPUExecutionProvider"]
    if kind == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]
    raise UsageError(f"--device {device}: this onnxruntime supports only the CPU. Remove --device.")


def _short_reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
