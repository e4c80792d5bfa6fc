"""What a run writes down of itself: hashes, machine, git, files."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from dlkit.data.fingerprint import FileDigest, changes, describe_changes, read_files, write_files
from dlkit.errors import ModelFileError
from dlkit.runs import provenance
from dlkit.runs.run_folder import RunFolder
from dlkit.training import checkpoint


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2)).to(torch.bfloat16)


def test_the_hash_of_an_epoch_is_that_of_its_checkpoint(tiny_run: RunFolder) -> None:
    found = checkpoint.newest(tiny_run.checkpoints, tiny_run.info()["run_id"], str)
    weights = {name: tensor for name, tensor in found.tensors.items() if name.startswith("model/")}
    assert provenance.tensors_sha256(weights) == tiny_run.metrics()[-1]["weights_sha256"]
    assert tiny_run.info()["weights_sha256"] != tiny_run.metrics()[-1]["weights_sha256"]


def test_the_hash_is_of_the_values_and_not_of_how_they_lie_in_memory() -> None:
    one, other = network(), network().to(memory_format=torch.channels_last)
    assert not other[0].weight.is_contiguous()  # type: ignore[index]
    assert provenance.weights_sha256(one) == provenance.weights_sha256(other)


@pytest.mark.parametrize("change", ["bit", "buffer", "name", "shape", "dtype", "average"])
def test_any_change_of_the_weights_is_another_hash(change: str) -> None:
    model = network()
    before, other, averaged = provenance.weights_sha256(model), copy.deepcopy(model), None
    if change == "bit":
        other[0].weight.data.view(torch.int16)[0, 0, 0, 0] ^= 1  # type: ignore[index,operator,union-attr]
    elif change == "buffer":
        other[1].num_batches_tracked += 1  # type: ignore[index,operator]
    elif change == "name":
        other = nn.Sequential(*other[:3], nn.Identity(), other[3])  # type: ignore[index]
    elif change == "shape":
        other[0].weight.data = other[0].weight.data.reshape(3, 4, 3, 3)  # type: ignore[index,operator,union-attr]
    elif change == "dtype":
        other[3].bias.data = other[3].bias.data.view(torch.float16)  # type: ignore[index,operator,union-attr]
    else:
        averaged = copy.deepcopy(model)
    assert provenance.weights_sha256(other, averaged) != before


def test_run_json_tells_the_machine_and_what_the_recipe_was(tiny_run: RunFolder) -> None:
    info = tiny_run.info()
    assert info["hardware"]["cpu"] and info["hardware"]["cores"] >= 1 and info["versions"]["pillow"]
    assert info["recipe"]["train"]["epochs"] == 1 and info["argv"] == []
    assert not tiny_run.data_files.exists()  # made up by code: there are no files


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_git_state_is_the_commit_and_whether_a_file_changed_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.git_state(tmp_path) is None
    git(tmp_path, "init")
    assert provenance.git_state(tmp_path) is None  # no commit yet
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "runs").write_text("untracked")
    assert provenance.git_state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "code.py").write_text("2")
    assert provenance.git_state(tmp_path) == {"commit": commit, "dirty": True}
    monkeypatch.setenv("PATH", "")
    assert provenance.git_state(tmp_path) is None


def test_no_password_of_a_url_is_kept() -> None:
    words = ["dlkit", "train", "--data-dir", "https://me:secret@host/x@y", "a@b"]
    assert provenance.without_passwords(words) == ["dlkit", "train", "--data-dir", "https://…@host/x@y", "a@b"]


def test_the_list_of_files_comes_back_as_it_was_written(tmp_path: Path) -> None:
    names = [
        "a/plain.png",
        "a/tab\there.png",
        "b/line\nbreak.png",
        "b/back\\slash\\n.png",
        "b/\u2028.png",
        "b/\udcff.png",
    ]
    files = {
        "train": [FileDigest(name, name[0], place, "0" * 64) for place, name in enumerate(names)],
        "validation": [],
    }
    write_files(tmp_path / "files.tsv", files)
    assert read_files(tmp_path / "files.tsv") == {"train": files["train"]}
    (tmp_path / "files.tsv").write_text("sha256\tbytes\nno\ttabs\n")
    with pytest.raises(ModelFileError):
        read_files(tmp_path / "files.tsv")


def test_changes_name_each_file_and_tell_splits_only_where_none_came_or_went() -> None:
    def digest(path: str, content: str = "0") -> FileDigest:
        return FileDigest(path, path[0], 1, content * 64)

    before = {"train": [digest("a/1"), digest("a/2"), digest("b/1")], "validation": [digest("b/2")]}
    assert changes(before, before) == []
    swapped = {"train": [digest("a/1"), digest("b/2"), digest("b/1")], "validation": [digest("a/2")]}
    assert describe_changes(changes(before, swapped)) == "2 moved: a/2, b/2"
    now = {"train": [digest("b/2"), digest("b/1", "1"), digest("c/1")], "validation": [digest("a/2")]}
    assert describe_changes(changes(before, now)) == "1 altered: b/1; 1 removed: a/1; 1 added: c/1"
    many = {"train": [digest(f"a/{number}") for number in range(5)]}
    assert describe_changes(changes({}, many)) == "5 added: a/0, a/1, a/2, …"
