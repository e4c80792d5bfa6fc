"""The report as a page: its frame, its contents, and several runs side by side; a run's part is report_sections'."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from dlkit.experiments.compare import Comparison
from dlkit.report import charts, tables
from dlkit.report.charts import COLOURS, Curves, Line
from dlkit.report.data import Facts
from dlkit.report.examples import Story
from dlkit.report.markup import Markup, clean, element, joined, raw, script_json
from dlkit.report.mistakes import cell_counts, mistakes
from dlkit.report.sections import KEY_METRICS, Section, sections
from dlkit.report.tables import Show, count, setting
from dlkit.version import __version__

WHERE = ("recipe", "data", "environment")  # what differs, in the order in which it is told
DIGEST = 64  # characters
COMPARED = (("Validation loss", False, "val/loss"), ("Validation accuracy", True, "val/top1"))


def page(stories: Sequence[Story], comparisons: Sequence[Comparison], when: str) -> str:
    """The whole file."""
    several, drawn = len(stories) > 1, list[Curves]()
    title = f"{len(stories)} runs compared" if several else stories[0].facts.title
    bodies = [sections(story, f"r{place}", drawn) for place, story in enumerate(stories)]
    parts = [_header(stories, title), _contents(stories, bodies)]
    if several:
        parts.append(_comparison([story.facts for story in stories], comparisons, drawn))
    parts += [_article(story.facts, f"r{place}", bodies[place], several) for place, story in enumerate(stories)]
    parts.append(element("footer", f"dlkit {__version__}, {when}. One file, which loads nothing from elsewhere."))
    data = {
        "charts": {curves.id: curves.data for curves in drawn},
        "runs": list(map(_data, stories)),
    }
    return _framed(title, joined(parts), data)


def _data(story: Story) -> dict[str, Any]:
    """What the page's script shows of a run where a cell of the matrix is chosen."""
    classes = [clean(name) for name in story.facts.spec.classes]
    return {"classes": classes, "counts": cell_counts(story.facts), "mistakes": mistakes(story)}


def _framed(title: str, body: Markup, data: Mapping[str, Any]) -> str:
    """The parts in page.html. The policy admits our style and script alone, by digest, and no network."""
    style, script = _resource("page.css"), _resource("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{_digest(style)}'; "
        f"script-src 'sha256-{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    slots = {
        "POLICY": policy,
        "TITLE": element("title", f"{title} · dlkit"),
        "STYLE": element("style", raw(style)),
        "BODY": body,
        "DATA": element("script", script_json(data), id="data", type="application/json"),
        "SCRIPT": element("script", raw(script)),
    }
    before, *pieces = _resource("page.html").split("{{")
    return before + "".join(f"{slots[name]}{rest}" for name, _, rest in (piece.partition("}}") for piece in pieces))


def _resource(name: str) -> str:
    return files("dlkit.report").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _header(stories: Sequence[Story], title: str) -> Markup:
    names = [story.facts.name for story in stories]
    about = " · ".join(names) if len(names) > 1 else joined(_about(stories[0].facts))
    return element("header", element("h1", title), element("p", about, class_="about"))


def _about(facts: Facts) -> Iterable[object]:
    yield from (facts.name, f" · {facts.info.get('status', 'of unknown status')}")
    when = facts.info.get("ended") or facts.info.get("started")
    if when:
        yield f" · {str(when)[:16].replace('T', ' ')} UTC"


def _contents(stories: Sequence[Story], bodies: Sequence[Sequence[Section]]) -> Markup:
    if len(stories) > 1:
        links = [("Comparison", "comparison")]
        links += [(story.facts.name, f"r{place}") for place, story in enumerate(stories)]
    else:
        links = [(section.slug.capitalize(), f"r0-{section.slug}") for section in bodies[0]]
    items = [element("li", element("a", text, href=f"#{target}")) for text, target in links]
    return element("nav", element("ul", *items), aria_label="Contents")


def _article(facts: Facts, id: str, body: Sequence[Section], several: bool) -> Markup:
    level = "h3" if several else "h2"
    parts = [
        element("section", element(level, section.title), section.content, id=f"{id}-{section.slug}")
        for section in body
    ]
    if several:
        about = element("p", facts.title, " · ", *_about(facts), class_="about")
        parts = [element("h2", facts.name), about, *parts]
    return element("article", *parts, id=id)


def _comparison(facts: Sequence[Facts], comparisons: Sequence[Comparison], drawn: list[Curves]) -> Markup:
    top1 = [(one.name, one.metrics["top1"]) for one in facts if "low" in one.metrics.get("top1", {})]
    parts: list[Markup | None] = [element("h2", "Comparison"), _figures(facts)]
    if top1:
        rows = [(name, metric["value"], metric["low"], metric["high"]) for name, metric in top1]
        parts += [element("h3", "Top-1 accuracy and its 95 % interval"), charts.intervals(rows)]
    parts += [element("h3", "Sample by sample"), *_pairs(comparisons), _curves(facts, drawn)]
    parts += [element("h3", "What is different"), _differences(comparisons)]
    return element("section", *parts, id="comparison")


def _figures(facts: Sequence[Facts]) -> Markup:
    names = [name for name in KEY_METRICS if any(name in one.metrics for one in facts)]
    heads = ["Run", "Model", "Data", "Parameters", "Epochs", *map(tables.title, names)]
    rows = []
    for one in facts:
        figures = [one.metrics.get(name, {}).get("value") for name in names]
        about = [one.name, one.model, one.evaluation.get("dataset", one.recipe.data.name)]
        rows.append([*about, one.info.get("parameters"), one.info.get("epochs"), *figures])
    shows: list[Show] = [str, str, str, count, count, *map(tables.shows, names)]
    return tables.values(heads, rows, shows, sort=True)


def _pairs(comparisons: Sequence[Comparison]) -> Iterable[Markup]:
    first = comparisons[0].first
    note = f"Each against {first}, on the same samples: percentage points of top-1, and McNemar's exact test at 5 %."
    if len(comparisons) > 1:
        note += " The p are not corrected for there being several."
    yield element("p", note, class_="soft")
    numbers = ["Points", "95 % interval", f"Only {first} right", "Only this right", "McNemar p"]
    yield tables.plain(["Run", *numbers, "Verdict"], map(_pair, comparisons), numbers)


def _pair(found: Comparison) -> list[Markup]:
    name, paired = element("th", found.second, scope="row"), found.paired
    if paired is None:
        return [name, element("td", found.unpaired, colspan=6)]
    value, low, high = (100 * part for part in (paired.difference.value, paired.difference.low, paired.difference.high))
    verdict = {"first is better": "worse", "second is better": "better"}.get(paired.verdict, paired.verdict)
    cells = [f"{value:+.2f}", f"{low:+.2f} to {high:+.2f}", f"{paired.only_first:,}", f"{paired.only_second:,}"]
    cells.append(f"{paired.p_value:.3g}")
    return [name, *(element("td", cell, class_="n") for cell in cells), element("td", verdict)]


def _curves(facts: Sequence[Facts], drawn: list[Curves]) -> Markup | None:
    figures = []
    for title, percent, key in COMPARED:
        lines = [
            Line(one.name, points, place % COLOURS)
            for place, one in enumerate(facts)
            if not one.fitted and (points := one.curve(key))
        ]
        if lines:
            drawn.append(charts.curves(f"all-{key.replace('/', '-')}", title, lines, percent=percent))
            figures.append(drawn[-1].figure)
    if not figures:
        return None
    return joined([element("h3", "Learning curves"), element("div", *figures, class_="charts")])


def _differences(comparisons: Sequence[Comparison]) -> Markup:
    """Every key in which a run differs from the first, a column a run."""
    first = {(one.where, one.key): one.first for found in comparisons for one in found.differences}
    others = [{(one.where, one.key): one.second for one in found.differences} for found in comparisons]
    if not first:
        return element("p", "Recipes, data and environment are the same.")
    rows = []
    for where, key in sorted(first, key=lambda place: WHERE.index(place[0])):
        value = first[where, key]
        cells = [
            element("td", element("code", _short(setting(one))), class_="changed" if one != value else None)
            for one in (value, *(other.get((where, key), value) for other in others))
        ]
        rows.append([element("td", where), element("th", key, scope="row"), *cells])
    heads = ["Where", "Key", comparisons[0].first, *(found.second for found in comparisons)]
    return tables.plain(heads, rows)


def _short(told: str) -> str:
    """A digest by its first digits, all else as it is."""
    return f"{told[:12]}…" if len(told) == DIGEST and told.isalnum() else told
