"""torch.export: the network as a graph of ATen operations, for torch without dlkit, AOTInductor and ExecuTorch.

Reed, DeVito, He, Ussery and Ansel, "torch.fx: practical program capture and transformation for deep learning in
Python", 2021 (2112.08429), and torch.export's documentation. Inputs are `images` (uint8, N×H×W×C), or for text `tokens`
(int64 ids, N×T) and `lengths` (int64, N); the output is probabilities. raw=True exports the bare network, normalized
float32 N×C×H×W in and logits out. `torch.export.load(FILE).module()(images)`.

The file is a zip archive written by torch, with its description in the extra file `dlkit`. It has no seal: only
export.json can confirm that it is unchanged, and dlkit reads such files only to verify those that it wrote.
"""

from __future__ import annotations

import io
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dlkit import export_metadata
from dlkit.errors import MALFORMED, ModelFileError, UsageError
from dlkit.export.formats._graph_classifier import Feeds, GraphClassifier
from dlkit.export_metadata import ExportMetadata
from dlkit.inference.classifier import Classifier
from dlkit.specs import Spec

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

TAKES = ("images", "sequences")
SUFFIX = ".pt2"
NEEDS = ()


def export(model: nn.Module, spec: Spec, about: ExportMetadata, *, raw: bool = False) -> bytes:
    import torch

    from dlkit.export.formats._tracing import failure_reason, trace, tracing

    file, about = io.BytesIO(), about.raw() if raw else about
    try:
        with tracing():
            program = trace(model, about, raw)
            _strip(program)
            torch.export.save(program, file, extra_files={export_metadata.KEY: about.to_json()})
    except Exception as error:  # the tracer executes the model's code, which can raise any exception
        raise UsageError(
            f"model {about.model!r} cannot be exported to torch_export: {failure_reason(error)} Use --to safetensors."
        ) from error
    return file.getvalue()


def _strip(program: ExportedProgram) -> None:
    """Remove the example inputs, which would be pickled, and the stack traces, which contain local paths."""
    program.example_inputs = None
    for node in program.graph.nodes:
        for name in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node"):
            node.meta.pop(name, None)


def read_about(data: bytes) -> ExportMetadata:
    """Raises: ModelFileError if the file is not a torch.export file of dlkit."""
    import zipfile

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(f"extra/{export_metadata.KEY}"))
            return ExportMetadata.from_json(archive.read(name).decode())
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, *MALFORMED) as error:
        raise ModelFileError("it is not a torch.export file of dlkit.") from error


def classifier(data: bytes, about: ExportMetadata, device: str = "auto") -> Classifier:
    """The classifier of an exported program; only for files that dlkit itself wrote.

    Raises:
        ModelFileError: torch cannot load it.
    """
    import torch

    from dlkit.export.formats._tracing import tracing

    try:
        with tracing():
            program = torch.export.load(io.BytesIO(data)).module()
    except Exception as error:  # a damaged archive can raise any exception
        raise ModelFileError("torch.export cannot load it.") from error

    def compute(feeds: Feeds, output: str) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            values: npt.NDArray[np.float32] = program(*map(torch.from_numpy, feeds.values())).numpy()
        return values

    return GraphClassifier(about, compute)


def runtime() -> str:
    return f"torch {version('torch')}"
