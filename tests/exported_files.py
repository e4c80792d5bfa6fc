"""Exported files that tests look into, forge and read again, and the pictures that they are asked about."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from corpus import encoded, picture
from PIL import Image
from shapes_on_disk import write_folder

from dlkit import documents
from dlkit.evaluation.model_file import open_model_file
from dlkit.evaluation.prediction import Failure, Prediction
from dlkit.export.formats import onnx as onnx_exporter
from dlkit.export_metadata import ExportMetadata
from dlkit.specs import ImageSpec


@dataclass(frozen=True)
class File:
    """An exported file in a folder of its own, with its export.json."""

    path: Path

    def copied(self, folder: Path) -> File:
        shutil.copytree(self.path.parent, folder, dirs_exist_ok=True)
        return File(folder / self.path.name)

    def entry(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path.parent / "export.json").read_text())["files"][self.path.name]
        return found

    def forge(self, data: bytes) -> None:
        """Put other bytes there, and have export.json vouch for them."""
        self.path.write_bytes(data)
        report = self.path.parent / "export.json"
        document = dict(documents.read(report))
        document["files"][self.path.name]["sha256"] = hashlib.sha256(data).hexdigest()
        documents.write(report, document)

    def proto(self) -> onnx.ModelProto:
        return onnx.load_model(self.path)

    def about(self) -> ExportMetadata:
        return open_model_file(self.path).about


def small_onnx(spec: ImageSpec) -> bytes:
    """What the exporter writes of a network with one layer, made without torch's tracer, which takes seconds."""
    sides, classes = f"{spec.height}, {spec.width}, {spec.channels}", len(spec.classes)
    graph = onnx.parser.parse_graph(
        f"mlp (uint8[N, {sides}] images) => (float[N, {classes}] probabilities) {{ numbers = Cast<to = 1>(images) "
        "flat = Flatten(numbers) logits = Gemm(flat, weight) probabilities = Softmax(logits) }"
    )
    weight = np.ones((spec.height * spec.width * spec.channels, classes), np.float32)
    graph.initializer.append(onnx.numpy_helper.from_array(weight, "weight"))
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    return onnx_exporter.serialize(proto, ExportMetadata("mlp", spec, opset=20))


def changed(file: File, change: Callable[[onnx.ModelProto, ExportMetadata], ExportMetadata | None]) -> bytes:
    """The file with its graph or what it says of itself changed, and sealed again."""
    proto, about = file.proto(), file.about()
    about = change(proto, about) or about
    return onnx_exporter.serialize(proto, about)


def other_mean(proto: onnx.ModelProto, about: ExportMetadata) -> None:
    """The normalisation's mean, a constant of the graph, half a grey level up and more."""
    means = [tensor for tensor in proto.graph.initializer if list(tensor.dims) in ([3, 1, 1], [1, 3, 1, 1])]
    assert len(means) >= 1
    for tensor in means:
        values = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values + np.float32(0.1), tensor.name))


def best(answers: list[Prediction | Failure]) -> dict[str, tuple[str, float]]:
    found = [answer for answer in answers if isinstance(answer, Prediction)]
    assert len(found) == len(answers)
    return {answer.path: (answer.predictions[0].name, answer.predictions[0].probability) for answer in found}


def same_answers(one: list[Prediction | Failure], other: list[Prediction | Failure], tolerance: float = 1e-4) -> None:
    ours, theirs = best(one), best(other)
    assert ours.keys() == theirs.keys() and len({name for name, _ in ours.values()}) > 2
    assert {path: name for path, (name, _) in ours.items()} == {path: name for path, (name, _) in theirs.items()}
    assert max(abs(ours[path][1] - theirs[path][1]) for path in ours) <= tolerance


def draw_pictures(folder: Path) -> list[Path]:
    """Pictures of any size, mode and format: shapes, turned by EXIF, grey, with alpha, CMYK, palette, 16 bits."""
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
