"""export: a file that answers as its run does, wherever it is run."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from corpus import encoded, picture
from exported_files import File, changed, other_mean
from onnx import TensorProto, helper
from PIL import Image
from shapes_on_disk import form, write_folder
from torch import Tensor, nn

import dlkit
from dlkit import catalog, durable, exported
from dlkit.data import framing
from dlkit.data.classifier import torch_classifier
from dlkit.engine.run_folder import RunFolder
from dlkit.errors import StorageError, UsageError, VerificationError
from dlkit.exported import About
from dlkit.exporters import onnx as onnx_exporter
from dlkit.exporters import safetensors as safetensors_exporter
from dlkit.exporters import torch_export
from dlkit.specs import ImageSpec
from dlkit.verbs import export as verb
from dlkit.verbs.evaluate.file import evaluate_file
from dlkit.verbs.export.verify import verify
from dlkit.verbs.predict import predict
from dlkit.verbs.predict.prediction import Failure, Prediction
from dlkit.verbs.summary import natural_spec
from dlkit_cli.main import run as dlkit_command

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures of any size, mode and format: shapes, turned by EXIF, grey, with alpha, CMYK, palette, 16 bits."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = write_folder(folder, "test", count=40)
    turned = Image.Exif()
    for number in range(24):
        base = picture(30 + 5 * number, 90 - 2 * number, seed=number)
        alpha = base.convert("RGBA")
        alpha.putalpha(picture(*base.size, "L", seed=number + 100))
        turned[0x0112] = 1 + number % 8
        sixteen = Image.fromarray(np.asarray(base.convert("L")).astype(np.uint16) * 257)
        for name, data in {
            "exif.jpg": encoded(base, "JPEG", exif=turned.tobytes()),
            "grey.png": encoded(base.convert("L"), "PNG"),
            "alpha.png": encoded(alpha, "PNG"),
            "cmyk.jpg": encoded(base.convert("CMYK"), "JPEG"),
            "palette.gif": encoded(base.convert("P"), "GIF"),
            "sixteen.png": encoded(sixteen, "PNG"),
        }.items():
            paths.append(folder / f"{number:02}-{name}")
            paths[-1].write_bytes(data)
    return paths


def best(answers: list[Prediction | Failure]) -> dict[str, tuple[str, float]]:
    found = [answer for answer in answers if isinstance(answer, Prediction)]
    assert len(found) == len(answers)
    return {answer.path: (answer.predictions[0].name, answer.predictions[0].probability) for answer in found}


def same_answers(one: list[Prediction | Failure], other: list[Prediction | Failure], tolerance: float = 1e-4) -> None:
    ours, theirs = best(one), best(other)
    assert ours.keys() == theirs.keys() and len({name for name, _ in ours.values()}) > 2
    assert {path: name for path, (name, _) in ours.items()} == {path: name for path, (name, _) in theirs.items()}
    assert max(abs(ours[path][1] - theirs[path][1]) for path in ours) <= tolerance


# -- what is exported answers as its run


def test_an_export_says_what_it_is_and_how_near_it_came(tiny_run: RunFolder, onnx_file: File) -> None:
    entry = onnx_file.entry()
    assert entry["sha256"] == hashlib.sha256(onnx_file.path.read_bytes()).hexdigest()
    assert entry["run"]["id"] == tiny_run.info()["run_id"] and entry["opset"] == 20
    found = entry["verified"]
    assert found["runtime"] == f"onnxruntime {onnxruntime.__version__}" and found["split"] == "validation"
    assert found["images"] == 32  # all there are
    assert 0 < found["max_difference"] <= 1e-4 and found["top1_agreement"] == 1
    assert form(entry) == json.loads((GOLDEN / "export.json").read_text())


def test_its_metadata_hold_classes_rules_training_and_version(tiny_run: RunFolder, onnx_file: File) -> None:
    texts = {item.key: item.value for item in onnx_file.proto().metadata_props}
    said, spec = json.loads(texts["dlkit"]), tiny_run.spec()
    assert said["classes"] == list(spec.classes) and said["dlkit"] == dlkit.__version__
    assert said["input"]["mean"] == list(spec.mean) and said["training"]["run"] == "tiny"
    assert 0 < said["training"]["validation"]["top1"] <= 1
    assert len(texts["dlkit.digest"]) == 64 and texts["dlkit.digest"] != exported.UNSEALED


def test_the_graph_takes_any_number_of_uint8_images_and_gives_probabilities(onnx_file: File) -> None:
    session = onnxruntime.InferenceSession(onnx_file.path.read_bytes())
    (images,), (answers,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape[1:]) == ("images", "tensor(uint8)", [28, 28, 3])
    assert (answers.name, answers.shape[1:]) == ("probabilities", [8])
    pixels = np.random.default_rng(0).integers(0, 256, (9, 28, 28, 3), np.uint8)
    whole = session.run(None, {"images": pixels})[0]
    assert whole.shape == (9, 8) and np.allclose(whole.sum(1), 1, atol=1e-6)
    for count in (1, 2, 8):
        np.testing.assert_allclose(session.run(None, {"images": pixels[:count]})[0], whole[:count], atol=1e-6)


def test_nothing_of_this_machine_stands_in_the_file(onnx_file: File) -> None:
    data = onnx_file.path.read_bytes()
    assert os.fsencode(Path(dlkit.__file__).parent) not in data and b"site-packages" not in data and b".py" not in data


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(tiny_run: RunFolder, onnx_file: File, tmp_path: Path) -> None:
    again = verb.export(tiny_run, output=tmp_path / "again.onnx")
    assert again.entry["sha256"] == onnx_file.entry()["sha256"]


@pytest.mark.parametrize("name", ["onnx_file", "weights_file"])
def test_predict_with_the_file_answers_as_with_the_run(
    tiny_run: RunFolder, name: str, pictures: list[Path], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    moved = request.getfixturevalue(name).copied(tmp_path)  # far from its run
    (moved.path.parent / "export.json").unlink()
    same_answers(list(predict(None, pictures, model=str(moved.path))), list(predict(tiny_run, pictures)))


@pytest.mark.parametrize("name", ["onnx_file", "weights_file"])
def test_eval_of_the_file_has_the_figures_of_the_run(
    tiny_run: RunFolder, name: str, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(name).path
    for split in ("test", "validation"):
        expected = dlkit.evaluate(tiny_run, write=False, split=split)
        found = evaluate_file(path, split=split)
        assert (found.confusion == expected.confusion).all() and found.samples == expected.samples
        for metric, figure in expected.metrics.items():
            assert found.metrics[metric].value == pytest.approx(figure.value, abs=1e-5), metric
        assert form(found.document()) == form(expected.document())


def verb_restored(run: RunFolder) -> Any:
    from dlkit.engine.restore import restore

    return restore(run, device="cpu")


SCRIPT = """
import json, math, sys
import numpy, onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
about = json.loads(session.get_modelmeta().custom_metadata_map["dlkit"])
width, height, crop = (about["input"][key] for key in ("width", "height", "crop"))
for path in sys.argv[2:]:
    image = Image.open(path)
    image.draft(None, 2 * [2 * math.ceil(max(width, height) / crop)])
    image = ImageOps.exif_transpose(image).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if about["input"]["channels"] == 1 else "RGB")
    scale = max(round(width / crop) / image.width, round(height / crop) / image.height)
    size = [round(scale * side) for side in image.size]
    image = image.resize((size[0], image.height), Image.Resampling.BILINEAR).resize(size, Image.Resampling.BILINEAR)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    pixels = numpy.asarray(image.crop((left, top, left + width, top + height)))
    (probabilities,) = session.run(None, {"images": pixels.reshape(1, height, width, -1)})[0]
    print(path, about["classes"][probabilities.argmax()], probabilities.max(), sep="\\t")
"""


def test_a_script_with_onnxruntime_and_pillow_and_no_dlkit_answers_as_predict(
    tiny_run: RunFolder, onnx_file: File, pictures: list[Path], tmp_path: Path
) -> None:
    readable = [path for path in pictures if not path.name.endswith("sixteen.png")]
    command = [sys.executable, "-c", SCRIPT + "assert not {'dlkit', 'torch'} & sys.modules.keys()", onnx_file.path]
    done = subprocess.run([*command, *readable], capture_output=True, text=True, cwd=tmp_path, check=True)
    found = {path: (name, float(p)) for path, name, p in (line.split("\t") for line in done.stdout.splitlines())}
    expected = best(list(predict(tiny_run, readable)))
    assert found.keys() == expected.keys() and len(found) == 160
    assert {path: name for path, (name, _) in found.items()} == {path: name for path, (name, _) in expected.items()}
    assert max(abs(found[path][1] - expected[path][1]) for path in found) <= 1e-4


PROBE = """
import contextlib, io, json, sys
from dlkit_cli.main import run
with contextlib.redirect_stdout(io.StringIO()) as out:
    code = run(["predict", *sys.argv[1:], "--format", "jsonl", "--topk", "1"])
heavy = {"torch", "torchvision", "onnxscript", "matplotlib", "rich"} & sys.modules.keys()
print(json.dumps([code, sorted(heavy), json.loads(out.getvalue())]))
"""


def test_predict_with_an_onnx_file_imports_no_torch(
    tiny_run: RunFolder, onnx_file: File, pictures: list[Path], tmp_path: Path
) -> None:
    command = [sys.executable, "-c", PROBE, str(pictures[0]), "--model", str(onnx_file.path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    code, heavy, record = json.loads(done.stdout)
    assert (code, heavy, done.stderr) == (0, [], "")
    (answer,) = predict(tiny_run, pictures[0], topk=1)
    assert isinstance(answer, Prediction) and record["predictions"][0]["class"] == answer.predictions[0].name
    assert record["model"] == "mlp" and record["path"] == str(pictures[0])


# -- the disk, names and options


@pytest.mark.parametrize("at", [0, 1])
def test_a_full_disk_leaves_nothing(
    weights_file: File, tiny_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    writes = 0

    def full(name: str) -> None:
        nonlocal writes
        if name == "mid_write":
            writes += 1
            if writes > at:  # first the file, then export.json
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(durable, "hook", full)
    with pytest.raises(StorageError, match="disk full"):
        verb.export(tiny_run, to="safetensors", output=tmp_path / "x.safetensors")
    assert writes == at + 1 and list(tmp_path.iterdir()) == []


def test_what_is_there_already_is_kept(weights_file: File, tiny_run: RunFolder, tmp_path: Path) -> None:
    foreign = tmp_path / "mine.safetensors"
    foreign.write_bytes(b"precious")
    with pytest.raises(UsageError, match="knows nothing of it"):
        verb.export(tiny_run, to="safetensors", output=foreign)
    assert foreign.read_bytes() == b"precious"
    own = weights_file.copied(tmp_path / "own")
    verb.export(tiny_run, to="safetensors", output=own.path)  # an export of its own is made anew
    verb.export(tiny_run, to="safetensors", output=own.path.parent / "second.safetensors")
    assert json.loads((own.path.parent / "export.json").read_text())["files"].keys() == {
        "tiny.safetensors",
        "second.safetensors",
    }
    (own.path.parent / "export.json").write_text('{"mine": 1}')
    with pytest.raises(UsageError, match="another folder"):
        verb.export(tiny_run, to="safetensors", output=own.path)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--to", "onxx"], 2, "'onnx'"),
        (["--to", "safetensors", "--raw"], 2, "no option 'raw'"),
        (["--to", "onnx", "-o", "model.pt"], 2, "ends in .onnx"),
        (["--raw", "--resize"], 2, "choose one"),
        (["--opset", "11"], 2, "--opset 11"),
        (["--quantize", "int4"], 2, "int8"),
        (["--to", "torch_export", "--quantize", "int8"], 2, "--to onnx"),
        (["-o", "nowhere/x.onnx"], 7, "no folder"),
        (["--verify", "nowhere.onnx"], 5, "no such file"),
        (["--verify", "x.onnx", "--to", "onnx"], 2, "--verify"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    tiny_run: RunFolder, arguments: list[str], code: int, says: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    run = [] if "--verify" in arguments else [str(tiny_run.path)]
    assert dlkit_command(["export", *run, *arguments, "-q"]) == code
    out, err = capsys.readouterr()
    assert not out and says in err and len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_one_line_with_the_command(
    tiny_run: RunFolder, onnx_file: File, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("onnx") else found(name))
    for arguments in (["export", str(tiny_run.path)], ["predict", "x.png", "--model", str(onnx_file.path)]):
        assert dlkit_command(arguments) == UsageError.exit_code
        err = capsys.readouterr().err
        assert "onnxruntime: python -m pip install 'dlkit[export]'" in err and len(err.splitlines()) == 1


def test_the_command_prints_the_path_or_the_document(
    tiny_run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.safetensors"
    arguments = ["export", str(tiny_run.path), "--to", "safetensors", "-o", str(path)]
    assert dlkit_command(arguments) == 0 and capsys.readouterr().out == f"{path}\n"
    assert dlkit_command(["export", "--verify", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "dlkit.export/1" and document["path"] == str(path)
    assert document["verified"]["max_difference"] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "m.onnx", "--weights", "x"], "own weights"),
        (["--model", "m.pt2"], "your own programs"),
        (["--model", "./folder"], "ends in .onnx"),
        (["--model", "m.onnx", "--run", "r"], "not both"),
        (["--model", "m.onnx"], "o such file"),
    ],
)
def test_a_model_file_that_cannot_be_used_so_is_refused(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert dlkit_command(["predict", "x.png", *arguments]) in (2, 5)
    assert says in capsys.readouterr().err


# -- the other formats and options


class Stubborn(nn.Module):
    """A network whose work depends on what it sees."""

    def forward(self, images: Tensor) -> Tensor:
        rounds = int(images.float().mean().item() * 3)
        for _ in range(rounds):
            images = images * 2
        return images.flatten(1)[:, :2]


@pytest.mark.slow
@pytest.mark.parametrize("exporter", [onnx_exporter, torch_export])
def test_a_network_that_a_graph_cannot_hold_is_told_why(exporter: Any) -> None:
    spec = natural_spec(1, 8, 8, 2)
    with pytest.raises(UsageError, match=r"not possible, because .*\w.* --to safetensors always is") as caught:
        exporter.export(Stubborn().eval(), spec, About("stubborn", spec))
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
def test_resizing_in_the_graph_is_prepares_to_the_bit(spec: ImageSpec, crop: float) -> None:
    spec = ImageSpec.from_json({**spec.to_json(), "crop": crop})
    shape = ["N", spec.height, spec.width, spec.channels]
    ends = [helper.make_tensor_value_info(name, TensorProto.UINT8, shape) for name in ("images", "out")]
    graph = helper.make_graph([helper.make_node("Identity", ["images"], ["out"])], "front", ends[:1], ends[1:])
    onnx_exporter._prepend_resize(graph, spec)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    noise = [Image.effect_noise(image.size, 80) for image in stretched(10)]  # shows at once what a border is made of
    for image in [*stretched(20), *noise, picture(spec.width, spec.height)]:
        flat = image.convert("L" if spec.channels == 1 else "RGB")
        pixels = np.asarray(flat).reshape(1, flat.height, flat.width, spec.channels)
        found = session.run(None, {"images": pixels})[0][0].transpose(2, 0, 1)
        assert (found == framing.prepare(flat, spec)).all(), image.size


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
        expected = np.exp(reference(framing.prepare(image, spec)[None]))
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
    options = catalog.resolved_options("models", name, {})
    model = catalog.load("models", name).build(spec, **options).eval()
    about = About(name, spec, options)
    pixels = np.random.default_rng(0).integers(0, 256, (7, spec.channels, spec.height, spec.width), np.uint8)
    expected = torch_classifier(model, torch.device("cpu"), spec)(pixels)
    for exporter in (onnx_exporter, torch_export, safetensors_exporter):
        data = exporter.export(model, spec, about)
        for count in (7, 1):
            found = exporter.classifier(data, about, "cpu")(pixels[:count])
            assert abs(np.exp(found) - np.exp(expected[:count])).max() <= 1e-4


def test_the_shelf_holds_three_formats_each_with_its_ending() -> None:
    modules = {name: catalog.load("exporters", name) for name in catalog.entries("exporters")}
    assert {name: module.SUFFIX for name, module in modules.items()} == {
        "onnx": ".onnx",
        "safetensors": ".safetensors",
        "torch_export": ".pt2",
    }
    for name, module in modules.items():
        assert catalog.entry("exporters", name).summary.endswith(".") and module.runtime().split()[1][0].isdigit()
