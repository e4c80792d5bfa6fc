"""A classical classifier fitted to a data set: a run folder like any other, with one step and without a training loop.

The model is one of the registry whose file has `fit`. The fitted parameters are stored as tensors, so that the run
consists of safetensors and JSON, and eval, predict and export read it without scikit-learn.
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
STEP = 1  # the only one

Say = Callable[[str], None]


def names() -> list[str]:
    """The models of the registry that are fitted."""
    return [name for name in registry.entries("models") if hasattr(registry.load("models", name), "fit")]


def fit_baseline(
    recipe: Recipe, *, limit: int | None, name: str | None, runs_dir: Path, argv: Sequence[str], say: Say
) -> RunFolder:
    """Fit a classical model to a data set's training split, evaluate it on the validation split, and store it.

    `limit` is the number of images, stratified by class with at least one each; the default is the model's own.

    Raises:
        UsageError: the model is trained, not fitted; scikit-learn is missing; or the limit excludes a class.
    """
    module = registry.load("models", recipe.model.name)
    if not hasattr(module, "fit"):
        listed = ", ".join(names())
        raise UsageError(
            f"model {recipe.model.name!r} is trained, not fitted. Use dlkit train {recipe.model.name}; models for "
            f"baseline: {listed}."
        )
    changes = {f"loss.{key}": value for key, value in recipe.loss if value != getattr(schema.Loss(), key)}
    changes |= {} if recipe.data.sampler == "uniform" else {"data.sampler": recipe.data.sampler}
    for key, value in changes.items():
        raise UsageError(
            f"recipe.{key} is {value!r}, but {recipe.model.name} is fitted by its own criterion to all samples "
            "equally. Remove it."
        )
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: must be at least 1.")
    with reserve(recipe, name, runs_dir, say) as reservation:
        return _fit(reservation, recipe, module, limit, argv, say)


def _fit(
    reservation: Reservation, recipe: Recipe, module: ModuleType, limit: int | None, argv: Sequence[str], say: Say
) -> RunFolder:
    data = prepare(recipe, say)
    spec = data.spec
    if not isinstance(spec, ImageSpec):
        raise UsageError(f"a baseline is fitted to images; data set {recipe.data.name!r} has {spec.kind}.")
    samples = _limit_samples(data.splits["train"], module.LIMIT if limit is None else limit, recipe.train.seed)
    say(f"fitting {recipe.model.name} to {len(samples):,} of {len(data.splits['train']):,} images")
    start = time.monotonic()
    options = registry.resolved_options("models", recipe.model.name, recipe.model.options)
    pixels = _pixels(samples, spec, recipe.data.workers)
    model, sizes = module.fit(pixels, samples.targets, spec, recipe.train.seed, options)
    seconds = time.monotonic() - start
    say(f"fitted in {seconds:.1f} s")
    fitted = recipe.model_copy(
        update={
            "model": recipe.model.model_copy(update={"options": {**options, **sizes}}),
            "train": recipe.train.model_copy(update={"epochs": 1}),
        }
    )
    line = {
        "step": STEP,
        "epoch": 1,
        **_validation_metrics(model.eval(), data, recipe.data.workers),
        "fit_s": round(seconds, 3),
    }
    if "val/top1" in line:
        say(f"val top-1 {100 * line['val/top1']:.2f} %")
    info = {**_identity(fitted, data, model, line), "fitted_to": len(samples), "argv": list(argv)}
    folder = run_creation.create(reservation, fitted, info, partial(_save, model, line))
    say(f"run: {folder.path}")
    return folder


def _limit_samples(samples: Samples, limit: int | None, seed: int) -> Samples:
    """That many samples, stratified by class with at least one each, in their order."""
    if limit is None or limit >= len(samples):
        return samples
    return take(samples, np.flatnonzero(holdout_mask(samples.targets, limit / len(samples), seed)))


def _pixels(samples: Samples, spec: ImageSpec, workers: int) -> Any:
    """All images at once, (n, C, H, W) uint8."""
    index = np.arange(len(samples), dtype=np.int64)
    parts = [index[start : start + BATCH] for start in range(0, len(index), BATCH)]
    batches = fetcher(samples, spec, torch.device("cpu"), workers)(parts, 0)
    return np.concatenate([images.numpy() for images in batches])


@torch.inference_mode()
def _validation_metrics(model: nn.Module, data: Prepared, workers: int) -> dict[str, float]:
    """Loss, top-1 and top-5 accuracy on the validation split, if there is one."""
    if "validation" not in data.splits:
        return {}
    sums = torch.zeros(4, dtype=torch.float64)  # loss, top-1, top-5, samples
    ranks = min(5, len(data.spec.classes))
    for batch in batches_in_order(data.splits["validation"], data.spec, BATCH, torch.device("cpu"), workers):
        logits = model(batch.inputs).double()
        sums[0] += metrics.cross_entropies(logits.log_softmax(dim=1), batch.targets).sum()
        for row, k in ((1, 1), (2, ranks)):
            sums[row] += metrics.topk_correct(logits, batch.targets, k).sum()
        sums[3] += len(batch)
    loss, top1, top5, samples = sums.tolist()
    return {"val/loss": loss / samples, "val/top1": top1 / samples, "val/top5": top5 / samples}


def _identity(recipe: Recipe, data: Prepared, model: nn.Module, line: Mapping[str, float]) -> dict[str, Any]:
    """The description of machine, data and model in run.json, as for train."""
    device = torch.device("cpu")
    packages = versions()
    with suppress(importlib.metadata.PackageNotFoundError):  # nearest neighbors do not need it
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
