"""compare: how two runs differ, and whether what they answered can be told apart.

Runs that were evaluated on the same samples are compared sample by sample: only those on which one is right and the
other wrong count, and McNemar's mid-p test asks whether they split more unevenly than a fair coin would.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dlkit import statistics
from dlkit.engine.run_folder import RunFolder
from dlkit.errors import ModelFileError
from dlkit.verbs.runs import summary

SCHEMA = "dlkit.compare/1"
ENVIRONMENT = (
    "versions", "device_name", "threads", "world_size", "precision", "platform", "hardware", "git", "inexact",
)  # fmt: skip
LEVEL = 0.05  # of the test


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
    only_first: int  # samples that the first alone answers rightly
    only_second: int
    difference: statistics.Estimate
    p_value: float

    @property
    def verdict(self) -> str:
        """Which is better, at the 5 % level, or that they are not distinguishable."""
        if self.p_value >= LEVEL:
            return "not distinguishable"
        return "second is better" if self.only_second > self.only_first else "first is better"


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
        paired = None if self.paired is None else asdict(self.paired) | {"verdict": self.paired.verdict}
        return {
            "schema": SCHEMA, "first": self.first, "second": self.second,
            "differences": [asdict(difference) for difference in self.differences],
            "metrics": [asdict(figure) for figure in self.figures],
            "paired": paired, "unpaired": self.unpaired,
        }  # fmt: skip


def compare(first: RunFolder, second: RunFolder) -> Comparison:
    """Compare two runs: recipe, data, environment, metrics and, where both have them, their answers.

    Raises:
        ModelFileError: a file of a run is damaged.
    """
    paired = _paired(first, second)
    return Comparison(
        first=first.name,
        second=second.name,
        differences=tuple(_differences(first, second)),
        figures=tuple(_figures(first, second)),
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
        yield from _unequal(where, dict(_flat(ours)), dict(_flat(theirs)))


def _data(info: Mapping[str, Any]) -> dict[str, Any]:
    return {"classes": len(info.get("spec", {}).get("classes", ())), **info.get("data", {})}


def _unequal(where: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[Difference]:
    for key in dict.fromkeys([*ours, *theirs]):
        if ours.get(key) != theirs.get(key):
            yield Difference(where, key, ours.get(key), theirs.get(key))


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key, value of every leaf."""
    for key, value in document.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _figures(first: RunFolder, second: RunFolder) -> Iterator[Difference]:
    ours, theirs = _measured(first), _measured(second)
    for key, value in ours.items():
        if key in theirs:
            yield Difference("metrics", key, value, theirs[key])


def _measured(run: RunFolder) -> dict[str, Any]:
    """What is known of how well a run did: epochs, the best of its monitor and, once evaluated, the split's figures."""
    found = summary(run)
    figures = {"epochs": found.epochs, f"best {found.metric}": found.best}
    evaluation = _evaluation(run)
    for name, metric in evaluation.get("metrics", {}).items():
        figures[f"{evaluation.get('split')}/{name}"] = metric.get("value")
    return figures


def _paired(first: RunFolder, second: RunFolder) -> Paired | str:
    ours, theirs = _evaluation(first), _evaluation(second)
    for run, evaluation in ((first, ours), (second, theirs)):
        if not evaluation:
            return f"run {run.name} is not evaluated yet: dlkit eval {run.name}."
    for key in ("dataset", "split", "fingerprint"):
        if ours.get(key) != theirs.get(key):
            return f"they were evaluated on other samples: {key} {ours.get(key)} and {theirs.get(key)}."
    if ours.get("topk") == 0:
        return "their answers are numbers, of which none is simply right or wrong."
    one, other = _answers(first), _answers(second)
    if one.keys() != other.keys() or not one:
        return "their predictions.jsonl are of other samples; evaluate both again."
    only_first = sum(right and not other[sample] for sample, right in one.items())
    only_second = sum(right and not one[sample] for sample, right in other.items())
    difference = statistics.matched_difference(only_second, only_first, len(one))
    return Paired(str(ours["split"]), len(one), only_first, only_second, difference, difference.p_value)


def _evaluation(run: RunFolder) -> dict[str, Any]:
    path = run.path / "evaluation.json"
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_bytes()))
    except (ValueError, OSError) as error:
        raise ModelFileError(f"{path} cannot be read: {error}. Evaluate again: dlkit eval {run.name}.") from error


def _answers(run: RunFolder) -> dict[Any, bool]:
    """Sample → whether it was answered rightly."""
    path = run.path / "predictions.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        return {line["id"]: line["predicted"] == line["target"] for line in lines}
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise ModelFileError(f"{path} cannot be read: {error}. Evaluate again: dlkit eval {run.name}.") from error
