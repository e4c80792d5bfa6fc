from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from dlkit.errors import ModelFileError
from dlkit.training import checkpoint

RUN = "a" * 32
TENSORS = {"model/weight": torch.arange(12.0).view(3, 4), "model/count": torch.tensor(7)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for step in (0, 5, 1_000_000_000 - 1):
        checkpoint.save(tmp_path, RUN, step, TENSORS, {"step": step})
    return tmp_path


def silent(text: str) -> None:
    """Hears no warning."""


def test_what_was_saved_comes_back_bit_for_bit(folder: Path) -> None:
    found = checkpoint.load(folder, 5, RUN)
    assert found.state == {"step": 5} and found.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in TENSORS.items())


def test_newest_is_the_largest_step_whatever_the_times(folder: Path) -> None:
    (folder / "step-000000005.json").touch()
    assert checkpoint.newest(folder, RUN, silent).step == 999_999_999


@pytest.mark.parametrize("suffix", ["safetensors", "json"])
def test_every_flipped_bit_is_noticed(folder: Path, suffix: str) -> None:
    path = folder / f"step-000000005.{suffix}"
    whole = path.read_bytes()
    noticed = 0
    places = range(0, len(whole), max(1, len(whole) // 100))
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        try:
            found = checkpoint.load(folder, 5, RUN)
            noticed += suffix == "json" and found.state == {"step": 5}  # a bit of white space or of a key's spelling
        except ModelFileError as error:
            assert "\n" not in str(error)
            noticed += 1
    assert noticed == len(places) >= 100 or suffix == "json"
    assert noticed >= len(places) * (1 if suffix == "safetensors" else 0.9)


def test_every_cut_is_noticed_and_the_one_before_is_taken_with_one_warning(folder: Path) -> None:
    path = folder / "step-999999999.safetensors"
    whole = path.read_bytes()
    for length in range(0, len(whole), 16):
        path.write_bytes(whole[:length])
        warnings: list[str] = []
        assert checkpoint.newest(folder, RUN, warnings.append).step == 5
        assert len(warnings) == 1 and path.name in warnings[0]


def test_a_payload_alone_or_a_manifest_alone_is_no_checkpoint(folder: Path) -> None:
    (folder / "step-999999999.json").unlink()
    (folder / "step-000000005.safetensors").unlink()
    assert checkpoint.newest(folder, RUN, silent).step == 0


@pytest.mark.parametrize("change", [{"run_id": "b" * 32}, {"step": 4}, {"size": 2**63}, {"sha256": 1}, {"schema": "x"}])
def test_a_manifest_of_another_run_or_step_is_refused(folder: Path, change: dict[str, object]) -> None:
    path = folder / "step-000000005.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelFileError):
        checkpoint.load(folder, 5, RUN)


def test_no_whole_checkpoint_is_an_error_and_not_a_fresh_start(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(ModelFileError, match="3 damaged"):
        checkpoint.newest(folder, RUN, silent)


def test_pruning_keeps_the_newest_and_the_best_and_drops_what_has_no_manifest(folder: Path) -> None:
    for step in (10, 20, 30):
        checkpoint.save(folder, RUN, step, TENSORS, {"step": step})
    shutil.copy(folder / "step-000000030.safetensors", folder / "step-000000031.safetensors")
    checkpoint.prune(folder, keep=2, best=10)
    assert checkpoint.saved_steps(folder) == [10, 30, 999_999_999]
    assert len(list(folder.glob("*.safetensors"))) == 3
