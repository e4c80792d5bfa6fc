"""What the layers share: a forked trial, what it acknowledged, and the check of what it left."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from crash.gold import digest, quiet, run_or_resume
from dlkit import atomic_io
from dlkit.errors import DlkitError
from dlkit.runs import run_creation
from dlkit.runs.run_folder import RunFolder
from dlkit.training import checkpoint

save = checkpoint.save


def fork(action: Callable[[], object], *, loud: bool = True) -> int:
    """Start a process that runs `action` and exits with 0, or with the code of the error."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        action()
        code = 0
    except DlkitError as error:
        code = error.exit_code
        if loud:
            print(f"child: {error}", file=sys.stderr, flush=True)
    except BaseException as error:
        print(f"child: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    os._exit(code)


def in_child(action: Callable[[], object], *, loud: bool = True) -> int:
    """The exit code of a forked process; -N where signal N killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(fork(action, loud=loud), 0)[1])


def acknowledging(log: Path) -> None:
    """From here on, note in `log` each step whose checkpoint was saved."""

    def acknowledged(folder: Path, run_id: str, step: int, *rest: object) -> None:
        save(folder, run_id, step, *rest)  # type: ignore[arg-type]
        with open(log, "a") as file:
            file.write(f"{step}\n")

    checkpoint.save = acknowledged


def last_acknowledged(log: Path) -> int:
    return max(map(int, log.read_text().split())) if log.exists() else -1


def check_nothing_lost(runs_dir: Path, log: Path, what: str) -> None:
    """A checkpoint that can be loaded, no older than the last acknowledged one."""
    step = last_acknowledged(log)
    folder = RunFolder(runs_dir / "gold")
    if not folder.path.exists():
        assert step <= 0, f"{what}: the run is gone after step {step} was acknowledged"
        return
    found = checkpoint.newest(folder.checkpoints, folder.info()["run_id"], quiet)
    assert found.step >= step, f"{what}: step {step} was acknowledged, step {found.step} is left"


def check_ends_like_gold(runs_dir: Path, gold: str, what: str) -> None:
    """Resume (or start) in a child; what it leaves is gold's, with nothing beside it."""

    def resume() -> None:
        run_creation.ABANDONED_S = 0.0  # what a killed process left need not be an hour old to count as abandoned
        run_or_resume(runs_dir)

    code = in_child(resume)
    assert code == 0, f"{what}: the resume ended with {code}"
    ended = digest(RunFolder(runs_dir / "gold"))
    assert ended == gold, f"{what}: ended otherwise\n  {ended}\n  {gold}"
    left = [str(path) for path in runs_dir.rglob(".*.tmp")]
    assert not left, f"{what}: {left} left behind"


def kill_at(name: str, number: int) -> Callable[[str], None]:
    """A hook that kills the process at the number-th passing of a point."""
    passed = 0

    def hook(point: str) -> None:
        nonlocal passed
        passed += point == name
        if passed == number and point == name:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def count_points(runs_dir: Path) -> dict[str, int]:
    """How often a clean run passes each named point."""
    counts: dict[str, int] = {}

    def count(name: str) -> None:
        counts[name] = counts.get(name, 0) + 1

    atomic_io.hook = count
    run_or_resume(runs_dir)
    atomic_io.hook = None
    return counts
