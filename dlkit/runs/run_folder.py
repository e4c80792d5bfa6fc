"""The run folder: the files of a training run, and what other commands need of them. No torch here."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from dlkit import atomic_io, documents, registry, specs
from dlkit.config.keys import flatten
from dlkit.config.resolve import load
from dlkit.config.schema import MAY_CHANGE_ON_RESUME, Recipe
from dlkit.documents import Document
from dlkit.errors import DlkitError, ModelFileError, UsageError
from dlkit.runs import manifest, run_info, run_lock
from dlkit.specs import Spec

SCHEMA = "dlkit.run/1"
RUNNING, KILLED = "running", "killed"

CheckpointName = Literal["best", "last"]
Warn = Callable[[str], None]


@dataclass(frozen=True)
class RunFolder:
    """A run on disk. `run.json` is its identity: a folder without it is not a run."""

    path: Path

    @property
    def name(self) -> str:
        """The name in its folder; an alias such as `latest` has the name of the run that it points to."""
        path = Path(os.path.abspath(self.path))
        return path.resolve().name if is_alias(path) else path.name

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def data_files(self) -> Path:
        """The digests of the training and validation files, a line per file; absent if the data is not files."""
        return self.path / "data-files.tsv"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    def info(self) -> Document:
        """run.json: versions, seed, threads, device, data, preprocessing, status.

        Raises:
            ModelFileError: it is damaged. StorageError: it cannot be read.
        """
        document = documents.read(self.path / "run.json", SCHEMA, advice="Restore a copy, or train again.")
        run_info.check(document)
        return document

    def status(self) -> str:
        """running, killed, stopped, failed, diverged or finished: run.json's, unless its process is gone."""
        status = str(self.info()["status"])
        return KILLED if status == RUNNING and not run_lock.is_held(self.path) else status

    def epochs_trained(self) -> int:
        """The complete epochs up to the newest checkpoint; 0 if there is no readable one."""
        newest = manifest.newest_readable(self.checkpoints)
        return 0 if newest is None else int(newest["state"].get("epochs_done", 1))

    def checkpoint_step(self, which: str) -> int | None:
        """The step of the "best" or "last" checkpoint, from the manifests; None if there is none."""
        newest = manifest.newest_readable(self.checkpoints, self.info()["run_id"])
        if newest is None:
            return None
        best = newest["state"].get("best")
        return int(newest["step"] if which == "last" or best is None else best["step"])

    def recipe(self) -> Recipe:
        return load(self.path / "recipe.yaml")

    def trained_recipe(self) -> Recipe:
        """The recipe of the weights.

        Raises:
            ModelFileError: recipe.yaml was edited after the start of training.
        """
        info, written = self.info(), self.recipe()
        if "recipe" not in info:  # a run of an older dlkit
            return written
        try:
            before = Recipe.model_validate_json(json.dumps(info["recipe"]))  # with the defaults of newer keys
        except ValueError as error:
            raise ModelFileError(f"{info.path} is damaged: its recipe is not valid.") from error
        old, new = (flatten(one.model_dump(mode="json")) for one in (before, written))
        edited = [key for key in {**old, **new} if old.get(key) != new.get(key) and key not in MAY_CHANGE_ON_RESUME]
        if edited:
            shown = ", ".join(f"{key} was {old.get(key)}, is {new.get(key)}" for key in edited[:3])
            raise ModelFileError(
                f"{self.path}/recipe.yaml is not the recipe of this training: {shown}. Restore it, or train again."
            )
        return written

    def spec(self) -> Spec:
        info = self.info()
        try:
            return specs.from_json(info["spec"])
        except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
            raise ModelFileError(f"{info.path} is damaged: its spec is not valid.") from error

    def metrics(self, warn: Warn | None = None) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, a dict per log point; a last line truncated by a crash is skipped.

        With `warn`, damaged lines are reported and skipped; otherwise they are an error.

        Raises:
            ModelFileError: lines are damaged, or were changed after the newest checkpoint.
        """
        lines = self._metrics_lines()
        parsed = [_parse_line(line) for line in lines]
        damaged = [str(number) for number, line in enumerate(parsed, start=1) if line is None]
        message = f"{self.metrics_file} is damaged: "
        if damaged:
            message += f"line {', '.join(damaged[:5])}{', …' if len(damaged) > 5 else ''} cannot be read"
        elif not run_lock.is_held(self.path) and not self._is_as_written(lines):
            message += "its lines have been changed"
        else:
            return [line for line in parsed if line is not None]
        if warn is None:
            raise ModelFileError(f"{message}. Restore a copy, or train again.")
        warn(f"warning: {message}.")
        return [line for line in parsed if line is not None]

    def metrics_digest(self, count: int) -> dict[str, Any]:
        """The first `count` lines of metrics.jsonl as in a checkpoint's manifest."""
        return _prefix(self._metrics_lines(), count)

    def update(self, **changes: Any) -> None:
        """Rewrite run.json with these keys changed."""
        documents.write(self.path / "run.json", {**self.info(), **changes})

    def append_metrics(self, line: dict[str, Any]) -> None:
        atomic_io.append_line(self.metrics_file, json.dumps(line))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run for this process.

        Raises:
            BusyError: another process is training the run.
            StorageError: its lock cannot be opened.
        """
        busy = f"run {self.name} is being trained by another process. Wait for it, or stop it."
        with run_lock.hold(self.path, busy):
            yield

    def _metrics_lines(self) -> list[bytes]:
        with atomic_io.storage_errors(self.metrics_file):
            return atomic_io.complete_lines(self.metrics_file.read_bytes()) if self.metrics_file.exists() else []

    def _is_as_written(self, lines: list[bytes]) -> bool:
        newest = manifest.newest_readable(self.checkpoints)
        stated = None if newest is None else newest.get("metrics")
        return stated is None or stated == _prefix(lines, stated["lines"])


def find(run: str | None, runs_dir: Path, *, trained: bool = True) -> RunFolder:
    """The run with that name or path; by default the newest that has `trained` an epoch, or the newest of all.

    Raises:
        UsageError: there is none; the message says what to do.
    """
    if run is None:
        return _newest(runs_dir, trained)
    for path in (runs_dir / run, Path(run)):
        if is_run(path):
            return _resolve_alias(path)
    names = [found.name for found in list_runs(runs_dir)]
    names += [f"{found.path.parent.name}/{found.path.name}" for found in runs_within(runs_dir)]
    inside = [name for name in names if run in (name.split("/")[-1], name.split("/")[0])]  # of an experiment
    if inside:
        more = " or another of its runs" if len(inside) > 1 else ""
        raise UsageError(f"no run {run!r} in {runs_dir}. Use the full name, {inside[0]}{more}.")
    if not names:
        raise UsageError(
            f"no run {run!r}: there are none in {runs_dir}. `dlkit train lenet5 --dataset mnist` makes one."
        )
    raise UsageError(f"no run {run!r} in {runs_dir}. {registry.did_you_mean(run, names)}")


def select_run(run: RunFolder | Path | str | None, runs_dir: Path, log: Callable[[str], None]) -> RunFolder:
    """The given run; without one the newest, which is logged."""
    if isinstance(run, RunFolder):
        return run
    selected = find(None if run is None else os.fspath(run), runs_dir)
    if run is None:
        log(f"important: using the newest run, {selected.path}")
    return selected


def list_runs(runs_dir: Path) -> list[RunFolder]:
    """All runs in the folder, including linked ones, oldest first."""
    with atomic_io.storage_errors(runs_dir):
        if not runs_dir.is_dir():
            return []
        paths = [runs_dir / name for name in os.listdir(runs_dir) if not name.startswith(".")]
    runs = [RunFolder(path) for path in paths if is_run(path) and not is_alias(path)]
    return sorted(runs, key=lambda run: (_started(run), run.name))


def is_run(path: Path) -> bool:
    """Whether there is a run; also true if this user has no permission to read it."""
    try:
        return (path / "run.json").is_file()
    except PermissionError:
        return True
    except (OSError, ValueError):  # a loop of links, or a name that is too long
        return False


def is_alias(path: Path) -> bool:
    """Whether this is a link to a run in the same folder, like `latest`; a link to another folder is a run."""
    if not path.is_symlink():
        return False
    return os.path.realpath(path.parent) == os.path.dirname(os.path.realpath(path))


def runs_within(runs_dir: Path) -> list[RunFolder]:
    """The runs in the subfolders: the members of sweeps and other experiments."""
    folders = sorted(path for path in runs_dir.iterdir() if path.is_dir()) if runs_dir.is_dir() else []
    return [run for path in folders if not path.is_symlink() for run in list_runs(path)]


def now() -> str:
    """UTC, ISO 8601, to the microsecond so that two runs sort by their start."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def link_latest(run: RunFolder) -> None:
    """Point runs/latest to a run that has trained an epoch, unless it points to a newer one that has."""
    runs_dir = run.path.parent
    if os.path.realpath(runs_dir / "latest") == os.path.realpath(run.path):
        return
    other = _latest(runs_dir)
    if other is None or _started(other) <= _started(run):
        _link(runs_dir, run.name)


def relink_latest(runs_dir: Path) -> None:
    """Point runs/latest to the newest run that has trained an epoch, after a run was removed."""
    newest, latest = _newest_trained(runs_dir), runs_dir / "latest"
    if newest is not None:
        _link(runs_dir, newest.name)
    elif latest.is_symlink():
        latest.unlink(missing_ok=True)


def _link(runs_dir: Path, name: str) -> None:
    link = runs_dir / f".latest.{secrets.token_hex(4)}.tmp"
    try:
        link.symlink_to(name, target_is_directory=True)
        os.replace(link, runs_dir / "latest")
    except OSError:  # a file system without links, or `latest` is another folder: find() uses the start time
        with suppress(OSError):
            link.unlink(missing_ok=True)


def _newest(runs_dir: Path, trained: bool) -> RunFolder:
    if trained and (newest := _latest(runs_dir) or _newest_trained(runs_dir)):
        return newest
    runs = list_runs(runs_dir)
    if not runs:
        raise UsageError(f"there are no runs in {runs_dir}. `dlkit train lenet5 --dataset mnist` makes one.")
    if trained:
        raise UsageError(
            f"no run in {runs_dir} has trained an epoch yet. Wait for {runs[-1].name}, or name it to use it now."
        )
    return runs[-1]


def _latest(runs_dir: Path) -> RunFolder | None:
    """The target of the link, if it is a run that has trained an epoch."""
    latest = runs_dir / "latest"
    if not is_run(latest):
        return None
    run = _resolve_alias(latest)
    return run if run.epochs_trained() else None


def _resolve_alias(path: Path) -> RunFolder:
    return RunFolder(path.parent / os.path.basename(os.path.realpath(path)) if is_alias(path) else path)


def _newest_trained(runs_dir: Path) -> RunFolder | None:
    return next((run for run in reversed(list_runs(runs_dir)) if run.epochs_trained()), None)


def _started(run: RunFolder) -> str:
    try:
        return str(run.info()["started"])
    except DlkitError:  # a damaged run is listed, and reported when it is used
        return ""


def _parse_line(line: bytes) -> dict[str, Any] | None:
    """A line of metrics.jsonl, or None if it is damaged."""
    try:
        values = documents.parsed(line)
    except ValueError:
        return None
    if not isinstance(values, dict) or not all(_is_count(values.get(key, 0)) for key in ("step", "epoch")):
        return None
    numbers = (value for value in values.values() if isinstance(value, int | float))
    if "step" not in values or not all(abs(number) < 1e300 or number != number for number in numbers):
        return None
    return values


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 2**53


def _prefix(lines: list[bytes], count: int) -> dict[str, Any]:
    return {"lines": count, "sha256": hashlib.sha256(b"".join(lines[:count])).hexdigest()}
