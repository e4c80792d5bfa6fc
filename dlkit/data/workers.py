"""Items of a data set from worker processes or threads, in order. A worker that dies or hangs ends the reading.

Batches are passed in shared memory; if /dev/shm has no room (Docker gives it 64 MB), through pipes.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dlkit import signals
from dlkit.data import processes
from dlkit.errors import DlkitError, WorkerLostError

AHEAD = 2  # items that each thread or process works ahead
DEATH_S = 5.0  # that a process whose connection broke may take to end
STOP_S = 3.0  # that a requested stop waits for the item under way
SHARED_MEMORY = Path("/dev/shm")

_warned: set[str] = set()
_active: list[int] = []  # of each loader that is being read, how many processes or threads it has


@contextmanager
def beside_workers() -> Iterator[None]:
    """Compute on the threads that loader workers leave: on their cores, each would only wait for the other."""
    if not _active:  # to set their number, even to what it is, slows down the step that follows
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads - sum(_active)))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def in_threads(dataset: Any, items: Sequence[Any], workers: int) -> Iterator[Any]:
    """What `in_workers` gives, from threads: for work that is torch's alone, and so holds no lock.

    Nothing is handed between processes, and memory is used again: quicker for parts of packed images.
    """
    ahead: deque[Future[Any]] = deque()
    _active.append(workers)
    try:
        with ThreadPoolExecutor(workers, "loader", initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for item in items:
                ahead.append(pool.submit(dataset.__getitem__, item))
                if len(ahead) > AHEAD * workers:
                    yield _unpack(ahead.popleft().result())
            while ahead:
                yield _unpack(ahead.popleft().result())
    finally:
        _active.remove(workers)


def in_workers(dataset: Any, items: Sequence[Any], workers: int) -> Iterator[Any]:
    """dataset[item] of each item, in order, from worker processes; an item that is an error is raised.

    A data set may have nbytes(item), the size of what it returns, and describe(item), for messages.

    Raises:
        WorkerLostError: a process died or hangs, or a stop was requested and no item came.
    """
    workers = min(workers, len(items))
    if workers == 0:
        yield from (_unpack(dataset[item]) for item in items)
        return
    before = set(multiprocessing.active_children())
    try:
        multiprocessing.Lock()  # a semaphore, which needs /dev/shm as well
        batches = _start(_loader(dataset, items, workers, _lacks_shared_memory(dataset, items, workers)))
    except OSError as error:
        reason = error.strerror or error
        _warn_once("processes", f"no loader processes: {reason}. Images are decoded in the program's own process.")
        yield from in_workers(dataset, items, 0)
        return
    started = [process for process in multiprocessing.active_children() if process not in before]
    receiver = ThreadPoolExecutor(1, "receive")  # a worker that stops halfway through a batch blocks who receives it
    _active.append(workers)
    try:
        for item in items:
            yield _unpack(_receive(receiver, batches, started, dataset, item))
    finally:
        for process in started:
            process.kill()  # they only read; one that hangs heeds nothing else
        receiver.shutdown(wait=False, cancel_futures=True)
        _active.remove(workers)


def _loader(dataset: Any, items: Sequence[Any], workers: int, piped: bool) -> DataLoader[Any]:
    return DataLoader(
        _Returned(dataset),
        batch_size=None,  # an item is a batch
        sampler=items,
        num_workers=workers,
        collate_fn=partial(_pack, piped=piped),
        worker_init_fn=_start_worker,
        prefetch_factor=AHEAD,
        timeout=processes.POLL_S,
        generator=torch.Generator(),  # else iter() would draw from the global stream
    )


def _start(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's batches, without its SIGCHLD handler.

    That raises wherever the trainer stands when a worker dies, in the midst of a step too. Without it the next fetch
    notices, and the last step is complete.
    """
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGCHLD) if main else None
    batches = iter(loader)
    if main:
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
    return batches


def _receive(
    receiver: ThreadPoolExecutor, batches: Iterator[Any], workers: Sequence[BaseProcess], dataset: Any, item: Any
) -> Any:
    """The next batch."""
    what = f"{dataset.describe(item) if hasattr(dataset, 'describe') else f'item {item}'} was loaded"
    watch, waited_s = processes.HangDetector([worker.pid for worker in workers]), 0.0
    batch = receiver.submit(next, batches)
    while True:
        done = futures.wait([batch], processes.POLL_S).done
        error = batch.exception() if done else None
        if done and not isinstance(error, RuntimeError | OSError | EOFError):  # a data set's own are returned as items
            return batch.result()
        failed = error is not None and "timed out" not in str(error)
        if ended := _first_ended(workers, DEATH_S if failed else 0):
            raise WorkerLostError(_death(ended, what))
        if failed:
            reason = str(error).split("\n")[0].rstrip(".") or type(error).__name__
            raise WorkerLostError(f"a loader process failed while {what}: {reason}. Try --workers 0.") from error
        if done:
            batch = receiver.submit(next, batches)
        waited_s = waited_s + processes.POLL_S if signals.requested() else 0.0
        if waited_s >= STOP_S:
            raise WorkerLostError(f"stopped while {what}.")
        try:
            watch.poll(processes.POLL_S, what)
        except WorkerLostError as hang:
            raise WorkerLostError(
                f"loader {hang} Try --workers 0, or a longer --loader-timeout if the storage is slow."
            ) from None


def _first_ended(processes: Sequence[BaseProcess], wait_s: float) -> BaseProcess | None:
    """A process that ended. Its connection breaks before it has ended, so who saw that waits for the exit code."""
    ended = connection.wait([process.sentinel for process in processes], wait_s)
    return next((process for process in processes if process.sentinel in ended), None)


def _exit_code(process: BaseProcess) -> int:
    """Of a process that ended. The receiving thread may have just asked for it: then it has it in a moment."""
    end = time.monotonic() + DEATH_S
    while process.exitcode is None and time.monotonic() < end:
        time.sleep(0.001)
    return process.exitcode or 0


def _death(process: BaseProcess, what: str) -> str:
    how = processes.describe_exit(_exit_code(process))
    return (
        f"a loader process died (pid {process.pid}, {how}) while {what}: memory or /dev/shm may be too small. Try "
        "--workers 0."
    )


def _lacks_shared_memory(dataset: Any, items: Sequence[Any], workers: int) -> bool:
    """Whether /dev/shm has too little room for the batches under way; that is said once."""
    if not hasattr(dataset, "nbytes"):
        return False
    try:
        status = os.statvfs(SHARED_MEMORY)
    except OSError:  # not Linux, or no such file system: then _pack finds out
        return False
    needed = min(len(items), AHEAD * workers + 2) * int(dataset.nbytes(items[0]))
    free = status.f_bavail * status.f_frsize
    if needed > free:
        _warn_once(
            "shared memory",
            f"{SHARED_MEMORY} has {free / 2**20:.1f} MiB left, batches under way need {needed / 2**20:.1f} MiB: they "
            "go through pipes, which is slower. In Docker, give --shm-size=1g.",
        )
    return needed > free


def _warn_once(subject: str, text: str) -> None:
    if subject not in _warned:
        _warned.add(subject)
        warnings.warn(text, stacklevel=2)


class _Returned(Dataset[Any]):
    """The data set with its exceptions returned: a loader process would print or raise them with a traceback."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, item: Any) -> Any:
        try:
            return self.dataset[item]
        except Exception as error:  # whatever it is, it is raised in the program's own process
            known = isinstance(error, DlkitError | MemoryError | OSError)
            sent = error if known else RuntimeError(f"{type(error).__name__}: {error}")
            sent.add_note(traceback.format_exc())
            return sent


def _pack(item: Any, piped: bool) -> Any:
    """A tensor in shared memory, or as an array, which goes through the pipe."""
    if not isinstance(item, Tensor):
        return item
    if not piped:
        with suppress(RuntimeError, OSError):  # no room in /dev/shm any more
            return item.share_memory_()  # type: ignore[no-untyped-call]
    return item.numpy()


def _unpack(item: Any) -> Any:
    if isinstance(item, Exception):
        raise item
    return torch.from_numpy(item) if isinstance(item, np.ndarray) else item


def _start_worker(worker: int) -> None:
    # Ctrl-C and a SIGTERM to the group are for the trainer, which saves first; it ends its workers itself.
    with suppress(OSError):
        os.setpgid(0, 0)
    for number in (signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    gc.freeze()  # what came from the trainer is not looked through, and so not copied
