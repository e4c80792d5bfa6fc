"""compare: how two runs differ, and whether what they answered can be told apart.

Runs that were evaluated on the same samples are compared sample by sample: only those on which one is right and the
other wrong count, and McNemar's mid-p test asks whether they split more unevenly than a fair coin would.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dlkit import statistics
from dlkit.config.keys import flatten
from dlkit.errors import ModelFileError
from dlkit.experiments.compare_answers import Evaluated, answers, difference, evaluated
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
class Difference:
    """One thing that is not the same: where ("recipe", "data", "environment"), its name, and its two values."""

    where: str
    key: str
    first: Any
    second: Any


@dataclass(frozen=True)
class Paired:
    """Two runs' answers to the same samples; the difference is the second's top-1 accuracy minus the first's."""

    split: str
    samples: int
    only_first: int  # samples that the first alone answers correctly
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
        """Its part of `dlkit.compare/1`."""
        return {
            **asdict(self), "test": TEST, "interval": INTERVAL, "concerns": CONCERNS, "verdict": self.verdict,
        }  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """All of it; `paired` is none where the two were not evaluated on the same samples, and `unpaired` says why."""

    first: str
    second: str
    differences: tuple[Difference, ...]
    figures: tuple[Difference, ...]  # metrics that both have
    paired: Paired | None
    unpaired: str

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.compare/1`."""
        paired = None if self.paired is None else self.paired.document()
        return {
            "schema": SCHEMA, "first": self.first, "second": self.second,
            "differences": [asdict(difference) for difference in self.differences],
            "metrics": [asdict(figure) for figure in self.figures],
            "paired": paired, "unpaired": self.unpaired,
        }  # fmt: skip

    def rows(self) -> list[dict[str, Any]]:
        """What differs, the figures, and the verdict, a line each."""
        rows = [asdict(row) for row in (*self.differences, *self.figures)]
        verdict: dict[str, Any] = {"verdict": f"not compared: {self.unpaired}"}
        if self.paired is not None:
            keys = ("test", "p_value", "concerns", "verdict")
            verdict = asdict(self.paired.difference) | {key: self.paired.document()[key] for key in keys}
            verdict = {"difference": verdict.pop("value"), **verdict}
        return rows + [{"where": "verdict", "key": key, "second": value} for key, value in verdict.items()]

    def sentence(self) -> str:
        """The verdict in a line."""
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
    """Compare two runs: recipe, data, environment, metrics and, where both have them, their answers.

    Where the answers of one are damaged, `unpaired` says so.

    Raises:
        ModelFileError: a run.json is damaged.
    """
    one, other = evaluated(first), evaluated(second)
    try:
        paired = _paired(one, other)
    except ModelFileError as error:
        paired = str(error)
    return Comparison(
        first=full_name(first),
        second=full_name(second),
        differences=tuple(_differences(first, second)),
        figures=tuple(_figures(one, other)),
        paired=paired if isinstance(paired, Paired) else None,
        unpaired=paired if isinstance(paired, str) else "",
    )


def _differences(first: RunFolder, second: RunFolder) -> Iterator[Difference]:
    one, other = first.info(), second.info()
    parts = {
        "recipe": (first.recipe().model_dump(), second.recipe().model_dump()),
        "data": (_data(one), _data(other)),
        "environment": ({key: one.get(key) for key in ENVIRONMENT}, {key: other.get(key) for key in ENVIRONMENT}),
    }
    for where, (ours, theirs) in parts.items():
        yield from _unequal(where, flatten(ours), flatten(theirs))


def _data(info: Mapping[str, Any]) -> dict[str, Any]:
    return {"classes": len(info.get("spec", {}).get("classes", ())), **info.get("data", {})}


def _unequal(where: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[Difference]:
    for key in dict.fromkeys([*ours, *theirs]):
        if ours.get(key) != theirs.get(key):
            yield Difference(where, key, ours.get(key), theirs.get(key))


def _figures(first: Evaluated, second: Evaluated) -> Iterator[Difference]:
    ours, theirs = _measured(first), _measured(second)
    for key, value in ours.items():
        if key in theirs:
            yield Difference("metrics", key, value, theirs[key])


def _measured(found: Evaluated) -> dict[str, Any]:
    """What is known of how well a run did: epochs, the best of its monitor and, once evaluated, the split's figures."""
    line, evaluation = summary(found.run), found.evaluation
    figures = {"epochs": line.epochs, f"best {line.metric}": line.best}
    for name, metric in evaluation.get("metrics", {}).items():
        figures[f"{evaluation.get('split')}/{name}"] = metric.get("value")
    return figures


def _paired(first: Evaluated, second: Evaluated) -> Paired | str:
    problem = difference([first, second])
    if problem:
        return problem
    one, other = answers(first.run, first.evaluation), answers(second.run, second.evaluation)
    if one.keys() != other.keys() or not one:
        return "their predictions.jsonl are of other samples; evaluate both again."
    only_first = sum(right and not other[sample] for sample, right in one.items())
    only_second = sum(right and not one[sample] for sample, right in other.items())
    found = statistics.matched_difference(only_second, only_first, len(one))
    checkpoints = (str(first.evaluation.get("checkpoint", "best")), str(second.evaluation.get("checkpoint", "best")))
    split = str(first.evaluation["split"])
    return Paired(split, len(one), only_first, only_second, found, found.p_value, checkpoints)
