"""What an evaluation measured: its metrics, the scores of each class and the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit.result_table import ResultTable, Rows, html_table
from dlkit.runs.run_folder import RunFolder

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dlkit import metrics
    from dlkit.calibration.record import Calibration

SCHEMA = "dlkit.eval/1"


@dataclass(frozen=True)
class Metric:
    """One value; a proportion has its 95 % Wilson interval."""

    value: float
    low: float | None = None
    high: float | None = None

    def document(self) -> dict[str, float]:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class ClassResult:
    """The scores of one class; 0 where the denominator is 0."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int  # samples of this class

    def document(self) -> dict[str, Any]:
        scores = asdict(self)
        return {"class": scores.pop("name"), **scores}


@dataclass(frozen=True, eq=False)  # arrays have no single truth value
class Evaluation(ResultTable):
    """The result of an evaluation. Accuracies are fractions, the loss is in nats."""

    run: RunFolder | Path  # or the exported file
    model: str
    dataset: str
    split: str
    checkpoint: str  # best or last
    step: int
    samples: int
    topk: int
    metrics: Mapping[str, Metric]
    classes: tuple[ClassResult, ...]
    confusion: npt.NDArray[np.int64]  # (K, K): rows are true classes, columns predicted ones
    fingerprint: str  # SHA-256 of the split
    warnings: tuple[str, ...] = ()
    mc_dropout: int | None = None  # passes
    left_out: Mapping[str, str] = field(default_factory=dict)  # skipped images by path, with the reason
    run_id: str | None = None  # None for an exported file
    weights_sha256: str | None = None
    calibration: Calibration | None = None

    def rows(self) -> Rows:
        """The scores of each class."""
        return [result.document() for result in self.classes]

    def _repr_html_(self) -> str:
        """The metrics, then the classes."""
        metrics = [{"metric": name, **asdict(metric)} for name, metric in self.metrics.items()]
        return html_table(metrics) + html_table(self.rows())

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.eval/1`; with `left_out` only if images were skipped, with a calibration's if any."""
        left_out = {"left_out": dict(self.left_out)} if self.left_out else {}
        used = self.calibration
        calibrated = {} if used is None else {"calibration_sha256": used.sha256}
        return {
            "schema": SCHEMA,
            "run": self.run.name,
            "run_id": self.run_id,
            "model": self.model,
            "dataset": self.dataset,
            "split": self.split,
            "checkpoint": self.checkpoint,
            "step": self.step,
            "weights_sha256": self.weights_sha256,
            "mc_dropout": self.mc_dropout,
            "calibration": used.method if used is not None and used.scales else None,
            "tta": None,
            "samples": self.samples,
            "fingerprint": self.fingerprint,
            "topk": self.topk,
            "metrics": {name: metric.document() for name, metric in self.metrics.items()},
            "classes": [result.document() for result in self.classes],
            "warnings": list(self.warnings),
            **left_out,
            **calibrated,
        }


def class_results(
    confusion: npt.NDArray[np.int64], names: tuple[str, ...]
) -> tuple[metrics.Scores, tuple[ClassResult, ...]]:
    """The scores of each class from a confusion matrix (K, K): as arrays, and by name."""
    from dlkit import metrics

    scores = metrics.class_scores(confusion)
    columns = (scores.precision.tolist(), scores.recall.tolist(), scores.f1.tolist(), scores.support.tolist())
    return scores, tuple(ClassResult(*row) for row in zip(names, *columns, strict=True))
