"""Several runs side by side: the values that templates/comparison.html shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dlkit.experiments.compare import Comparison
from dlkit.plots.curves import metric_panel
from dlkit.report.charts import CurveChart, IntervalChart, interval_chart
from dlkit.report.data import RunData
from dlkit.report.sections import KEY_METRICS
from dlkit.report.tables import Format, Table, count, metric_format, metric_title, setting

ORDER = ("recipe", "data", "environment")  # of the differences
DIGEST = 64  # characters
COMPARED_METRICS = ("val/loss", "val/top1")


@dataclass(frozen=True)
class ComparisonView:
    runs: Sequence[RunData]
    comparisons: Sequence[Comparison]  # of the first run with each of the others

    @property
    def metrics(self) -> Table:
        names = [name for name in KEY_METRICS if any(name in run.metrics for run in self.runs)]
        heads = ["Run", "Model", "Data", "Parameters", "Epochs", *map(metric_title, names)]
        rows = [
            [
                run.name, run.model, run.evaluation.get("dataset", run.recipe.data.name), run.info.get("parameters"),
                run.info.get("epochs"), *(run.metrics.get(name, {}).get("value") for name in names),
            ]
            for run in self.runs
        ]  # fmt: skip
        formats: list[Format] = [str, str, str, count, count, *map(metric_format, names)]
        return Table(heads, formats, rows, sortable=True)

    @property
    def intervals(self) -> IntervalChart | None:
        top1 = [(run.name, run.metrics.get("top1", {})) for run in self.runs]
        rows = [(name, metric["value"], metric["low"], metric["high"]) for name, metric in top1 if "low" in metric]
        return interval_chart(rows) if rows else None

    @cached_property
    def curve_charts(self) -> list[CurveChart]:
        histories = [run.history for run in self.runs if not run.is_baseline]
        panels = {metric: metric_panel(histories, metric) for metric in COMPARED_METRICS}
        return [
            CurveChart(f"all-{metric.replace('/', '-')}", panel) for metric, panel in panels.items() if panel.curves
        ]

    @property
    def differences(self) -> Iterator[tuple[str, str, list[tuple[str, bool]]]]:
        """(part, key, cells) of every key in which a run differs from the first; a cell is (text, is different)."""
        first = {(row.where, row.key): row.first for found in self.comparisons for row in found.differences}
        others = [{(row.where, row.key): row.second for row in found.differences} for found in self.comparisons]
        for where, key in sorted(first, key=lambda item: ORDER.index(item[0])):
            value = first[where, key]
            values = [value, *(other.get((where, key), value) for other in others)]
            yield where, key, [(_abbreviate(setting(other)), other != value) for other in values]

    def paired_cells(self, comparison: Comparison) -> tuple[list[str], str]:
        """The numbers of a paired comparison, and the verdict about the second run."""
        paired = comparison.paired
        assert paired is not None
        value, low, high = (
            100 * part for part in (paired.difference.value, paired.difference.low, paired.difference.high)
        )
        verdict = {"first is better": "worse", "second is better": "better"}.get(paired.verdict, paired.verdict)
        numbers: list[Any] = [f"{paired.only_first:,}", f"{paired.only_second:,}", f"{paired.p_value:.3g}"]
        return [f"{value:+.2f}", f"{low:+.2f} to {high:+.2f}", *numbers], verdict


def _abbreviate(text: str) -> str:
    """The first characters of a digest; other texts unchanged."""
    return f"{text[:12]}…" if len(text) == DIGEST and text.isalnum() else text
