"""Weights from files that may be anything: nothing in them is executed, and what does not fit is told."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from dlkit.errors import ModelFileError
from dlkit.runs.run_folder import RunFolder
from dlkit.training.key_names import renamed
from dlkit.training.restore import restore
from dlkit.training.state import load_into
from dlkit.training.weights_file import read_weights


class Evil:
    """What its pickle would do: write a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return open, (str(self.canary), "w")


def network() -> nn.Module:
    return nn.Linear(3, 2)


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "pth"])
def test_a_state_dict_comes_back_and_wrappers_names_are_stripped(tmp_path: Path, suffix: str) -> None:
    path, model = tmp_path / f"weights.{suffix}", network()
    tensors = {f"module._orig_mod.{name}": tensor.clone() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(tensors, path) if suffix == "safetensors" else torch.save(tensors, path)
    other = network()
    load_into(other, renamed(read_weights(path), other), str(path))
    assert torch.equal(other.weight, model.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("legacy", [False, True])
def test_a_hostile_pickle_is_refused_and_does_nothing(tmp_path: Path, legacy: bool) -> None:
    canary, path = tmp_path / "canary", tmp_path / "evil.pt"
    torch.save({"weight": Evil(canary)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelFileError) as caught:
        read_weights(path)
    assert not canary.exists() and "\n" not in str(caught.value)
    path.write_bytes(pickle.dumps(Evil(canary), protocol=0))
    with pytest.raises(ModelFileError):
        read_weights(path)
    assert not canary.exists()


@pytest.mark.parametrize("content", [{"weight": "text"}, {"epoch": 3}, [torch.ones(2)], torch.ones(2)])
def test_a_file_that_is_no_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ModelFileError, match="state_dict"):
        read_weights(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2) + b"{]",
        struct.pack("<Q", 90)
        + json.dumps({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}).encode().ljust(90),
    ],
)
def test_a_malformed_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_weights(path)


def test_weights_of_another_network_are_told_by_name_and_count() -> None:
    tensors = {"weight": torch.ones(5, 3), "extra": torch.ones(1)}
    with pytest.raises(
        ModelFileError, match=r"1 missing: bias; 1 unexpected: extra; 1 of another shape: weight \(5, 3\)"
    ):
        load_into(network(), tensors, "the file")


def test_weights_that_are_not_finite_are_refused() -> None:
    tensors = {"weight": torch.full((2, 3), torch.nan), "bias": torch.zeros(2)}
    with pytest.raises(ModelFileError, match="not finite"):
        load_into(network(), tensors, "the file")


def test_a_run_gives_its_best_epoch_or_its_last(tiny_run: RunFolder) -> None:
    best = restore(tiny_run, "best", "cpu")
    last = restore(tiny_run, "last", "cpu")
    assert not best.model.training and best.spec.classes[0] == "disk"
    assert best.step <= last.step == tiny_run.metrics()[-1]["step"]
