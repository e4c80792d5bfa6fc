"""safetensors: the weights by name, with a description of the model in the header; `dlkit predict` reads it anywhere.

The format of https://github.com/huggingface/safetensors: a JSON header followed by tensors, without executable parts.
The network itself is dlkit's code; another program needs its own. The file holds the averaged weights if the run has
them.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit import atomic_io, export_metadata, registry
from dlkit.errors import MALFORMED, ModelFileError, UsageError, VerificationError
from dlkit.export_metadata import ExportMetadata
from dlkit.inference.classifier import Classifier
from dlkit.specs import Spec

if TYPE_CHECKING:
    from torch import nn

TAKES = ("images", "sequences", "trees")
SUFFIX = ".safetensors"
NEEDS = ("safetensors",)
MARKER = b'"' + export_metadata.SEAL_KEY.encode() + b'":"'
MAX_HEADER = 100 << 20  # bytes, the format's own limit


def export(model: nn.Module, spec: Spec, about: ExportMetadata) -> bytes:
    import safetensors.torch

    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    metadata = {export_metadata.KEY: about.to_json(), export_metadata.SEAL_KEY: export_metadata.UNSEALED}
    return export_metadata.seal(safetensors.torch.save(weights, metadata), MARKER)


def read_about(data: bytes) -> ExportMetadata | None:
    """The description in the header; None if dlkit did not write the file.

    Raises:
        ModelFileError: the header is missing or invalid.
    """
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(MAX_HEADER, len(data) - 8):
        raise ModelFileError("it is not a safetensors file: its header is truncated.")
    try:
        header: Any = json.loads(data[8 : 8 + size])
        text = header.get("__metadata__", {}).get(export_metadata.KEY)
    except MALFORMED as error:
        raise ModelFileError("it is not a safetensors file: its header is not a JSON object.") from error
    return None if text is None else ExportMetadata.from_json(text)


def read_export(path: Path) -> ExportMetadata | None:
    """The description of an exported .safetensors file; None if dlkit did not export it.

    Raises:
        ModelFileError: the file is damaged or its description invalid. VerificationError: it was changed.
    """
    try:
        with atomic_io.storage_errors(path), open(path, "rb") as file:
            first = file.read(8)
            size = min(int.from_bytes(first, "little"), path.stat().st_size)
            about = read_about(first + file.read(size))
        if about is not None:
            export_metadata.check_seal(path.read_bytes(), MARKER)
    except (ModelFileError, VerificationError) as error:
        raise type(error)(f"weights {path} cannot be read: {error}") from error
    return about


def classifier(data: bytes, about: ExportMetadata, device: str = "auto") -> Classifier:
    """The registry's network with the file's weights, by torch.

    Raises:
        ModelFileError: the weights are damaged, or do not fit the network that the file names.
    """
    import safetensors.torch
    import torch

    from dlkit.inference.torch_classifier import torch_classifier
    from dlkit.layers.output_scaling import scale_outputs

    try:
        options = registry.resolved_options("models", about.model, about.options)
        model: nn.Module = registry.load("models", about.model).build(about.spec, **options)
        model.load_state_dict(safetensors.torch.load(data))
    except (UsageError, TypeError, RuntimeError, safetensors.SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelFileError(f"its weights do not fit {about.model!r} of this dlkit: {reason}") from error
    torch_device = torch.device(device)
    model = model.to(torch_device).eval()
    if about.scales:
        scale_outputs(model, about.scale, about.bias)
    return torch_classifier(model, torch_device, about.spec, about.link)


def runtime() -> str:
    return f"torch {version('torch')}"
