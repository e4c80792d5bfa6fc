"""Starting a run: its name belongs to one process; what a killed one left goes, never what a living one works on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import run_folders
from crash import gold_recipe

from dlkit.errors import BusyError, StorageError, UsageError
from dlkit.runs import run_creation

HOLD = """
import sys, time
from pathlib import Path
from dlkit.runs import run_creation
with run_creation.reserve(Path(sys.argv[1]), "a", numbered=len(sys.argv) > 2) as reservation:
    print(reservation.name, flush=True)
    time.sleep(60)
"""


def hold(runs_dir: Path, *more: str) -> subprocess.Popen[str]:
    """Another process that reserves `a`, or the next free number."""
    words = [sys.executable, "-c", HOLD, str(runs_dir), *more]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def test_those_that_start_at_once_have_names_of_their_own_and_leave_nothing(tmp_path: Path) -> None:
    runs_dir = tmp_path / "runs"
    others = [hold(runs_dir, "numbered") for _ in range(2)]
    names = [other.stdout.readline().strip() for other in others if other.stdout]
    with run_creation.reserve(runs_dir, "a", numbered=True) as reservation:
        assert sorted([*names, reservation.name]) == ["a", "a-2", "a-3"]
        assert run_creation.abandoned(runs_dir) == []
        with pytest.raises(BusyError, match="being started"), run_creation.reserve(runs_dir, "a"):
            pass
    for other in others:
        other.kill()
        other.communicate()
    left = run_creation.abandoned(runs_dir)
    assert [path.name for path in left] == [".a-2.tmp", ".a.tmp"]
    said: list[str] = []
    with run_creation.reserve(runs_dir, "a") as reservation:  # what the dead one left is taken over
        run_creation.remove_abandoned(runs_dir, said.append)
        assert os.listdir(runs_dir) == [".a.tmp"] and [".a-2.tmp" in line for line in said] == [True]
    assert not runs_dir.exists() or os.listdir(runs_dir) == []


def test_a_run_is_locked_from_before_it_exists_until_its_process_is_done(tmp_path: Path) -> None:
    with run_creation.reserve(tmp_path, "a") as reservation:
        run = run_creation.create(reservation, gold_recipe(), {}, lambda run: None)
        assert run.status() == "running" and os.listdir(tmp_path) == ["a"]
        with pytest.raises(BusyError), run.locked():
            pass
    assert run.status() == "killed"  # nobody has said how it ended
    run.update(status="stopped")
    assert run.status() == "stopped"
    with pytest.raises(UsageError, match="exists"), run_creation.reserve(tmp_path, "a"):
        pass
    with run_creation.reserve(tmp_path, "a", numbered=True) as reservation:
        assert reservation.name == "a-2"


def test_leftovers_of_an_older_dlkit_go_once_they_are_old(tmp_path: Path) -> None:
    for name, age_s in ((".a.0123.tmp", 7200), (".b.0123.tmp", 0)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    (tmp_path / ".latest.01.tmp").symlink_to("a")
    os.utime(tmp_path / ".latest.01.tmp", (0, 0), follow_symlinks=False)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".lock").write_text("")  # nobody holds it, which says nothing about a link to the run
    (tmp_path / ".latest.02.tmp").symlink_to("a")
    assert [path.name for path in run_creation.abandoned(tmp_path)] == [".a.0123.tmp", ".latest.01.tmp"]


def test_a_start_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), run_creation.reserve(tmp_path / "runs", "a"):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="not a folder"), run_creation.reserve(tmp_path / "file" / "runs", "a"):
        pass


def test_a_finished_reservation_of_another_is_not_taken_over(tmp_path: Path) -> None:
    run = run_folders.create(tmp_path, "a", gold_recipe(), {})
    assert run.epochs_trained() == 1 and os.readlink(tmp_path / "latest") == "a"
