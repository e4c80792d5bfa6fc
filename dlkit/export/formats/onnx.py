"""ONNX: one file for onnxruntime and its like, with the preprocessing and the link function inside the graph.

Bai, Lu, Zhang et al., "ONNX: Open Neural Network Exchange", 2019, https://github.com/onnx/onnx. Made by torch's dynamo
exporter; any number of inputs at a time. `images` (uint8, N×H×W×C) go in, or of text `tokens` (int64, N×T, the ids of
the words, padded behind) and `lengths` (int64, N); `probabilities` (float32, N×K) come out. Unless they are a softmax,
the second output is the network's own, `logits`.

raw=True is the bare network: normalised float32 N×C×H×W in, `logits` out. resize=True takes images of any size and
resizes and centre crops them as dlkit.data.images.resize_crop.prepare does, to the last bit. All weights are in the
one file, so that a network of more than 2 GiB cannot be exported.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dlkit import export_metadata
from dlkit.errors import ModelFileError, UsageError
from dlkit.export.formats._fed import Feeds, GraphClassifier
from dlkit.export.formats._onnx_proto import MARKER, MAX_BYTES, messages
from dlkit.export_metadata import About
from dlkit.inference.classifier import Classifier
from dlkit.specs import ImageSpec, Spec

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

TAKES = ("images", "sequences")
SUFFIX = ".onnx"
NEEDS = ("onnx", "onnxscript", "onnxruntime")
OPSETS = (18, 19, 20, 21, 22, 23)  # what torch's exporter writes


def export(
    model: nn.Module, spec: Spec, about: About, *, raw: bool = False, resize: bool = False, opset: int = 20
) -> bytes:
    if raw and resize:
        raise UsageError("--raw takes normalised images and --resize prepares them: choose one.")
    if resize and not isinstance(spec, ImageSpec):
        raise UsageError(f"--resize prepares images; this network reads {spec.kind}.")
    if resize and isinstance(spec, ImageSpec) and spec.interpolation != "bilinear":
        raise UsageError(f"--resize is bilinear, and this network's images are {spec.interpolation}: leave it out.")
    if opset not in OPSETS:
        raise UsageError(f"--opset {opset}: it is one of {', '.join(map(str, OPSETS))}.")
    about = about.raw() if raw else about
    proto = _traced(model, about, opset)
    _name_axes(proto, ("N",) if isinstance(spec, ImageSpec) else ("N", "T"))
    for message in messages(proto):
        for name in ("metadata_props", "doc_string"):  # the exporter's stack traces, with paths of this machine
            if name in message.DESCRIPTOR.fields_by_name:
                message.ClearField(name)
    if resize:
        assert isinstance(spec, ImageSpec)
        from dlkit.export.formats._onnx_resize import prepend_resize

        prepend_resize(proto.graph, spec)
        about = about.with_(feed="any_size")
    return packed(proto, about.with_(opset=opset))


def packed(proto: ModelProto, about: About) -> bytes:
    """The file's bytes, with what it says of itself, sealed."""
    import onnx

    onnx.helper.set_model_props(
        proto, {export_metadata.KEY: about.to_json(), export_metadata.SEAL_KEY: export_metadata.UNSEALED}
    )
    if proto.ByteSize() > MAX_BYTES:
        raise UsageError(f"{about.model!r} cannot be one ONNX file: it has more than 2 GiB. --to safetensors can.")
    return export_metadata.seal(proto.SerializeToString(), MARKER)


def classifier(data: bytes, about: About, device: str = "auto") -> Classifier:
    """What answers images or texts by onnxruntime. The bytes must have been checked: _onnx_safety.py.

    Raises:
        ModelFileError: onnxruntime refuses the file, or its answers are not what the file says.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4  # what goes wrong is raised
    try:
        session = onnxruntime.InferenceSession(data, settings, providers=_providers(device))
    except Exception as error:  # onnxruntime's own exceptions have no common class
        raise ModelFileError(f"onnxruntime refuses it: {_reason(error)}") from error

    def compute(feeds: Feeds, output: str) -> npt.NDArray[np.float32]:
        try:
            found: npt.NDArray[np.float32] = session.run([output], dict(feeds))[0]
        except Exception as error:  # as above
            raise ModelFileError(f"onnxruntime cannot run it: {_reason(error)}") from error
        return found

    return GraphClassifier(about, compute)


def runtime() -> str:
    return f"onnxruntime {version('onnxruntime')}"


def _traced(model: nn.Module, about: About, opset: int) -> ModelProto:
    import torch

    from dlkit.export.formats._recurrent import translations
    from dlkit.export.formats._served import reason, traced, tracing

    inputs = ["images"] if isinstance(about.spec, ImageSpec) else ["tokens", "lengths"]
    outputs = [about.output] if about.outputs in (None, about.output) else [about.output, about.outputs]
    try:
        with tracing():
            program = torch.onnx.export(
                traced(model, about, about.output == "logits", len(outputs) > 1), dynamo=True, opset_version=opset,
                input_names=inputs, output_names=outputs, custom_translation_table=translations(),
                external_data=False, verbose=False,
            )  # fmt: skip
    except Exception as error:  # the tracer runs the model's own code and may raise anything
        raise UsageError(
            f"model {about.model!r} to onnx is not possible, because {reason(error)} --to safetensors always is."
        ) from error
    assert program is not None
    return program.model_proto


def _name_axes(proto: ModelProto, names: tuple[str, ...]) -> None:
    """Call the sides of any length of the first input so, which the tracer calls s0, s1, …, wherever they stand."""
    sides = [side.dim_param for side in proto.graph.input[0].type.tensor_type.shape.dim if side.dim_param]
    named = dict(zip(sides, names, strict=True))
    for message in messages(proto):
        if message.DESCRIPTOR.name == "Dimension" and message.dim_param in named:
            message.dim_param = named[message.dim_param]


def _providers(device: str) -> list[str]:
    import onnxruntime

    kind, _, number = device.partition(":")
    if kind in ("auto", "cpu") and not number:
        return ["CPUExecutionProvider"]
    if kind == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]
    raise UsageError(f"--device {device}: this onnxruntime computes on the CPU. Leave --device out.")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
