"""Each form of an export: raw, torch_export, resizing in the graph, int8, and every family of networks."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from corpus import picture
from exported_files import File, changed, other_mean, same_answers
from onnx import TensorProto, helper
from PIL import Image
from torch import Tensor, nn

from dlkit import registry
from dlkit.data.images import resize_crop
from dlkit.errors import UsageError, VerificationError
from dlkit.evaluation.model_summary import natural_spec
from dlkit.evaluation.predict import predict
from dlkit.export import export as verb
from dlkit.export.formats import _graph_classifier, torch_export
from dlkit.export.formats import onnx as onnx_exporter
from dlkit.export.formats import safetensors as safetensors_exporter
from dlkit.export.formats._onnx_resize import prepend_resize
from dlkit.export.verification import verify
from dlkit.export_metadata import ExportMetadata
from dlkit.inference.torch_classifier import torch_classifier
from dlkit.runs.run_folder import RunFolder
from dlkit.specs import ImageSpec


def verb_restored(run: RunFolder) -> Any:
    from dlkit.training.restore import restore

    return restore(run, device="cpu")


class Stubborn(nn.Module):
    """A network whose work depends on what it sees."""

    def forward(self, images: Tensor) -> Tensor:
        rounds = int(images.float().mean().item() * 3)
        for _ in range(rounds):
            images = images * 2
        return images.flatten(1)[:, :2]


@pytest.mark.slow
@pytest.mark.parametrize("exporter", [onnx_exporter, torch_export])
def test_a_network_that_a_graph_cannot_represent_is_refused_with_the_reason(exporter: Any) -> None:
    spec = natural_spec(1, 8, 8, 2)
    with pytest.raises(UsageError, match=r"cannot be exported to .*\w.* Use --to safetensors") as caught:
        exporter.export(Stubborn().eval(), spec, ExportMetadata("stubborn", spec))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_raw_takes_normalised_floats_and_gives_logits(
    tiny_run: RunFolder, pictures: list[Path], tmp_path: Path
) -> None:
    for to, name in (("onnx", "raw.onnx"), ("torch_export", "raw.pt2")):
        entry = verb.export(tiny_run, to=to, raw=True, output=tmp_path / name).entry
        assert entry["feed"] == "normalised" and entry["verified"]["max_difference"] <= 1e-4
        verify(tmp_path / name)
    session = onnxruntime.InferenceSession(tmp_path / "raw.onnx")
    images = np.random.default_rng(0).standard_normal((5, 3, 28, 28)).astype(np.float32)
    with torch.inference_mode():
        logits = verb_restored(tiny_run).model(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(session.run(["logits"], {"images": images})[0], logits, rtol=1e-4, atol=1e-5)
    same_answers(list(predict(None, pictures, model=str(tmp_path / "raw.onnx"))), list(predict(tiny_run, pictures)))


@pytest.mark.slow
def test_torch_export_answers_without_dlkit_and_holds_no_pickle(tiny_run: RunFolder, tmp_path: Path) -> None:
    import zipfile

    path = verb.export(tiny_run, to="torch_export", output=tmp_path / "tiny.pt2").path
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    assert contents and not any(data.startswith(b"\x80") or b"site-packages" in data for data in contents.values())
    code = (
        "import sys, torch; p = torch.export.load(sys.argv[1]).module();"
        "print(p(torch.zeros(5, 28, 28, 3, dtype=torch.uint8)).shape, 'dlkit' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "torch.Size([5, 8]) False\n"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(VerificationError):
        verify(path)


def stretched(count: int) -> list[Image.Image]:
    sizes = [(40, 35), (64, 50), (28, 28), (100, 37), (20, 22), (640, 480), (31, 200), (27, 28), (300, 29), (9, 300)]
    return [picture(*sizes[number % len(sizes)], seed=number) for number in range(count)]


@pytest.mark.parametrize("spec", [natural_spec(3, 28, 28, 2), natural_spec(1, 32, 40, 2), natural_spec(3, 64, 64, 2)])
@pytest.mark.parametrize("crop", [1.0, 0.875])
@pytest.mark.parametrize("legacy", [False, True])
def test_resizing_in_the_graph_is_prepares_to_the_bit(spec: ImageSpec, crop: float, legacy: bool) -> None:
    spec = replace(spec, crop=crop, legacy_resize=legacy)
    shape = ["N", spec.height, spec.width, spec.channels]
    ends = [helper.make_tensor_value_info(name, TensorProto.UINT8, shape) for name in ("images", "out")]
    graph = helper.make_graph([helper.make_node("Identity", ["images"], ["out"])], "front", ends[:1], ends[1:])
    prepend_resize(graph, spec)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    noise = [Image.effect_noise(image.size, 80) for image in stretched(10)]  # shows at once what a border is made of
    for image in [*stretched(20), *noise, picture(spec.width, spec.height)]:
        flat = image.convert("L" if spec.channels == 1 else "RGB")
        pixels = np.asarray(flat).reshape(1, flat.height, flat.width, spec.channels)
        found = session.run(None, {"images": pixels})[0][0].transpose(2, 0, 1)
        prepared = resize_crop.prepare(flat, spec)
        assert (found == prepared).all(), image.size
        again = session.run(
            None,
            {"images": _graph_classifier._images(prepared[None], spec, ExportMetadata("x", spec, feed="any_size"))},
        )[0]
        assert (again[0].transpose(2, 0, 1) == prepared).all(), (
            image.size
        )  # dlkit prepares images before the graph does


@pytest.mark.slow
def test_a_resize_export_takes_images_of_any_size(tiny_run: RunFolder, pictures: list[Path], tmp_path: Path) -> None:
    found = verb.export(tiny_run, resize=True, output=tmp_path / "any.onnx")
    assert found.entry["feed"] == "any_size" and found.entry["verified"]["max_difference"] <= 1e-4
    verify(found.path)
    same_answers(list(predict(None, pictures, model=str(found.path))), list(predict(tiny_run, pictures)))
    session = onnxruntime.InferenceSession(found.path)
    spec, reference = (
        tiny_run.spec(),
        torch_classifier(verb_restored(tiny_run).model, torch.device("cpu"), tiny_run.spec()),
    )
    for image in stretched(40):
        answers = session.run(None, {"images": np.asarray(image)[None]})[0]
        expected = np.exp(reference(resize_crop.prepare(image, spec)[None]))
        assert abs(answers - expected).max() <= 1e-4 and answers.argmax() == expected.argmax()


@pytest.mark.slow
def test_int8_is_smaller_and_says_what_it_cost(tiny_run: RunFolder, pictures: list[Path], tmp_path: Path) -> None:
    found = verb.export(tiny_run, quantize="int8", output=tmp_path / "small.onnx")
    details = found.entry["quantization"]
    assert found.entry["precision"] == "int8" and details["calibration_images"] == 256
    assert details["after"]["bytes"] < details["before"]["bytes"] and details["after"]["images_per_s"]["32"] > 0
    assert details["before"]["top1"] - details["after"]["top1"] <= 0.05
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["export.json", "small.onnx"]
    verify(found.path)
    file = File(found.path)
    file.forge(changed(file, other_mean))
    with pytest.raises(VerificationError, match="Δp"):
        verify(found.path)
    assert len(list(predict(None, pictures[:3], model=str(found.path)))) == 3


SMALL = {  # one of each family, and a small input that it still takes
    "lenet5": (1, 28, 28, 10), "lenet5_relu": (3, 32, 32, 10), "simple_cnn": (1, 28, 28, 10), "mlp": (1, 28, 28, 10),
    "logistic": (1, 28, 28, 10), "alexnet": (3, 64, 64, 10), "vgg11_bn": (3, 32, 32, 10), "resnet20": (3, 32, 32, 10),
    "densenet40": (3, 32, 32, 10), "vit_mini_4": (3, 32, 32, 10), "lstm": (1, 28, 28, 10),
    "transformer": (1, 28, 28, 10),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_family_is_exported_and_answers_alike(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = natural_spec(*SMALL[name])
    options = registry.resolved_options("models", name, {})
    model = registry.load("models", name).build(spec, **options).eval()
    about = ExportMetadata(name, spec, options)
    pixels = np.random.default_rng(0).integers(0, 256, (7, spec.channels, spec.height, spec.width), np.uint8)
    expected = torch_classifier(model, torch.device("cpu"), spec)(pixels)
    for exporter in (onnx_exporter, torch_export, safetensors_exporter):
        data = exporter.export(model, spec, about)
        for count in (7, 1):
            found = exporter.classifier(data, about, "cpu")(pixels[:count])
            assert abs(np.exp(found) - np.exp(expected[:count])).max() <= 1e-4


def test_the_shelf_holds_three_formats_each_with_its_ending() -> None:
    modules = {name: registry.load("exporters", name) for name in registry.entries("exporters")}
    assert {name: module.SUFFIX for name, module in modules.items()} == {
        "onnx": ".onnx",
        "safetensors": ".safetensors",
        "torch_export": ".pt2",
    }
    for name, module in modules.items():
        assert registry.entry("exporters", name).summary.endswith(".") and module.runtime().split()[1][0].isdigit()
