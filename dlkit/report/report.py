"""A page that shows a run, or several side by side: one HTML file that needs nothing but itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit import atomic_io
from dlkit.errors import DlkitError, ModelFileError, StorageError, UsageError
from dlkit.report.data import Facts, Gap, read
from dlkit.runs import run_folder
from dlkit.runs.run_folder import RunFolder, select_run

if TYPE_CHECKING:
    from dlkit.report.examples import Story

SCHEMA = "dlkit.report/1"
MOST_PICTURES = 1600  # of mistakes, over all runs: 1 MB of small ones, 10 MB of large ones at most
EXPLAINED = 3  # mistakes, and as many right answers
FILE, FILE_OF_SEVERAL = "report.html", "comparison.html"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Report:
    """A page that was written, and what it could not show."""

    path: Path
    runs: tuple[RunFolder, ...]
    bytes: int
    gaps: tuple[tuple[str, Gap], ...]  # with the run's name

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.report/1`."""
        return {
            "schema": SCHEMA,
            "path": str(self.path),
            "runs": [run.name for run in self.runs],
            "bytes": self.bytes,
            "missing": [{"run": name, "what": gap.what, "command": gap.command or None} for name, gap in self.gaps],
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
    first one's. What a run lacks, such as an evaluation, is named on the page with the command that makes it. Of
    images and texts `explain` mistakes and as many right answers are explained; 0 for none. Nothing is downloaded:
    where a data set is not at hand, its mistakes are listed and not shown; `data_dir` is where it lies if it has moved.

    Raises:
        UsageError: no such run, or the output is no HTML file.
        ModelFileError: no run.json of these can be read.
        StorageError: the page cannot be written.
    """
    if explain < 0:
        raise UsageError(f"--explain {explain}: it is a number of mistakes, 0 or more.")
    found = _chosen(runs, Path(runs_dir), say)
    path = _place(output, found)
    facts = _readable(found, say)

    from dlkit.experiments.compare import compare
    from dlkit.report.page import page

    stories = [_story(one, explain, MOST_PICTURES // len(facts), data_dir, say) for one in facts]
    comparisons = [compare(facts[0].run, other.run) for other in facts[1:]]
    data = page(stories, comparisons, f"{run_folder.now()[:16].replace('T', ' ')} UTC").encode()
    atomic_io.write_bytes(path, data)
    gaps = tuple((story.facts.name, gap) for story in stories for gap in story.gaps)
    return Report(path, tuple(one.run for one in facts), len(data), gaps)


def _chosen(runs: Sequence[RunFolder | Path | str], runs_dir: Path, say: Say) -> list[RunFolder]:
    """The runs that were named, each once; or the newest."""
    if not runs:
        return [select_run(None, runs_dir, say)]
    found = [select_run(run, runs_dir, say) for run in runs]
    return list({run.path.resolve(): run for run in found}.values())


def _readable(runs: Sequence[RunFolder], say: Say) -> list[Facts]:
    """What the runs' files say; a run that cannot be read beside others is named and left out."""
    facts = []
    for run in runs:
        try:
            facts.append(read(run))
        except DlkitError as error:
            if len(runs) == 1:
                raise
            say(f"warning: {error}")
    if not facts:
        raise ModelFileError("none of these runs can be read.")
    return facts


def _place(output: Path | str | None, runs: Sequence[RunFolder]) -> Path:
    """Where the page goes, checked before any work."""
    several = len(runs) > 1
    if output is None:
        path = runs[0].path / (FILE_OF_SEVERAL if several else FILE)
    elif Path(output).is_dir():
        path = Path(output) / (FILE_OF_SEVERAL if several else f"{runs[0].name}.html")
    elif Path(output).suffix.lower() in (".html", ".htm"):
        path = Path(output)
    else:
        raise UsageError(f"-o {output}: a report is HTML; give a name that ends in .html, or a folder that exists.")
    folder = path.parent
    if not folder.is_dir():
        raise StorageError(f"cannot write {path}: there is no folder {folder}. Make it, or give another -o.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write {path}: no permission in {folder}. Give another place by -o.")
    if path.is_dir():
        raise StorageError(f"cannot write {path}: a folder is in its place. Give another place by -o.")
    return path


def _story(facts: Facts, each: int, most: int, data_dir: Path | str | None, say: Say) -> Story:
    from dlkit.evaluation.model_summary import summarize
    from dlkit.report.examples import Originals, Story, explained, kept, looks

    for gap in facts.gaps:
        say(f"{facts.name}: {gap.what}" + (f" {gap.command}" if gap.command else ""))
    originals = Originals(facts, data_dir)
    shown, unseen = looks(originals, most, say)
    answers, unexplained = explained(originals, each, say) if each else ([], [])
    try:
        summary = summarize(facts.model, facts.spec, facts.recipe.model.options)
    except DlkitError:  # of a library that is not installed here
        summary = None
    return Story(facts, summary, shown, answers, kept(facts), [*facts.gaps, *unseen, *unexplained])
