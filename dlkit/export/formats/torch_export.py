"""torch.export: the network as a graph of ATen operations, for torch without dlkit, AOTInductor and ExecuTorch.

Reed, DeVito, He, Ussery and Ansel, "torch.fx: practical program capture and transformation for deep learning in
Python", 2021 (2112.08429), and torch.export's documentation. `images` (uint8, N×H×W×C) go in, or of text `tokens`
(int64 ids, N×T) and `lengths` (int64, N), and probabilities come out; raw=True is the bare network, normalised float32
N×C×H×W in and logits out. `torch.export.load(FILE).module()(images)`.

The file is a zip whose parts torch writes; what it says of itself is its extra file `dlkit`. It has no seal of its own,
so that only its export.json vouches for it, and dlkit reads none but to verify one that it wrote.
"""

from __future__ import annotations

import io
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dlkit import export_metadata
from dlkit.errors import MALFORMED, ModelFileError, UsageError
from dlkit.export.formats._fed import Feeds, GraphClassifier
from dlkit.export_metadata import About
from dlkit.inference.classifier import Classifier
from dlkit.specs import Spec

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

TAKES = ("images", "sequences")
SUFFIX = ".pt2"
NEEDS = ()


def export(model: nn.Module, spec: Spec, about: About, *, raw: bool = False) -> bytes:
    import torch

    from dlkit.export.formats._served import reason, traced, tracing

    file, about = io.BytesIO(), about.raw() if raw else about
    try:
        with tracing():
            program = traced(model, about, raw)
            _strip(program)
            torch.export.save(program, file, extra_files={export_metadata.KEY: about.to_json()})
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
            (name,) = (name for name in archive.namelist() if name.endswith(f"extra/{export_metadata.KEY}"))
            return About.from_json(archive.read(name).decode())
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, *MALFORMED) as error:
        raise ModelFileError("it is no torch.export file of dlkit.") from error


def classifier(data: bytes, about: About, device: str = "auto") -> Classifier:
    """What answers images or texts by the exported program. Only for bytes that dlkit itself wrote.

    Raises:
        ModelFileError: torch cannot load it.
    """
    import torch

    from dlkit.export.formats._served import tracing

    try:
        with tracing():
            program = torch.export.load(io.BytesIO(data)).module()
    except Exception as error:  # a damaged archive may make the reader raise anything
        raise ModelFileError("torch.export cannot load it.") from error

    def compute(feeds: Feeds, output: str) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            found: npt.NDArray[np.float32] = program(*map(torch.from_numpy, feeds.values())).numpy()
        return found

    return GraphClassifier(about, compute)


def runtime() -> str:
    return f"torch {version('torch')}"
