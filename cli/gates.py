"""Gates: bars that a metric must reach (--fail-under) or must not exceed (--fail-over), else exit 12."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dlkit.errors import GateError, UsageError
from dlkit.registry import did_you_mean

UNDER, OVER = "--fail-under", "--fail-over"


@dataclass(frozen=True)
class Gate:
    """A bar for one metric: a floor with --fail-under, a ceiling with --fail-over."""

    flag: str
    metric: str
    bar: float

    def __str__(self) -> str:
        return f"{self.metric} {'>=' if self.flag == UNDER else '<='} {self.bar:g}"

    def judge(self, value: float) -> GateResult:
        """Whether the value passes; NaN never does."""
        return GateResult(self, value, value >= self.bar if self.flag == UNDER else value <= self.bar)


@dataclass(frozen=True)
class GateResult:
    """A gate, the value that came to it, and whether it passed."""

    gate: Gate
    value: float
    passed: bool

    @property
    def verdict(self) -> str:
        return "met" if self.passed else "not met"

    def document(self) -> dict[str, Any]:
        """Its part of `dlkit.eval/1`."""
        gate = self.gate
        return {"metric": gate.metric, "fail": gate.flag[7:], "bar": gate.bar, "value": self.value, "met": self.passed}


def parse_gates(
    under: Sequence[str] | None, over: Sequence[str] | None, floors: Sequence[str], ceilings: Sequence[str]
) -> list[Gate]:
    """The gates of both flags; floors are the metrics that are better when higher, ceilings those when lower.

    Raises:
        UsageError: no such metric, or a bar that it cannot have.
    """
    return [*_parsed(UNDER, under, floors, 1.0, "0.98"), *_parsed(OVER, over, ceilings, math.inf, "0.1")]


def refuse_missed(results: Sequence[GateResult], where: str) -> None:
    """Raises: GateError that names the gates that were not met."""
    missed = [
        f"{result.gate.metric} is {result.value:.6g}, {result.gate.flag[7:]} {result.gate.bar:g}"
        for result in results
        if not result.passed
    ]
    if missed:
        raise GateError(f"gate not met: {'; '.join(missed)} ({where}).")


def _parsed(
    flag: str, texts: Sequence[str] | None, names: Sequence[str], highest: float, example: str
) -> Iterator[Gate]:
    for text in (part for word in texts or () for part in word.split(",")):
        name, equals, number = text.partition("=")
        if name not in names:
            raise UsageError(f"{flag} {text}: there is no metric {name!r} for it. {did_you_mean(name, names)}")
        try:
            bar = float(number)
        except ValueError:
            bar = math.nan
        if not equals or not 0 <= bar <= highest or math.isinf(bar):
            kind = "a fraction from 0 to 1" if flag == UNDER else "a number from 0 on"
            raise UsageError(f"{flag} {text}: the bar is {kind}, as in {name}={example}.")
        yield Gate(flag, name, bar)
