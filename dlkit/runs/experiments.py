"""Experiments: folders of related runs, each with a document that shows its kind. No torch here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlkit import atomic_io, documents
from dlkit.runs import run_folder
from dlkit.runs.run_folder import RunFolder

DOCUMENTS = {
    "sweep": "sweep.json",
    "ablation": "ablation.json",
    "seeds": "seeds.json",
    "cross-validation": "cross_validation.json",
}


@dataclass(frozen=True)
class Experiment:
    """A folder with runs as members; `kind` is a key of DOCUMENTS."""

    path: Path
    kind: str

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def folder(self) -> RunFolder:
        """The folder itself, which has a lock and a recipe like a run."""
        return RunFolder(self.path)

    @property
    def members(self) -> list[RunFolder]:
        """Its runs, by name."""
        return sorted(run_folder.list_runs(self.path), key=lambda run: run.path.name)

    def document(self) -> Mapping[str, Any]:
        """The experiment's result; {} before it is written.

        Raises:
            ModelFileError: it is damaged.
        """
        path = self.path / DOCUMENTS[self.kind]
        if not path.is_file():
            return {}
        return documents.read(path, advice="Call its command again to write it.")


def experiment_at(path: Path) -> Experiment | None:
    """The experiment in a folder, or None; without a document it is recognized by the names of its members."""
    if not path.is_dir() or not os.access(path, os.X_OK):  # list_runs reports unreadable folders
        return None
    if (path / "run.json").exists() or not (path / "recipe.yaml").is_file():
        return None
    for kind, document in DOCUMENTS.items():
        if (path / document).is_file():
            return Experiment(path, kind)
    names = sorted(run.path.name for run in run_folder.list_runs(path))
    kinds = {"trial-": "sweep", "all-seed": "ablation", "seed": "seeds", "fold": "cross-validation"}
    return next(
        (Experiment(path, kind) for start, kind in kinds.items() if any(name.startswith(start) for name in names)), None
    )


def list_experiments(runs_dir: Path) -> list[Experiment]:
    """Every experiment in the folder, by name."""
    if not runs_dir.is_dir():
        return []
    with atomic_io.storage_errors(runs_dir):
        paths = sorted(runs_dir.iterdir())
    experiments = (experiment_at(path) for path in paths if not path.is_symlink())
    return [experiment for experiment in experiments if experiment is not None]


def find_runs(name: str, runs_dir: Path) -> list[RunFolder]:
    """The run with that name or path, or the members of an experiment.

    Raises:
        UsageError: there is none.
    """
    experiment = find_experiment(name, runs_dir)
    return [run_folder.find(name, runs_dir)] if experiment is None else experiment.members


def find_experiment(name: str, runs_dir: Path) -> Experiment | None:
    """The experiment with that name or path, or None."""
    return experiment_at(runs_dir / name) or experiment_at(Path(name))


def full_name(run: RunFolder) -> str:
    """The name of a run in its runs folder, with that of its experiment if it is a member: sweep/trial-000."""
    experiment = experiment_at(run.path.absolute().parent)
    return run.name if experiment is None else f"{experiment.name}/{run.name}"
