"""Worker processes that die, hang, raise or lack shared memory: the reading ends in time and with the right error."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest
import torch

from dlkit import signals
from dlkit.data import processes, workers
from dlkit.data.workers import in_workers
from dlkit.errors import DataError, WorkerLostError

HANG_S = 0.6


@pytest.fixture(autouse=True)
def _short_timeouts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(processes, "_timeout_s", HANG_S)
    monkeypatch.setattr(processes, "POLL_S", 0.1)
    monkeypatch.setattr(workers, "STOP_S", 0.2)
    monkeypatch.setattr(workers, "_warned", set())
    yield
    for process in multiprocessing.active_children():
        process.join(60)  # killed, but a busy machine takes its time
    # Where two threads waited for a process, multiprocessing holds it for alive although it has ended.
    running = [process for process in multiprocessing.active_children() if is_running(process.pid)]
    assert not running, "a worker is left over"


def is_running(pid: int | None) -> bool:
    assert pid is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Items:
    """Tensors of their number; item 2 does something else first."""

    def __init__(self, act: Callable[[], object] = lambda: None) -> None:
        self.act = act

    def __getitem__(self, number: int) -> torch.Tensor:
        if number == 2:
            self.act()
        return torch.full((1000,), number)

    def nbytes(self, number: int) -> int:
        return 8000

    def describe(self, number: int) -> str:
        return f"item-{number}.png"


def spin() -> None:
    """Compute for twice as long as a worker may stand still."""
    end = time.monotonic() + 2 * HANG_S
    while time.monotonic() < end:
        pass


def fail(error: Exception) -> None:
    raise error


HANG, STOP, KILL, EXIT, RAISE = (
    lambda: time.sleep(60),
    lambda: os.kill(os.getpid(), signal.SIGSTOP),
    lambda: os.kill(os.getpid(), signal.SIGKILL),
    lambda: os._exit(3),
    lambda: fail(DataError("a bad image")),
)


@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        (HANG, WorkerLostError, "hang: no activity for 0.6 s while item-"),
        (STOP, WorkerLostError, "--loader-timeout"),
        (KILL, WorkerLostError, r"killed by SIGKILL\) while item-[02].png"),
        (EXIT, WorkerLostError, "ended with exit code 3"),
        (RAISE, DataError, "^a bad image$"),
        (lambda: fail(MemoryError("no room")), MemoryError, "^no room$"),
        (lambda: fail(ZeroDivisionError("by zero")), RuntimeError, "^ZeroDivisionError: by zero$"),
    ],
)
def test_a_worker_that_hangs_dies_or_raises_ends_the_reading_with_the_right_error(
    act: Callable[[], object], error: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if act not in (HANG, STOP):
        monkeypatch.setattr(processes, "_timeout_s", 60)
    with pytest.raises(error) as raised:
        list(in_workers(Items(act), [0, 2, 3, 4, 5], 2))
    assert re.search(words, str(raised.value)) and "\n" not in str(raised.value)


def test_a_batch_that_comes_just_after_a_poll_is_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll that ends without a batch is no error of the loader, even if the batch is there a moment later."""
    monkeypatch.setattr(workers, "_first_ended", lambda processes, wait_s: time.sleep(0.005))
    monkeypatch.setattr(processes, "POLL_S", 0.0001)
    assert [int(item[0]) for item in in_workers(Items(), list(range(3, 30)), 2)] == list(range(3, 30))


def test_the_exit_code_of_a_lost_worker_is_known_even_if_its_connection_breaks_first() -> None:
    process = multiprocessing.get_context("fork").Process(target=lambda: (time.sleep(0.3), os._exit(3)))
    process.start()

    class Broken:
        def __next__(self) -> object:
            raise EOFError

    with futures.ThreadPoolExecutor(1) as receiver, pytest.raises(WorkerLostError, match=r"exit code 3\) while item-2"):
        workers._receive(receiver, Broken(), [process], Items(), 2)  # type: ignore[arg-type]


def test_workers_that_stop_while_they_hand_over_a_batch_end_the_reading() -> None:
    """A batch in shared memory is asked for from the worker's own socket, which then never answers."""
    batches = in_workers(Items(), list(range(3, 40)), 2)
    next(batches)
    for process in multiprocessing.active_children():
        assert process.pid
        os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(WorkerLostError, match="hang"):
        list(batches)


def test_a_long_item_is_no_hang_and_a_stop_does_not_wait_for_it() -> None:
    assert [int(item[0]) for item in in_workers(Items(spin), [1, 2, 3], 2)] == [1, 2, 3]
    with signals.stop_flag():
        batches = in_workers(Items(lambda: time.sleep(60)), [1, 2, 3], 2)
        next(batches)
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        with pytest.raises(WorkerLostError, match="stopped while item-2"):
            next(batches)


def test_without_room_in_shared_memory_batches_go_through_pipes_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    status = namedtuple("status", ["f_bavail", "f_frsize"])
    monkeypatch.setattr(os, "statvfs", lambda path: status(1, 4096))
    with pytest.warns(UserWarning, match="pipes, which is slower.*--shm-size") as warned:
        for _ in range(2):
            items = list(in_workers(Items(), [3, 4, 5], 2))
            assert [int(item[0]) for item in items] == [3, 4, 5] and not any(item.is_shared() for item in items)
    assert len(warned) == 1
    monkeypatch.undo()
    assert all(item.is_shared() for item in in_workers(Items(), [3, 4, 5], 2))


def full(*_: Any) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_or_missing_shared_memory_loses_no_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "share_memory_", lambda self: fail(RuntimeError("unable to allocate")))
    assert [int(item[0]) for item in in_workers(Items(), [3, 4], 2)] == [3, 4]  # it filled up meanwhile
    monkeypatch.setattr(multiprocessing, "Lock", full)
    with pytest.warns(UserWarning, match="no loader processes: No space left"):
        assert [int(item[0]) for item in in_workers(Items(), [3, 4], 2)] == [3, 4]


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small /dev/shm, which takes root")
def test_training_works_with_a_dev_shm_of_one_megabyte(tmp_path: Path) -> None:
    import subprocess
    import sys

    from PIL import Image

    for number in range(200):
        path = tmp_path / "photos" / ("train", "val")[number % 2] / f"c{number // 2 % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (number, 0, 0)).save(path)
    program = f"mount -t tmpfs -o size=1m tmpfs /dev/shm && exec {sys.executable} -m dlkit_cli "
    for command in (
        "train mlp --dataset folder:photos -j 2 --epochs 1 --set data.size=64 --name a",
        "eval a -j 2 --split validation",
        "dataset check photos -j 2 --ignore near-leak",
    ):
        words = ["unshare", "-m", "bash", "-c", program + command]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, done.stderr
        assert ("/dev/shm has 1.0 MiB left" in done.stderr) == ("-j 2" in command and "check" not in command)
