"""Each command that reads with worker processes ends in time and with the right error when they die, hang or raise."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from shapes_on_disk import write_folder

import dlkit
from dlkit import signals
from dlkit.config.schema import Data
from dlkit.data import processes, workers
from dlkit.data.images import pack, sources
from dlkit.errors import DataError, DlkitError, StoppedError, WorkerLostError
from dlkit.runs.run_folder import RunFolder

SETTINGS = {
    "model.options.hidden": "4",
    "data.size": 28,
    "data.workers": 2,
    "data.loader_timeout": 0.5,
    "train.checkpoint_every": 1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for split in ("train", "val", "test"):
        write_folder(folder, split, count=24)
    return folder


def train(folder: Path, runs_dir: Path) -> RunFolder:
    return dlkit.train(
        "mlp", dataset="folder", data_dir=folder, epochs=1, batch_size=6, settings=SETTINGS, name="a", runs_dir=runs_dir
    )


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train(folder, tmp_path_factory.mktemp("runs"))


@pytest.fixture(params=["train", "eval", "pack"])
def command(request: pytest.FixtureRequest, folder: Path, run: RunFolder, tmp_path: Path) -> Callable[[], object]:
    """One that reads the folder with two workers."""
    data = Data(name="folder", dir=str(folder), size=28)
    commands: dict[str, Callable[[], object]] = {
        "train": lambda: train(folder, tmp_path),
        "eval": lambda: dlkit.evaluate(run, split="train", batch_size=6, workers=2, loader_timeout=0.5, write=False),
        "pack": lambda: pack.pack(data, tmp_path / "photos.pack", workers=2),
    }
    return commands[request.param]


@pytest.fixture(autouse=True)
def _short_timeouts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(processes, "_timeout_s", 0.5)
    monkeypatch.setattr(processes, "POLL_S", 0.1)
    monkeypatch.setattr(workers, "STOP_S", 0.2)
    yield
    for process in multiprocessing.active_children():
        process.join(60)
    assert not multiprocessing.active_children(), "a worker is left over"


def act_in_workers(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Act in every worker process before it decodes the fourteenth image of a split."""
    for decoder in (sources.Decoder, pack._Decoder):
        original = decoder.__getitem__

        def patched(self: object, item: object, original: Callable[..., object] = original) -> object:
            if multiprocessing.parent_process() is not None and 14 in (item if isinstance(item, range) else item[1]):
                act()
            return original(self, item)

        monkeypatch.setattr(decoder, "__getitem__", patched)


def fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        (
            lambda: os.kill(os.getpid(), signal.SIGKILL),
            WorkerLostError,
            r"died .*killed by SIGKILL\) while .*/\d+\.png",
        ),
        (lambda: time.sleep(60), WorkerLostError, r"hang: no activity for 0.5 s while .*/\d+\.png"),
        (lambda: fail(DataError("a bad image")), DataError, "^a bad image"),
    ],
    ids=["killed", "hung", "raising"],
)
def test_workers_that_die_hang_or_raise_end_every_command(
    command: Callable[[], object], act: Callable[[], object], error: type[DlkitError], words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    act_in_workers(monkeypatch, act)
    with pytest.raises(error, match=words):
        command()


def test_a_stop_ends_every_command_whose_workers_hang(
    command: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    act_in_workers(monkeypatch, lambda: (os.kill(os.getppid(), signal.SIGTERM), time.sleep(60)))
    with signals.handled(), pytest.raises((StoppedError, signals.Interrupted)) as stopped:
        command()
    assert stopped.value.exit_code == 143


def test_without_room_in_shared_memory_every_command_reads_through_pipes(
    command: Callable[[], object], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if "pack" in request.node.name:
        pytest.skip("its images differ in size, and always go through pipes")
    real, small = os.statvfs, namedtuple("small", ["f_bavail", "f_frsize"])(1, 4096)
    monkeypatch.setattr(os, "statvfs", lambda path: small if path == workers.SHARED_MEMORY else real(path))
    monkeypatch.setattr(workers, "_warned", set())
    with pytest.warns(UserWarning, match="pipes, which is slower.*--shm-size"):
        command()
