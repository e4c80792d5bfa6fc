"""Exported files that tests look into, forge and read again."""

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

from dlkit.engine.model_file import open_model_file
from dlkit.exported import About
from dlkit.exporters import onnx as onnx_exporter


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
        document = json.loads(report.read_text())
        document["files"][self.path.name]["sha256"] = hashlib.sha256(data).hexdigest()
        report.write_text(json.dumps(document))

    def proto(self) -> onnx.ModelProto:
        return onnx.load_model(self.path)

    def about(self) -> About:
        return open_model_file(self.path).about


def changed(file: File, change: Callable[[onnx.ModelProto, About], About | None]) -> bytes:
    """The file with its graph or what it says of itself changed, and sealed again."""
    proto, about = file.proto(), file.about()
    about = change(proto, about) or about
    return onnx_exporter.packed(proto, about)


def other_mean(proto: onnx.ModelProto, about: About) -> None:
    """The normalisation's mean, a constant of the graph, half a grey level up and more."""
    means = [tensor for tensor in proto.graph.initializer if list(tensor.dims) in ([3, 1, 1], [1, 3, 1, 1])]
    assert len(means) >= 1
    for tensor in means:
        values = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values + np.float32(0.1), tensor.name))
