"""What a convolutional network looks with: its layers that give maps, and pictures of its filters and of the maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit.data.inputs import Given, Stream
from dlkit.errors import DlkitError, UsageError
from dlkit.evaluation.prediction import Failure
from dlkit.explanation.pictures import Pictures
from dlkit.explanation.records import FEATURES_SCHEMA, FOLDER, Features, Layer
from dlkit.runs.run_folder import CheckpointName, RunFolder, select_run
from dlkit.specs import ImageSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import nn

    from dlkit.explanation.subject import Subject

Say = Callable[[str], None]


def layers(
    run: RunFolder | Path | str | None = None,
    *,
    checkpoint: CheckpointName = "best",
    runs_dir: Path | str = "runs",
    say: Say = lambda text: None,
) -> list[Layer]:
    """The layers of a run's model whose maps can be looked at, in the order in which an image meets them."""
    found = _image_run(run, Path(runs_dir), say)

    from dlkit.explanation.subject import Subject
    from dlkit.training.restore import restore

    subject = Subject(restore(found, checkpoint, "cpu", say), None, say)
    default = subject.default_layer()
    return [
        Layer(path, type(subject.model.get_submodule(path)).__name__, *form, path == default)
        for path, form in subject.layers().items()
    ]


def features(
    run: RunFolder | Path | str | None = None,
    paths: Given | Iterable[Given] = (),
    *,
    layer: str,
    output: Path | str | None = None,
    checkpoint: CheckpointName = "best",
    device: str = "auto",
    runs_dir: Path | str = "runs",
    say: Say = lambda text: None,
) -> Iterator[Features | Failure]:
    """Draw the first convolution's filters, and the maps that a layer gives of each image.

    Raises:
        UsageError: no such run or layer.
    """
    found = _image_run(run, Path(runs_dir), say)
    listed = [paths] if isinstance(paths, str | Path | bytes | Stream) else paths
    pictures = Pictures.at(output, found.path / FOLDER, listed)

    from dlkit.explanation.subject import Subject
    from dlkit.training.restore import restore

    subject = Subject(restore(found, checkpoint, device, say), None, say)
    subject.check_layer(layer, "--features")
    return _features(subject, listed, layer, pictures)


def first_filters(model: nn.Module) -> npt.NDArray[np.float32] | None:
    """The weights of the first convolution, (maps, C, kh, kw); None where there is none."""
    from torch import nn

    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None:
        return None
    weights: npt.NDArray[np.float32] = first.weight.detach().cpu().numpy()
    return weights


def _image_run(run: RunFolder | Path | str | None, runs_dir: Path, say: Say) -> RunFolder:
    found = select_run(run, runs_dir, say)
    kind = found.spec().kind
    if kind != ImageSpec.kind:
        raise UsageError(f"layers and features are of models of images; run {found.name} reads {kind}.")
    return found


def _features(subject: Subject, paths: Iterable[Given], layer: str, pictures: Pictures) -> Iterator[Features | Failure]:
    import torch

    from dlkit.explanation import overlay
    from dlkit.explanation.methods._layers import kept_maps

    for read in subject.reads(paths):
        if isinstance(read.content, DlkitError):
            yield Failure(read.name, subject.name, read.content.exit_code, str(read.content), FEATURES_SCHEMA)
            continue
        pixels: Any = read.content
        with torch.no_grad(), kept_maps(subject.model, layer) as kept:
            subject.model(subject.view(pixels).inputs)
        maps = kept[-1][0].cpu().numpy()  # (C, h, w)
        path = pictures.place(read.name, f"features-{layer}")
        title = f"{subject.name}: {layer} gives {len(maps)} maps of {maps.shape[1]} x {maps.shape[2]}"
        shown = overlay.features(pixels, first_filters(subject.model), maps, title, path)
        channels, height, width = maps.shape
        yield Features(read.name, subject.name, layer, channels, height, width, shown, path)
