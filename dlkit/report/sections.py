"""A run's part of the report, section by section: what stands there, from its facts. All text goes through markup."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dlkit.evaluation.model_summary import ModelSummary
from dlkit.report import charts, tables
from dlkit.report.charts import Curves, Line
from dlkit.report.data import Facts, Gap, command
from dlkit.report.examples import Story
from dlkit.report.markup import Markup, element, joined
from dlkit.report.mistakes import classes, confusion, explanations, gallery
from dlkit.report.tables import count, duration, percent, setting, short

WORST = 16  # answers with the largest errors
LAYERS = 16  # of more the table is folded away
KEY_METRICS = ("top1", "loss", "ece", "macro_f1", "rmse", "mae")
LOGGED = ("epoch", "train/loss", "val/loss", "train/top1", "val/top1", "val/top5", "lr")
CURVES = (
    ("Loss", False, (("train/loss", "train"), ("val/loss", "validation"))),
    ("Accuracy", True, (("train/top1", "train"), ("val/top1", "validation"), ("val/top5", "validation top-5"))),
    ("Learning rate", False, (("lr", "lr"),)),
)


@dataclass(frozen=True)
class Section:
    """A part of the page, and its name in addresses."""

    slug: str
    title: str
    content: Markup


def sections(story: Story, id: str, drawn: list[Curves]) -> list[Section]:
    """Those that this run has; the curves drawn for them are added to `drawn`."""
    facts, answers = story.facts, story.facts.answers
    found: list[tuple[str, str, Markup | None]] = [
        ("summary", "Summary", _summary(story)),
        ("curves", "Learning curves", _curves(facts, id, drawn)),
        ("confusion", "Confusion matrix", confusion(facts, id) if answers else None),
        ("mistakes", "Most confident mistakes", gallery(story)),
        ("classes", "Classes", classes(facts) if answers else None),
        ("calibration", "Calibration", _calibration(facts) if answers else None),
        ("answers", "Answers", _numbers(facts) if facts.numbers else None),
        ("explanations", "Explanations", explanations(story)),
        ("recipe", "Recipe", _recipe(facts)),
        ("model", "Model", None if story.summary is None else _model(story.summary)),
        ("environment", "Environment", _environment(facts)),
    ]
    return [Section(slug, title, content) for slug, title, content in found if content is not None]


def _summary(story: Story) -> Markup:
    facts = story.facts
    figures = [element("div", element("dt", name), element("dd", value)) for name, value in _key_figures(facts)]
    return joined([
        *map(_gap, story.gaps), _headline(facts), element("dl", *figures, class_="figures"),
        *(element("p", f"Note: {warning}", class_="note") for warning in facts.evaluation.get("warnings", ())),
        _all_figures(facts) if facts.metrics else None,
    ])  # fmt: skip


def _gap(gap: Gap) -> Markup:
    what_to_do = [element("br"), element("code", gap.command)] if gap.command else []
    return element("p", gap.what, *what_to_do, class_="gap")


def _headline(facts: Facts) -> Markup | None:
    evaluation, best = facts.evaluation, facts.info.get("best")
    if not evaluation:
        told = best and f"Best {facts.info.get('monitor')} {short(best['value'])}, after epoch {best['epoch']}."
        return element("p", told, class_="headline") if told else None
    samples, where = evaluation["samples"], f"{evaluation['split']} {facts.spec.kind} of {evaluation['dataset']}"
    if "top1" not in facts.metrics:
        told = f"Off by {short(facts.metrics['mae']['value'])} on average over {samples:,} {where}."
        return element("p", told, class_="headline")
    top1 = facts.metrics["top1"]
    told = f"Right on {round(top1['value'] * samples):,} of {samples:,} {where}: {percent(top1['value'])}"
    interval = f", 95 % interval {100 * top1['low']:.2f} to {percent(top1['high'])}" if "low" in top1 else ""
    return element("p", told, element("span", f"{interval}.", class_="soft"), class_="headline")


def _key_figures(facts: Facts) -> Iterator[tuple[str, str]]:
    for name in (f"top{facts.evaluation.get('topk')}", *KEY_METRICS[1:]):
        if name in facts.metrics and name != "top1":
            yield tables.title(name), tables.shows(name)(facts.metrics[name]["value"])
    best = facts.info.get("best")
    if facts.fitted:
        yield "Fitted to", count(facts.info["fitted_to"])
        yield "Fitted in", duration(facts.lines[-1].get("fit_s") if facts.lines else None)
    elif best:
        yield "Best epoch", f"{best['epoch']} of {facts.info.get('epochs') or facts.recipe.train.epochs}"
    if facts.seconds is not None and not facts.fitted:
        yield "Trained in", duration(facts.seconds)
    if facts.info.get("parameters"):
        yield "Parameters", count(facts.info["parameters"])


def _all_figures(facts: Facts) -> Markup:
    rows = []
    for name, metric in facts.metrics.items():
        cells = [element("th", tables.title(name), scope="row")]
        for part in ("value", "low", "high"):
            value = metric.get(part)
            shown = "" if value is None else tables.shows(name)(value)
            cells.append(element("td", shown, class_="n", data_metric=f"{name}.{part}", data_value=value))
        rows.append(cells)
    told = f"The {facts.checkpoint} weights (step {facts.evaluation['step']:,}), by {command('eval', facts.run)}"
    if facts.evaluation.get("mc_dropout"):
        told += f": the mean of {facts.evaluation['mc_dropout']} passes with dropout on"
    numbers = ["Value", "95 % from", "to"]
    table = tables.plain(["Figure", *numbers], rows, numbers)
    return element("details", element("summary", "All figures"), element("p", told, class_="soft"), table)


def _curves(facts: Facts, id: str, drawn: list[Curves]) -> Markup | None:
    if facts.fitted or not facts.lines:
        return None
    figures = []
    for title, in_percent, keys in CURVES:
        lines = [
            Line(label, points, place)
            for place, (key, label) in enumerate(keys)
            if (points := facts.curve(key)) and not (key == "val/top5" and len(facts.spec.classes) <= 5)
        ]
        constant = title == "Learning rate" and len({y for line in lines for _, y in line.points}) == 1
        if lines and not constant:
            drawn.append(charts.curves(f"{id}-{keys[0][0].replace('/', '-')}", title, lines, percent=in_percent))
            figures.append(drawn[-1].figure)
    return joined([element("div", *figures, class_="charts"), _epochs(facts)])


def _epochs(facts: Facts) -> Markup | None:
    lines = [line for line in facts.lines if any(key.startswith("val/") for key in line)]
    if not lines:
        return None
    keys = [key for key in LOGGED if key in lines[-1]]
    shows = [count if key == "epoch" else percent if "top" in key else short for key in keys]
    table = tables.values(keys, [[line.get(key) for key in keys] for line in lines], shows)
    return element("details", element("summary", "Epoch by epoch"), table)


def _calibration(facts: Facts) -> Markup:
    told = "How often the answers of each confidence are right. On the line the model is as good as it says; below it, "
    told += "it is too sure. Underneath: how many answers there are, on a square-root scale."
    if "ece" in facts.metrics:
        told += f" On average it is off by {percent(facts.metrics['ece']['value'])} (expected calibration error)."
    bins = facts.calibration
    rows = [[f"{bin.low:.2f} to {bin.high:.2f}", bin.samples, bin.confidence, bin.accuracy] for bin in bins]
    table = tables.values(["Confidence", "Answers", "Mean confidence", "Right"], rows, [str, count, percent, percent])
    beside = element("div", charts.calibration(bins), table, class_="beside")
    return joined([element("p", told, class_="soft"), beside])


def _numbers(facts: Facts) -> Markup:
    worst = sorted(enumerate(facts.numbers), key=lambda one: -abs(one[1][1] - one[1][0]))[:WORST]
    rows = [[f"#{place}", asked, given, given - asked] for place, (asked, given) in worst]
    told = "What was asked for (across) and what the model gave (up). On the line it is right."
    table = tables.values(["Sample", "Asked for", "Given", "Error"], rows, [str, short, short, short], sort=True)
    errors = element("div", element("h4", "Largest errors"), table)
    return joined(
        [element("p", told, class_="soft"), element("div", charts.scatter(facts.numbers), errors, class_="beside")]
    )


def _recipe(facts: Facts) -> Markup:
    rows = [
        [element("th", key, scope="row"), *(element("td", element("code", setting(one))) for one in (value, default))]
        for key, value, default in facts.changed_settings()
    ]
    table = tables.plain(["Other than the defaults", "Value", "Default"], rows) if rows else None
    again = element("p", "Again: ", element("code", command("train --recipe", facts.run, "/recipe.yaml")))
    text = (facts.run.path / "recipe.yaml").read_text(encoding="utf-8", errors="replace")
    return joined([table, again, element("details", element("summary", "Every value"), element("pre", text))])


def _model(summary: ModelSummary) -> Markup:
    rows = [
        [layer.name or "(all)", layer.kind, " × ".join(map(str, layer.output)), layer.parameters, layer.macs]
        for layer in summary.layers
    ]
    heads = ["Layer", "Kind", "Output", "Parameters", "Multiply-adds"]
    table = tables.values(heads, rows, [str, str, str, count, count])
    if len(rows) > LAYERS:
        table = element("details", element("summary", f"{len(rows)} layers"), table)
    size = " × ".join(map(str, summary.input))
    told = f"{summary.parameters:,} parameters; {summary.macs:,} multiply-adds for an input of {size}."
    notes = [element("p", note, class_="soft") for note in summary.notes]
    return joined([element("p", summary.document.strip().partition("\n")[0]), element("p", told), *notes, table])


def _environment(facts: Facts) -> Markup:
    info = facts.info
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
    told = {name: value for name, value in rows.items() if value not in (None, "")}
    return tables.plain([], [[element("th", name, scope="row"), element("td", told[name])] for name in told])


def _split(part: Mapping[str, Any]) -> str:
    return f"{part.get('samples', 0):,} samples, SHA-256 {str(part.get('sha256', ''))[:12]}…"
