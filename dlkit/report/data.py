"""What a run's folder says, read once for its report; what is missing is named, with the command that makes it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from dlkit import registry
from dlkit.config.schema import Data, Model, Recipe
from dlkit.errors import ModelFileError
from dlkit.evaluation.record import EVALUATION, PREDICTIONS, read_evaluation, read_predictions, staleness
from dlkit.runs.run_folder import KILLED, RUNNING, RunFolder
from dlkit.specs import Spec

FINISHED = "finished"

Result = TypeVar("Result")
Point = tuple[float, float]


@dataclass(frozen=True)
class Gap:
    """Something that the page cannot show, and the command that would make it."""

    what: str
    command: str = ""


@dataclass(frozen=True)
class Answer:
    """A line of predictions.jsonl; the classes are places in the spec's."""

    id: int | str
    target: int
    predicted: int
    probability: float  # of the class predicted


@dataclass(frozen=True)
class Bin:
    """A bin of the calibration diagram: confidences in (low, high]."""

    low: float
    high: float
    samples: int
    confidence: float  # mean
    accuracy: float


@dataclass(frozen=True)
class Facts:
    """A run as its files tell it; `evaluation` is empty, and so are the answers, where there was none."""

    run: RunFolder
    info: Mapping[str, Any]
    recipe: Recipe
    spec: Spec
    lines: Sequence[Mapping[str, Any]]  # of metrics.jsonl
    evaluation: Mapping[str, Any]
    answers: tuple[Answer, ...]
    numbers: tuple[Point, ...]  # (asked for, given), of a model that answers with a number
    gaps: tuple[Gap, ...]

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
        """Which weights were evaluated."""
        return "last" if self.evaluation.get("checkpoint") == "last" else "best"

    @property
    def fitted(self) -> bool:
        """Fitted at once, as baselines are: there is no curve."""
        return "fitted_to" in self.info

    @property
    def seconds(self) -> float | None:
        """From start to end; None where the run has not ended or was begun again."""
        if self.info.get("resumes") or not (self.info.get("started") and self.info.get("ended")):
            return None
        begun, ended = (datetime.fromisoformat(self.info[key]) for key in ("started", "ended"))
        return (ended - begun).total_seconds()

    @property
    def metrics(self) -> Mapping[str, Mapping[str, float]]:
        found: Mapping[str, Mapping[str, float]] = self.evaluation.get("metrics", {})
        return found

    @cached_property
    def wrong(self) -> list[Answer]:
        """The mistakes, the most confident first."""
        return sorted((one for one in self.answers if one.target != one.predicted), key=lambda one: -one.probability)

    @cached_property
    def confusion(self) -> npt.NDArray[np.int64]:
        """(K, K): rows are the true classes, columns the predicted ones."""
        counts = np.zeros((len(self.spec.classes),) * 2, np.int64)
        np.add.at(counts, ([one.target for one in self.answers], [one.predicted for one in self.answers]), 1)
        return counts

    @cached_property
    def calibration(self) -> list[Bin]:
        """The bins that hold an answer; their gaps, weighted, are the evaluation's calibration error."""
        import torch

        from dlkit.metrics import CALIBRATION_BINS, calibration_bins

        confidences = torch.tensor([one.probability for one in self.answers], dtype=torch.float64)
        right = torch.tensor([one.target == one.predicted for one in self.answers])
        sums = calibration_bins(confidences, right).T.tolist()
        return [
            Bin(place / CALIBRATION_BINS, (place + 1) / CALIBRATION_BINS, int(count), summed / count, hits / count)
            for place, (count, summed, hits) in enumerate(sums)
            if count
        ]

    def curve(self, key: str) -> list[Point]:
        """(epoch, value) of the log points that hold a finite number under this key."""
        per_epoch = self._steps_per_epoch
        values = [(line["step"] / per_epoch, line.get(key)) for line in self.lines]
        return [(x, float(y)) for x, y in values if isinstance(y, int | float) and math.isfinite(y)]

    @cached_property
    def _steps_per_epoch(self) -> float:
        samples = self.info.get("data", {}).get("train", {}).get("samples")
        if samples and not self.fitted:
            return float(-(-samples // self.recipe.train.batch_size))
        return max((line["step"] / line["epoch"] for line in self.lines if line.get("epoch")), default=1.0)

    def changed_settings(self) -> list[tuple[str, Any, Any]]:
        """(key, value, default) of what the recipe sets otherwise than by default."""
        recipe = self.recipe
        default = Recipe(
            model=Model(name=self.model, options=registry.resolved_options("models", self.model, {})),
            data=Data(name=recipe.data.name),
        )
        ours, theirs = flat(recipe.model_dump()), flat(default.model_dump())
        changed = ((key, value, theirs.get(key)) for key, value in ours.items() if value != theirs.get(key))
        return [change for change in changed if change[1] != {}]


def read(run: RunFolder) -> Facts:
    """All that a run's files say; what of its log and its evaluation is damaged is a gap.

    Raises:
        ModelFileError: its run.json is damaged.
    """
    info, recipe, spec = run.info(), run.recipe(), run.spec()
    info["status"] = run.status()
    damage: list[Gap] = []
    lines = [line for line in run.metrics(lambda text: damage.append(_damaged_log(text))) if line["step"] > 0]
    evaluation: dict[str, Any] = _or_gap(run, damage, {}, lambda: _evaluation(run))
    outdated = staleness(run, evaluation) if evaluation else ""
    if outdated:
        evaluation = {}
    answers: list[Answer] = []
    numbers: list[Point] = []
    stale = ""
    if evaluation:
        read_answers = _answers if spec.classes else _numbers
        found: list[Any] = _or_gap(run, damage, [], lambda: read_answers(run, evaluation, spec))
        answers, numbers = (found, []) if spec.classes else ([], found)
        stale = "" if damage else _mismatch(evaluation, found, answers)
        if stale:
            answers, numbers = [], []
    gaps = (*damage, *_gaps(run, info, recipe, lines, evaluation, stale, outdated))
    return Facts(run, info, recipe, spec, lines, evaluation, tuple(answers), tuple(numbers), gaps)


def flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every leaf under its dotted key."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        nested = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return found


def command(verb: str, run: RunFolder, more: str = "") -> str:
    """A command line about a run, fit to be pasted into a shell."""
    return f"dlkit {verb} {shlex.quote(f'{run.path}{more}')}"


def _evaluation(run: RunFolder) -> dict[str, Any]:
    document = read_evaluation(run)

    def checked() -> dict[str, Any]:
        needed = {"dataset": str, "split": str, "samples": int, "step": int, "metrics": dict, "classes": list}
        for key, kind in needed.items():
            if not isinstance(document[key], kind):
                raise ValueError(f"{key} is no {kind.__name__}")
        for metric in document["metrics"].values():
            float(metric["value"])
        for one in document["classes"]:
            float(one["precision"] + one["recall"] + one["f1"] + one["support"])
            str(one["class"])
        return dict(document)

    return _checked(run, EVALUATION, checked) if document else {}


def _answers(run: RunFolder, evaluation: Mapping[str, Any], spec: Spec) -> list[Answer]:
    indices = {name: index for index, name in enumerate(spec.classes)}
    lines = read_predictions(run, evaluation)
    return _checked(run, PREDICTIONS, lambda: [
        Answer(_id(line["id"]), indices[line["target"]], indices[line["predicted"]], _finite(line["probability"]))
        for line in lines
    ])  # fmt: skip


def _id(value: Any) -> int | str:
    return value if isinstance(value, int) else str(value)


def _numbers(run: RunFolder, evaluation: Mapping[str, Any], spec: Spec) -> list[Point]:
    lines = read_predictions(run, evaluation)
    return _checked(run, PREDICTIONS, lambda: [(_finite(line["target"]), _finite(line["predicted"])) for line in lines])


def _finite(value: Any) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{value} is no answer")
    return float(value)


def _mismatch(evaluation: Mapping[str, Any], found: Sequence[Any], answers: Sequence[Answer]) -> str:
    """Why the answers are not those of this evaluation, if they are not."""
    if len(found) != evaluation["samples"]:
        return f"predictions.jsonl holds {len(found):,} answers, and the evaluation is of {evaluation['samples']:,}"
    right = sum(one.target == one.predicted for one in answers)
    top1 = evaluation["metrics"].get("top1", {}).get("value")
    if answers and (top1 is None or abs(right / len(answers) - top1) > 1e-9):
        return "predictions.jsonl is of another evaluation than evaluation.json"
    return ""


def _gaps(
    run: RunFolder,
    info: Mapping[str, Any],
    recipe: Recipe,
    lines: Sequence[Mapping[str, Any]],
    evaluation: Mapping[str, Any],
    stale: str,
    outdated: str,
) -> list[Gap]:
    """What a person should do before this report is whole."""
    gaps, status = [], info.get("status")
    again = command("eval", run)
    if status != FINISHED:
        why = {RUNNING: "it is still being trained", KILLED: "it was killed"}.get(str(status))
        why = why or str(info.get("error", status))
        told = f"Not finished: {why.rstrip('.')}. What follows is as far as its log goes."
        gaps.append(Gap(told, command("train --resume", run)))
    if not lines:
        gaps.append(Gap("Nothing is logged yet, so there are no learning curves."))
    if outdated:
        gaps.append(Gap(f"Not shown: {outdated}.", again))
        return gaps
    if not evaluation and not (run.path / EVALUATION).exists():
        told = "It is not evaluated yet: there is no test accuracy, no confusion matrix, no mistake to look at."
        gaps.append(Gap(told, again))
    if not evaluation:
        return gaps
    if stale:
        gaps.append(Gap(f"The answers cannot be shown: {stale}.", again))
    return gaps


def _or_gap(run: RunFolder, damage: list[Gap], nothing: Result, reader: Callable[[], Result]) -> Result:
    """What `reader` reads, or `nothing` and a gap where the file is damaged."""
    try:
        return reader()
    except ModelFileError as error:
        damage.append(Gap(str(error).partition(" Evaluate again")[0], command("eval", run)))
        return nothing


def _damaged_log(warning: str) -> Gap:
    return Gap(warning.removeprefix("warning: "))


def _checked(run: RunFolder, name: str, reader: Callable[[], Result]) -> Result:
    try:
        return reader()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ModelFileError(f"{run.path / name} is damaged: {reason}.") from error
