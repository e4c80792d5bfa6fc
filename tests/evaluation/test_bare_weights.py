"""Bare files of weights in eval and predict: what is said of them, and the answers that their own code gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from dlkit import imagenet, registry
from dlkit.config.schema import Data
from dlkit.data.library import spec_of
from dlkit.datasets import cifar10
from dlkit.errors import UsageError
from dlkit.evaluation.bare_weights import read_classes
from dlkit.evaluation.model_summary import natural_spec
from dlkit.training.restore import build
from dlkit_cli.main import run

CLASSES = cifar10.CLASSES


class Block(nn.Module):
    """A block as pytorch_resnet_cifar10 computes it: option A, a quarter of the maps in zeros on either side."""

    def __init__(self, channels: int, maps: int) -> None:
        super().__init__()
        self.stride, self.zeros = maps // channels, (maps - channels) // 2
        self.conv1 = nn.Conv2d(channels, maps, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(maps)
        self.conv2 = nn.Conv2d(maps, maps, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(maps)

    def forward(self, x: Tensor) -> Tensor:
        fewer = x[..., :: self.stride, :: self.stride]
        zeros = fewer.new_zeros(len(x), self.zeros, *fewer.shape[2:])
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + torch.cat([zeros, fewer, zeros], 1))


class Reference(nn.Module):
    """ResNet-20 with that code's names: layer1.0.conv1, …, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        for number, (first, maps) in enumerate(((16, 16), (16, 32), (32, 64)), start=1):
            blocks = [Block(channels, maps) for channels in (first, maps, maps)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(images)))
        for name in ("layer1", "layer2", "layer3"):
            x = getattr(self, name)(x)
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[float]]]:
    """A checkpoint as that code saves it, beside images; and the log probabilities of each image by that code."""
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    model, rng = Reference(), np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    mean, std = (torch.tensor(values)[:, None, None] for values in (imagenet.MEAN, imagenet.STD))
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std
    model(images)  # running statistics
    with torch.inference_mode():
        logits = 30 * model.eval()(images)
        model.linear.weight.mul_(30)
        model.linear.bias.mul_(30)
    log_probabilities = {}
    for number, (image, row) in enumerate(zip(pixels, logits.log_softmax(1).tolist(), strict=True)):
        for split in ("train", "test"):
            path = folder / "data" / split / CLASSES[number % 10] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        log_probabilities[str(path)] = row
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state, "best_prec1": 91.7}, folder / "resnet20.th")
    return folder, log_probabilities


def answer(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[Any, str]:
    """The documents on stdout, and stderr."""
    assert run(words) == 0, capsys.readouterr().err
    out, err = capsys.readouterr()
    return [json.loads(line) for line in out.splitlines()], err


def test_a_published_cifar_resnet_gives_the_logits_of_its_own_code(
    published: tuple[Path, dict[str, list[float]]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, expected = published
    words = ["--model", "resnet20", "--weights", str(folder / "resnet20.th"), "--img-size", "32", "--device", "cpu"]
    test = str(folder / "data" / "test")
    found, err = answer(["predict", test, *words, "--classes", "cifar10", "--topk", "10", "--format", "jsonl"], capsys)
    assert "shortcut=padding_both" in err and "ImageNet's mean and std" in err
    for document in found:
        probabilities = {ranked["index"]: ranked["probability"] for ranked in document["predictions"]}
        logs = torch.tensor([probabilities[index] for index in range(10)], dtype=torch.float64).log()
        assert logs.tolist() == pytest.approx(expected[document["path"]], rel=1e-5, abs=1e-5)
    top1 = np.mean([CLASSES[int(np.argmax(row))] == Path(path).parent.name for path, row in expected.items()])
    data = ["--dataset", f"folder:{folder / 'data'}", "--format", "jsonl", "-j", "0"]
    ((evaluation,), _) = answer(["eval", *words, "--option", "shortcut=padding_both", *data], capsys)
    assert evaluation["metrics"]["top1"]["value"] == pytest.approx(top1) and evaluation["samples"] == 20
    ((other,), _) = answer(["eval", *words, "--option", "shortcut=padding", *data], capsys)
    assert other["metrics"]["loss"]["value"] != pytest.approx(evaluation["metrics"]["loss"]["value"], rel=1e-3)


def test_what_is_said_of_a_bare_file_is_what_it_answers_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = natural_spec(3, 20, 20, 3)
    torch.manual_seed(0)
    model = build("mlp", spec, {"hidden": "8"}).eval()
    torch.save(model.state_dict(), tmp_path / "a.pt")
    (tmp_path / "classes.txt").write_bytes("\ufeffant\r\nbée\r\ncat\r\n".encode())
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    words = ["predict", str(tmp_path / "a.png"), "--model", "mlp", "--weights", str(tmp_path / "a.pt")]
    more = ["--img-size", "20", "--classes", str(tmp_path / "classes.txt"), "--option", "hidden=8", "--format", "jsonl"]
    ((found,), _) = answer([*words, *more, "--mean", "0.5", "--std", "0.25,0.25,0.25"], capsys)
    with torch.inference_mode():
        expected = model((torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255 - 0.5) / 0.25)[0].softmax(0)
    for ranked in found["predictions"]:
        assert ranked["probability"] == pytest.approx(float(expected[ranked["index"]]), rel=1e-5)
        assert ranked["class"] == ("ant", "bée", "cat")[ranked["index"]]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--model", "mlp"], 2, "needs weights"),
        (["--model", "mlp", "--weights", "{a}"], 2, "--img-size N and --classes FILE"),
        (["--weights", "{a}", "--dataset", "mnist"], 2, "give --model NAME"),
        (["--model", "m.onnx", "--weights", "{a}"], 2, "has its own weights"),
        (["--img-size", "20"], 2, "--img-size describes --weights"),
        (["--model", "mlp", "--weights", "{a}", "--dataset", "mnist", "--img-size", "0"], 2, "1 to 20000"),
        (["--model", "mlp", "--weights", "{a}", "--dataset", "mnist", "--mean", "x"], 2, "numbers with commas"),
        (["--model", "mlp", "--weights", "{a}", "--dataset", "mnist", "--std", "0"], 2, "a standard deviation above 0"),
        (["--model", "mlp", "--weights", "{a}", "--dataset", "mnist", "--option", "hiden=3"], 2, "mean 'hidden'"),
        (["--model", "mlp", "--weights", "{a}:ema", "--dataset", "mnist"], 5, "no part 'ema'"),
        (["--model", "mlp", "--weights", "{a}", "--classes", "minst"], 2, "'mnist'"),
        (["--model", "mlp", "--weights", "{a}", "--classes", "{a}"], 4, "--classes"),
        (["--model", "mlp", "--weights", "{a}", "--dataset", "mnist"], 5, "images of another size"),
    ],
)  # fmt: skip
def test_what_is_missing_or_wrong_is_one_line(
    words: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(build("mlp", natural_spec(1, 20, 20, 10), {}).state_dict(), tmp_path / "a.pt")
    Image.new("L", (20, 20)).save(tmp_path / "a.png")
    given = [word.replace("{a}", str(tmp_path / "a.pt")) for word in words]
    assert run(["predict", str(tmp_path / "a.png"), "--runs-dir", str(tmp_path), *given]) == code
    out, err = capsys.readouterr()
    assert out == "" and message in err and len(err.splitlines()) <= 2 and "Traceback" not in err


@pytest.mark.parametrize("text", ["", "\n\n", "a\nb\na\n", "a\x00b\nc\n"])
def test_a_file_of_classes_that_cannot_be_meant_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(Exception, match=r"classes\.txt: it "):
        read_classes(tmp_path / "classes.txt")


PUBLISHED = {  # classes, channels, side: as their publishers state them
    "mnist": (10, 1, 28), "fashion_mnist": (10, 1, 28), "kmnist": (10, 1, 28), "svhn": (10, 3, 32),
    "emnist": (47, 1, 28), "emnist_byclass": (62, 1, 28), "emnist_bymerge": (47, 1, 28), "emnist_letters": (26, 1, 28),
    "emnist_digits": (10, 1, 28), "emnist_mnist": (10, 1, 28), "cifar10": (10, 3, 32), "cifar100": (100, 3, 32),
    "cifar100_coarse": (20, 3, 32), "imagenet": (1000, 3, 224), "imagenette": (10, 3, 224),
    "imagenette_160": (10, 3, 128), "imagewoof": (10, 3, 224), "imagewoof_160": (10, 3, 128),
}  # fmt: skip


def test_a_published_data_set_is_known_without_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DLKIT_HOME", str(tmp_path / "empty"))
    for name, (classes, channels, side) in PUBLISHED.items():
        spec = spec_of(Data(name=name))
        assert (len(set(spec.classes)), spec.channels, spec.height, spec.width) == (classes, channels, side, side), name  # type: ignore[union-attr]
    remote = {name for name in registry.entries("datasets") if hasattr(registry.load("datasets", name), "fetch")}
    assert remote - PUBLISHED.keys() == {"sst", "sst_binary", "wds"}  # their words and places are in their data alone
    fine = spec_of(Data(name="cifar100")).classes
    assert list(fine) == sorted(fine)  # its labels count the names in this order
    assert spec_of(Data(name="mnist", channels=3)).mean == (0.1307,) * 3  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="28 × 28"):
        spec_of(Data(name="mnist", size=32))
    assert run(["models", "show", "lenet5", "--dataset", "mnist", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["input"] == [1, 28, 28]
    assert not (tmp_path / "empty").exists()


def test_a_file_for_imagenet_answers_without_imagenet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DLKIT_HOME", str(tmp_path / "empty"))
    small: Callable[..., nn.Module] = build
    state = small("resnet18", imagenet.spec(), {"blocks": "1,1", "width": 4}).state_dict()
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    Image.new("RGB", (40, 30), "red").save(tmp_path / "cat.jpg")
    words = ["predict", str(tmp_path / "cat.jpg"), "--model", "resnet18", "--weights", str(tmp_path / "a.pth")]
    shape = ["--option", "blocks=1,1", "--option", "width=4", "--format", "jsonl", "--img-size", "64"]
    ((found,), _) = answer([*words, *shape, "--dataset", "imagenet"], capsys)
    assert {ranked["class"] for ranked in found["predictions"]} <= set(imagenet.classes())
