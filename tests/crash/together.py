"""Layer 6: two processes at one run: a second trainer, a reader while checkpoints are pruned, and two ranks."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from crash.gold import SETTINGS, digest, run_or_resume
from crash.kills import clear
from crash.trials import fork, in_child, kill_at
from dlkit import atomic_io
from dlkit.errors import BusyError, DlkitError, WorkerLostError
from dlkit.runs.run_folder import RunFolder
from dlkit.training import checkpoint, inputs

RANK_LOST_S = 60.0
MOST_TRAININGS = 30  # one may end before a second trainer has started


def processes(work: Path, gold: str, count: int = 50) -> str:
    """While one trains: a second is told that the run is busy, and a reader never sees half a checkpoint."""
    reads, busy, trainings = 0, 0, 0
    run = RunFolder(work / "trial" / "gold")
    while reads < count or (not busy and trainings < MOST_TRAININGS):
        pid = fork(lambda: run_or_resume(work / "trial"))
        trainings += 1
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if not run.path.exists():
                time.sleep(0.001)
                continue
            found = checkpoint.newest(run.checkpoints, run.info()["run_id"], lambda text: fail(text))
            assert found.tensors
            reads += 1
            if not busy or (reads % 10 == 0 and reads <= count):
                busy += second_is_refused(run, pid, work / "trial")
        assert digest(run) == gold
        clear(work)
    assert busy, "no second trainer met the first"
    return (
        f"{reads} reads during {trainings} trainings saw whole checkpoints; {busy} second trainers ended with exit 11"
    )


def second_is_refused(run: RunFolder, pid: int, runs_dir: Path) -> bool:
    """Stop the trainer `pid`; if it is training, a second one must end with exit 11. False if it was not training."""
    os.kill(pid, signal.SIGSTOP)
    try:
        if run.status() != "running":
            return False
        code = in_child(lambda: run_or_resume(runs_dir), loud=False)
        assert code == BusyError.exit_code, f"a second trainer ended with {code}"
        return True
    finally:
        os.kill(pid, signal.SIGCONT)


def fail(text: str) -> None:
    raise AssertionError(f"a reader saw: {text}")


def ranks(work: Path, gold: str, count: int | None = None) -> str:
    """One of two ranks is killed while it prepares, steps, validates, logs or saves.

    The other ends with exit 10 and one line, and both resume to the same bits.
    """
    SETTINGS.update({"data.validation": 0.2})
    assert two_ranks(work / "clean") == [0, 0]
    expected = digest(RunFolder(work / "clean" / "gold"))
    trials = [(rank, name, number) for rank in (0, 1) for name, number in BOTH] + [(0, *point) for point in LEADER]
    chosen = trials[:: 1 if count is None else -(-len(trials) // count)]
    for rank, name, number in chosen:
        what = f"rank {rank} killed at {name} {number}"
        codes = two_ranks(work / "killed", {rank: lambda name=name, number=number: die_at(name, number)})
        assert codes[rank] == -signal.SIGKILL, f"{what}: {codes}"
        said = (work / "killed" / f"error{1 - rank}").read_text()
        assert codes[1 - rank] == WorkerLostError.exit_code, f"{what}: {codes}, {said}"
        assert "lost another rank" in said and len(said.splitlines()) == 1, f"{what}: {said}"
        assert two_ranks(work / "killed") == [0, 0], what
        assert digest(RunFolder(work / "killed" / "gold")) == expected, f"{what}: ended otherwise"
        shutil.rmtree(work / "killed")
    return (
        f"{len(chosen)} of {len(trials)} kills of one of two ranks: the other ended with exit 10 and one line, all "
        "resumed to the same bits"
    )


BOTH = [("prepare", 1), ("step", 1), ("step", 10), ("eval", 1), ("eval", 2)]
LEADER = [("mid_write", 2), ("mid_write", 15), ("after_fsync", 12), ("metrics_append", 2), ("before_prune", 3)]


def die_at(name: str, number: int) -> None:
    if name == "prepare":
        inputs.prepare = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
    else:
        atomic_io.hook = kill_at(name, number)


def two_ranks(runs_dir: Path, plans: Mapping[int, Callable[[], None]] = MappingProxyType({})) -> list[int]:
    """Train in two forked processes that do what is planned first; returns their exit codes and writes their errors."""
    runs_dir.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def body(rank: int) -> None:
        os.environ |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        plans.get(rank, int)()
        try:
            run_or_resume(runs_dir)
        except DlkitError as error:
            (runs_dir / f"error{rank}").write_text(str(error))
            raise

    pids = [fork(lambda rank=rank: body(rank), loud=False) for rank in range(2)]
    return [wait(pid) for pid in pids]


def wait(pid: int) -> int:
    """The exit code of a process, which ends within RANK_LOST_S."""
    end = time.monotonic() + RANK_LOST_S
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError(f"a rank did not end within {RANK_LOST_S} s")
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(ended[1])
