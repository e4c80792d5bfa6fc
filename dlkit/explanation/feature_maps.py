"""The layers of a convolutional network that have feature maps, and images of its filters and maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit.data.inputs import InputLike, listed
from dlkit.errors import DlkitError, UsageError
from dlkit.evaluation.prediction import Failure
from dlkit.explanation.output_paths import OutputPaths
from dlkit.explanation.records import FEATURES_SCHEMA, FOLDER, FeatureMaps, SpatialLayer
from dlkit.runs.run_folder import CheckpointName, RunFolder, select_run
from dlkit.specs import ImageSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import nn

    from dlkit.explanation.model import ExplainedModel

Say = Callable[[str], None]


def layers(
    run: RunFolder | Path | str | None = None,
    *,
    checkpoint: CheckpointName = "best",
    runs_dir: Path | str = "runs",
    say: Say = lambda text: None,
) -> list[SpatialLayer]:
    """The layers of a run's model that have feature maps, in the order of the forward pass."""
    model = _image_model(_select_image_run(run, Path(runs_dir), say), checkpoint, "cpu", say)
    default = model.default_layer()
    return [
        SpatialLayer(path, type(model.network.get_submodule(path)).__name__, *shape, path == default)
        for path, shape in model.layers().items()
    ]


def features(
    run: RunFolder | Path | str | None = None,
    paths: InputLike | Iterable[InputLike] = (),
    *,
    layer: str,
    output: Path | str | None = None,
    checkpoint: CheckpointName = "best",
    device: str = "auto",
    runs_dir: Path | str = "runs",
    say: Say = lambda text: None,
) -> Iterator[FeatureMaps | Failure]:
    """Draw the filters of the first convolution, and the feature maps of a layer for each image.

    Raises:
        UsageError: no such run or layer.
    """
    folder = _select_image_run(run, Path(runs_dir), say)
    several = listed(paths)
    output_paths = OutputPaths.create(output, folder.path / FOLDER, several)
    model = _image_model(folder, checkpoint, device, say)
    model.check_layer(layer, "--features")
    return _features(model, several, layer, output_paths)


def first_filters(model: nn.Module) -> npt.NDArray[np.float32] | None:
    """The weights of the first convolution, (maps, C, kh, kw); None for a model without one."""
    from torch import nn

    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None:
        return None
    weights: npt.NDArray[np.float32] = first.weight.detach().cpu().numpy()
    return weights


def _select_image_run(run: RunFolder | Path | str | None, runs_dir: Path, say: Say) -> RunFolder:
    folder = select_run(run, runs_dir, say)
    kind = folder.spec().kind
    if kind != ImageSpec.kind:
        raise UsageError(f"layers and features are for models of images; run {folder.name} takes {kind}.")
    return folder


def _image_model(run: RunFolder, checkpoint: CheckpointName, device: str, say: Say) -> ExplainedModel:
    from dlkit.explanation.model import ExplainedModel
    from dlkit.training.restore import restore

    return ExplainedModel(restore(run, checkpoint, device, say), None, say)


def _features(
    model: ExplainedModel, paths: Iterable[InputLike], layer: str, output_paths: OutputPaths
) -> Iterator[FeatureMaps | Failure]:
    import torch

    from dlkit.explanation import overlay
    from dlkit.explanation.methods._layers import record_maps

    for item in model.read(paths):
        if isinstance(item.content, DlkitError):
            yield Failure(item.name, model.name, item.content.exit_code, str(item.content), FEATURES_SCHEMA)
            continue
        pixels: Any = item.content
        with torch.no_grad(), record_maps(model.network, layer) as recorded:
            model.network(model.view(pixels).inputs)
        maps = recorded[-1][0].cpu().numpy()  # (C, h, w)
        path = output_paths.assign(item.name, f"features-{layer}")
        title = f"{model.name}: {len(maps)} maps of {layer}, {maps.shape[1]} x {maps.shape[2]} each"
        shown = overlay.draw_features(pixels, first_filters(model.network), maps, title, path)
        channels, height, width = maps.shape
        yield FeatureMaps(item.name, model.name, layer, channels, height, width, shown, path)
