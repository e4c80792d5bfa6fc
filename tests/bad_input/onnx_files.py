"""Rows 77 to 80: ONNX files, which predict refuses before onnxruntime opens anything beside them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
import onnx
from bad_input.case import Attempt, Bench, Case
from exported_files import small_onnx

from dlkit.evaluation.model_summary import natural_spec
from dlkit.export.formats import onnx as exporter
from dlkit.export_metadata import ExportMetadata

SPEC = natural_spec(3, 28, 28, 3)
Change = Callable[[onnx.ModelProto], object]


def cases() -> Iterator[Case]:
    for location in ("../w.bin", "/etc/hostname", "a/../../w.bin", "", "/dev/zero"):
        yield Case(77, location or "nowhere", 5, _outside(location), "own folder")
    for kind in ("symbolic link", "linked folder", "hard link"):
        yield Case(78, kind, 5, _linked(kind), "link")
    rules: list[dict[str, object]] = [{"offset": -4}, {"length": 2**50}, {"offset": 2**50}, {"__class__": "x"}]
    for rule in rules:
        yield Case(79, str(rule), 5, _outside("w.bin", **rule), "external data")
    yield Case(80, "cut", 5, _bytes(lambda data: data[: len(data) // 2]), "onnx")
    yield Case(80, "random bytes", 5, _bytes(lambda data: np.random.default_rng(0).bytes(1000)), "onnx")
    yield Case(80, "wrong input shape", 5, _changed(_wrong_shape), "the shape")
    yield Case(80, "no opset", 5, _changed(lambda proto: proto.ClearField("opset_import")), "opset_import")
    yield Case(80, "custom operator", 5, _changed(_custom_operator), "evil.")


def _outside(location: str, **rules: object) -> Attempt:
    """The weight is in a file beside, which is there wherever the location may lead."""

    def attempt(bench: Bench) -> int:
        proto, content = _externalized(location, **rules)
        for folder in ("", "in/", "in/a/"):
            bench.write(f"{folder}w.bin", content)
        return _predict(bench, proto)

    return attempt


def _linked(kind: str) -> Attempt:
    def attempt(bench: Bench) -> int:
        proto, content = _externalized("sub/w.bin" if kind == "linked folder" else "w.bin")
        target, inside = bench.write("out/w.bin", content), bench.folder / "in"
        inside.mkdir()
        if kind == "symbolic link":
            (inside / "w.bin").symlink_to(target)
        elif kind == "linked folder":
            (inside / "sub").symlink_to(target.parent)
        else:
            os.link(target, inside / "w.bin")
        return _predict(bench, proto)

    return attempt


def _externalized(location: str, **rules: object) -> tuple[onnx.ModelProto, bytes]:
    proto = onnx.load_model_from_string(small_onnx(SPEC))
    (tensor,) = proto.graph.initializer
    content = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in ({"location": location, "offset": 0, "length": len(content)} | rules).items():
        tensor.external_data.add(key=key, value=str(value))
    return proto, content


def _changed(change: Change) -> Attempt:
    def attempt(bench: Bench) -> int:
        proto = onnx.load_model_from_string(small_onnx(SPEC))
        change(proto)
        return _predict(bench, proto)

    return attempt


def _bytes(change: Callable[[bytes], bytes]) -> Attempt:
    def attempt(bench: Bench) -> int:
        return bench.run("predict", "--model", bench.write("in/a.onnx", change(small_onnx(SPEC))), bench.image())

    return attempt


def _predict(bench: Bench, proto: onnx.ModelProto) -> int:
    """Sealed again, so that what is refused is refused for what it holds."""
    path = bench.write("in/a.onnx", exporter.serialize(proto, ExportMetadata("mlp", SPEC, opset=20)))
    return bench.run("predict", "--model", path, bench.image())


def _wrong_shape(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 29


def _custom_operator(proto: onnx.ModelProto) -> None:
    proto.opset_import.add(domain="evil", version=1)
    proto.graph.node[0].domain = "evil"
