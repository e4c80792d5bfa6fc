"""The hosted networks as ONNX files: a script without dlkit and without torch answers as `predict` does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from corpus import encoded, picture
from PIL import Image
from test_export import SCRIPT

import dlkit
from dlkit.evaluation.predict import predict
from dlkit.evaluation.prediction import Prediction
from dlkit.export import export as verb

SIZE = 64  # pixels a side of what the networks see
ANY_SIZE = """
import json, sys
import numpy, onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
about = json.loads(session.get_modelmeta().custom_metadata_map["dlkit"])
for path in sys.argv[2:]:
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    (probabilities,) = session.run(None, {"images": numpy.asarray(image)[None]})[0]
    print(path, about["classes"][probabilities.argmax()], probabilities.max(), sep="\\t")
"""


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """260 pictures of many sizes, dark and bright: as they are, turned by EXIF, grey, with alpha, CMYK."""
    folder = tmp_path_factory.mktemp("photographs")
    turned = Image.Exif()
    for number in range(52):
        base = picture(60 + 4 * number, 180 - 2 * number, seed=number)
        base = Image.blend(base, Image.new("RGB", base.size, ("black", "white")[number % 2]), 0.6)
        alpha = base.convert("RGBA")
        alpha.putalpha(picture(*base.size, "L", seed=number + 100))
        turned[0x0112] = 1 + number % 8
        for name, data in {
            "plain.png": encoded(base, "PNG"),
            "exif.jpg": encoded(base, "JPEG", exif=turned.tobytes()),
            "grey.png": encoded(base.convert("L"), "PNG"),
            "alpha.png": encoded(alpha, "PNG"),
            "cmyk.jpg": encoded(base.convert("CMYK"), "JPEG"),
        }.items():
            (folder / f"{number:02}-{name}").write_bytes(data)
    return sorted(folder.iterdir())


def answers_of(script: str, file: Path, images: list[Path], folder: Path) -> dict[str, tuple[str, float]]:
    """What the script prints for each image, run where neither dlkit nor torch is loaded."""
    command = [sys.executable, "-c", script + "assert not {'dlkit', 'torch'} & sys.modules.keys()", file, *images]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=True)
    return {path: (name, float(p)) for path, name, p in (line.split("\t") for line in done.stdout.splitlines())}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lenet5", "alexnet", "vgg16", "resnet50", "densenet121", "vit_tiny_16"])
def test_a_script_without_dlkit_answers_as_predict(name: str, photographs: list[Path], tmp_path: Path) -> None:
    for path in photographs:
        place = tmp_path / "data" / ("dark", "bright")[int(path.name[:2]) % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / path.name).symlink_to(path)
    settings = {"data.size": SIZE, "train.batch_size": 16}
    init = {"model.options.init": "he"} if name == "alexnet" else {}  # the paper's start takes many epochs
    run = dlkit.train(
        name, dataset="folder", data_dir=tmp_path / "data", epochs=4, lr=2e-4, settings=settings | init, name="run",
        runs_dir=tmp_path,
    )  # fmt: skip
    expected = {a.path: a.predictions[0] for a in predict(run, photographs) if isinstance(a, Prediction)}
    assert len(expected) == len(photographs) >= 256 and len({best.name for best in expected.values()}) > 1
    for script, resize in ((SCRIPT, False), (ANY_SIZE, True)):
        file = verb.export(run, resize=resize, output=tmp_path / "model.onnx").path
        found = answers_of(script, file, photographs, tmp_path)
        assert found.keys() == expected.keys()
        assert max(abs(found[path][1] - best.probability) for path, best in expected.items()) <= 1e-4
        assert {path: found[path][0] for path in found} == {path: best.name for path, best in expected.items()}
        file.unlink()
        (tmp_path / "export.json").unlink()
