"""What models and runs are read from: exported files, weights, checkpoints, and the documents of a run folder."""

from __future__ import annotations

import io
import json
import shutil
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx as library
import safetensors.torch
import torch
from corpus import encoded, picture
from exported_files import small_onnx
from law import Target, replace_file, run_command
from mutation import as_json, json_mutants, mutants

from dlkit import documents, export_metadata
from dlkit.evaluation.model_file import open_model_file
from dlkit.export.formats import onnx
from dlkit.export.formats import safetensors as exporter
from dlkit.export_metadata import ExportMetadata
from dlkit.specs import ImageSpec
from dlkit.training.restore import build
from dlkit.training.weights_file import read_weights

Fixture = Callable[[str], Any]
RUN = "tiny"
SPEC = ImageSpec(3, 6, 5, ("a", "b"), (0.5,) * 3, (0.5,) * 3)


def exported(suffix: str, folder: Path, fixture: Fixture) -> Target:
    """Exported files, some of them with a seal that fits what was changed."""
    valid = {"onnx": small_onnx, "safetensors": _small_safetensors}[suffix](SPEC)
    marker = {"onnx": onnx.MARKER, "safetensors": exporter.MARKER}[suffix]
    images = np.zeros((1, 3, 6, 5), np.uint8)

    def read(data: bytes) -> None:
        open_model_file(replace_file(folder / f"a.{suffix}", data)).load("cpu")(images)

    mutated = mutants([valid], [b'"mlp"', b"Gemm", b"ai.onnx", b"[", b"{", b'"']) | _headers(suffix, valid)
    return Target(mutated.map(partial(_sealed_file, marker=marker)), read, [valid])


def _small_safetensors(spec: ImageSpec) -> bytes:
    options = {"hidden": "4"}
    return exporter.export(build("mlp", spec, options), spec, ExportMetadata("mlp", spec, options))


def _headers(suffix: str, valid: bytes) -> Any:
    """The file with other facts in its description, which is JSON still."""
    if suffix == "onnx":
        return _descriptions(valid)
    size = int.from_bytes(valid[:8], "little")

    def finish(header: Any) -> bytes:
        text = json.dumps(header, separators=(",", ":")).encode()
        return len(text).to_bytes(8, "little") + text + valid[8 + size :]

    return json_mutants([json.loads(valid[8 : 8 + size])], finish)


def _descriptions(valid: bytes) -> Any:
    proto = library.load_model_from_string(valid)
    texts = {entry.key: entry.value for entry in proto.metadata_props}

    def finish(document: Any) -> bytes:
        changed = {export_metadata.KEY: json.dumps(document), export_metadata.SEAL_KEY: export_metadata.UNSEALED}
        library.helper.set_model_props(proto, changed)
        return proto.SerializeToString()

    return json_mutants([json.loads(texts[export_metadata.KEY])], finish)


def _sealed_file(data: bytes, marker: bytes) -> bytes:
    """With the seal of what the file holds now, for three files of four."""
    place = data.find(marker) + len(marker)
    if place < len(marker) or data.find(marker, place) >= 0 or len(data) < place + 64 or zlib.crc32(data) % 4 == 0:
        return data
    return export_metadata.seal(data[:place] + export_metadata.UNSEALED.encode() + data[place + 64 :], marker)


def weights(kind: str, folder: Path, fixture: Fixture) -> Target:
    state = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.zeros(2), "n": torch.tensor(3)}
    if kind == "safetensors":
        valid = [safetensors.torch.save(state), safetensors.torch.save({f"model/{key}": state[key] for key in state})]
    else:
        averaged = {"module.w": torch.ones(2, dtype=torch.bfloat16)}
        documents_of = [state, {"state_dict": state, "ema": averaged, "epoch": 3}]
        valid = [_torch_file(document, kind == "pt") for document in documents_of]
    words = [b"\x80\x02", b"cos\nsystem\n", b"R", b".", b"}", b"ctorch._utils\n_rebuild_tensor_v2\n", b"FloatStorage"]

    def read(data: bytes) -> None:
        read_weights(replace_file(folder / f"a.{kind.partition('-')[0]}", data))

    return Target(mutants(valid, words), read, valid)


def _torch_file(document: Any, zipped: bool) -> bytes:
    file = io.BytesIO()
    torch.save(document, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


# the documents of a run folder

COMMANDS: list[list[str]] = [
    ["runs", "list", "--all", "--json"],
    ["runs", "show", RUN, "--json"],
    ["runs", "compare", RUN, "other"],
    ["predict", "--run", RUN, "a.png"],
    ["train", "--resume", RUN],
    ["plot", RUN],
    ["export", RUN, "--to", "safetensors"],
]


def document(name: str, commands: Sequence[int], folder: Path, fixture: Fixture) -> Target:
    """A file of a run folder, read by one of the commands that read it; with or without a digest that fits."""
    pristine, runs_dir = folder / "pristine", folder / "runs"
    shutil.copytree(fixture("tiny_run").path, pristine)
    shutil.copytree(pristine, runs_dir / "other")
    run_command(["eval", pristine, "--split", "validation"])
    run_command(["eval", runs_dir / "other", "--split", "validation"])
    (folder / "a.png").write_bytes(encoded(picture(28, 28), "PNG"))
    path = max(pristine.glob(name))
    valid = path.read_bytes()

    def read(data: bytes) -> int:
        shutil.rmtree(runs_dir / RUN, ignore_errors=True)
        shutil.copytree(pristine, runs_dir / RUN)
        replace_file(runs_dir / RUN / path.relative_to(pristine), data)
        command = COMMANDS[commands[zlib.crc32(data) % len(commands)]]
        inputs = [folder / word if word == "a.png" else word for word in command]
        suffix = {"export": ".safetensors", "plot": ".png"}.get(command[0])
        output = ["-o", folder / f"output{suffix}"] if suffix else []
        for path_before in folder.glob("output*"):
            path_before.unlink()
        return run_command([*inputs, *output, "--runs-dir", runs_dir])

    words = [b"{", b"}", b"[" * 3000, b"\n", b",", b"NaN"]
    return Target(mutants([valid], words) | _valid_json(path, valid), read, [valid])


def _valid_json(path: Path, valid: bytes) -> Any:
    if path.suffix == ".jsonl":
        lines = [json.loads(line) for line in valid.splitlines()]
        return json_mutants([lines], _as_lines)
    content = json.loads(valid)
    content.pop("digest", None)

    def finish(value: Any) -> bytes:
        return as_json(documents.sealed(value)) if isinstance(value, dict) else as_json(value)

    return json_mutants([content], finish) | json_mutants([json.loads(valid)], as_json)


def _as_lines(value: Any) -> bytes:
    return b"".join(as_json(line) + b"\n" for line in (value if isinstance(value, list) else [value]))


MODELS: dict[str, Callable[[Path, Fixture], Target]] = {
    "onnx": partial(exported, "onnx"),
    "safetensors-export": partial(exported, "safetensors"),
    **{f"weights-{kind}": partial(weights, kind) for kind in ("safetensors", "pt", "pt-legacy")},
    "run.json": partial(document, "run.json", (0, 1, 2, 3, 4, 6)),
    "manifest": partial(document, "checkpoints/*.json", (0, 1, 3, 4, 6)),
    "metrics.jsonl": partial(document, "metrics.jsonl", (0, 1, 4, 5)),
    "evaluation.json": partial(document, "evaluation.json", (0, 1, 2)),
    "predictions.jsonl": partial(document, "predictions.jsonl", (2,)),
}
