"""The contents of a run folder, read once for the report; an omission names the command that creates a missing part."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from dlkit import registry
from dlkit.config.keys import flatten
from dlkit.config.schema import Data, Model, Recipe
from dlkit.errors import ModelFileError
from dlkit.evaluation.record import EVALUATION, PREDICTIONS, read_evaluation, read_predictions, staleness
from dlkit.plots.curves import MetricHistory, Point, load_history
from dlkit.runs.run_folder import KILLED, RUNNING, RunFolder
from dlkit.specs import Spec

FINISHED = "finished"

T = TypeVar("T")


@dataclass(frozen=True)
class Omission:
    """Something that the page cannot show, and the command that would create it."""

    reason: str
    command: str = ""


@dataclass(frozen=True)
class SampleResult:
    """A line of predictions.jsonl, with class indices."""

    id: int | str
    target: int
    predicted: int
    probability: float  # of the predicted class


@dataclass(frozen=True)
class CalibrationBin:
    """A bin of the reliability diagram: confidences in (low, high]."""

    low: float
    high: float
    samples: int
    confidence: float  # mean
    accuracy: float


@dataclass(frozen=True)
class RunData:
    """The contents of a run's files; `evaluation` and the results are empty for a run that was not evaluated."""

    run: RunFolder
    info: Mapping[str, Any]
    recipe: Recipe
    spec: Spec
    history: MetricHistory  # of metrics.jsonl
    evaluation: Mapping[str, Any]
    results: tuple[SampleResult, ...]
    regression_points: tuple[Point, ...]  # (target, prediction) of a regression model
    omissions: tuple[Omission, ...]

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def model(self) -> str:
        return self.recipe.model.name

    @property
    def title(self) -> str:
        return f"{self.recipe.model.name} on {self.recipe.data.name}"

    @property
    def checkpoint(self) -> Literal["best", "last"]:
        """The evaluated weights."""
        return "last" if self.evaluation.get("checkpoint") == "last" else "best"

    @property
    def is_baseline(self) -> bool:
        """Whether the model was fitted at once, so that there are no learning curves."""
        return "fitted_to" in self.info

    @property
    def seconds(self) -> float | None:
        """From start to end; None if the run has not ended or was resumed."""
        if self.info.get("resumes") or not (self.info.get("started") and self.info.get("ended")):
            return None
        started, ended = (datetime.fromisoformat(self.info[key]) for key in ("started", "ended"))
        return (ended - started).total_seconds()

    @property
    def metrics(self) -> Mapping[str, Mapping[str, float]]:
        metrics: Mapping[str, Mapping[str, float]] = self.evaluation.get("metrics", {})
        return metrics

    @cached_property
    def mistakes(self) -> list[SampleResult]:
        """The most confident first."""
        mistakes = (result for result in self.results if result.target != result.predicted)
        return sorted(mistakes, key=lambda result: -result.probability)

    @cached_property
    def confusion(self) -> npt.NDArray[np.int64]:
        """(K, K): rows are the true classes, columns the predicted ones."""
        counts = np.zeros((len(self.spec.classes),) * 2, np.int64)
        np.add.at(
            counts, ([result.target for result in self.results], [result.predicted for result in self.results]), 1
        )
        return counts

    @cached_property
    def calibration(self) -> list[CalibrationBin]:
        """The bins that are not empty; the weighted mean of their gaps is the evaluation's calibration error."""
        import torch

        from dlkit.metrics import CALIBRATION_BINS, calibration_bins

        confidences = torch.tensor([result.probability for result in self.results], dtype=torch.float64)
        correct = torch.tensor([result.target == result.predicted for result in self.results])
        sums = calibration_bins(confidences, correct).T.tolist()
        return [
            CalibrationBin(index / CALIBRATION_BINS, (index + 1) / CALIBRATION_BINS, int(n), total / n, hits / n)
            for index, (n, total, hits) in enumerate(sums)
            if n
        ]

    def changed_settings(self) -> list[tuple[str, Any, Any]]:
        """(key, value, default) of each recipe key that does not have its default value."""
        recipe = self.recipe
        default = Recipe(
            model=Model(name=self.model, options=registry.resolved_options("models", self.model, {})),
            data=Data(name=recipe.data.name),
        )
        values, defaults = flatten(recipe.model_dump()), flatten(default.model_dump())
        changed = ((key, value, defaults.get(key)) for key, value in values.items() if value != defaults.get(key))
        return [change for change in changed if change[1] != {}]


def read_run(run: RunFolder) -> RunData:
    """The contents of a run's files; damage to its log or evaluation is an omission.

    Raises:
        ModelFileError: its run.json is damaged.
    """
    info, recipe, spec = run.info(), run.recipe(), run.spec()
    info["status"] = run.status()
    damage: list[Omission] = []
    history = load_history(run, run.name, lambda text: damage.append(Omission(text.removeprefix("warning: "))))
    history = replace(history, lines=[line for line in history.lines if line["step"] > 0])
    evaluation: dict[str, Any] = _read_or_omit(run, damage, {}, lambda: _evaluation(run))
    outdated = staleness(run, evaluation) if evaluation else ""
    if outdated:
        evaluation = {}
    results: list[SampleResult] = []
    regression_points: list[Point] = []
    mismatch = ""
    if evaluation:
        reader = _results if spec.classes else _regression_points
        predictions: list[Any] = _read_or_omit(run, damage, [], lambda: reader(run, evaluation, spec))
        results, regression_points = (predictions, []) if spec.classes else ([], predictions)
        mismatch = "" if damage else _mismatch(evaluation, predictions, results)
        if mismatch:
            results, regression_points = [], []
    omissions = (*damage, *_omissions(run, info, history, evaluation, mismatch, outdated))
    return RunData(run, info, recipe, spec, history, evaluation, tuple(results), tuple(regression_points), omissions)


def command_line(command: str, run: RunFolder, file: str = "") -> str:
    """A dlkit command about a run, quoted for a shell."""
    return f"dlkit {command} {shlex.quote(f'{run.path}{file}')}"


def _evaluation(run: RunFolder) -> dict[str, Any]:
    document = read_evaluation(run)

    def check() -> dict[str, Any]:
        required = {"dataset": str, "split": str, "samples": int, "step": int, "metrics": dict, "classes": list}
        for key, kind in required.items():
            if not isinstance(document[key], kind):
                raise ValueError(f"{key} is not of type {kind.__name__}")
        for metric in document["metrics"].values():
            float(metric["value"])
        for row in document["classes"]:
            float(row["precision"] + row["recall"] + row["f1"] + row["support"])
            str(row["class"])
        return dict(document)

    return _check(run, EVALUATION, check) if document else {}


def _results(run: RunFolder, evaluation: Mapping[str, Any], spec: Spec) -> list[SampleResult]:
    indices = {name: index for index, name in enumerate(spec.classes)}
    lines = read_predictions(run, evaluation)
    return _check(run, PREDICTIONS, lambda: [
        SampleResult(_id(line["id"]), indices[line["target"]], indices[line["predicted"]], _finite(line["probability"]))
        for line in lines
    ])  # fmt: skip


def _id(value: Any) -> int | str:
    return value if isinstance(value, int) else str(value)


def _regression_points(run: RunFolder, evaluation: Mapping[str, Any], spec: Spec) -> list[Point]:
    lines = read_predictions(run, evaluation)
    return _check(run, PREDICTIONS, lambda: [(_finite(line["target"]), _finite(line["predicted"])) for line in lines])


def _finite(value: Any) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    return float(value)


def _mismatch(evaluation: Mapping[str, Any], predictions: Sequence[Any], results: Sequence[SampleResult]) -> str:
    """The reason why the predictions are not those of this evaluation; empty if they are."""
    if len(predictions) != evaluation["samples"]:
        return (
            f"predictions.jsonl has {len(predictions):,} predictions, the evaluation {evaluation['samples']:,} samples"
        )
    correct = sum(result.target == result.predicted for result in results)
    top1 = evaluation["metrics"].get("top1", {}).get("value")
    if results and (top1 is None or abs(correct / len(results) - top1) > 1e-9):
        return "predictions.jsonl and evaluation.json are of different evaluations"
    return ""


def _omissions(
    run: RunFolder,
    info: Mapping[str, Any],
    history: MetricHistory,
    evaluation: Mapping[str, Any],
    mismatch: str,
    outdated: str,
) -> list[Omission]:
    """What is missing for a complete report."""
    omissions, status, evaluate = [], info.get("status"), command_line("eval", run)
    if status != FINISHED:
        reason = {RUNNING: "the run is still training", KILLED: "the run was killed"}.get(str(status))
        reason = (reason or str(info.get("error", status))).rstrip(".")
        omissions.append(
            Omission(f"Not finished: {reason}. The page shows what was logged.", command_line("train --resume", run))
        )
    if not history.lines:
        omissions.append(Omission("There are no learning curves: nothing has been logged yet."))
    if outdated:
        omissions.append(Omission(f"The evaluation is not shown: {outdated}.", evaluate))
    elif not evaluation and not (run.path / EVALUATION).exists():
        reason = "Not evaluated yet: there is no test accuracy, no confusion matrix and no list of mistakes."
        omissions.append(Omission(reason, evaluate))
    elif mismatch:
        omissions.append(Omission(f"The predictions are not shown: {mismatch}.", evaluate))
    return omissions


def _read_or_omit(run: RunFolder, damage: list[Omission], default: T, reader: Callable[[], T]) -> T:
    """The result of `reader`; if the file is damaged, an omission and the default."""
    try:
        return reader()
    except ModelFileError as error:
        damage.append(Omission(str(error).partition(" Evaluate again")[0], command_line("eval", run)))
        return default


def _check(run: RunFolder, name: str, reader: Callable[[], T]) -> T:
    try:
        return reader()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ModelFileError(f"{run.path / name} is damaged: {reason}.") from error
