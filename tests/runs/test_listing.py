"""runs list, tag, rm and prune: the runs of experiments are runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dlkit.errors import BusyError, UsageError
from dlkit.runs.removal import remove_all
from dlkit.runs.run_folder import RunFolder, find
from dlkit.training.checkpoint import saved_steps
from dlkit_cli.main import run as dlkit


@pytest.fixture
def runs_dir(tiny_run: RunFolder, tmp_path: Path) -> Path:
    """A run, and a sweep of two trials."""
    folder = tmp_path / "runs"
    for path in (folder / "one", folder / "s" / "trial-000", folder / "s" / "trial-001"):
        shutil.copytree(tiny_run.path, path)
    shutil.copy(tiny_run.path / "recipe.yaml", folder / "s" / "recipe.yaml")
    document = {"model": "mlp", "dataset": "shapes", "metric": "val/top1", "best": {"value": 0.75}}
    (folder / "s" / "sweep.json").write_text(json.dumps(document))
    return folder


def listed(runs_dir: Path, capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert dlkit(["runs", "list", "--runs-dir", str(runs_dir), "--json", *words]) == 0
    return list(json.loads(capsys.readouterr().out))


def names(runs_dir: Path, capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    return [row["name"] for row in listed(runs_dir, capsys, *words)]


def test_an_experiment_is_a_row_and_its_members_are_more(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["name"]: row for row in listed(runs_dir, capsys)}
    assert {name: row["kind"] for name, row in rows.items()} == {"one": "run", "s": "sweep"}
    assert (rows["s"]["members"], rows["s"]["best"], rows["s"]["status"]) == (2, 0.75, "finished")
    every = names(runs_dir, capsys, "--all")
    assert every[every.index("s") :][:3] == ["s", "s/trial-000", "s/trial-001"] and len(every) == 4
    assert find("s/trial-001", runs_dir).info()["name"] == "tiny"
    with pytest.raises(UsageError, match="Use the full name, s/trial-001"):
        find("trial-001", runs_dir)
    with pytest.raises(UsageError, match="Use the full name, s/trial-000 or another"):
        find("s", runs_dir)


def test_the_list_is_filtered_sorted_and_tagged(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert names(runs_dir, capsys, "--filter", "kind=sweep") == ["s"]
    assert names(runs_dir, capsys, "--filter", "kind!=sweep", "--filter", "model=m?p") == ["one"]
    assert names(runs_dir, capsys, "--filter", "members>1") == ["s"]
    assert names(runs_dir, capsys, "--sort", "name", "--reverse") == ["s", "one"]
    tags = ["runs", "tag", "--runs-dir", str(runs_dir), "--json"]
    assert dlkit([*tags, "s", "one", "--add", "paper", "--add", "old"]) == 0
    assert dlkit([*tags, "one", "--remove", "paper"]) == 0
    capsys.readouterr()
    assert names(runs_dir, capsys, "--filter", "tag=paper") == ["s"]
    assert dlkit(["runs", "tag", "s", "--runs-dir", str(runs_dir), "--format", "csv"]) == 0
    assert capsys.readouterr().out == "name,tags\ns,old paper\n"
    assert names(runs_dir, capsys, "--filter", "tag=old", "--sort", "name") == ["one", "s"]
    for wrong in (["list", "--sort", "bset"], ["list", "--filter", "modle=x"], ["list", "--filter", "x"]):
        assert dlkit(["runs", *wrong, "--runs-dir", str(runs_dir)]) == 2
    assert dlkit([*tags, "one", "--add", "two words"]) == 2 and dlkit([*tags, "none", "--add", "x"]) == 2


def test_an_experiment_is_removed_as_a_whole_unless_one_of_it_trains(runs_dir: Path) -> None:
    with RunFolder(runs_dir / "s" / "trial-001").locked(), pytest.raises(BusyError):
        remove_all([runs_dir / "s"], runs_dir)
    assert (runs_dir / "s" / "trial-001" / "run.json").is_file()
    assert dlkit(["runs", "rm", "s", "--runs-dir", str(runs_dir)]) == 0
    assert not (runs_dir / "s").exists() and (runs_dir / "one").exists()


@pytest.mark.parametrize("source", ["one", "path", "checkpoint"])
def test_what_another_run_starts_from_is_kept(source: str, runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = {"one": "one", "path": str(runs_dir / "one")}
    payload = next((runs_dir / "one" / "checkpoints").glob("*.safetensors"))
    recipe = runs_dir / "s" / "trial-000" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("  weights: null", f"  weights: {weights.get(source, payload)}"))
    command = ["runs", "rm", "one", "--runs-dir", str(runs_dir)]
    assert dlkit(command) == 2 and "trial-000 starts from it. --force" in capsys.readouterr().err
    assert dlkit([*command, "s", "--dry-run"]) == 0  # a run that is removed too needs nothing
    assert dlkit([*command, "--force"]) == 0 and not (runs_dir / "one").exists()


def test_prune_reaches_the_members_of_experiments(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    member = RunFolder(runs_dir / "s" / "trial-000")
    first = min(member.checkpoints.glob("step-*.json"))
    for kind in (".json", ".safetensors"):
        shutil.copy(first.with_suffix(kind), member.checkpoints / f"step-000000001{kind}")
    assert 1 in saved_steps(member.checkpoints)
    assert dlkit(["runs", "prune", "--runs-dir", str(runs_dir)]) == 0
    assert saved_steps(member.checkpoints) == [member.info()["best"]["step"]]  # which is the last


def test_the_table_fits_80_columns(
    runs_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert dlkit(["runs", "list", "--all", "--format", "table", "--runs-dir", str(runs_dir)]) == 0
    assert all(len(line) <= 80 for line in capsys.readouterr().out.splitlines())
