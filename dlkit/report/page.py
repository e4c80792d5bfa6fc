"""The report as a single HTML file, rendered from templates/ with Jinja2.

All values are escaped, and control characters, lone surrogates and marks that reorder text are shown as �, so that a
file or class name cannot become part of the page. The content security policy admits only the page's own style and
script, by digest, and no network.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from dlkit.experiments.compare import Comparison
from dlkit.plots.style import shorten
from dlkit.report import charts, tables
from dlkit.report.comparison import ComparisonView
from dlkit.report.examples import RunContent
from dlkit.report.sections import LONG_LABEL, MAX_LAYERS, RunView, run_views, word_shade
from dlkit.version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def page(contents: Sequence[RunContent], comparisons: Sequence[Comparison], time: str) -> str:
    """The report of one run, or of several with their comparison."""
    from markupsafe import Markup

    runs = run_views(contents)
    comparison = ComparisonView([run.data for run in runs], comparisons) if len(runs) > 1 else None
    curve_charts = [chart for run in runs for chart in run.curve_charts] + (
        comparison.curve_charts if comparison else []
    )
    style, script = _resource("page.css"), _resource("page.js")
    return environment().get_template("page.html").render(
        title=f"{len(runs)} runs compared" if comparison else runs[0].data.title,
        runs=runs,
        comparison=comparison,
        style=Markup(style),
        style_digest=_digest(style),
        script=Markup(script),
        script_digest=_digest(script),
        data={"charts": {chart.id: chart.data() for chart in curve_charts}, "runs": list(map(_script_data, runs))},
        footer=f"dlkit {__version__}, {time}. A single file that loads nothing else.",
    )  # fmt: skip


@cache
def environment() -> Environment:
    """The templates of the report, with its formats as filters."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("dlkit.report"),
        autoescape=True,
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters |= {
        "percent": tables.percent, "short": tables.short, "count": tables.count, "setting": tables.setting,
        "label": lambda name: shorten(name, LONG_LABEL), "word_shade": word_shade,
    }  # fmt: skip
    environment.globals |= {"geometry": charts, "max_layers": MAX_LAYERS}
    return environment


def clean(text: str) -> str:
    """Text without characters that control or reorder what follows."""
    return UNSAFE.sub("�", text)


def _finalize(value: Any) -> Any:
    if value is None:
        return ""
    return value if hasattr(value, "__html__") else clean(str(value))


def _script_data(run: RunView) -> dict[str, Any]:
    """What the page's script shows of a run when a cell of the confusion matrix is selected."""
    mistakes = [
        (clean(name), target, predicted, float(f"{probability:.5g}"), preview.image, clean(preview.text))
        for name, target, predicted, probability, preview in run.mistakes()
    ]
    classes = [clean(name) for name in run.data.spec.classes]
    return {"classes": classes, "counts": run.cell_counts(), "mistakes": mistakes}


def _resource(name: str) -> str:
    return files("dlkit.report").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
