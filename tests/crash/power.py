"""Layer 4: the writes of a run are recorded, and after each of them the power fails.

Of a file only what was synced is sure; of a folder, only the entries of its last sync. The rest may have reached the
disk: all of it, none, half, or as zeros; of the entries, any first few. Each disk that may result is built and read.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from crash.disk import Event, watch
from crash.gold import run_or_resume
from crash.trials import in_child, save
from dlkit.runs.run_folder import RunFolder
from dlkit.training import checkpoint

TAILS = ("all", "none", "half", "zeros")


@dataclass
class File:
    data: bytes = b""
    synced: int = 0

    def after(self, tail: str) -> bytes:
        sure, rest = self.data[: self.synced], self.data[self.synced :]
        return sure + {"all": rest, "none": b"", "half": rest[: len(rest) // 2], "zeros": bytes(len(rest))}[tail]


@dataclass
class Folder:
    synced: dict[str, File | Folder] = field(default_factory=dict)
    log: list[tuple[str | None, str | None, File | Folder | None]] = field(default_factory=list)  # from, to, what

    def entries(self, count: int | None = None) -> dict[str, File | Folder]:
        found = dict(self.synced)
        for old, new, what in self.log[:count]:
            if old is not None:
                found.pop(old, None)
            if new is not None and what is not None:
                found[new] = what
        return found


class Disk:
    """The model of a disk, played from what was recorded."""

    def __init__(self, root: Path) -> None:
        self.root, self.top = root, Folder()

    def at(self, path: str) -> File | Folder:
        found: File | Folder = self.top
        for part in Path(path).relative_to(self.root).parts:
            assert isinstance(found, Folder)
            found = found.entries()[part]
        return found

    def folder(self, path: str) -> Folder:
        found = self.at(path)
        assert isinstance(found, Folder)
        return found

    def play(self, event: Event) -> None:
        call, path, *rest = event
        name = os.path.basename(path)
        try:
            parent = self.folder(os.path.dirname(path)) if path != str(self.root) else self.top
        except KeyError:  # a call that failed: mkdir begins with the innermost folder
            return
        if call in ("mkdir", "open"):
            if name not in parent.entries():
                parent.log.append((None, name, Folder() if call == "mkdir" else File()))
        elif call == "write":
            file = self.at(path)
            assert isinstance(file, File)
            file.data += rest[0]
        elif call == "fsync":
            found = self.at(path)
            if isinstance(found, File):
                found.synced = len(found.data)
            else:
                found.synced, found.log = found.entries(), []
        elif call in ("replace", "rename"):
            assert os.path.dirname(rest[0]) == os.path.dirname(path), "a rename out of its folder is not modelled"
            if name in parent.entries():  # else a link, which is not modelled
                parent.log.append((name, os.path.basename(rest[0]), self.at(path)))
        elif call == "unlink" or not self.folder(path).entries():  # rmdir leaves a folder that is not empty
            parent.log.append((name, None, None))

    def states(self) -> dict[str, dict[str, bytes]]:
        """Every disk that a power loss may leave now, by its digest: files by path; a folder ends with a slash."""
        found = {}
        for tail in TAILS:
            for count in range(self.longest_log(self.top) + 1):
                files: dict[str, bytes] = {}
                self.collect(self.top, "", tail, count, files)
                key = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
                found[key] = files
        return found

    def longest_log(self, folder: Folder) -> int:
        inner = (self.longest_log(child) for child in folder.entries().values() if isinstance(child, Folder))
        return max([len(folder.log), *inner])

    def collect(self, folder: Folder, prefix: str, tail: str, count: int, files: dict[str, bytes]) -> None:
        for name, child in folder.entries(count).items():
            if isinstance(child, Folder):
                files[f"{prefix}{name}/"] = b""
                self.collect(child, f"{prefix}{name}/", tail, count, files)
            else:
                files[prefix + name] = child.after(tail)


def losses(work: Path, gold: str = "", count: int | None = None) -> str:
    """Check every disk that a power loss may leave after any recorded call; with `count`, after that many calls."""
    events = record(work)
    disk, seen, prefixes = Disk(work / "root"), set[str](), 0
    acknowledged, stride = -1, 1 if count is None else -(-len(events) // count)
    for number, event in enumerate(events):
        if event[0] == "acknowledged":
            acknowledged = event[1]
        else:
            disk.play(event)
        if number % stride == 0 or event[0] == "acknowledged":
            prefixes += 1
            for key, files in disk.states().items():
                if f"{acknowledged} {key}" not in seen:
                    seen.add(f"{acknowledged} {key}")
                    check_state(work / "state", files, acknowledged, f"after call {number}, {event[0]}")
    return f"power lost after {prefixes} of {len(events)} calls: {len(seen)} distinct disks, nothing acknowledged lost"


def record(work: Path) -> list[Event]:
    """All writes of a run, in order, with the steps whose checkpoints were acknowledged between them."""
    root, log = work / "root", work / "events"
    root.mkdir()

    def run() -> None:
        events: list[Event] = []

        def acknowledged(folder: Path, run_id: str, step: int, *rest: object) -> None:
            save(folder, run_id, step, *rest)  # type: ignore[arg-type]
            events.append(("acknowledged", step))

        checkpoint.save = acknowledged
        watch(root, events.append)
        run_or_resume(root / "runs")
        log.write_text(repr(events))

    import ast

    assert in_child(run) == 0
    shutil.rmtree(root)
    return list(ast.literal_eval(log.read_text()))


def check_state(place: Path, files: dict[str, bytes], acknowledged: int, what: str) -> None:
    """The run is there with a checkpoint no older than the acknowledged one, and a log that the manifest vouches for.

    The first checkpoint is acknowledged inside the folder that is renamed into its place: until then there is no run.
    """
    shutil.rmtree(place, ignore_errors=True)
    for name, content in sorted(files.items()):
        path = place / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    run = RunFolder(place / "runs" / "gold")
    if not run.path.exists():
        assert acknowledged <= 0, f"{what}: the run is gone after step {acknowledged} was acknowledged"
        return
    warnings: list[str] = []
    found = checkpoint.newest(run.checkpoints, run.info()["run_id"], warnings.append)
    assert found.step >= acknowledged, f"{what}: step {acknowledged} was acknowledged, step {found.step} is left"
    assert not warnings, f"{what}: {warnings}"
    assert found.metrics == run.metrics_digest(found.state["metrics_lines"]), f"{what}: lines of metrics are gone"
    run.trained_recipe()
