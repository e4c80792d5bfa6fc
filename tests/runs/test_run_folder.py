from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest
import run_folders
from crash import gold_recipe

from dlkit import atomic_io
from dlkit.config import schema
from dlkit.errors import ModelFileError, StorageError, UsageError
from dlkit.runs import run_creation, run_folder
from dlkit.runs.prune import remove
from dlkit.runs.run_folder import RunFolder
from dlkit.training import checkpoint


def made(runs_dir: Path, name: str) -> RunFolder:
    return run_folders.create(runs_dir, name, gold_recipe(), {"model": "mlp"})


def test_the_newest_run_that_has_trained_is_used_with_and_without_the_link(tmp_path: Path) -> None:
    for name, epochs in (("b", 1), ("a", 1), ("begun", 0)):
        run_folders.create(tmp_path, name, gold_recipe(), {}, epochs=epochs)
    assert run_folder.find(None, tmp_path).name == "a" == run_folder.find("latest", tmp_path).name
    assert run_folder.find(None, tmp_path, trained=False).name == "begun"  # what --resume goes on with
    (tmp_path / "latest").unlink()
    assert run_folder.find(None, tmp_path).name == "a"
    shutil.rmtree(tmp_path / "a")
    assert run_folder.find(None, tmp_path).name == "b"
    shutil.rmtree(tmp_path / "b")
    with pytest.raises(UsageError, match="begun"):
        run_folder.find(None, tmp_path)


def test_latest_never_goes_back_to_an_older_run(tmp_path: Path) -> None:
    old, new = (run_folders.create(tmp_path, name, gold_recipe(), {}) for name in ("old", "new"))
    run_folder.link_latest(old)
    assert run_folder.find("latest", tmp_path).path == new.path


def test_a_linked_run_is_a_run_and_an_alias_is_none(tmp_path: Path) -> None:
    runs_dir = tmp_path / "runs"
    run_folders.create(tmp_path / "elsewhere", "x", gold_recipe(), {})
    own = run_folders.create(runs_dir, "own", gold_recipe(), {})
    (runs_dir / "linked").symlink_to(tmp_path / "elsewhere" / "x")
    (runs_dir / "alias").symlink_to("own")
    (runs_dir / "loop").symlink_to("loop")
    (runs_dir / "nowhere").symlink_to("nothing")
    assert [run.name for run in run_folder.list_runs(runs_dir)] == ["linked", "own"]
    assert run_folder.find("alias", runs_dir).path == own.path
    remove(run_folder.find("linked", runs_dir))
    assert [run.name for run in run_folder.list_runs(runs_dir)] == ["own"]
    assert run_folder.find("x", tmp_path / "elsewhere").info()["name"] == "x"  # the link went, not the run


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


@pytest.mark.parametrize("name", ["", "..", ".a", "a/b", "latest", "a\nb", "x" * 300, "ä" * 150])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        run_creation.check_new(tmp_path, name)


def test_a_run_whose_first_save_fails_never_exists(tmp_path: Path) -> None:
    def refuse(run: RunFolder) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_folders.create(tmp_path, "a", gold_recipe(), {}, save_first=refuse)
    assert list(tmp_path.iterdir()) == []


def test_the_recipe_in_a_run_is_the_recipe_it_was_made_with(tmp_path: Path) -> None:
    assert made(tmp_path, "a").recipe() == gold_recipe()
    assert isinstance(gold_recipe(), schema.Recipe)


def test_a_line_of_metrics_cut_short_is_left_out(tmp_path: Path) -> None:
    run = made(tmp_path, "a")
    run.append_metrics({"step": 1})
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 2')
    assert run.metrics() == [{"step": 1}]


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "[" * 50_000, '{"schema": "dlkit.run/1"}', '{"schema": "dlkit.run/1", "run_id": 3, "name": "a"}',
     '{"schema": "dlkit.run/1", "run_id": "a", "name": "a", "status": "running", "threads": 1' + "0" * 4200 + "}"],
)  # fmt: skip
def test_a_damaged_run_json_is_one_line(tmp_path: Path, content: str) -> None:
    run = made(tmp_path, "a")
    (run.path / "run.json").write_text(content)
    with pytest.raises(ModelFileError, match=r"run\.json"):
        run.info()


def test_a_run_of_an_older_dlkit_is_read_without_digests(tmp_path: Path) -> None:
    run = made(tmp_path, "a")
    for path in (run.path / "run.json", *run.checkpoints.glob("*.json")):
        document = json.loads(path.read_bytes())
        path.write_text(json.dumps({key: document[key] for key in document if key not in ("integrity", "digest")}))
    assert run.info()["model"] == "mlp" and run.epochs_trained() == 1


def test_damaged_lines_of_metrics_are_named_and_the_others_read(tmp_path: Path) -> None:
    run, said = made(tmp_path, "a"), list[str]()
    for line in ('{"step": 1}', "{half", '{"step": "x"}', "[" * 50_000, '{"step": 2, "epoch": 1' + "0" * 400 + "}"):
        atomic_io.append_line(run.metrics_file, line)
    assert run.metrics(said.append) == [{"step": 1}] and "line 2, 3, 4, 5 cannot be read" in said[0]
    with pytest.raises(ModelFileError, match=r"metrics\.jsonl"):
        run.metrics()


def test_lines_other_than_those_of_the_checkpoint_are_damage(tmp_path: Path) -> None:
    run, said = made(tmp_path, "a"), list[str]()
    run_folders.rewrite_metrics(run, [{"step": 1, "val/loss": 0.5}])
    run.append_metrics({"step": 2})  # after the checkpoint: fine
    assert len(run.metrics()) == 2
    run.metrics_file.write_text(run.metrics_file.read_text().replace("0.5", "0.4"))
    with pytest.raises(ModelFileError, match="its lines have been changed"):
        run.metrics()
    assert len(run.metrics(said.append)) == 2 and len(said) == 1


def test_what_may_not_be_read_is_not_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permission denied is exit 7 for run.json, lock, manifest and payload; an older checkpoint is not used instead."""
    run = made(tmp_path, "a")
    (payload,) = run.checkpoints.glob("*.safetensors")
    id_ = run.info()["run_id"]
    forbidden = {"run.json": run.info, "1.json": None, payload.name: None}
    for name, read in forbidden.items():
        with monkeypatch.context() as patch:
            forbid(patch, name)
            with pytest.raises(StorageError, match="permission denied") as caught:
                read() if read else checkpoint.newest(run.checkpoints, id_, pytest.fail)
            assert "again" not in str(caught.value)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(StorageError, match=r"\.lock: permission denied"), run.locked():
            pass


def forbid(patch: pytest.MonkeyPatch, suffix: str) -> None:
    """Reading any file of that name is refused, as a file system does it."""
    read_bytes = Path.read_bytes

    def read(path: Path) -> bytes:
        return refuse() if path.name.endswith(suffix) else read_bytes(path)

    patch.setattr(Path, "read_bytes", read)


def refuse(*arguments: object) -> NoReturn:
    raise PermissionError(errno.EACCES, "Permission denied")


def test_an_edited_recipe_is_not_the_one_that_the_weights_are_of(tmp_path: Path) -> None:
    recipe = gold_recipe()
    run = run_folders.create(tmp_path, "a", recipe, {"recipe": recipe.model_dump(mode="json")})
    text = (run.path / "recipe.yaml").read_text()
    (run.path / "recipe.yaml").write_text(text.replace("\n  epochs: 3", "\n  epochs: 4"))
    assert run.trained_recipe().train.epochs == 4  # may change
    (run.path / "recipe.yaml").write_text(text.replace("label_smoothing: 0.1", "label_smoothing: 0.2"))
    with pytest.raises(ModelFileError, match=r"loss\.label_smoothing was 0\.1, is 0\.2"):
        run.trained_recipe()


def test_a_regularizer_with_default_options_is_an_edit(tmp_path: Path) -> None:
    recipe = gold_recipe().model_copy(update={"regularizers": {}})
    run = run_folders.create(tmp_path, "a", recipe, {"recipe": recipe.model_dump(mode="json")})
    text = (run.path / "recipe.yaml").read_text()
    assert "regularizers: {}" in text
    (run.path / "recipe.yaml").write_text(text.replace("regularizers: {}", "regularizers: {l2: {}}"))
    with pytest.raises(ModelFileError, match=r"regularizers\.l2 was None, is \{\}"):
        run.trained_recipe()
