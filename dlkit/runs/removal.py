"""Removal of runs and experiments, unless another run starts from their weights. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dlkit.errors import DlkitError, UsageError
from dlkit.runs import run_folder
from dlkit.runs.experiments import experiment_at, list_experiments
from dlkit.runs.prune import RemovedPath, remove
from dlkit.runs.run_folder import RunFolder


def remove_all(
    folders: Sequence[Path], runs_dir: Path, *, force: bool = False, dry_run: bool = False
) -> list[RemovedPath]:
    """Delete these runs and experiments completely.

    Raises:
        UsageError: another run starts from one of them, without `force`.
        BusyError: one is training. StorageError: the disk refuses.
    """
    if not force:
        _check_not_needed(folders, runs_dir)
    return [_remove(folder, dry_run) for folder in folders]


def _remove(folder: Path, dry_run: bool) -> RemovedPath:
    experiment = experiment_at(folder)
    with ExitStack() as stack:
        for member in experiment.members if experiment and not dry_run else ():
            stack.enter_context(member.locked())
    return remove(RunFolder(folder), dry_run=dry_run)


def _check_not_needed(folders: Sequence[Path], runs_dir: Path) -> None:
    targets = [folder.resolve() for folder in folders]
    folders_with_runs = [runs_dir, *(experiment.path for experiment in list_experiments(runs_dir))]
    for run in (run for folder in folders_with_runs for run in run_folder.list_runs(folder)):
        if any(_within(run.path.resolve(), target) for target in targets):
            continue
        for source in _sources(run, runs_dir):
            needed = next((target for target in targets if _within(source, target)), None)
            if needed is not None:
                raise UsageError(f"{needed.name} is needed: run {run.path} starts from it. --force removes it anyway.")


def _sources(run: RunFolder, runs_dir: Path) -> Iterator[Path]:
    """The paths from which a run's recipe loads weights."""
    try:
        recipe = run.recipe()
    except DlkitError:  # the weights of a damaged recipe are unknown
        return
    for text in _texts({"weights": recipe.model.weights, "regularizers": recipe.regularizers}):
        for path in (run.path.parent / text, runs_dir / text, Path(text)):
            try:
                if path.exists():
                    yield path.resolve()
            except (OSError, ValueError):  # not a valid path
                continue


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, str) and value:
        yield value


def _within(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents
