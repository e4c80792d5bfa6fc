"""What a trained model sees in images: an answer for each input, in order, as soon as it is known.

A thread reads the inputs and a few decode them, ahead of the model by a bounded number of images; so memory is bounded
and the first answer does not wait for the last path. Paths that come one at a time (a pipe, a generator) are answered
as they come; a list is answered in full batches.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit import catalog
from dlkit.data.inputs import Ahead, Given, inputs
from dlkit.engine.run_folder import RunFolder
from dlkit.errors import DlkitError, ModelFileError, UsageError
from dlkit.recipe import Data
from dlkit.specs import ImageSpec
from dlkit.verbs.evaluate import DEFAULT_TOPK, Checkpoint, chosen_run

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import nn

SCHEMA = "dlkit.predict/1"
WAIT_S = 0.05  # how long a batch that has begun waits for another image of a slow source

Say = Callable[[str], None]


@dataclass(frozen=True)
class Ranked:
    """One class that an image may show; ranks count from 1."""

    rank: int
    name: str
    index: int
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, best first."""

    path: str
    model: str
    predictions: tuple[Ranked, ...]

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.predict/1`."""
        rows = [
            {"rank": r.rank, "class": r.name, "index": r.index, "probability": r.probability} for r in self.predictions
        ]
        return {"schema": SCHEMA, "path": self.path, "model": self.model, "predictions": rows}


@dataclass(frozen=True)
class Failure:
    """An input that could not be read; `code` is the exit code of its kind of error."""

    path: str
    model: str
    code: int
    message: str

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.predict/1`."""
        error = {"code": self.code, "message": self.message}
        return {"schema": SCHEMA, "path": self.path, "model": self.model, "error": error}


def predict(
    run: RunFolder | Path | str | None = None,
    paths: Given | Iterable[Given] = (),
    *,
    model: str | None = None,
    weights: Path | str | None = None,
    dataset: str | None = None,
    data_dir: Path | str | None = None,
    topk: int | None = None,
    min_prob: float = 0.0,
    checkpoint: Checkpoint = "best",
    device: str = "auto",
    batch_size: int = 32,
    runs_dir: Path | str = "runs",
    say: Say = lambda text: None,
) -> Iterator[Prediction | Failure]:
    """Answer images in order: files, folders (searched through, sorted), globs, http(s) URLs, or an image's bytes.

    The model is a run's (the newest, where none is named), or `model` with `weights` from a run or a file; a file that
    does not say what its images and classes are needs `dataset` for that. An input that cannot be read is answered by
    a Failure and the rest go on. topk is 5, or the number of classes where that is less; ranks below min_prob are left
    out.

    Raises:
        UsageError: no such run, model or k; at once, before anything is read.
        ModelFileError: the checkpoint or weights are damaged or do not fit.
    """
    network = _from_weights(model, weights, dataset, data_dir, Path(runs_dir), checkpoint, say)
    if network is None:
        network = _from_run(chosen_run(run, Path(runs_dir), say), checkpoint, say)
    elif run is not None:
        raise UsageError("give a run, or --model and --weights; not both.")
    classes = len(network.spec.classes)
    k = min(DEFAULT_TOPK, classes) if topk is None else topk
    if not 1 <= k <= classes:
        raise UsageError(f"--topk {k}: the model has {classes} classes, so k is 1 to {classes}.")
    if not 0 <= min_prob <= 1:
        raise UsageError(f"--min-prob {min_prob:g}: a probability is 0 to 1.")
    if batch_size < 1:
        raise UsageError(f"a batch of {batch_size} holds nothing. Give --batch-size 1 or more.")
    listed = [paths] if isinstance(paths, str | Path | bytes) else paths
    return _predictions(network, listed, k, min_prob, device, batch_size, say)


@dataclass(frozen=True)
class Network:
    """A model that is known but not yet built: `load` imports torch, nothing else here does."""

    name: str
    spec: ImageSpec
    load: Callable[[str], tuple[nn.Module, torch.device]]  # from a device's name


def _from_run(run: RunFolder, checkpoint: Checkpoint, say: Say) -> Network:
    def load(device: str) -> tuple[nn.Module, torch.device]:
        from dlkit.engine.restore import restore

        restored = restore(run, checkpoint, device, say)
        return restored.model, restored.device

    return Network(run.recipe().model.name, run.spec(), load)


def _from_weights(
    model: str | None,
    weights: Path | str | None,
    dataset: str | None,
    data_dir: Path | str | None,
    runs_dir: Path,
    checkpoint: Checkpoint,
    say: Say,
) -> Network | None:
    """The model that --model and --weights name, or none where neither is given."""
    if model is None and weights is None:
        if dataset is not None or data_dir is not None:
            raise UsageError("--dataset says what --weights are for; a run knows that itself.")
        return None
    if model is not None:
        catalog.entry("models", model)
    if model is None or weights is None:
        raise UsageError(
            "--model NAME and --weights FILE go together: a name has no weights, and weights have no name."
        )
    source = Path(weights)
    for folder in (source, runs_dir / source):
        if (folder / "run.json").is_file():
            return _named(_from_run(RunFolder(folder), checkpoint, say), model, f"run {folder}")
    if not source.is_file():
        raise ModelFileError(f"weights {source}: no such run or file.")
    return _from_file(model, source, dataset, data_dir, say)


def _from_file(model: str, source: Path, dataset: str | None, data_dir: Path | str | None, say: Say) -> Network:
    """A model of the shelf with the weights of a file; a run's checkpoint knows its run's images and options."""
    home = RunFolder(source.absolute().parent.parent)
    options: dict[str, Any] = {}
    if (home.path / "run.json").is_file():
        recipe = home.recipe()
        options, spec = dict(recipe.model.options), home.spec()
        _named(Network(recipe.model.name, spec, _unloaded), model, f"run {home.name}")
    elif dataset is None:
        raise UsageError(f"weights {source} do not say which images and classes they are for: give --dataset NAME.")
    else:
        from dlkit.verbs.dataset import splits

        place = None if data_dir is None else os.fspath(data_dir)
        spec = splits(Data.model_validate({"name": dataset, "dir": place}), say=say).spec

    def load(device: str) -> tuple[nn.Module, torch.device]:
        from dlkit.engine.precision import choose_device
        from dlkit.engine.restore import build, load_state, read_weights

        found, chosen = build(model, spec, options), choose_device(device)
        load_state(found, _network_only(read_weights(source)), str(source))
        return found.to(chosen).eval(), chosen

    return Network(model, spec, load)


def _unloaded(device: str) -> tuple[nn.Module, torch.device]:
    raise AssertionError("only its name is asked for")


def _named(network: Network, model: str, where: str) -> Network:
    if network.name != model:
        raise UsageError(f"{where} holds {network.name!r}, not {model!r}. Give --model {network.name}, or --run alone.")
    return network


def _network_only(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of a run's checkpoint, the weights that eval uses: the averaged ones where it has them."""
    for prefix in ("ema/", "model/"):
        under = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        if under:
            return under
    return tensors


def _predictions(
    network: Network, paths: Iterable[Given], topk: int, min_prob: float, device: str, batch_size: int, say: Say
) -> Iterator[Prediction | Failure]:
    with closing(Ahead(inputs(paths), network.spec, 2 * batch_size)) as ahead:  # decodes while torch is imported
        module, place = network.load(device)
        wait_s = None if isinstance(paths, Sequence) else WAIT_S
        for batch in ahead.batches(batch_size, wait_s):
            images = [read.pixels for read in batch if not isinstance(read.pixels, DlkitError)]
            answers = iter(_answers(module, place, network.spec, images, topk) if images else [])
            for read in batch:
                for note in read.notes:
                    say(f"warning: {note}")
                if isinstance(read.pixels, DlkitError):
                    yield Failure(read.name, network.name, read.pixels.exit_code, str(read.pixels))
                else:
                    kept = tuple(ranked for ranked in next(answers) if ranked.probability >= min_prob)
                    yield Prediction(read.name, network.name, kept)


def _answers(
    module: nn.Module, device: torch.device, spec: ImageSpec, pixels: list[npt.NDArray[np.uint8]], topk: int
) -> list[tuple[Ranked, ...]]:
    """The best classes of each image."""
    import numpy as np
    import torch

    from dlkit.data.batches import normalize
    from dlkit.metrics import ranked

    with torch.inference_mode():
        images = torch.from_numpy(np.stack(pixels)).to(device)  # (N, C, H, W) uint8
        log_probabilities = module(normalize(images, spec)).cpu().double().log_softmax(dim=1)  # (N, K)
    if not bool(log_probabilities.isfinite().all()):
        raise ModelFileError("the model's answers are not finite. Train it again.")
    best = ranked(log_probabilities, topk)  # (N, topk)
    probabilities = log_probabilities.gather(1, best).exp()
    return [
        tuple(Ranked(rank, spec.classes[index], index, p) for rank, (index, p) in enumerate(pairs, start=1))
        for pairs in (zip(*row, strict=True) for row in zip(best.tolist(), probabilities.tolist(), strict=True))
    ]
