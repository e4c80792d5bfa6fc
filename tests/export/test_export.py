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

import numpy as np
import onnxruntime
import pytest
from exported_files import File, best, same_answers
from shapes_on_disk import form

import dlkit
from dlkit import atomic_io, export_metadata
from dlkit.errors import StorageError, UsageError
from dlkit.evaluation.exported_file import evaluate_file
from dlkit.evaluation.predict import predict
from dlkit.evaluation.prediction import Prediction
from dlkit.export import export as verb
from dlkit.runs.run_folder import RunFolder
from dlkit_cli.main import run as dlkit_command

GOLDEN = Path(__file__).parents[1] / "golden"


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
    description, spec = json.loads(texts["dlkit"]), tiny_run.spec()
    assert description["classes"] == list(spec.classes) and description["dlkit"] == dlkit.__version__
    assert description["input"]["mean"] == list(spec.mean) and description["training"]["run"] == "tiny"
    assert 0 < description["training"]["validation"]["top1"] <= 1
    assert len(texts["dlkit.digest"]) == 64 and texts["dlkit.digest"] != export_metadata.UNSEALED


def test_the_graph_takes_any_number_of_uint8_images_and_gives_probabilities(onnx_file: File) -> None:
    session = onnxruntime.InferenceSession(onnx_file.path.read_bytes())
    (images,), (answers,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape[1:]) == ("images", "tensor(uint8)", [28, 28, 3])
    assert (answers.name, answers.shape[1:]) == ("probabilities", [8])
    pixels = np.random.default_rng(0).integers(0, 256, (9, 28, 28, 3), np.uint8)
    all_at_once = session.run(None, {"images": pixels})[0]
    assert all_at_once.shape == (9, 8) and np.allclose(all_at_once.sum(1), 1, atol=1e-6)
    for count in (1, 2, 8):
        np.testing.assert_allclose(session.run(None, {"images": pixels[:count]})[0], all_at_once[:count], atol=1e-6)


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
        run_only = {"run_id": None, "weights_sha256": None}  # a file does not know them
        assert form(found.document()) == form(expected.document() | run_only)


SCRIPT = """
import json, sys
import numpy, onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
about = json.loads(session.get_modelmeta().custom_metadata_map["dlkit"])
width, height, crop = (about["input"][key] for key in ("width", "height", "crop"))
for path in sys.argv[2:]:
    image = Image.open(path)
    image = ImageOps.exif_transpose(image).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if about["input"]["channels"] == 1 else "RGB")
    area = max(round(width / crop) * image.height, round(height / crop) * image.width)
    image = image.resize((area // image.height, area // image.width), Image.Resampling.BILINEAR)
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

    monkeypatch.setattr(atomic_io, "hook", full)
    with pytest.raises(StorageError, match="disk full"):
        verb.export(tiny_run, to="safetensors", output=tmp_path / "x.safetensors")
    assert writes == at + 1 and list(tmp_path.iterdir()) == []


def test_what_is_there_already_is_kept(weights_file: File, tiny_run: RunFolder, tmp_path: Path) -> None:
    foreign = tmp_path / "mine.safetensors"
    foreign.write_bytes(b"precious")
    with pytest.raises(UsageError, match="has no entry for it"):
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
        (["--to", "onnx", "-o", "model.pt"], 2, "end in .onnx"),
        (["--raw", "--resize"], 2, "exclude each other"),
        (["--opset", "11"], 2, "--opset 11"),
        (["--quantize", "int4"], 2, "int8"),
        (["--to", "torch_export", "--quantize", "int8"], 2, "--to onnx"),
        (["-o", "nowhere/x.onnx"], 7, "does not exist"),
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
        (["--model", "m.onnx", "--run", "r"], "cannot be combined"),
        (["--model", "m.onnx"], "o such file"),
    ],
)
def test_a_model_file_that_cannot_be_used_so_is_refused(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert dlkit_command(["predict", "x.png", *arguments]) in (2, 5)
    assert says in capsys.readouterr().err
