"""Layer 5: the n-th write, fsync, rename, unlink or mkdir fails, once or from then on; and a disk that is full."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

from crash.disk import Event, ShortWrite, watch
from crash.gold import run_or_resume
from crash.kills import clear
from crash.trials import acknowledging, check_ends_like_gold, check_nothing_lost, in_child

KINDS = ("EIO", "ENOSPC", "short", "EDQUOT", "EROFS")


def injected(work: Path, gold: str, count: int | None = None) -> str:
    """Every kind of fault at every call, once and persistently; with `count`, that many of them."""
    calls = count_calls(work)
    trials = [(kind, n, lasting) for kind in KINDS for n in range(calls) for lasting in (False, True)]
    chosen = trials if count is None else trials[:: -(-len(trials) // count)]
    refused = sum(fail_once(work, *trial, gold) for trial in chosen)
    assert refused > len(chosen) * 0.9, f"only {refused} of {len(chosen)} faults ended a run"
    return (
        f"{len(chosen)} of {len(trials)} faults at {calls} calls: {refused} ended with exit 7, "
        f"{len(chosen) - refused} did no harm; nothing lost, all resumed to the same bits"
    )


def count_calls(work: Path) -> int:
    log = work / "calls"

    def count() -> None:
        events: list[Event] = []
        watch(work / "trial", events.append)
        run_or_resume(work / "trial")
        log.write_text(str(len(events)))

    assert in_child(count) == 0
    clear(work)
    return int(log.read_text())


def fail_once(work: Path, kind: str, n: int, lasting: bool, gold: str) -> bool:
    """Whether the fault ended the run; if so it must have done so with exit 7."""
    runs_dir, log = work / "trial", work / "acknowledged"
    what = f"{kind} at call {n}{' and all after' if lasting else ''}"

    def refuse() -> None:
        passed = -1

        def watcher(event: Event) -> None:
            nonlocal passed
            passed += 1
            if passed == n or (lasting and passed > n):
                raise fault(kind, event)

        acknowledging(log)
        watch(runs_dir, watcher)
        run_or_resume(runs_dir)

    code = in_child(refuse, loud=False)
    assert code in (0, 7), f"{what}: ended with {code}"
    check_nothing_lost(runs_dir, log, what)
    check_ends_like_gold(runs_dir, gold, what)
    clear(work)
    return code == 7


def fault(kind: str, event: Event) -> OSError:
    if kind == "short":
        short = ShortWrite if event[0] == "write" else OSError
        return short(errno.ENOSPC, os.strerror(errno.ENOSPC))
    code = getattr(errno, kind)
    return OSError(code, os.strerror(code))


def full_disk(work: Path, gold: str, count: int = 8) -> str:
    """A file system in memory of too few bytes; it is made larger, and the run goes on."""
    mount = work / "mount"
    mount.mkdir()
    full = 0
    for trial in range(count):
        size = 60 + 12 * trial
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", mount]).returncode != 0:
            return "a full disk: not tried, mounting needs root"
        try:
            code = in_child(lambda: run_or_resume(mount / "runs"), loud=False)
            assert code in (0, 7), f"a disk of {size} KiB: ended with {code}"
            full += code == 7
            subprocess.run(["mount", "-o", "remount,size=8m", mount], check=True)
            check_ends_like_gold(mount / "runs", gold, f"a disk of {size} KiB")
        finally:
            subprocess.run(["umount", mount], check=True)
    assert full, "no disk was small enough"
    return f"{count} disks of 60 KiB and more: {full} were full (exit 7), all runs went on to the same bits"
