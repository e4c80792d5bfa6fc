"""A classical classifier fitted to a data set: a run folder like any other, but of one step and no training loop.

The model is one of the shelf whose file has `fit`. What scikit-learn finds is put into tensors, so that the run holds
safetensors and JSON, and eval, predict and export read it without scikit-learn.
"""

from __future__ import annotations

import importlib.metadata
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dlkit import metrics, registry
from dlkit.config import schema
from dlkit.config.schema import Recipe
from dlkit.data.holdout import holdout_mask
from dlkit.data.images.sources import fetcher
from dlkit.data.loader import batches_in_order, take
from dlkit.data.splits import Samples
from dlkit.errors import UsageError
from dlkit.runs import run_creation, run_folder
from dlkit.runs.provenance import versions
from dlkit.runs.run_creation import Reservation
from dlkit.runs.run_folder import RunFolder
from dlkit.specs import ImageSpec
from dlkit.training import checkpoint, precision
from dlkit.training.inputs import Prepared, prepare
from dlkit.training.train import reserve

BATCH = 512  # images
STEP = 1  # the one that there is

Say = Callable[[str], None]


def names() -> list[str]:
    """The models of the shelf that are fitted."""
    return [name for name in registry.entries("models") if hasattr(registry.load("models", name), "fit")]


def fit_baseline(
    recipe: Recipe, *, limit: int | None, name: str | None, runs_dir: Path, argv: Sequence[str], say: Say
) -> RunFolder:
    """Fit a classical model to a data set's training split, measure it on the validation split, and store it.

    `limit` is how many images to fit to, of each class its share and one at least; by default the model's file says it.

    Raises:
        UsageError: the model is trained and not fitted, scikit-learn is missing, or the limit leaves a class out.
    """
    module = registry.load("models", recipe.model.name)
    if not hasattr(module, "fit"):
        listed = ", ".join(names())
        raise UsageError(f"{recipe.model.name} is trained: dlkit train {recipe.model.name}. Fitted are: {listed}.")
    changed = {f"loss.{key}": value for key, value in recipe.loss if value != getattr(schema.Loss(), key)}
    changed |= {} if recipe.data.sampler == "uniform" else {"data.sampler": recipe.data.sampler}
    for key, value in changed.items():
        raise UsageError(
            f"recipe.{key} is {value!r}: {recipe.model.name} is fitted by a criterion of its own, to all samples "
            "alike. Leave it out."
        )
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: fit to one image at least.")
    with reserve(recipe, name, runs_dir, say) as reservation:
        return _fitted(reservation, recipe, module, limit, argv, say)


def _fitted(
    reservation: Reservation, recipe: Recipe, module: ModuleType, limit: int | None, argv: Sequence[str], say: Say
) -> RunFolder:
    data = prepare(recipe, say)
    spec = data.spec
    if not isinstance(spec, ImageSpec):
        raise UsageError(f"a baseline is fitted to images; data set {recipe.data.name!r} holds {spec.kind}.")
    samples = _limited(data.splits["train"], module.LIMIT if limit is None else limit, recipe.train.seed)
    say(f"fitting {recipe.model.name} to {len(samples):,} of {len(data.splits['train']):,} images")
    begun = time.monotonic()
    options = registry.resolved_options("models", recipe.model.name, recipe.model.options)
    pixels = _pixels(samples, spec, recipe.data.workers)
    model, sizes = module.fit(pixels, samples.targets, spec, recipe.train.seed, options)
    seconds = time.monotonic() - begun
    say(f"fitted in {seconds:.1f} s")
    fitted = recipe.model_copy(
        update={
            "model": recipe.model.model_copy(update={"options": {**options, **sizes}}),
            "train": recipe.train.model_copy(update={"epochs": 1}),
        }
    )
    line = {"step": STEP, "epoch": 1, **_validated(model.eval(), data, recipe.data.workers), "fit_s": round(seconds, 3)}
    if "val/top1" in line:
        say(f"val top-1 {100 * line['val/top1']:.2f} %")
    info = {**_identity(fitted, data, model, line), "fitted_to": len(samples), "argv": list(argv)}
    folder = run_creation.create(reservation, fitted, info, partial(_save, model, line))
    say(f"run: {folder.path}")
    return folder


def _limited(samples: Samples, limit: int | None, seed: int) -> Samples:
    """That many, of each class its share and one at least, in their order."""
    if limit is None or limit >= len(samples):
        return samples
    return take(samples, np.flatnonzero(holdout_mask(samples.targets, limit / len(samples), seed)))


def _pixels(samples: Samples, spec: ImageSpec, workers: int) -> Any:
    """All images at once, (n, C, H, W) uint8."""
    places = np.arange(len(samples), dtype=np.int64)
    shares = [places[start : start + BATCH] for start in range(0, len(places), BATCH)]
    batches = fetcher(samples, spec, torch.device("cpu"), workers)(shares, 0)
    return np.concatenate([images.numpy() for images in batches])


@torch.inference_mode()
def _validated(model: nn.Module, data: Prepared, workers: int) -> dict[str, float]:
    """Loss, top-1 and top-5 accuracy on the validation split, where there is one."""
    if "validation" not in data.splits:
        return {}
    sums = torch.zeros(4, dtype=torch.float64)  # loss, top-1, top-5, samples
    ranks = min(5, len(data.spec.classes))
    for batch in batches_in_order(data.splits["validation"], data.spec, BATCH, torch.device("cpu"), workers):
        logits = model(batch.inputs).double()
        sums[0] += metrics.cross_entropies(logits.log_softmax(dim=1), batch.targets).sum()
        for place, k in ((1, 1), (2, ranks)):
            sums[place] += metrics.topk_correct(logits, batch.targets, k).sum()
        sums[3] += len(batch)
    loss, top1, top5, samples = sums.tolist()
    return {"val/loss": loss / samples, "val/top1": top1 / samples, "val/top5": top5 / samples}


def _identity(recipe: Recipe, data: Prepared, model: nn.Module, line: Mapping[str, float]) -> dict[str, Any]:
    """What run.json says of the machine, the data and the model, as train's does."""
    device = torch.device("cpu")
    packages = versions()
    with suppress(importlib.metadata.PackageNotFoundError):  # nearest neighbours need none
        packages["scikit-learn"] = importlib.metadata.version("scikit-learn")
    value = line.get(recipe.train.monitor, math.nan)
    return {
        "model": recipe.model.name,
        "dataset": recipe.data.name,
        "seed": recipe.train.seed,
        "device": device.type,
        "device_name": precision.describe(device),
        "threads": torch.get_num_threads(),
        "world_size": 1,
        "precision": "float32",
        "versions": packages,
        "platform": platform.platform(),
        "parameters": sum(tensor.numel() for tensor in model.state_dict().values()),
        "data": {name: {"samples": len(part), "sha256": data.fingerprints[name]} for name, part in data.splits.items()},
        "spec": data.spec.to_json(),
        "inexact": False,
        "status": "finished",
        "ended": run_folder.now(),
        "epochs": 1,
        "monitor": recipe.train.monitor,
        "best": {"epoch": 1, "step": STEP, "value": value} if math.isfinite(value) else None,
    }


def _save(model: nn.Module, line: Mapping[str, Any], folder: RunFolder) -> None:
    tensors: dict[str, Tensor] = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    folder.append_metrics(dict(line))
    state = {"step": STEP, "best": None}
    checkpoint.save(folder.checkpoints, folder.info()["run_id"], STEP, tensors, state, folder.metrics_digest(1))
