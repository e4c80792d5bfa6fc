"""Reading exported files: what was changed is found, and hostile ones are refused before anything outside is read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.numpy
from corpus import encoded, picture
from exported_files import File, changed, other_mean
from onnx import TensorProto, helper

from dlkit import documents
from dlkit.errors import ModelFileError, UsageError, VerificationError
from dlkit.evaluation.model_file import open_model_file
from dlkit.evaluation.predict import predict
from dlkit.export import export as verb
from dlkit.export.formats import onnx as onnx_exporter
from dlkit.export.verification import verify
from dlkit.export_metadata import ExportMetadata
from dlkit.runs.run_folder import RunFolder
from dlkit.specs import ImageSpec
from dlkit_cli.main import run as dlkit_command


def flipped_weight(file: File) -> bytes:
    data = bytearray(file.path.read_bytes())
    weights = max(file.proto().graph.initializer, key=lambda tensor: len(tensor.raw_data)).raw_data
    place = data.index(weights) + len(weights) // 2
    data[place] ^= 0x40
    return bytes(data)


def other_order(proto: onnx.ModelProto, about: ExportMetadata) -> ExportMetadata:
    spec = about.spec
    return about.with_(spec=ImageSpec.from_json({**spec.to_json(), "classes": list(reversed(spec.classes))}))


def wrong_weights(proto: onnx.ModelProto, about: ExportMetadata) -> None:
    tensor = max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[0] += 3
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def test_verify_holds_for_what_was_exported(tiny_run: RunFolder, onnx_file: File, weights_file: File) -> None:
    for file in (onnx_file, weights_file):
        again = verify(file.path).entry
        recorded = file.entry()
        assert again["verified"].pop("at") >= recorded["verified"].pop("at") and again == recorded


def test_a_flipped_byte_is_found_by_verify_and_by_predict(onnx_file: File, weights_file: File, tmp_path: Path) -> None:
    (tmp_path / "any.png").write_bytes(encoded(picture(28, 28), "PNG"))
    for file in (onnx_file.copied(tmp_path / "a"), weights_file.copied(tmp_path / "b")):
        data = bytearray(file.path.read_bytes())
        data[len(data) // 2] ^= 1
        file.path.write_bytes(data)
        with pytest.raises(VerificationError, match="has changed since its export"):
            verify(file.path)
        with pytest.raises(VerificationError, match="changed since it was exported"):
            predict(None, [tmp_path / "any.png"], model=str(file.path))


def test_a_weight_mean_or_class_that_was_changed_with_the_seal_is_found_by_its_answers(
    tiny_run: RunFolder, onnx_file: File, tmp_path: Path
) -> None:
    file = onnx_file.copied(tmp_path)
    good = file.path.read_bytes()
    for change, says in ((wrong_weights, "Δp"), (other_mean, "Δp"), (other_order, "other classes")):
        file.forge(changed(onnx_file, change))
        with pytest.raises(VerificationError, match=says):
            verify(file.path, run=tiny_run)
    file.forge(flipped_weight(onnx_file))
    with pytest.raises(VerificationError, match="since it was exported"):
        verify(file.path, run=tiny_run)
    file.forge(good)
    verify(file.path, run=tiny_run)


def test_far_from_its_run_only_the_bytes_are_verified_and_that_is_said(
    onnx_file: File, tiny_run: RunFolder, tmp_path: Path
) -> None:
    said: list[str] = []
    moved = onnx_file.copied(tmp_path)
    report = tmp_path / "export.json"
    document = dict(documents.read(report))
    document["files"][moved.path.name]["run"]["path"] = "gone"
    documents.write(report, document)
    assert verify(moved.path, runs_dir=tmp_path, say=said.append).entry["verified"] is None
    assert any("only the file's bytes" in line for line in said)
    assert verify(moved.path, run=tiny_run).entry["verified"]["top1_agreement"] == 1


def test_a_file_that_disagrees_is_not_written(
    tiny_run: RunFolder, onnx_file: File, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = changed(onnx_file, wrong_weights)
    monkeypatch.setattr(onnx_exporter, "export", lambda model, spec, about: wrong)
    with pytest.raises(VerificationError, match="differ from those of run"):
        verb.export(tiny_run, output=tmp_path / "wrong.onnx")
    assert list(tmp_path.iterdir()) == []


# -- hostile files: corpus 77 to 80


def weights_outside(file: File, location: str, **rules: object) -> onnx.ModelProto:
    """The exported graph with one weight moved to a file beside, which `location` names."""
    proto = file.proto()
    tensor = max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    entries = {"location": location, "offset": 0, "length": len(tensor.raw_data)} | rules
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return proto


def largest(file: File) -> bytes:
    return max((tensor.raw_data for tensor in file.proto().graph.initializer), key=len)


def refused(data: bytes, path: Path, says: str | None = None, *, by_onnxruntime: bool = False) -> None:
    """The file is refused: before onnxruntime sees it, but for what only that can know."""
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=says) as caught:
        file = open_model_file(path)
        if by_onnxruntime:
            file.load("cpu")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("location", ["side/w.bin", "./side//w.bin"])
def test_weights_in_another_file_of_the_folder_are_read(onnx_file: File, location: str, tmp_path: Path) -> None:
    (tmp_path / "in" / "side").mkdir(parents=True)
    (tmp_path / "in" / "side" / "w.bin").write_bytes(b"1234" + largest(onnx_file))
    path = tmp_path / "in" / "model.onnx"
    path.write_bytes(onnx_exporter.serialize(weights_outside(onnx_file, location, offset=4), onnx_file.about()))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 28, 28), np.uint8)
    expected = open_model_file(onnx_file.path).load("cpu")(pixels)
    assert (open_model_file(path).load("cpu")(pixels) == expected).all()


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname", "a/../../w.bin", "", "/dev/zero"])
def test_corpus_77_no_weights_from_outside_the_folder(onnx_file: File, location: str, tmp_path: Path) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    for place in (tmp_path, tmp_path / "in", tmp_path / "in" / "a"):
        (place / "w.bin").write_bytes(largest(onnx_file))
    proto = weights_outside(onnx_file, location)
    refused(onnx_exporter.serialize(proto, onnx_file.about()), tmp_path / "in" / "model.onnx", "own folder")


def test_corpus_77_an_absolute_path_even_into_the_folder_is_refused(onnx_file: File, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(largest(onnx_file))
    proto = weights_outside(onnx_file, str(tmp_path / "w.bin"))
    refused(onnx_exporter.serialize(proto, onnx_file.about()), tmp_path / "model.onnx", "own folder")


@pytest.mark.parametrize("kind", ["symbolic", "folder", "hard", "pipe"])
def test_corpus_78_no_weights_through_links(onnx_file: File, kind: str, tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (outside / "w.bin").write_bytes(largest(onnx_file))
    makers: dict[str, Callable[[], object]] = {
        "symbolic": lambda: (inside / "w.bin").symlink_to(outside / "w.bin"),
        "folder": lambda: (inside / "sub").symlink_to(outside),
        "hard": lambda: (inside / "w.bin").hardlink_to(outside / "w.bin"),
        "pipe": lambda: os.mkfifo(inside / "w.bin"),
    }
    makers[kind]()
    proto = weights_outside(onnx_file, "sub/w.bin" if kind == "folder" else "w.bin")
    refused(onnx_exporter.serialize(proto, onnx_file.about()), inside / "model.onnx", "link")


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ({"offset": -4}, "offset"),
        ({"length": 2**50}, "exceeds available data"),
        ({"offset": 2**50}, "exceeds file size"),
        ({"length": "1e3"}, "invalid literal"),
        ({"__class__": "x"}, "__class__"),
        ({"basepath": "/etc"}, "basepath"),
    ],
)
def test_corpus_79_ranges_and_keys(onnx_file: File, rules: dict[str, object], says: str, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(largest(onnx_file))
    proto = weights_outside(onnx_file, "w.bin", **rules)
    refused(onnx_exporter.serialize(proto, onnx_file.about()), tmp_path / "model.onnx", says)


def test_corpus_79_weights_hidden_in_a_nodes_subgraph_are_found(onnx_file: File, tmp_path: Path) -> None:
    proto = onnx_file.proto()
    tensor = TensorProto(name="hidden", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    graph = helper.make_graph([helper.make_node("Constant", [], ["c"], value=tensor)], "g", [], [])
    proto.graph.node[0].attribute.append(helper.make_attribute("body", graph))
    refused(onnx_exporter.serialize(proto, onnx_file.about()), tmp_path / "model.onnx", "own folder")


def no_opset(proto: onnx.ModelProto, about: ExportMetadata) -> None:
    del proto.opset_import[:]


def custom_op(proto: onnx.ModelProto, about: ExportMetadata) -> None:
    proto.opset_import.add(domain="evil", version=1)
    proto.graph.node[0].domain = "evil"


def unknown_op(proto: onnx.ModelProto, about: ExportMetadata) -> None:
    proto.graph.node[0].op_type = "NoSuchOperator"


def wrong_shape(proto: onnx.ModelProto, about: ExportMetadata) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 29


def wrong_type(proto: onnx.ModelProto, about: ExportMetadata) -> None:
    proto.graph.input[0].type.tensor_type.elem_type = 1


def fewer_classes(proto: onnx.ModelProto, about: ExportMetadata) -> ExportMetadata:
    spec = about.spec
    return about.with_(spec=ImageSpec.from_json({**spec.to_json(), "classes": list(spec.classes[:3])}))


def two_inputs(proto: onnx.ModelProto, about: ExportMetadata) -> None:
    proto.graph.input.append(helper.make_tensor_value_info("more", 1, [1]))


def negative_size(proto: onnx.ModelProto, about: ExportMetadata) -> None:
    proto.graph.initializer[0].dims[0] = -1


@pytest.mark.parametrize(
    "change",
    [no_opset, custom_op, unknown_op, wrong_shape, wrong_type, fewer_classes, two_inputs, negative_size],
    ids=lambda change: change.__name__,
)
def test_corpus_80_a_graph_that_is_not_what_it_says(
    onnx_file: File, change: Callable[[onnx.ModelProto, ExportMetadata], ExportMetadata | None], tmp_path: Path
) -> None:
    refused(changed(onnx_file, change), tmp_path / "model.onnx", by_onnxruntime=change is unknown_op)


def test_corpus_80_cut_and_random_bytes(onnx_file: File, tmp_path: Path) -> None:
    data = onnx_file.path.read_bytes()
    rng = np.random.default_rng(0)
    for cut in (1, 2, 17, len(data) // 2, len(data) - 200):
        refused(data[:cut], tmp_path / "model.onnx")
    for size in (1, 16, 1000, 65_536):
        refused(rng.bytes(size), tmp_path / "model.onnx")
    refused(b"", tmp_path / "model.onnx", "0 bytes")
    os.mkfifo(tmp_path / "pipe.onnx")
    for path in (tmp_path / "pipe.onnx", tmp_path / "none.onnx", tmp_path):
        with pytest.raises((ModelFileError, UsageError)):
            open_model_file(path)


def test_corpus_80_ends_with_5_from_the_shell(
    onnx_file: File, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.onnx").write_bytes(changed(onnx_file, custom_op))
    for arguments in (["predict", "x.png"], ["eval", "--dataset", "mnist"]):
        assert dlkit_command([*arguments, "--model", str(tmp_path / "bad.onnx")]) == ModelFileError.exit_code
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.slow
def test_any_single_byte_that_is_changed_is_found(onnx_file: File, weights_file: File, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for file in (onnx_file, weights_file):
        data = file.path.read_bytes()
        path = tmp_path / file.path.name
        for place in rng.integers(0, len(data), 300).tolist():
            path.write_bytes(data[:place] + bytes([data[place] ^ (1 << (place % 8))]) + data[place + 1 :])
            with pytest.raises((ModelFileError, VerificationError)):
                open_model_file(path)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "dlkit.model-file/9"},
        {"classes": []},
        {"classes": [1, 2]},
        {"classes": "ab"},
        {"input": {}},
        {"input": {"height": 10**9}},
        {"input": {"height": True}},
        {"input": {"crop": 1e-9}},
        {"input": {"std": [0, 1, 1]}},
        {"input": {"mean": [float("nan"), 0, 0]}},
        {"input": {"channels": 2}},
        {"input": {"feed": "x"}},
        {"output": {"name": "x"}},
        {"options": []},
        {"training": 3},
        {"model": None},
    ],
    ids=str,
)
def test_what_a_file_says_of_itself_is_not_believed_blindly(onnx_file: File, change: dict[str, Any]) -> None:
    document = onnx_file.about().document()
    for key, value in change.items():
        document[key] = {**document[key], **value} if key == "input" and value else value
    with pytest.raises(ModelFileError):
        ExportMetadata.from_json(json.dumps(document))
    assert ExportMetadata.from_json(onnx_file.about().to_json()) == onnx_file.about()


def test_a_bare_or_foreign_safetensors_file_is_refused_with_advice(weights_file: File, tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    safetensors.numpy.save_file({"w": np.zeros(3, np.float32)}, path)
    with pytest.raises(ModelFileError, match="--weights FILE"):
        open_model_file(path)
    about = weights_file.about()
    for other in (about.with_(model="lenet5"), about.with_(options={"hiden": 3}), about.with_(model="mpl")):
        metadata = {"dlkit": other.to_json()}
        weights = safetensors.numpy.load(weights_file.path.read_bytes())
        safetensors.numpy.save_file(weights, path, metadata)
        with pytest.raises(ModelFileError, match="its weights do not fit"):
            open_model_file(path).load("cpu")
