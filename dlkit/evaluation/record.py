"""The evaluation in a run folder, and whether it is of the weights and the settings that are there now.

evaluation.json carries its own digest and that of predictions.jsonl beside it.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from dlkit import atomic_io, csv_text, documents
from dlkit.calibration import record
from dlkit.errors import ModelFileError
from dlkit.evaluation.result import Evaluation
from dlkit.runs import run_info
from dlkit.runs.run_folder import CheckpointName, RunFolder
from dlkit.runs.run_info import Count, StoredDocument
from dlkit.specs import Spec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dlkit.data.splits import Samples
    from dlkit.evaluation.decision_tally import DecisionTally
    from dlkit.evaluation.outputs import BatchOutputs

EVALUATION, PREDICTIONS = "evaluation.json", "predictions.jsonl"
FILES = (PREDICTIONS, "confusion_matrix.csv", "plots/confusion_matrix.png", "plots/calibration.png", EVALUATION)
RISK_COVERAGE = "plots/risk_coverage.png"
PREDICTIONS_DIGEST = "predictions_sha256"
CONDITIONS = ("mc_dropout", "calibration", "tta")  # what changes the answers of the same weights


class MetricInfo(StoredDocument):
    value: float | None = None
    low: float | None = None
    high: float | None = None


class EvaluationInfo(StoredDocument):
    """The types of the keys of evaluation.json that commands rely on."""

    run_id: str = ""
    dataset: str = ""
    split: str = ""
    checkpoint: str = "best"
    fingerprint: str = ""
    step: Count | None = None
    samples: Count = 0
    topk: Count = 0
    mc_dropout: Count | None = None
    metrics: dict[str, MetricInfo] = Field(default_factory=dict)
    classes: list[dict[str, Any]] = Field(default_factory=list)


def prediction_lines(
    batch: BatchOutputs, uncertainty: Mapping[str, list[Any]], samples: Samples, spec: Spec, topk: int
) -> Iterator[str]:
    """A line of predictions.jsonl for each sample; `uncertainty` has a list of values per key."""
    from dlkit.data.splits import ImageFiles
    from dlkit.metrics import ranked

    best = ranked(batch.outputs, topk)  # (N, topk)
    highest = batch.log_probabilities.gather(1, best[:, :1])[:, 0].exp().tolist()
    rows = zip(batch.indices.tolist(), batch.targets.tolist(), best.tolist(), highest, strict=True)
    for row, (index, target, ranks, probability) in enumerate(rows):
        line = {
            "id": str(samples.paths[index]) if isinstance(samples, ImageFiles) else index,
            "target": spec.classes[target],
            "predicted": spec.classes[ranks[0]],
            "probability": probability,
            "topk": [spec.classes[rank] for rank in ranks],
            **{name: values[row] for name, values in uncertainty.items()},
        }
        yield json.dumps(line)


def write_files(
    evaluation: Evaluation,
    lines: Sequence[str],
    bins: npt.NDArray[np.float64],
    decisions: DecisionTally | None = None,
) -> tuple[str, ...]:
    """Write the evaluation's files into the run folder, evaluation.json last; bins (3, bins) are the tally's.

    With `decisions` also the risk-coverage curve. Returns their names.
    """
    from dlkit.plots.calibration import write_calibration
    from dlkit.plots.confusion_matrix import write_confusion_matrix

    assert isinstance(evaluation.run, RunFolder)
    folder = evaluation.run.path
    names = [result.name for result in evaluation.classes]
    kind = evaluation.run.spec().kind
    title = (
        f"{evaluation.model} on {evaluation.dataset}, {evaluation.split}: {evaluation.samples:,} {kind}, "
        f"top-1 {100 * evaluation.metrics['top1'].value:.2f} %"
    )
    predictions_sha256 = write_predictions(evaluation.run, lines)
    atomic_io.write_text(folder / "confusion_matrix.csv", confusion_csv(evaluation.confusion, names))
    write_confusion_matrix(evaluation.confusion, names, title, folder / "plots" / "confusion_matrix.png")
    title = f"{title.split(':')[0]}: ECE {100 * evaluation.metrics['ece'].value:.2f} %"
    write_calibration(bins, title, folder / "plots" / "calibration.png")
    if decisions is not None:
        _write_risk_coverage(evaluation, decisions, title.split(":")[0], folder / RISK_COVERAGE)
    write_evaluation(evaluation.run, evaluation.document(), predictions_sha256)
    return FILES if decisions is None else (*FILES[:-1], RISK_COVERAGE, FILES[-1])


def _write_risk_coverage(evaluation: Evaluation, decisions: DecisionTally, title: str, path: Path) -> None:
    from dlkit.plots.risk_coverage import write_risk_coverage

    abstention = decisions.calibration.abstention
    accepted = evaluation.metrics["accepted"].value if abstention else None
    limit = abstention.max_error if abstention else None
    write_risk_coverage(*decisions.risk_coverage(), f"{title}: risk and coverage", path, accepted, limit)


def confusion_csv(confusion: npt.NDArray[np.int64], names: list[str]) -> str:
    """The confusion matrix: a row for each true class, a column for each predicted one."""
    counts = ([name, *row] for name, row in zip(names, confusion.tolist(), strict=True))
    return csv_text.document([["true\\predicted", *names], *counts])


def write_predictions(run: RunFolder, lines: Sequence[str]) -> str:
    """Write predictions.jsonl; returns its SHA-256 for the evaluation."""
    content = "".join(line + "\n" for line in lines).encode("utf-8", errors="surrogateescape")
    atomic_io.write_bytes(run.path / PREDICTIONS, content)
    return hashlib.sha256(content).hexdigest()


def write_evaluation(run: RunFolder, document: Mapping[str, Any], predictions_sha256: str) -> None:
    """Write evaluation.json, after the files that it vouches for."""
    documents.write(run.path / EVALUATION, {**document, PREDICTIONS_DIGEST: predictions_sha256})


def read_evaluation(run: RunFolder) -> dict[str, Any]:
    """A run's last evaluation; empty where there was none.

    Raises:
        ModelFileError: it is damaged. StorageError: it cannot be read.
    """
    path = run.path / EVALUATION
    with atomic_io.storage_errors(path):
        if not path.is_file():
            return {}
    document = documents.read(path, advice=_remedy(run))
    run_info.check(document, EvaluationInfo)
    return dict(document)


def read_predictions(run: RunFolder, evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The lines of predictions.jsonl, an answer each.

    Raises:
        ModelFileError: they are damaged, or of another evaluation than this.
    """
    path = run.path / PREDICTIONS
    with atomic_io.storage_errors(path):
        content = path.read_bytes() if path.is_file() else b""
    stated = evaluation.get(PREDICTIONS_DIGEST)
    if stated is not None and stated != hashlib.sha256(content).hexdigest():
        raise ModelFileError(f"{path} is damaged, or of another evaluation than {EVALUATION}. {_remedy(run)}")
    try:
        answers = [documents.parsed(line) for line in content.splitlines()]
    except ValueError as error:
        raise ModelFileError(f"{path} is damaged: {error}. {_remedy(run)}") from error
    if not all(isinstance(answer, dict) for answer in answers):
        raise ModelFileError(f"{path} is damaged: a line is not an object. {_remedy(run)}")
    return answers


def staleness(run: RunFolder, evaluation: dict[str, Any]) -> str:
    """Why an evaluation is not of the run's checkpoint of today; "" if it is."""
    run_id = run.info().get("run_id")
    if evaluation.get("run_id", run_id) != run_id:
        return "its evaluation is of another training under the same name"
    which, step = evaluation.get("checkpoint", "best"), evaluation.get("step")
    now = run.checkpoint_step(which)
    if step is None or now is None or step == now:
        return _other_calibration(run, evaluation, which)
    return f"its evaluation is older than its {which} checkpoint: of step {step:,}, now {now:,}"


def _other_calibration(run: RunFolder, evaluation: Mapping[str, Any], which: CheckpointName) -> str:
    try:
        calibration = record.selected(run, which)
    except ModelFileError:
        return f"{record.FILE} is damaged or of another checkpoint"
    if evaluation.get("calibration_sha256") != (None if calibration is None else calibration.sha256):
        return "it was calibrated, or its calibration removed, after its evaluation"
    return ""


def same_conditions(one: dict[str, Any], other: dict[str, Any]) -> str:
    """The first setting of two evaluations that changes answers and differs; "" if there is none."""
    for key in CONDITIONS:
        if one.get(key) != other.get(key):
            return f"{key} {one.get(key)} and {other.get(key)}"
    return ""


def eval_command(run: RunFolder, evaluation: dict[str, Any] | None = None) -> str:
    """The command that evaluates a run (again, as it was)."""
    words = ["dlkit", "eval", shlex.quote(str(run.path))]
    for key, default in (("split", "test"), ("checkpoint", "best"), ("mc_dropout", None)):
        value = (evaluation or {}).get(key)
        if value not in (None, default):
            words += [f"--{key.replace('_', '-')}", str(value)]
    return " ".join(words)


def _remedy(run: RunFolder) -> str:
    return f"Evaluate again: {eval_command(run)}."
