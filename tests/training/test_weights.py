"""Trained weights by name: ImageNet's from the network and the caches, and files that may be anything."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from shapes_on_disk import write_folder
from torch import Tensor, nn

import dlkit
from dlkit import cache, imagenet
from dlkit.data.images.decode import load
from dlkit.errors import ModelFileError, StorageError, UsageError, VerificationError
from dlkit.evaluation import network as predict_network
from dlkit.evaluation.predict import predict
from dlkit.evaluation.prediction import Prediction
from dlkit.export.export import export
from dlkit.runs.run_folder import RunFolder
from dlkit.training import weights
from dlkit.training.key_names import renamed
from dlkit.training.restore import build
from dlkit.training.state import load_into
from dlkit.training.weights_file import read_weights
from dlkit_cli.main import run as dlkit_command

SPEC = replace(imagenet.spec(), height=16, width=16)
TINY = "simple_cnn"  # which the tests give ImageNet weights


def quiet(text: str) -> None:
    """Says nothing."""


# -- torchvision's table


def test_the_table_is_torchvisions() -> None:
    torchvision = pytest.importorskip("torchvision")
    for name, file in imagenet.FILES.items():
        theirs = torchvision.models.get_model_weights({"alexnet_owt": "alexnet"}.get(name, name)).IMAGENET1K_V1
        preset = theirs.transforms()
        assert imagenet.URL + file == theirs.url and tuple(theirs.meta["categories"]) == imagenet.classes(), name
        assert (tuple(preset.mean), tuple(preset.std)) == (imagenet.MEAN, imagenet.STD)
        assert preset.crop_size == [imagenet.spec().height] and preset.resize_size == [224 / imagenet.spec().crop]


def test_the_classes_are_a_thousand_different_names() -> None:
    assert len(set(imagenet.classes())) == len(imagenet.classes()) == 1000
    assert imagenet.classes()[0] == "tench" and imagenet.classes()[999] == "toilet tissue"


# -- ImageNet's weights


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A made-up published file, and dlkit believing that it is torchvision's; all caches empty."""
    torch.manual_seed(0)
    file = tmp_path / "server" / "tiny.pth"
    file.parent.mkdir()
    torch.save(build(TINY, SPEC, {}).state_dict(), file)
    named = file.with_name(f"tiny-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth")
    file.rename(named)
    monkeypatch.setitem(imagenet.FILES, TINY, named.name)
    monkeypatch.setattr(imagenet, "spec", lambda: SPEC)
    monkeypatch.setattr(predict_network, "DEFAULT_MODEL", TINY)
    monkeypatch.setenv("DLKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return named


@pytest.fixture
def server(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A server that has it, and the requests that reach it."""
    requests: list[str] = []

    class Noting(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            requests.append(self.path)

    handler = functools.partial(Noting, directory=str(tiny.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(imagenet, "URL", f"http://127.0.0.1:{httpd.server_port}/")
        monkeypatch.delenv("DLKIT_OFFLINE")
        yield requests
        httpd.shutdown()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (20, 30, 3), generator=generator, dtype=torch.uint8).numpy()
    Image.fromarray(pixels).save(tmp_path / "cat.png")
    return tmp_path / "cat.png"


def test_a_published_file_is_fetched_once_and_verified(tiny: Path, server: list[str]) -> None:
    found = weights.published(tiny.name, quiet)
    assert found == cache.weights_dir() / tiny.name and found.read_bytes() == tiny.read_bytes()
    assert weights.published(tiny.name, quiet) == found and server == [f"/{tiny.name}"]


def test_another_file_than_its_name_says_is_not_kept(tiny: Path, server: list[str]) -> None:
    tiny.write_bytes(tiny.read_bytes() + b"0")
    with pytest.raises(VerificationError, match="expected"):
        weights.published(tiny.name, quiet)
    assert not (cache.weights_dir() / tiny.name).exists()


def test_a_damaged_file_in_the_cache_is_said_and_fetched_anew(tiny: Path, server: list[str]) -> None:
    place = cache.writable(cache.weights_dir()) / tiny.name
    place.write_bytes(tiny.read_bytes()[:-100])
    said: list[str] = []
    assert weights.published(tiny.name, said.append).read_bytes() == tiny.read_bytes()
    assert f"warning: {place} is damaged" in said[0] and len(server) == 1


def test_torch_hubs_cache_is_looked_into_and_not_trusted(tiny: Path) -> None:
    place = weights.torch_hub() / tiny.name
    place.parent.mkdir(parents=True)
    place.write_bytes(tiny.read_bytes())
    assert weights.published(tiny.name, quiet) == place
    place.write_bytes(b"other")
    with pytest.raises(StorageError, match="DLKIT_OFFLINE"):
        weights.published(tiny.name, quiet)


def test_a_model_without_imagenet_weights_says_which_have_them() -> None:
    with pytest.raises(UsageError, match="There are for: alexnet_owt, vgg11"):
        weights.find("imagenet", "lenet5", Path("runs"), quiet)
    with pytest.raises(UsageError, match="of which model"):
        weights.find("imagenet", None, Path("runs"), quiet)


# -- predict


def by_hand(tiny: Path, picture: Path) -> Tensor:
    """Probabilities (K,), the tiny network applied in plain torch."""
    model = build(TINY, SPEC, {}).eval()
    model.load_state_dict(torch.load(tiny, weights_only=True))
    pixels = torch.from_numpy(load(picture, SPEC)).float() / 255
    mean, std = torch.tensor(imagenet.MEAN)[:, None, None], torch.tensor(imagenet.STD)[:, None, None]
    with torch.inference_mode():
        return model(((pixels - mean) / std)[None])[0].softmax(0)


def test_predict_names_imagenets_classes(tiny: Path, server: list[str], picture: Path) -> None:
    (answer,) = predict(None, picture, model=TINY, weights="imagenet", topk=3)
    assert isinstance(answer, Prediction) and answer.model == f"{TINY} (imagenet)"
    values, places = by_hand(tiny, picture).topk(3)
    assert [ranked.name for ranked in answer.predictions] == [imagenet.classes()[place] for place in places.tolist()]
    assert [ranked.probability for ranked in answer.predictions] == pytest.approx(values.tolist(), rel=1e-5)
    (named,) = predict(None, picture, weights=tiny, topk=3)  # the published file itself, known by name and digest
    assert isinstance(named, Prediction) and named.predictions == answer.predictions


def test_without_any_run_imagenets_weights_answer_and_say_so(
    tiny: Path, server: list[str], picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(picture), "--runs-dir", str(tmp_path / "runs"), "--format", "jsonl"]
    assert dlkit_command(words) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["model"] == f"{TINY} (imagenet)" and f"using {TINY} with ImageNet's weights" in err
    assert not (tmp_path / "runs").exists()


def test_a_run_goes_before_imagenets_weights(tiny: Path, tiny_run: RunFolder, picture: Path) -> None:
    (answer,) = predict(None, picture, runs_dir=tiny_run.path.parent)
    assert isinstance(answer, Prediction) and answer.model == "mlp"


def test_offline_the_missing_weights_are_a_clear_error(
    tiny: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([], ["--model", TINY, "--weights", "imagenet"]):
        assert dlkit_command(["predict", str(picture), "--runs-dir", str(tmp_path / "runs"), *words]) == 7
        err = capsys.readouterr().err
        assert "DLKIT_OFFLINE" in err and len(err.splitlines()) == 1


def test_a_recipes_weights_that_cannot_be_had_name_both_ways_out(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text(
        f"model: {{name: {TINY}, weights: imagenet, init_layers: conv}}\n"
        "data: {name: shapes, options: {train: 80}}\n"
        "train: {epochs: 1, freeze: conv, unfreeze: 1}\n"
    )
    words = ["train", "--recipe", str(tmp_path / "recipe.yaml"), "--runs-dir", str(tmp_path / "runs"), "--name", "a"]
    assert dlkit_command(words) == 7
    err = capsys.readouterr().err.splitlines()[-1]
    assert "DLKIT_OFFLINE" in err and "--no-pretrained" in err and "--weights FILE" in err
    assert not (tmp_path / "runs").exists()
    assert dlkit_command([*words, "--weights", "none"]) == 0
    made = RunFolder(tmp_path / "runs" / "a").recipe()
    assert (made.model.weights, made.model.init_layers, made.train.freeze, made.train.unfreeze) == (None,) * 4
    assert dlkit_command([*words[:-1], "b", "--weights", "none", "--freeze", "conv"]) == 2  # what the caller asked for
    assert "no weights to start from" in capsys.readouterr().err


def test_training_starts_from_imagenets_weights(tiny: Path, server: list[str], tmp_path: Path) -> None:
    write_folder(tmp_path / "data", "train", count=60)
    settings = {"model.weights": "imagenet", "data.size": 16, "data.workers": 0, "train.freeze": "conv"}
    run = dlkit.train(
        TINY, dataset="folder", data_dir=tmp_path / "data", epochs=1, settings=settings, runs_dir=tmp_path / "runs"
    )
    assert run.info()["from_scratch"] == ["output.weight", "output.bias"] and run.spec().mean == imagenet.MEAN
    kept = torch.load(tiny, weights_only=True)["conv.weight"]
    assert torch.equal(weights.find(run.path, None, tmp_path, quiet).read()["conv.weight"], kept)


# -- files


def test_a_torchvision_state_dict_answers_as_torchvision_does(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    classes = ("bar", "disk", "ring")
    paths = write_folder(tmp_path / "data", "test", classes, count=30)[:2]
    write_folder(tmp_path / "data", "train", classes, count=60)
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(num_classes=len(classes)).eval()
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    answers = predict(
        None, paths, model="resnet18", weights=tmp_path / "resnet18.pth", dataset="folder", data_dir=tmp_path / "data"
    )
    spec = replace(imagenet.spec(), classes=classes, crop=1.0)
    for path, answer in zip(paths, answers, strict=True):
        assert isinstance(answer, Prediction)
        pixels = torch.from_numpy(load(path, spec)).float().div(255)
        normalised = torchvision.transforms.functional.normalize(pixels, imagenet.MEAN, imagenet.STD)
        with torch.inference_mode():
            expected = theirs(normalised[None])[0].softmax(0).tolist()
        found = {ranked.index: ranked.probability for ranked in answer.predictions}
        assert [found[index] for index in range(3)] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "grown", "old"),
    [
        ("densenet121", "denselayer1.norm1.", "denselayer1.norm.1."),
        ("densenet121", "denselayer2.conv2.", "denselayer2.conv.2."),
        ("vit_b_16", "mlp.0.", "mlp.linear_1."),
        ("vit_b_16", "mlp.3.", "mlp.linear_2."),
    ],
)
def test_names_that_torchvisions_modules_have_outgrown_are_understood(name: str, grown: str, old: str) -> None:
    with torch.device("meta"):
        model = build(name, imagenet.spec(), {})
    published = {
        key.replace(grown, old): tensor
        for key, tensor in model.state_dict().items()
        if not key.endswith("num_batches_tracked")  # which the files of old torch do not hold
    }
    assert any(old in key for key in published)
    assert renamed(published, model).keys() == model.state_dict().keys()


def test_a_name_is_not_changed_where_the_network_has_it() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.ModuleDict({"mlp": nn.ModuleDict({"linear_1": nn.Linear(2, 2)})})

    model = Odd()
    ones = {name: torch.ones_like(tensor) for name, tensor in model.state_dict().items()}
    load_into(model, renamed(ones, model), "itself")
    assert bool((next(model.parameters()) == 1).all())


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_what_was_stripped_or_unwrapped_is_said(tmp_path: Path, key: str) -> None:
    inner = {f"module.{name}": tensor for name, tensor in nn.Linear(3, 2).state_dict().items()}
    torch.save({key: inner, "epoch": 3}, tmp_path / "a.pt")
    said: list[str] = []
    assert read_weights(tmp_path / "a.pt", said.append).keys() == {"weight", "bias"}
    assert f"saved under '{key}'" in said[0] and "stripped module." in said[1]


def test_a_name_that_is_there_with_and_without_its_prefix_is_refused(tmp_path: Path) -> None:
    torch.save({"module.weight": torch.ones(1), "weight": torch.zeros(1)}, tmp_path / "a.pt")
    with pytest.raises(ModelFileError, match="twice"):
        read_weights(tmp_path / "a.pt")


class Evil:
    """What its pickle would do: write a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.system, (f"touch '{self.canary}'",)


def hostile(folder: Path) -> dict[str, Path]:
    """Files that are no weights of a LeNet, by what is wrong with them."""
    whole = folder / "whole.pt"
    torch.save(build("lenet5_relu", SPEC, {}).state_dict(), whole)
    torch.save({"weight": Evil(folder / "canary")}, folder / "evil.pt")
    torch.save({"weight": Evil(folder / "canary")}, folder / "evil_legacy.pt", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": {"weight": torch.ones(1)}, "then": Evil(folder / "canary")}, folder / "evil_beside.pth")
    (folder / "truncated.pt").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (folder / "empty.safetensors").touch()
    torch.save(nn.Linear(3, 2).state_dict(), folder / "another.pt")
    torch.save({}, folder / "nothing.pt")
    names = (
        "evil.pt",
        "evil_legacy.pt",
        "evil_beside.pth",
        "truncated.pt",
        "empty.safetensors",
        "another.pt",
        "nothing.pt",
    )
    return {name: folder / name for name in names}


def test_a_file_that_does_not_fit_or_bites_is_exit_5_and_nothing_happens(
    tmp_path: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path / "data", "train", count=24)
    data = ["--dataset", "folder", "--data-dir", str(tmp_path / "data"), "--runs-dir", str(tmp_path / "runs")]
    for name, file in hostile(tmp_path).items():
        training = ["train", "lenet5_relu", "--weights", str(file), "--set", "data.size=16", *data]
        predicting = ["predict", str(picture), "--model", "lenet5_relu", "--weights", str(file), *data]
        for words in (training, predicting):
            assert dlkit_command(words) == 5, name
            out, err = capsys.readouterr()
            assert out == "" and "dlkit: weights " in err and "weights_only" not in err, err
    assert not (tmp_path / "canary").exists() and not (tmp_path / "runs").exists()


def test_another_number_of_classes_is_told_where_all_weights_are_needed(tmp_path: Path, picture: Path) -> None:
    spec = replace(SPEC, height=28, width=28, classes=("a", "b", "c"))
    torch.save(build("mlp", spec, {}).state_dict(), tmp_path / "three.pt")
    answers = predict(None, picture, model="mlp", weights=tmp_path / "three.pt", dataset="shapes")
    with pytest.raises(ModelFileError, match=r"2 of another shape: .* for 3 classes, the data have 8"):
        next(answers)


# -- timm


def test_a_network_of_timm_is_trained_and_answers(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="timm is not installed: pip install 'dlkit[timm]'")
    paths = write_folder(tmp_path / "data", "train", count=24)
    settings = {"data.size": 32, "data.workers": 0, "train.batch_size": 12}
    run = dlkit.train(
        "timm/test_resnet", dataset="folder", data_dir=tmp_path / "data", epochs=1, settings=settings, runs_dir=tmp_path
    )
    assert run.name.startswith("timm-test_resnet-folder-")
    found = dlkit.evaluate(run, split="train", write=False)
    right = sum(
        answer.predictions[0].name == Path(answer.path).parent.name
        for answer in predict(run, paths)
        if isinstance(answer, Prediction)
    )
    assert found.model == "timm/test_resnet" and 0 <= right <= len(paths)
    export(run, to="torch_export", output=tmp_path / "model.pt2")  # verified against the run, as all are
    for to in ("onnx", "safetensors"):
        export(run, to=to, output=tmp_path / f"model.{to}")
        answers = predict(paths=paths, model=str(tmp_path / f"model.{to}"))
        assert [isinstance(answer, Prediction) for answer in answers] == [True] * len(paths)


def test_a_name_that_timm_does_not_have_brings_the_nearest() -> None:
    pytest.importorskip("timm", reason="timm is not installed: pip install 'dlkit[timm]'")
    with pytest.raises(UsageError, match="Did you mean 'timm/resnet18'"):
        build("timm/resnt18", SPEC, {})


def test_without_timm_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'dlkit\[timm\]'"):
        dlkit.train("timm/resnet18", dataset="shapes")
