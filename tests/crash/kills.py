"""Layers 1 and 2: SIGKILL at every named point of a run, and at random times until the run is done."""

from __future__ import annotations

import os
import random
import shutil
import signal
from pathlib import Path

from crash.gold import run_or_resume
from crash.trials import acknowledging, check_ends_like_gold, check_nothing_lost, count_points, fork, in_child, kill_at
from dlkit import atomic_io

MOST_RESTARTS = 50  # of one run


def points(work: Path, gold: str, count: int | None = None) -> str:
    """Kill at each point, as often as a clean run passes it; with `count`, at that many of them."""
    passed = count_points(work / "points")
    trials = [(name, number) for name, times in sorted(passed.items()) for number in range(1, times + 1)]
    chosen = trials if count is None else trials[:: -(-len(trials) // count)]
    for name, number in chosen:
        kill_once(work, name, number, gold)
    return f"{len(chosen)} of {len(trials)} points: killed, nothing lost, resumed to the same bits"


def kill_once(work: Path, name: str, number: int, gold: str) -> None:
    runs_dir, log, what = work / "trial", work / "acknowledged", f"killed at {name} {number}"

    def die() -> None:
        acknowledging(log)
        atomic_io.hook = kill_at(name, number)
        run_or_resume(runs_dir)

    code = in_child(die)
    assert code == -signal.SIGKILL, f"{what}: not killed ({code})"
    check_nothing_lost(runs_dir, log, what)
    check_ends_like_gold(runs_dir, gold, what)
    clear(work)


def random_times(work: Path, gold: str, count: int = 300) -> str:
    """Kill after uniform(0, 0.6 T) of CPU, T being that of a clean run; start again until it is done; over again.

    The kernel's timer kills, by SIGPROF, which nothing handles: like SIGKILL, but however busy the machine is.
    """
    usage = os.wait4(fork(lambda: run_or_resume(work / "timed")), 0)[2]
    duration, kills, runs, draw = 0.6 * (usage.ru_utime + usage.ru_stime), 0, 0, random.Random(0)
    while kills < count:
        restarts = kills_of_one_run(work, draw, duration)
        check_ends_like_gold(work / "trial", gold, f"{restarts} random kills (run {runs}, seed 0)")
        clear(work)
        kills, runs = kills + restarts, runs + 1
    return f"{kills} kills at random times in {runs} runs: nothing lost, each run ended with the same bits"


def kills_of_one_run(work: Path, draw: random.Random, duration: float) -> int:
    runs_dir, log = work / "trial", work / "acknowledged"

    def go_on(seconds: float) -> None:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        acknowledging(log)
        run_or_resume(runs_dir)

    for restarts in range(MOST_RESTARTS):
        seconds = draw.uniform(0.001, duration)
        code = in_child(lambda seconds=seconds: go_on(seconds))  # type: ignore[misc]
        if code == 0:
            return restarts
        assert code == -signal.SIGPROF, f"kill {restarts}: ended with {code}"
        check_nothing_lost(runs_dir, log, f"random kill {restarts}")
    raise AssertionError(f"not done after {MOST_RESTARTS} restarts")


def clear(work: Path) -> None:
    shutil.rmtree(work / "trial", ignore_errors=True)
    (work / "acknowledged").unlink(missing_ok=True)
