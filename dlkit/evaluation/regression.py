"""Evaluate a model that predicts a number: squared and absolute errors over a split."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from dlkit.data.loader import batches_in_order
from dlkit.errors import ModelFileError
from dlkit.evaluation import record
from dlkit.evaluation.matching import EvalSplit
from dlkit.evaluation.result import Evaluation, Metric
from dlkit.runs.provenance import tensors_sha256
from dlkit.training.restore import Restored

Values = npt.NDArray[np.float64]  # (N,)


def evaluate_numbers(
    restored: Restored,
    part: EvalSplit,
    dataset: str,
    split: str,
    checkpoint: str,
    batch_size: int,
    write: bool,
    log: Callable[[str], None],
    advance: Callable[[int], object],
) -> Evaluation:
    """mse, rmse and mae; the run folder gets predictions.jsonl and evaluation.json."""
    targets, predictions = _targets_and_predictions(restored, part, batch_size, advance)
    errors = predictions - targets
    mse = float((errors**2).mean())
    metrics = {"mse": mse, "rmse": mse**0.5, "mae": float(abs(errors).mean())}
    evaluation = Evaluation(
        run=restored.run,
        model=restored.recipe.model.name,
        dataset=dataset,
        split=split,
        checkpoint=checkpoint,
        step=restored.step,
        samples=len(targets),
        topk=0,
        metrics={name: Metric(value) for name, value in metrics.items()},
        classes=(),
        confusion=np.zeros((0, 0), np.int64),
        fingerprint=part.fingerprint,
        warnings=part.warnings,
        run_id=restored.run.info()["run_id"],
        weights_sha256=tensors_sha256(restored.model.state_dict()),
    )
    if write:
        pairs = zip(targets.tolist(), predictions.tolist(), strict=True)
        rows = [{"id": index, "target": target, "predicted": value} for index, (target, value) in enumerate(pairs)]
        predictions_sha256 = record.write_predictions(restored.run, [json.dumps(row) for row in rows])
        record.write_evaluation(restored.run, evaluation.document(), predictions_sha256)
        log(f"wrote predictions.jsonl, evaluation.json to {restored.run.path}")
    return evaluation


def _targets_and_predictions(
    restored: Restored, part: EvalSplit, batch_size: int, advance: Callable[[int], object]
) -> tuple[Values, Values]:
    targets, predictions = [], []
    with torch.inference_mode():
        for batch in batches_in_order(part.samples, restored.spec, batch_size, restored.device):
            predictions.append(restored.model(batch.inputs)[:, 0].cpu().double())
            targets.append(batch.targets[:, 0].cpu().double())
            advance(len(batch))
    outputs = torch.cat(predictions)
    if not bool(outputs.isfinite().all()):
        raise ModelFileError(f"run {restored.run.name}: the model's outputs are not finite. Train it again.")
    return torch.cat(targets).numpy(), outputs.numpy()
