"""Remove runs and experiments, unless one that stays starts from their weights. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dlkit.errors import DlkitError, UsageError
from dlkit.runs import run_folder
from dlkit.runs.experiments import experiment_at, list_experiments
from dlkit.runs.prune import Removed, remove
from dlkit.runs.run_folder import RunFolder


def remove_all(folders: Sequence[Path], runs_dir: Path, *, force: bool = False, dry_run: bool = False) -> list[Removed]:
    """Delete these runs and experiments, each as a whole.

    Raises:
        UsageError: a run that stays starts from one of them, and `force` is not given.
        BusyError: one is being trained. StorageError: the disk refuses.
    """
    if not force:
        _refuse_needed(folders, runs_dir)
    return [_removed(folder, dry_run) for folder in folders]


def _removed(folder: Path, dry_run: bool) -> Removed:
    experiment = experiment_at(folder)
    with ExitStack() as stack:
        for member in experiment.members if experiment and not dry_run else ():
            stack.enter_context(member.locked())
    return remove(RunFolder(folder), dry_run=dry_run)


def _refuse_needed(folders: Sequence[Path], runs_dir: Path) -> None:
    targets = [folder.resolve() for folder in folders]
    inside = [runs_dir, *(experiment.path for experiment in list_experiments(runs_dir))]
    for run in (run for folder in inside for run in run_folder.list_runs(folder)):
        if any(_within(run.path.resolve(), target) for target in targets):
            continue
        for source in _sources(run, runs_dir):
            needed = next((target for target in targets if _within(source, target)), None)
            if needed is not None:
                raise UsageError(f"{needed.name} is needed: run {run.path} starts from it. --force removes it anyway.")


def _sources(run: RunFolder, runs_dir: Path) -> Iterator[Path]:
    """The paths that a run's recipe takes weights from."""
    try:
        recipe = run.recipe()
    except DlkitError:  # a damaged recipe starts from nothing that could be found
        return
    for text in _texts({"weights": recipe.model.weights, "regularizers": recipe.regularizers}):
        for path in (run.path.parent / text, runs_dir / text, Path(text)):
            try:
                if path.exists():
                    yield path.resolve()
            except (OSError, ValueError):  # no path at all
                continue


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, str) and value:
        yield value


def _within(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents
