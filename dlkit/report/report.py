"""The report of a run, or of several side by side: a single self-contained HTML file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit import atomic_io
from dlkit.errors import DlkitError, ModelFileError, StorageError, UsageError
from dlkit.report.data import Omission, RunData, read_run
from dlkit.runs import run_folder
from dlkit.runs.run_folder import RunFolder, select_run

if TYPE_CHECKING:
    from dlkit.report.examples import RunContent

SCHEMA = "dlkit.report/1"
MAX_IMAGES = 1600  # of mistakes, over all runs: at most 1 MB of small images, 10 MB of large ones
EXPLAINED = 3  # mistakes, and as many correct predictions
REPORT, COMPARISON = "report.html", "comparison.html"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Report:
    """A written page, and what is missing from it."""

    path: Path
    runs: tuple[RunFolder, ...]
    bytes: int
    omissions: tuple[tuple[str, Omission], ...]  # with the run's name

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.report/1`."""
        return {
            "schema": SCHEMA,
            "path": str(self.path),
            "runs": [run.name for run in self.runs],
            "bytes": self.bytes,
            "missing": [
                {"run": name, "what": omission.reason, "command": omission.command or None}
                for name, omission in self.omissions
            ],
        }


def report(
    runs: Sequence[RunFolder | Path | str] = (),
    *,
    output: Path | str | None = None,
    explain: int = EXPLAINED,
    data_dir: Path | str | None = None,
    runs_dir: Path | str = "runs",
    say: Say = lambda text: None,
) -> Report:
    """Write the report of a run, by default the newest, or of several, each compared with the first.

    output is an .html file or an existing folder; by default report.html in the run's folder, or comparison.html in the
    first one's. The page names what a run lacks, such as an evaluation, with the command that creates it. For images
    and texts it explains `explain` mistakes and as many correct predictions. Nothing is downloaded: if a data set is
    missing, its mistakes are listed without images; `data_dir` is its new folder if it has moved.

    Raises:
        UsageError: no such run, or the output is not an HTML file.
        ModelFileError: none of the runs' run.json can be read.
        StorageError: the page cannot be written.
    """
    if explain < 0:
        raise UsageError(f"--explain {explain}: the number of mistakes must be 0 or more.")
    folders = _select_runs(runs, Path(runs_dir), say)
    path = _output_path(output, folders)
    data = _read_runs(folders, say)

    from dlkit.experiments.compare import compare
    from dlkit.report.page import page

    contents = [_content(run, explain, MAX_IMAGES // len(data), data_dir, say) for run in data]
    comparisons = [compare(data[0].run, other.run) for other in data[1:]]
    html = page(contents, comparisons, f"{run_folder.now()[:16].replace('T', ' ')} UTC").encode()
    atomic_io.write_bytes(path, html)
    omissions = tuple((content.data.name, omission) for content in contents for omission in content.omissions)
    return Report(path, tuple(run.run for run in data), len(html), omissions)


def _select_runs(runs: Sequence[RunFolder | Path | str], runs_dir: Path, say: Say) -> list[RunFolder]:
    """The named runs without duplicates; the newest by default."""
    if not runs:
        return [select_run(None, runs_dir, say)]
    folders = [select_run(run, runs_dir, say) for run in runs]
    return list({run.path.resolve(): run for run in folders}.values())


def _read_runs(runs: Sequence[RunFolder], say: Say) -> list[RunData]:
    """The contents of the runs; an unreadable run among others is skipped with a warning."""
    data = []
    for run in runs:
        try:
            data.append(read_run(run))
        except DlkitError as error:
            if len(runs) == 1:
                raise
            say(f"warning: {error}")
    if not data:
        raise ModelFileError("none of these runs can be read.")
    return data


def _output_path(output: Path | str | None, runs: Sequence[RunFolder]) -> Path:
    """The path of the page, checked before any work."""
    several = len(runs) > 1
    if output is None:
        path = runs[0].path / (COMPARISON if several else REPORT)
    elif Path(output).is_dir():
        path = Path(output) / (COMPARISON if several else f"{runs[0].name}.html")
    elif Path(output).suffix.lower() in (".html", ".htm"):
        path = Path(output)
    else:
        raise UsageError(f"-o {output}: a report is HTML. Use a name that ends in .html, or an existing folder.")
    folder = path.parent
    if not folder.is_dir():
        raise StorageError(f"cannot write {path}: folder {folder} does not exist. Create it, or use another -o.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write {path}: no permission to write to {folder}. Use another -o.")
    if path.is_dir():
        raise StorageError(f"cannot write {path}: it is a folder. Use another -o.")
    return path


def _content(data: RunData, explain: int, max_images: int, data_dir: Path | str | None, say: Say) -> RunContent:
    from dlkit.evaluation.model_summary import summarize
    from dlkit.report.examples import RunContent, explain_samples, load_previews, saved_explanations
    from dlkit.report.samples import EvaluatedSamples

    for omission in data.omissions:
        say(f"{data.name}: {omission.reason}" + (f" {omission.command}" if omission.command else ""))
    samples = EvaluatedSamples(data, data_dir)
    previews, missing = load_previews(samples, max_images, say)
    explanations, failed = explain_samples(samples, explain, say) if explain else ([], [])
    try:
        summary = summarize(data.model, data.spec, data.recipe.model.options)
    except DlkitError:  # the model needs a library that is not installed here
        summary = None
    omissions = [*data.omissions, *missing, *failed]
    return RunContent(data, summary, previews, explanations, saved_explanations(data), omissions)
