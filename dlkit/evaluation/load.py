"""The network of a run, for programs of one's own: in eval mode, with its preprocessing and its classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dlkit.data.batches import normalize
from dlkit.data.images import decode, in_memory
from dlkit.data.link import log_probabilities
from dlkit.runs.run_folder import CheckpointName, RunFolder, select_run
from dlkit.specs import ImageSpec, Link
from dlkit.training.restore import restore

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network in eval mode. `model(images)` are the probabilities of images as `predict` takes them."""

    module: nn.Module
    spec: ImageSpec
    device: torch.device
    link: Link

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the network's outputs."""
        return self.spec.classes

    def preprocess(self, images: Any) -> Tensor:
        """Paths, PIL images, arrays or tensors, one or several → what the network takes, (N, C, H, W) on its device.

        Raises:
            DataError: an image cannot be read. UsageError: an array is no image.
        """
        sources = [source for image in _listed(images) for source in _sources(image)]
        pixels = np.stack([decode.load(source, self.spec) for source in sources])
        return normalize(torch.from_numpy(pixels).to(self.device), self.spec)

    @torch.inference_mode()
    def __call__(self, images: Any) -> Tensor:
        """The probabilities of each class, (N, K) on the CPU."""
        outputs = self.module(self.preprocess(images)).cpu().double().numpy()
        return torch.from_numpy(log_probabilities(outputs, self.link)).exp()


def load(
    run: RunFolder | Path | str | None = None,
    *,
    checkpoint: CheckpointName = "best",
    device: str = "auto",
    runs_dir: Path | str = "runs",
    say: Say = lambda text: None,
) -> LoadedModel:
    """The network of a run on images, by default the newest, with the weights that eval and predict use.

    Raises:
        UsageError: no such run, or one that does not read images. ModelFileError: its checkpoint is damaged.
    """
    restored = restore(select_run(run, Path(runs_dir), say), checkpoint, device, say)
    return LoadedModel(restored.model, restored.image_spec, restored.device, restored.link)


def _listed(images: Any) -> Iterable[Any]:
    single = isinstance(images, str | Path | bytes) or in_memory.is_in_memory(images)
    return [images] if single else images


def _sources(image: Any) -> Iterable[Path | bytes]:
    if in_memory.is_in_memory(image):
        return in_memory.files(image)
    return [image if isinstance(image, bytes) else Path(image)]
