"""The run folder: what a training run leaves on disk, and all that the other verbs need of it. No torch here."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dlkit import atomic_io, registry, specs
from dlkit.config import recipe, yaml_file
from dlkit.config.recipe import Recipe
from dlkit.errors import BusyError, ModelFileError, StorageError, UsageError
from dlkit.specs import Spec

SCHEMA = "dlkit.run/1"


@dataclass(frozen=True)
class RunFolder:
    """One run on disk. `run.json` is its identity: a folder without it is no run."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def data_files(self) -> Path:
        """The digests of the training and validation files, a line a file; absent where the data is no files."""
        return self.path / "data-files.tsv"

    def info(self) -> dict[str, Any]:
        """run.json: versions, seed, threads, device, data, preprocessing, status."""
        document: dict[str, Any] = _read_json(self.path / "run.json")
        if document.get("schema") != SCHEMA:
            found = document.get("schema")
            raise ModelFileError(f"{self.path}/run.json: schema {found!r}, this dlkit reads {SCHEMA!r}.")
        return document

    def recipe(self) -> Recipe:
        return recipe.load(self.path / "recipe.yaml")

    def spec(self) -> Spec:
        return specs.from_json(self.info()["spec"])

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, a dict a log point; a last line cut short by a crash is left out."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]

    def update(self, **changes: Any) -> None:
        """Rewrite run.json with these keys changed."""
        atomic_io.write_json(self.path / "run.json", {**self.info(), **changes})

    def append_metrics(self, line: dict[str, Any]) -> None:
        atomic_io.append_line(self.path / "metrics.jsonl", json.dumps(line))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process.

        Raises:
            BusyError: another process is training it.
        """
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise BusyError(f"run {self.name} is being trained by another process. Wait for it, or stop it.") from None
        try:
            yield
        finally:
            lock.release()


def check_new(runs_dir: Path, name: str) -> None:
    """Refuse, before any work, a run that could not be written or that exists."""
    if name in ("", ".", "..", "latest") or "/" in name or "\\" in name or not name.isprintable() or len(name) > 200:
        raise UsageError(f"--name {name!r} cannot name a run. Use letters, digits, '.', '_' and '-'.")
    with atomic_io.storage_errors(runs_dir / name):
        if (runs_dir / name).exists() or (runs_dir / name).is_symlink():
            raise UsageError(f"run {runs_dir / name} exists. Go on with --resume {name}, or give another --name.")
    parent = next(folder for folder in (runs_dir, *runs_dir.absolute().parents) if os.path.lexists(folder))
    if not parent.is_dir():
        raise StorageError(f"cannot write runs into {runs_dir}: {parent} is not a folder. Choose another --runs-dir.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write runs into {runs_dir}: no permission in {parent}. Choose another --runs-dir.")


def new_name(runs_dir: Path, chosen: Recipe) -> str:
    """lenet5-mnist-20260131-142501, with -2, -3 … where that exists."""
    model = chosen.model.name.replace("/", "-")  # timm/NAME
    return free_name(runs_dir, f"{model}-{chosen.data.name}-{datetime.now():%Y%m%d-%H%M%S}")


def free_name(runs_dir: Path, base: str) -> str:
    """The name, with -2, -3 … where that exists."""
    candidates = (base if number == 1 else f"{base}-{number}" for number in range(1, 10_000))
    return next(name for name in candidates if not (runs_dir / name).exists())


def create(
    runs_dir: Path, name: str, chosen: Recipe, info: dict[str, Any], save_first: Callable[[RunFolder], None]
) -> RunFolder:
    """Make the folder of a new run; `info` is what run.json says beside its name and times.

    It is built beside and renamed, with its first checkpoint in it: a run that exists can be resumed.
    """
    check_new(runs_dir, name)
    beside = RunFolder(runs_dir / f".{name}.{secrets.token_hex(4)}.tmp")
    try:
        with atomic_io.storage_errors(runs_dir / name):
            beside.checkpoints.mkdir(parents=True)
        atomic_io.write_text(beside.path / "recipe.yaml", yaml_file.dump(chosen))
        identity = {"schema": SCHEMA, "run_id": secrets.token_hex(16), "name": name, "status": "running"}
        atomic_io.write_json(beside.path / "run.json", {**identity, "started": now(), **info})
        save_first(beside)
        atomic_io.move_folder(beside.path, runs_dir / name)
    except BaseException:
        shutil.rmtree(beside.path, ignore_errors=True)
        raise
    link_latest(runs_dir, name)
    return RunFolder(runs_dir / name)


def find(run: str | None, runs_dir: Path) -> RunFolder:
    """The run of that name or path; without one, the newest.

    Raises:
        UsageError: there is none; the message says what to do.
    """
    if run is None:
        return _newest(runs_dir)
    for path in (runs_dir / run, Path(run)):
        if (path / "run.json").is_file():
            return RunFolder(path)
    names = [found.name for found in list_runs(runs_dir)]
    names += [f"{found.path.parent.name}/{found.path.name}" for found in runs_within(runs_dir)]
    inside = [name for name in names if run in (name.split("/")[-1], name.split("/")[0])]  # of an experiment
    if inside:
        more = " or another of its runs" if len(inside) > 1 else ""
        raise UsageError(f"no run {run!r} in {runs_dir}. Give the whole name, {inside[0]}{more}.")
    if not names:
        raise UsageError(
            f"no run {run!r}: there are none in {runs_dir}. `dlkit train lenet5 --dataset mnist` makes one."
        )
    raise UsageError(f"no run {run!r} in {runs_dir}. {registry.did_you_mean(run, names)}")


def list_runs(runs_dir: Path) -> list[RunFolder]:
    """Every run in the folder, oldest first."""
    if not runs_dir.is_dir():
        return []
    found = [RunFolder(path) for path in runs_dir.iterdir() if not path.is_symlink() and (path / "run.json").is_file()]
    return sorted(found, key=lambda run: (_started(run), run.name))


def runs_within(runs_dir: Path) -> list[RunFolder]:
    """The runs in the folders of this folder: the members of sweeps and other experiments."""
    folders = sorted(path for path in runs_dir.iterdir() if path.is_dir()) if runs_dir.is_dir() else []
    return [run for path in folders if not path.is_symlink() for run in list_runs(path)]


def now() -> str:
    """UTC, ISO 8601, to the microsecond so that two runs sort by their start."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _started(run: RunFolder) -> str:
    try:
        return str(run.info()["started"])
    except (ModelFileError, KeyError):  # a damaged run is listed, and told when it is used
        return ""


def _newest(runs_dir: Path) -> RunFolder:
    latest = runs_dir / "latest"
    if (latest / "run.json").is_file():
        return RunFolder(runs_dir / os.readlink(latest) if latest.is_symlink() else latest)
    runs = list_runs(runs_dir)
    if not runs:
        raise UsageError(f"there are no runs in {runs_dir}. `dlkit train lenet5 --dataset mnist` makes one.")
    return runs[-1]


def link_latest(runs_dir: Path, name: str) -> None:
    """Point runs/latest to this run."""
    link = runs_dir / f".latest.{secrets.token_hex(4)}.tmp"
    try:
        link.symlink_to(name, target_is_directory=True)
        os.replace(link, runs_dir / "latest")
    except OSError:  # a file system without links, or `latest` is somebody's folder: find() goes by start time
        link.unlink(missing_ok=True)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path} cannot be read: {error}.") from error
    if not isinstance(document, dict):
        raise ModelFileError(f"{path} is not a JSON object.")
    return document
