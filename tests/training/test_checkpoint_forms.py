"""The forms that people save weights in, the names that they give them, and why a file does not fit."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dlkit.errors import ModelFileError, VerificationError
from dlkit.evaluation.model_summary import natural_spec
from dlkit.export.formats import safetensors as exporter
from dlkit.export_metadata import ExportMetadata
from dlkit.specs import ImageSpec
from dlkit.training import transfer, weights_file
from dlkit.training.key_names import adapt_channels, renamed
from dlkit.training.restore import build
from dlkit.training.weights import Weights, find
from dlkit.training.weights_file import read_weights

SPEC = natural_spec(3, 32, 32, 10)
SMALL = {"blocks": "1,1", "width": 4}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


STATE = network().state_dict()
OTHER = {name: tensor + 1 for name, tensor in STATE.items()}


def under(prefix: str, state: dict[str, Tensor] = STATE) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


ARGUMENTS = argparse.Namespace(lr=0.1)
FORMS: dict[str, Any] = {
    "bare": STATE,
    "PyTorch's tutorials": {"epoch": 3, "model_state_dict": STATE, "optimizer_state_dict": {"state": {}}, "loss": 0.3},
    "kuangliu": {"net": under("module."), "acc": 91.0, "epoch": 7},
    "torchvision's references": {"model": STATE, "optimizer": {"state": {0: {"m": torch.ones(3)}}}, "args": ARGUMENTS},
    "Lightning": {"state_dict": under("model."), "epoch": 1, "hyper_parameters": {}},
    "Lightning, another attribute, a metric": {"state_dict": {**under("resnet."), "accuracy.total": torch.ones(3)}},
    "nanoGPT": {"model": under("_orig_mod."), "iter_num": 3, "config": {"block_size": 8}},
    "fastai": {"model": STATE, "opt": {"hypers": [{"lr": 0.1}]}},
    "BasicSR": {"params": STATE},
    "nested twice": {"checkpoint": 3, "model": {"state_dict": under("module.module.")}},
    "an unknown key": {"my_classifier": STATE, "epoch": 1},
    "AveragedModel": AveragedModel(network()).state_dict(),
    "AveragedModel in DataParallel": {"module." + k: v for k, v in AveragedModel(network()).state_dict().items()},
    "a compiled part": {name.replace("1.", "1._orig_mod.") if name[0] == "1" else name: t for name, t in STATE.items()},
    "FSDP": under("_fsdp_wrapped_module."),
    **{prefix: under(prefix) for prefix in ("_orig_mod.module.", "module._orig_mod.", "model.module.", "model.net.")},
    "a self-supervised encoder": under("encoder."),
    "without batch norm's count": {name: tensor for name, tensor in STATE.items() if "num_batches" not in name},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_weights(form: str, tmp_path: Path) -> None:
    torch.save(FORMS[form], tmp_path / "a.pth.tar")
    model = network()
    for weight in model.parameters():
        nn.init.zeros_(weight)
    found = renamed(read_weights(tmp_path / "a.pth.tar"), model)
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], STATE[name]) for name in STATE if not name.endswith("num_batches_tracked"))


@pytest.mark.parametrize(
    "document",
    [
        {"state_dict": STATE, "state_dict_ema": OTHER},  # timm
        {"model": STATE, "model_ema": {"n_averaged": torch.tensor(5), **under("module.", OTHER)}},  # torchvision
        {"model": {"ema": OTHER, "model": STATE}},
        {"params": STATE, "params_ema": OTHER},
        {**under("model."), **under("ema_model.module.", OTHER), "ema_model.n_averaged": torch.tensor(5)},
    ],
)
def test_averaged_weights_beside_raw_ones_are_mentioned_and_chosen(document: dict[str, Any], tmp_path: Path) -> None:
    file, said = tmp_path / "a.pt", []
    torch.save(document, file)
    raw = find(str(file), None, tmp_path, said.append).read()
    assert torch.equal(raw["0.weight"], STATE["0.weight"])
    assert "raw and averaged (EMA) weights: using the raw ones. Append :ema" in said[0]
    for part, state in (("ema", OTHER), ("raw", STATE)):
        said.clear()
        chosen = find(f"{file}:{part}", None, tmp_path, said.append).read()
        assert chosen.keys() == STATE.keys() and torch.equal(chosen["0.weight"], state["0.weight"])
        assert not any("Append" in line for line in said)


def test_a_key_chooses_between_networks_and_a_missing_part_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "dino.pt"
    torch.save({"student": under("module."), "teacher": under("module.", OTHER)}, file)
    with pytest.raises(ModelFileError, match=r"several networks: 'student', 'teacher'.* FILE:student"):
        read_weights(file)
    assert torch.equal(read_weights(file, part="teacher")["0.weight"], OTHER["0.weight"])
    with pytest.raises(ModelFileError, match=r"nothing under 'nobody'.* student, teacher"):
        read_weights(file, part="nobody")
    torch.save({"model": STATE}, file)
    with pytest.raises(ModelFileError, match=r"no part 'ema'\. They hold: raw"):
        read_weights(file, part="ema")


def test_more_tensors_than_any_network_has_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_file, "MOST_TENSORS", 3)
    safetensors.torch.save_file(STATE, tmp_path / "a.safetensors")
    torch.save(STATE, tmp_path / "a.pt")
    for name in ("a.safetensors", "a.pt"):
        with pytest.raises(ModelFileError, match=rf"{name} hold {len(STATE)} tensors: at most 3"):
            read_weights(tmp_path / name)


def test_names_of_other_code_become_the_networks(tmp_path: Path) -> None:
    model = build("resnet18", SPEC, SMALL)
    state = model.state_dict()
    kuangliu = {n.replace("downsample.", "shortcut.").replace("fc.", "linear."): t for n, t in state.items()}
    mmpretrain = {("head." if n.startswith("fc.") else "backbone.") + n: t for n, t in state.items()}
    for names in (kuangliu, mmpretrain):
        assert names.keys() != state.keys() and renamed(names, model).keys() == state.keys()


def inherit(model: str, tensors: dict[str, Tensor], spec: ImageSpec, **options: Any) -> tuple[nn.Module, list[str]]:
    said: list[str] = []
    network = build(model, spec, options)
    start = transfer.Start(model, Weights("weights a.pt", lambda: tensors), tensors)
    resolved = {"stem": "auto", **options} if model.startswith("resnet") else options
    transfer.inherit(network, start, spec, resolved, said.append)
    return network.eval(), said


def test_a_file_without_a_head_brings_a_new_one() -> None:
    state = build("resnet18", SPEC, SMALL).state_dict()
    body = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    network, said = inherit("resnet18", under("encoder.", body), SPEC, **SMALL)
    assert torch.equal(network.state_dict()["conv1.weight"], state["conv1.weight"])
    assert any(line.startswith("new head: fc") for line in said) and "from scratch: fc" in said[-1]


def test_rgb_weights_answer_gray_images_as_they_would_their_three_copies() -> None:
    gray = natural_spec(1, 32, 32, 10)
    theirs, images = build("resnet18", SPEC, SMALL).eval(), torch.randn(4, 1, 32, 32)
    ours, said = inherit("resnet18", theirs.state_dict(), gray, **SMALL)
    torch.testing.assert_close(ours(images), theirs(images.expand(-1, 3, -1, -1)))
    assert any("summed over its input channels" in line for line in said)
    again, said = inherit("resnet18", ours.state_dict(), SPEC, **SMALL)
    torch.testing.assert_close(again(images.expand(-1, 3, -1, -1)), ours(images))
    assert any("divided among the channels" in line for line in said)
    model = build("vit_mini_4", gray, {})
    assert adapt_channels(model.state_dict(), model, "itself", said.append).keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    ("source", "target", "spec", "message"),
    [
        (("resnet18", SPEC, {}), ("resnet18", {}), natural_spec(3, 32, 32, 5), None),  # a new head
        (("resnet18", SPEC, {"stem": "imagenet"}), ("resnet18", {}), SPEC, r"7×7, .*stem=imagenet takes theirs"),
        (("resnet18", SPEC, {"stem": "small"}), ("resnet18", {"stem": "imagenet"}), SPEC, "stem=small takes theirs"),
        (("resnet34", SPEC, {}), ("resnet18", {}), SPEC, "another network: resnet34"),
        (("vgg11", natural_spec(3, 32, 32, 10), {}), ("resnet18", {}), SPEC, "layers called features, classifier"),
        (("mlp", SPEC, {}), ("mlp", {}), natural_spec(3, 28, 28, 10), r"images of another size: .* 3,072 .* 2,352"),
    ],
)  # fmt: skip
def test_a_mismatch_names_its_cause(source: Any, target: Any, spec: ImageSpec, message: str | None) -> None:
    name, their_spec, options = source
    state = build(name, their_spec, options).state_dict()
    if message is None:
        assert "new head" in " ".join(inherit(target[0], state, spec, **target[1])[1])
        return
    with pytest.raises(ModelFileError, match=message) as caught:
        inherit(target[0], state, spec, **target[1])
    assert "\n" not in str(caught.value)


def test_published_classes_in_another_order_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlkit.imagenet.classes", lambda: ("tench", "goldfish", "cock"))
    spec = replace(natural_spec(3, 8, 8, 3), classes=("cock", "goldfish", "tench"))  # as folders are sorted
    theirs, images = build("mlp", spec, {}).eval(), torch.randn(2, 3, 8, 8)
    ours, _ = inherit("mlp", theirs.state_dict(), spec)
    torch.testing.assert_close(ours(images), theirs(images)[:, [2, 1, 0]])


@pytest.mark.parametrize("content", [{"model": {"model": {}}}, {"state_dict": 3}, {"model": [STATE]}, {1: {2: 3}}])
def test_a_document_without_weights_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ModelFileError, match=r"hold no tensors by name; save model\.state_dict"):
        read_weights(tmp_path / "a.pt")


def test_an_export_says_what_it_is_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    model, file = build("mlp", SPEC, {}), tmp_path / "m.safetensors"
    file.write_bytes(exporter.export(model, SPEC, ExportMetadata("mlp", SPEC)))
    found = find(str(file), None, tmp_path, print)
    assert (found.model, found.spec) == ("mlp", SPEC) and found.read().keys() == model.state_dict().keys()
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(VerificationError, match=r"weights .* cannot be read: it was changed"):
        find(str(file), None, tmp_path, print)
    safetensors.torch.save_file({"a": torch.ones(2)}, file)
    assert find(str(file), None, tmp_path, print).spec is None
