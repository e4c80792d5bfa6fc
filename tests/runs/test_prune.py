"""runs rm and prune: what goes is what was named, and nothing that is still needed."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from dlkit.errors import BusyError
from dlkit.runs.prune import prune, remove
from dlkit.runs.run_folder import RunFolder, find, relink_latest
from dlkit.training.checkpoint import saved_steps
from dlkit_cli.main import run as dlkit


@pytest.fixture
def runs_dir(tiny_run: RunFolder, tmp_path: Path) -> Path:
    """Two runs, `one` and the newer `two`, each with a checkpoint that is neither the best nor the last."""
    for number, name in enumerate(("one", "two")):
        folder = tmp_path / "runs" / name
        shutil.copytree(tiny_run.path, folder)
        RunFolder(folder).update(started=f"2026-01-0{number + 1}")
        first = min(folder.glob("checkpoints/step-*.json"))
        for kind in (".json", ".safetensors"):
            shutil.copy(first.with_suffix(kind), folder / "checkpoints" / f"step-000000001{kind}")
    relink_latest(tmp_path / "runs")
    return tmp_path / "runs"


def test_a_removed_run_is_gone_and_latest_is_the_one_before(runs_dir: Path) -> None:
    assert remove(find("two", runs_dir)).bytes > 0
    assert os.listdir(runs_dir) and find(None, runs_dir).name == "one" and not (runs_dir / "two").exists()
    remove(find("one", runs_dir))
    assert os.listdir(runs_dir) == []


def test_a_run_in_training_is_not_removed(runs_dir: Path) -> None:
    run = find("two", runs_dir)
    with run.locked(), pytest.raises(BusyError):
        remove(run)
    assert run.info()["name"]


def test_nothing_goes_where_one_name_is_wrong(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dlkit(["runs", "rm", "one", "tow", "--runs-dir", str(runs_dir)]) == 2
    assert "two" in capsys.readouterr().err and (runs_dir / "one").is_dir()


def test_prune_keeps_the_best_and_the_last(runs_dir: Path) -> None:
    run = find("one", runs_dir)
    steps = saved_steps(run.checkpoints)
    best = run.info()["best"]["step"]
    assert set(steps) - {best, max(steps)}
    removed = list(prune(runs_dir))
    assert set(saved_steps(run.checkpoints)) == {best, max(steps)}
    assert all(not Path(gone.path).exists() and gone.bytes > 0 for gone in removed) and not list(prune(runs_dir))


def test_prune_leaves_runs_alone_that_may_go_on(runs_dir: Path) -> None:
    stopped, busy = find("one", runs_dir), find("two", runs_dir)
    stopped.update(status="stopped")
    before = [saved_steps(run.checkpoints) for run in (stopped, busy)]
    with busy.locked():
        assert not list(prune(runs_dir))
    assert [saved_steps(run.checkpoints) for run in (stopped, busy)] == before


def test_prune_removes_what_a_kill_left_but_not_what_is_being_made(runs_dir: Path) -> None:
    for name, age_s in ((".dead.0.tmp", 7200), (".alive.0.tmp", 0)):
        (runs_dir / name).mkdir()
        (runs_dir / name / "file").write_text("x")
        for path in (runs_dir / name / "file", runs_dir / name):
            os.utime(path, (time.time() - age_s,) * 2)
    list(prune(runs_dir))
    assert not (runs_dir / ".dead.0.tmp").exists() and (runs_dir / ".alive.0.tmp").exists()


def test_a_dry_run_removes_nothing(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(runs_dir.rglob("*"))
    assert dlkit(["runs", "rm", "one", "--dry-run", "--json", "--runs-dir", str(runs_dir)]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["schema"] == "dlkit.removed/1" and row["bytes"] > 0
    assert dlkit(["runs", "prune", "--dry-run", "--runs-dir", str(runs_dir)]) == 0
    assert sorted(path for path in runs_dir.rglob("*") if path.name != ".lock") == [
        p for p in before if p.name != ".lock"
    ]
