from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from crash import gold_recipe

from dlkit.config import recipe
from dlkit.errors import ModelFileError, UsageError
from dlkit.runs import run_folder
from dlkit.runs.run_folder import RunFolder


def made(runs_dir: Path, name: str) -> RunFolder:
    return run_folder.create(runs_dir, name, gold_recipe(), {"model": "mlp"}, lambda run: None)


def test_the_newest_run_is_found_with_and_without_the_link(tmp_path: Path) -> None:
    for name in ("b", "a"):
        made(tmp_path, name)
    assert run_folder.find(None, tmp_path).name == "a"
    (tmp_path / "latest").unlink()
    assert run_folder.find(None, tmp_path).name == "a"
    shutil.rmtree(tmp_path / "a")
    assert run_folder.find(None, tmp_path).name == "b"


def test_a_run_is_found_by_name_by_path_and_as_latest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / "runs", "a")
    monkeypatch.chdir(tmp_path)
    for text in ("a", "runs/a", str(tmp_path / "runs" / "a"), "latest"):
        assert run_folder.find(text, Path("runs")).name == "a"


def test_a_misspelt_run_is_an_error_with_the_nearest_name(tmp_path: Path) -> None:
    made(tmp_path, "lenet5-mnist")
    with pytest.raises(UsageError, match="lenet5-mnist"):
        run_folder.find("lenet-mnist", tmp_path)
    with pytest.raises(UsageError, match="dlkit train"):
        run_folder.find(None, tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["", "..", "a/b", "latest", "a\nb", "x" * 300])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        run_folder.check_new(tmp_path, name)


def test_a_run_whose_first_save_fails_never_exists(tmp_path: Path) -> None:
    def refuse(run: RunFolder) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_folder.create(tmp_path, "a", gold_recipe(), {}, refuse)
    assert list(tmp_path.iterdir()) == []


def test_the_recipe_in_a_run_is_the_recipe_it_was_made_with(tmp_path: Path) -> None:
    assert made(tmp_path, "a").recipe() == gold_recipe()
    assert isinstance(gold_recipe(), recipe.Recipe)


def test_a_line_of_metrics_cut_short_is_left_out(tmp_path: Path) -> None:
    run = made(tmp_path, "a")
    run.append_metrics({"step": 1})
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 2')
    assert run.metrics() == [{"step": 1}]


def test_a_damaged_run_json_is_one_line(tmp_path: Path) -> None:
    run = made(tmp_path, "a")
    (run.path / "run.json").write_text("{")
    with pytest.raises(ModelFileError, match=r"run\.json"):
        run.info()
