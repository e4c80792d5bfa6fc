"""How near a model that answers with a number comes: squared and absolute errors over a split."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from dlkit.data.loader import batches_in_order
from dlkit.errors import ModelFileError
from dlkit.evaluation import record
from dlkit.evaluation.matching import Part
from dlkit.evaluation.tally import Metric
from dlkit.runs.provenance import tensors_sha256

if TYPE_CHECKING:
    from dlkit.evaluation.evaluate import Evaluation
    from dlkit.training.restore import Restored


def evaluate_numbers(
    restored: Restored,
    part: Part,
    dataset: str,
    split: str,
    checkpoint: str,
    batch_size: int,
    write: bool,
    say: Callable[[str], None],
    advance: Callable[[int], object],
) -> Evaluation:
    """The figures mse, rmse and mae; the run folder gets predictions.jsonl and evaluation.json."""
    from dlkit.evaluation.evaluate import Evaluation

    targets, answers = _answers(restored, part, batch_size, advance)
    errors = answers - targets
    mse = float((errors**2).mean())
    figures = {"mse": mse, "rmse": mse**0.5, "mae": float(abs(errors).mean())}
    evaluation = Evaluation(
        run=restored.run,
        model=restored.recipe.model.name,
        dataset=dataset,
        split=split,
        checkpoint=checkpoint,
        step=restored.step,
        samples=len(targets),
        topk=0,
        metrics={name: Metric(value) for name, value in figures.items()},
        classes=(),
        confusion=np.zeros((0, 0), np.int64),
        fingerprint=part.fingerprint,
        warnings=part.warnings,
        run_id=restored.run.info()["run_id"],
        weights_sha256=tensors_sha256(restored.model.state_dict()),
    )
    if write:
        rows = enumerate(zip(targets.tolist(), answers.tolist(), strict=True))
        lines = [json.dumps({"id": place, "target": target, "predicted": answer}) for place, (target, answer) in rows]
        predictions_sha256 = record.write_predictions(restored.run, lines)
        record.write_evaluation(restored.run, evaluation.document(), predictions_sha256)
        say(f"written into {restored.run.path}: predictions.jsonl, evaluation.json")
    return evaluation


def _answers(
    restored: Restored, part: Part, batch_size: int, advance: Callable[[int], object]
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """What was asked for and what the model gave, (N,) each."""
    targets, answers = [], []
    with torch.inference_mode():
        for batch in batches_in_order(part.samples, restored.spec, batch_size, restored.device):
            answers.append(restored.model(batch.inputs)[:, 0].cpu().double())
            targets.append(batch.targets[:, 0].cpu().double())
            advance(len(batch))
    found = torch.cat(answers)
    if not bool(found.isfinite().all()):
        raise ModelFileError(f"run {restored.run.name}: the model's answers are not finite. Train it again.")
    return torch.cat(targets).numpy(), found.numpy()
