"""One run's part of the report: the values that templates/run.html shows."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dlkit.evaluation.model_summary import ModelSummary
from dlkit.plots.curves import learning_panels, metric_panel
from dlkit.plots.style import shorten
from dlkit.report import charts
from dlkit.report.charts import CurveChart
from dlkit.report.data import RunData, SampleResult, command_line
from dlkit.report.examples import Preview, RunContent
from dlkit.report.tables import Table, count, duration, metric_format, metric_title, percent, short
from dlkit.specs import ImageSpec

MAX_GALLERY = 16  # mistakes shown without a click
MAX_CELLS = 40  # classes; the matrix of more is an image, whose cells are too small for counts
SHADES = 10
MAX_PAIRS = 30  # most frequent confusions, listed next to the image of a matrix
LABEL, LONG_LABEL = 16, 30  # characters of a class name
MAX_ERRORS = 16  # largest errors of a regression
MAX_LAYERS = 16  # a longer table is collapsed
KEY_METRICS = ("top1", "loss", "ece", "macro_f1", "rmse", "mae")
LOGGED = ("epoch", "train/loss", "val/loss", "train/top1", "val/top1", "val/top5", "lr")


@dataclass(frozen=True)
class MatrixCell:
    """A cell of the confusion matrix; its shade is the square root of its share of the row."""

    count: int
    shade: str
    pair: str  # "true,predicted" of a cell with mistakes, else ""
    description: str


@dataclass(frozen=True)
class MistakeCard:
    name: str
    preview: Preview
    target: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class RunView:
    """A run's values in the form in which the page shows them."""

    content: RunContent
    id: str

    @property
    def data(self) -> RunData:
        return self.content.data

    @property
    def about(self) -> str:
        """Name, status and time."""
        when = self.data.info.get("ended") or self.data.info.get("started")
        parts = [self.data.name, str(self.data.info.get("status", "unknown status"))]
        return " · ".join([*parts, f"{str(when)[:16].replace('T', ' ')} UTC"] if when else parts)

    def sections(self) -> list[tuple[str, str]]:
        """The slug and title of each section that this run has."""
        data = self.data
        sections = [
            ("summary", "Summary", True),
            ("curves", "Learning curves", bool(data.history.lines) and not data.is_baseline),
            ("confusion", "Confusion matrix", data.results),
            ("mistakes", "Most confident mistakes", data.mistakes),
            ("classes", "Classes", data.results),
            ("calibration", "Calibration", data.results),
            ("predictions", "Predictions", data.regression_points),
            ("explanations", "Explanations", self.content.explanations or self.content.saved_explanations),
            ("recipe", "Recipe", True),
            ("model", "Model", self.content.summary),
            ("environment", "Environment", True),
        ]
        return [(slug, title) for slug, title, present in sections if present]

    @property
    def headline(self) -> tuple[str, str]:
        """The main result, and its interval."""
        data, evaluation, best = self.data, self.data.evaluation, self.data.info.get("best")
        if not evaluation:
            text = (
                f"Best {data.info.get('monitor')} {short(best['value'])}, after epoch {best['epoch']}." if best else ""
            )
            return text, ""
        samples, split = evaluation["samples"], f"{evaluation['split']} {data.spec.kind} of {evaluation['dataset']}"
        if "top1" not in data.metrics:
            return f"Mean absolute error {short(data.metrics['mae']['value'])} on {samples:,} {split}.", ""
        top1 = data.metrics["top1"]
        text = f"{round(top1['value'] * samples):,} of {samples:,} {split} are correct: {percent(top1['value'])}"
        interval = f", 95 % interval {100 * top1['low']:.2f} to {percent(top1['high'])}" if "low" in top1 else ""
        return text, f"{interval}."

    def key_figures(self) -> Iterator[tuple[str, str]]:
        data, best = self.data, self.data.info.get("best")
        for name in (f"top{data.evaluation.get('topk')}", *KEY_METRICS[1:]):
            if name in data.metrics and name != "top1":
                yield metric_title(name), metric_format(name)(data.metrics[name]["value"])
        if data.is_baseline:
            lines = data.history.lines
            yield "Fitted to", count(data.info["fitted_to"])
            yield "Fitted in", duration(lines[-1].get("fit_s") if lines else None)
        elif best:
            yield "Best epoch", f"{best['epoch']} of {data.info.get('epochs') or data.recipe.train.epochs}"
        if data.seconds is not None and not data.is_baseline:
            yield "Trained in", duration(data.seconds)
        if data.info.get("parameters"):
            yield "Parameters", count(data.info["parameters"])

    def metric_rows(self) -> Iterator[tuple[str, str, list[tuple[str, float | None, str]]]]:
        """Metric, title, and (part, value, text) of its value, low and high."""
        for name, metric in self.data.metrics.items():
            values = [(part, metric.get(part)) for part in ("value", "low", "high")]
            format = metric_format(name)
            yield name, metric_title(name), [(part, v, "" if v is None else format(v)) for part, v in values]

    @property
    def evaluation_note(self) -> str:
        data = self.data
        note = f"The {data.checkpoint} weights (step {data.evaluation['step']:,}), by {command_line('eval', data.run)}"
        passes = data.evaluation.get("mc_dropout")
        return note + (f": the mean of {passes} passes with dropout enabled" if passes else "")

    @cached_property
    def curve_charts(self) -> list[CurveChart]:
        """Learning curves: loss, accuracy, and the learning rate if it varies."""
        data = self.data
        if data.is_baseline or not data.history.lines:
            return []
        rates = metric_panel([data.history], "lr")
        varies = len({y for curve in rates.curves for _, y in curve.points}) > 1
        panels = {"loss": learning_panels(data.history)[0], "accuracy": learning_panels(data.history)[1]}
        panels |= {"lr": rates} if varies else {}
        return [CurveChart(f"{self.id}-{name}", panel) for name, panel in panels.items() if panel.curves]

    @property
    def epochs(self) -> Table | None:
        """The log, epoch by epoch."""
        lines = [line for line in self.data.history.lines if any(key.startswith("val/") for key in line)]
        if not lines:
            return None
        keys = [key for key in LOGGED if key in lines[-1]]
        formats = [count if key == "epoch" else percent if "top" in key else short for key in keys]
        return Table(keys, formats, [[line.get(key) for key in keys] for line in lines])

    @property
    def confusion_note(self) -> str:
        wrong = len(self.data.mistakes)
        note = f"Rows are true classes, columns predicted ones; {wrong:,} of {len(self.data.results):,} are wrong. "
        return note + ("Select a cell to see its mistakes." if wrong else "There are no mistakes.")

    @property
    def has_large_matrix(self) -> bool:
        return len(self.data.spec.classes) > MAX_CELLS

    @property
    def matrix_style(self) -> str:
        names = self.data.spec.classes
        vertical, small = " vertical" * (max(map(len, names)) > 3), " small" * (len(names) > 12)
        return f"cells{vertical}{small}"

    @property
    def class_labels(self) -> list[tuple[str, str]]:
        return [(shorten(name, LABEL), name) for name in self.data.spec.classes]

    def matrix_rows(self) -> Iterator[tuple[str, str, list[MatrixCell]]]:
        """Label, class name and cells of each row of the confusion matrix."""
        for target, counts in enumerate(self.data.confusion.tolist()):
            cells = [self._cell(target, predicted, number, sum(counts)) for predicted, number in enumerate(counts)]
            yield *self.class_labels[target], cells

    def _cell(self, target: int, predicted: int, number: int, total: int) -> MatrixCell:
        names, correct = self.data.spec.classes, target == predicted
        shade = round(SHADES * (number / total) ** 0.5) if total else 0
        pair = f"{target},{predicted}" if number and not correct else ""
        description = f"{number:,} of class {names[target]} predicted as {names[predicted]}"
        return MatrixCell(number, f"{'h' if correct else 'w'}{shade}", pair, description)

    def frequent_pairs(self) -> list[tuple[str, str, int]]:
        """(pair, text, count) of the most frequent confusions."""
        names = [shorten(name, LONG_LABEL) for name in self.data.spec.classes]
        wrong = sorted((cell for cell in self.cell_counts() if cell[0] != cell[1]), key=lambda cell: -cell[2])
        return [
            (f"{target},{predicted}", f"{names[target]} predicted as {names[predicted]}", number)
            for target, predicted, number in wrong[:MAX_PAIRS]
        ]

    def cell_counts(self) -> list[tuple[int, int, int]]:
        """(true, predicted, count) of every nonzero cell of the confusion matrix."""
        if not self.data.results:
            return []
        rows, columns = self.data.confusion.nonzero()
        counts = self.data.confusion[rows, columns]
        return list(zip(rows.tolist(), columns.tolist(), counts.tolist(), strict=True))

    def mistakes(self) -> Iterator[tuple[str, int, int, float, Preview]]:
        """(name, true, predicted, probability, preview), the most confident first."""
        for result in self.data.mistakes:
            yield _name(result), result.target, result.predicted, result.probability, self._preview(result)

    def gallery(self) -> list[MistakeCard]:
        """The most confident mistakes."""
        data, names = self.data, self.data.spec.classes
        selected = [result for result in data.mistakes if result.id in self.content.previews] or data.mistakes
        return [
            MistakeCard(_name(result), self._preview(result), names[result.target], names[result.predicted],
                        result.probability)
            for result in selected[:MAX_GALLERY]
        ]  # fmt: skip

    @property
    def has_images(self) -> bool:
        return isinstance(self.data.spec, ImageSpec)

    def _preview(self, result: SampleResult) -> Preview:
        return self.content.previews.get(result.id, Preview())

    @property
    def classes(self) -> Table:
        """Precision, recall and most frequent confusion of each class."""
        names, confusion = self.data.spec.classes, self.data.confusion.copy()
        confusion[range(len(names)), range(len(names))] = 0
        rows = []
        for index, row in enumerate(self.data.evaluation["classes"]):
            other, number = int(confusion[index].argmax()), int(confusion[index].max())
            confused = f"{shorten(names[other], LONG_LABEL)} ({number:,})" if number else ""
            rows.append([row["class"], row["precision"], row["recall"], row["f1"], row["support"], confused])
        heads = ["Class", "Precision", "Recall", "F1", "Samples", "Most often predicted as"]
        return Table(heads, [str, percent, percent, percent, count, str], rows, sortable=True)

    @cached_property
    def calibration_bars(self) -> list[charts.CalibrationBar]:
        return charts.calibration_bars(self.data.calibration)

    @property
    def calibration_description(self) -> str:
        return charts.calibration_description(self.data.calibration)

    @property
    def calibration_table(self) -> Table:
        bins = self.data.calibration
        rows = [[f"{bin.low:.2f} to {bin.high:.2f}", bin.samples, bin.confidence, bin.accuracy] for bin in bins]
        return Table(["Confidence", "Predictions", "Mean confidence", "Accuracy"], [str, count, percent, percent], rows)

    @property
    def scatter(self) -> charts.ScatterChart:
        return charts.scatter_chart(self.data.regression_points)

    @property
    def largest_errors(self) -> Table:
        points = enumerate(self.data.regression_points)
        worst = sorted(points, key=lambda item: -abs(item[1][1] - item[1][0]))[:MAX_ERRORS]
        rows = [[f"#{index}", target, prediction, prediction - target] for index, (target, prediction) in worst]
        return Table(["Sample", "Target", "Prediction", "Error"], [str, short, short, short], rows, sortable=True)

    @property
    def repeat_command(self) -> str:
        return command_line("train --recipe", self.data.run, "/recipe.yaml")

    @property
    def recipe_text(self) -> str:
        return (self.data.run.path / "recipe.yaml").read_text(encoding="utf-8", errors="replace")

    @property
    def model_text(self) -> list[str]:
        summary = self._summary
        size = " × ".join(map(str, summary.input))
        sizes = f"{summary.parameters:,} parameters; {summary.macs:,} multiply-adds for an input of {size}."
        return [summary.document.strip().partition("\n")[0], sizes, *summary.notes]

    @property
    def layers(self) -> Table:
        rows = [
            [layer.name or "(all)", layer.kind, " × ".join(map(str, layer.output)), layer.parameters, layer.macs]
            for layer in self._summary.layers
        ]
        heads = ["Layer", "Kind", "Output", "Parameters", "Multiply-adds"]
        return Table(heads, [str, str, str, count, count], rows)

    @property
    def _summary(self) -> ModelSummary:
        assert self.content.summary is not None
        return self.content.summary

    def environment(self) -> dict[str, Any]:
        info = self.data.info
        rows = {
            "command": shlex.join(map(str, info.get("argv", ()))),
            "device": info.get("device_name"),
            "seed": info.get("seed"),
            "precision": info.get("precision"),
            "processes": info.get("world_size"),
            "platform": info.get("platform"),
            "versions": ", ".join(f"{name} {version}" for name, version in info.get("versions", {}).items()),
            **{f"{name} data": _split(part) for name, part in info.get("data", {}).items()},
            "started": info.get("started"),
            "ended": info.get("ended"),
            "inexact": "resumed with other data, torch, threads or device" if info.get("inexact") else None,
        }
        return {name: value for name, value in rows.items() if value not in (None, "")}


def word_shade(value: float) -> str:
    """The style of a word: w with evidence for the class, h against it, as in the confusion matrix."""
    shade = round(SHADES / 2 * abs(value))
    return f"{'w' if value > 0 else 'h'}{shade}" if shade else ""


def _name(result: SampleResult) -> str:
    return result.id if isinstance(result.id, str) else f"#{result.id}"


def _split(part: Mapping[str, Any]) -> str:
    return f"{part.get('samples', 0):,} samples, SHA-256 {str(part.get('sha256', ''))[:12]}…"


def run_views(contents: Sequence[RunContent]) -> list[RunView]:
    return [RunView(content, f"r{index}") for index, content in enumerate(contents)]
