"""torch.export: the network as a graph of ATen operations, for torch without dlkit, AOTInductor and ExecuTorch.

Reed, DeVito, He, Ussery and Ansel, "torch.fx: practical program capture and transformation for deep learning in
Python", 2021 (2112.08429), and torch.export's documentation. `images` (uint8, N×H×W×C) goes in, probabilities come out;
raw=True is the bare network, normalised float32 N×C×H×W in and logits out. `torch.export.load(FILE).module()(images)`.

The file is a zip whose parts torch writes; what it says of itself is its extra file `dlkit`. It has no seal of its own,
so that only its export.json vouches for it, and dlkit reads none but to verify one that it wrote.
"""

from __future__ import annotations

import io
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from dlkit import exported
from dlkit.data.classifier import Classifier, LogProbabilities, Pixels, log_probabilities, normalized
from dlkit.errors import ModelFileError, UsageError
from dlkit.exported import About
from dlkit.specs import ImageSpec

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

SUFFIX = ".pt2"
NEEDS = ()


def export(model: nn.Module, spec: ImageSpec, about: About, *, raw: bool = False) -> bytes:
    import torch

    from dlkit.exporters._served import Served, example, reason, tracing

    served = model if raw else Served(model, spec).eval()
    about = about.with_(feed="normalised", output="logits") if raw else about
    file = io.BytesIO()
    try:
        with tracing():
            program = torch.export.export(
                served, (example(spec, raw),), dynamic_shapes=({0: torch.export.Dim("N")},), strict=False
            )
            _strip(program)
            torch.export.save(program, file, extra_files={exported.KEY: about.to_json()})
    except Exception as error:  # the tracer runs the model's own code and may raise anything
        raise UsageError(
            f"model {about.model!r} to torch_export is not possible, because {reason(error)} "
            "--to safetensors always is."
        ) from error
    return file.getvalue()


def _strip(program: ExportedProgram) -> None:
    """Take out the example, which would be a pickle, and where on this machine each line of code stood."""
    program.example_inputs = None
    for node in program.graph.nodes:
        for name in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node"):
            node.meta.pop(name, None)


def read_about(data: bytes) -> About:
    """Raises: ModelFileError where it is no such file, or not of dlkit."""
    import zipfile

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(f"extra/{exported.KEY}"))
            return About.from_json(archive.read(name).decode())
    except (ValueError, zipfile.BadZipFile) as error:
        raise ModelFileError("it is no torch.export file of dlkit.") from error


def classifier(data: bytes, about: About, device: str = "auto") -> Classifier:
    """What answers (N, C, H, W) uint8 images by the exported program. Only for bytes that dlkit itself wrote.

    Raises:
        ModelFileError: torch cannot load it.
    """
    import torch

    from dlkit.exporters._served import tracing

    try:
        with tracing():
            program = torch.export.load(io.BytesIO(data)).module()
    except Exception as error:  # a damaged archive may make the reader raise anything
        raise ModelFileError("torch.export cannot load it.") from error

    def classify(pixels: Pixels) -> LogProbabilities:
        raw = about.feed == "normalised"
        images = normalized(pixels, about.spec) if raw else np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
        with torch.inference_mode():
            answers = program(torch.from_numpy(images)).numpy()
        return log_probabilities(answers, (len(pixels), len(about.spec.classes)), about.output)

    return classify


def runtime() -> str:
    return f"torch {version('torch')}"
