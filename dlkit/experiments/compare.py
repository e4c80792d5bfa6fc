"""Comparison of two runs: their differences, and whether their predictions are distinguishable.

Runs that were evaluated on the same samples are compared sample by sample: only samples that exactly one of them
classifies correctly count, and McNemar's mid-p test checks whether their numbers differ significantly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dlkit import statistics
from dlkit.config.keys import flatten
from dlkit.errors import ModelFileError
from dlkit.experiments.compare_predictions import EvaluatedRun, correct_by_sample, incompatibility, load_evaluation
from dlkit.runs.experiments import full_name
from dlkit.runs.run_folder import RunFolder
from dlkit.runs.summary import summary

SCHEMA = "dlkit.compare/1"
ENVIRONMENT = (
    "versions", "device_name", "threads", "world_size", "precision", "platform", "hardware", "git", "inexact",
)  # fmt: skip
TEST, INTERVAL = "McNemar's mid-p", "Tango's score interval"
CONCERNS = "these two networks, not their recipes"


@dataclass(frozen=True)
class FieldDifference:
    """A field that differs: its part ("recipe", "data", "environment"), its name, and both values."""

    where: str
    key: str
    first: Any
    second: Any


@dataclass(frozen=True)
class PairedComparison:
    """Two runs on the same samples; the difference is the second's top-1 accuracy minus the first's."""

    split: str
    samples: int
    only_first: int  # samples that only the first classifies correctly
    only_second: int
    difference: statistics.Estimate
    p_value: float
    checkpoints: tuple[str, str]  # best or last, of each

    @property
    def verdict(self) -> str:
        """Which is better, at the 5 % level, or that they are not distinguishable."""
        if self.p_value >= statistics.LEVEL:
            return "not distinguishable"
        return "second is better" if self.only_second > self.only_first else "first is better"

    def document(self) -> dict[str, Any]:
        """The part of `dlkit.compare/1`."""
        return {
            **asdict(self), "test": TEST, "interval": INTERVAL, "concerns": CONCERNS, "verdict": self.verdict,
        }  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """The result; `paired` is None if the runs were not evaluated on the same samples, `unpaired` why."""

    first: str
    second: str
    differences: tuple[FieldDifference, ...]
    metrics: tuple[FieldDifference, ...]  # metrics that both have
    paired: PairedComparison | None
    unpaired: str

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.compare/1`."""
        paired = None if self.paired is None else self.paired.document()
        return {
            "schema": SCHEMA, "first": self.first, "second": self.second,
            "differences": [asdict(difference) for difference in self.differences],
            "metrics": [asdict(figure) for figure in self.metrics],
            "paired": paired, "unpaired": self.unpaired,
        }  # fmt: skip

    def rows(self) -> list[dict[str, Any]]:
        """A row for each difference, metric and value of the verdict."""
        rows = [asdict(row) for row in (*self.differences, *self.metrics)]
        verdict: dict[str, Any] = {"verdict": f"not compared: {self.unpaired}"}
        if self.paired is not None:
            keys = ("test", "p_value", "concerns", "verdict")
            verdict = asdict(self.paired.difference) | {key: self.paired.document()[key] for key in keys}
            verdict = {"difference": verdict.pop("value"), **verdict}
        return rows + [{"where": "verdict", "key": key, "second": value} for key, value in verdict.items()]

    def sentence(self) -> str:
        """The verdict in a sentence."""
        if self.paired is None:
            return f"not compared sample by sample: {self.unpaired}"
        paired, part = self.paired, self.paired.difference
        first, second = paired.checkpoints
        unlike = f" ({first} checkpoint of {self.first}, {second} of {self.second})" if first != second else ""
        return (
            f"{paired.split}: {self.second} minus {self.first} {100 * part.value:+.2f} points of top-1 (95 % "
            f"{100 * part.low:+.2f} to {100 * part.high:+.2f}); right alone {paired.only_first} and "
            f"{paired.only_second} of {paired.samples:,}; {TEST} p = {paired.p_value:.3g}: {paired.verdict}{unlike}. "
            f"This concerns {CONCERNS}; groups of seeds (--against) are compared over seeds."
        )


def compare(first: RunFolder, second: RunFolder) -> Comparison:
    """Compare two runs: recipe, data, environment, metrics and, if both have them, their predictions.

    If the predictions of one are damaged, `unpaired` has the reason.

    Raises:
        ModelFileError: a run.json is damaged.
    """
    one, other = load_evaluation(first), load_evaluation(second)
    try:
        paired = _paired(one, other)
    except ModelFileError as error:
        paired = str(error)
    return Comparison(
        first=full_name(first),
        second=full_name(second),
        differences=tuple(_differences(first, second)),
        metrics=tuple(_metric_differences(one, other)),
        paired=paired if isinstance(paired, PairedComparison) else None,
        unpaired=paired if isinstance(paired, str) else "",
    )


def _differences(first: RunFolder, second: RunFolder) -> Iterator[FieldDifference]:
    one, other = first.info(), second.info()
    parts = {
        "recipe": (first.recipe().model_dump(), second.recipe().model_dump()),
        "data": (_data(one), _data(other)),
        "environment": ({key: one.get(key) for key in ENVIRONMENT}, {key: other.get(key) for key in ENVIRONMENT}),
    }
    for where, (ours, theirs) in parts.items():
        yield from _unequal_fields(where, flatten(ours), flatten(theirs))


def _data(info: Mapping[str, Any]) -> dict[str, Any]:
    return {"classes": len(info.get("spec", {}).get("classes", ())), **info.get("data", {})}


def _unequal_fields(where: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[FieldDifference]:
    for key in dict.fromkeys([*ours, *theirs]):
        if ours.get(key) != theirs.get(key):
            yield FieldDifference(where, key, ours.get(key), theirs.get(key))


def _metric_differences(first: EvaluatedRun, second: EvaluatedRun) -> Iterator[FieldDifference]:
    ours, theirs = _metrics(first), _metrics(second)
    for key, value in ours.items():
        if key in theirs:
            yield FieldDifference("metrics", key, value, theirs[key])


def _metrics(run: EvaluatedRun) -> dict[str, Any]:
    """The metrics of a run: epochs, the best monitored value and, if it was evaluated, the metrics of the split."""
    line, evaluation = summary(run.run), run.evaluation
    metrics = {"epochs": line.epochs, f"best {line.metric}": line.best}
    for name, metric in evaluation.get("metrics", {}).items():
        metrics[f"{evaluation.get('split')}/{name}"] = metric.get("value")
    return metrics


def _paired(first: EvaluatedRun, second: EvaluatedRun) -> PairedComparison | str:
    problem = incompatibility([first, second])
    if problem:
        return problem
    one, other = correct_by_sample(first.run, first.evaluation), correct_by_sample(second.run, second.evaluation)
    if one.keys() != other.keys() or not one:
        return "their predictions.jsonl have different samples; evaluate both again."
    only_first = sum(right and not other[sample] for sample, right in one.items())
    only_second = sum(right and not one[sample] for sample, right in other.items())
    found = statistics.matched_difference(only_second, only_first, len(one))
    checkpoints = (str(first.evaluation.get("checkpoint", "best")), str(second.evaluation.get("checkpoint", "best")))
    split = str(first.evaluation["split"])
    return PairedComparison(split, len(one), only_first, only_second, found, found.p_value, checkpoints)
