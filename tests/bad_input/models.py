"""Rows 38 to 47: checkpoints, and weights that anyone may have written."""

from __future__ import annotations

import datetime
import io
import json
import os
import pickle
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from bad_input.case import Attempt, Bench, Case
from corpus import tar_member, tar_of

from dlkit import documents
from dlkit.evaluation.model_summary import natural_spec
from dlkit.export.formats import safetensors as exporter
from dlkit.export_metadata import ExportMetadata
from dlkit.runs.run_folder import RunFolder
from dlkit.training.restore import build

OPTIONS = {"hidden": "4"}
NO_FLAG = "there is no --allow-nonfinite: what is not finite is never loaded"
Manifest = dict[str, Any]


def cases() -> Iterator[Case]:
    yield from _checkpoint_cases()
    yield from _weights_cases()


# checkpoints


def _checkpoint_cases() -> Iterator[Case]:
    yield Case(38, "empty", 5, _payload(lambda data, draw: b"", 1))
    yield Case(38, "12 cuts", 5, _payload(lambda data, draw: data[: draw.randrange(len(data))], 12))
    yield Case(38, "300 cuts", 5, _payload(lambda data, draw: data[: draw.randrange(len(data))], 300), slow=True)
    yield Case(39, "8 flipped bits", 5, _payload(_flip, 8), "damaged")
    yield Case(39, "200 flipped bits", 5, _payload(_flip, 200), "damaged", slow=True)
    yield Case(39, "fallback of a resume", 0, _resume_falls_back, "taking the one before")
    for name, change in CLAIMS.items():
        yield Case(40, name, 5, _manifest(change, sealed=False), "damaged")
        if name != "extra keys":
            yield Case(40, f"{name}, with a digest that fits", 5, _manifest(change, sealed=True))
    yield Case(41, "payload without manifest", 0, _payload_alone)
    yield Case(41, "manifest without payload", 5, _manifest_alone, "missing")


CLAIMS: dict[str, Callable[[Manifest], object]] = {
    "another run": lambda manifest: manifest.update(run_id="0" * 32),
    "wrong step": lambda manifest: manifest.update(step=manifest["step"] + 1),
    "size 2^63": lambda manifest: manifest.update(size=2**63),
    "NaN": lambda manifest: manifest["state"].update(epochs_done=float("nan")),
    "extra keys": lambda manifest: manifest.update(more=1),
}


def _only_checkpoint(bench: Bench) -> tuple[RunFolder, Path]:
    """A copy of the run with its newest checkpoint alone, and its manifest."""
    run = bench.copied_run()
    *older, newest = sorted(run.checkpoints.glob("step-*.json"))
    for path in older:
        path.unlink()
        path.with_suffix(".safetensors").unlink()
    return run, newest


def _payload(change: Callable[[bytes, random.Random], bytes], times: int) -> Attempt:
    """The one checkpoint's payload changed, each time in another way."""

    def attempt(bench: Bench) -> int:
        run, manifest = _only_checkpoint(bench)
        path, draw, image = manifest.with_suffix(".safetensors"), random.Random(0), bench.image()
        data, codes = path.read_bytes(), []
        for _ in range(times):
            path.write_bytes(change(data, draw))
            codes.append(bench.run("predict", "--run", run.path, image))
        assert len(set(codes)) == 1, codes
        return codes[0]

    return attempt


def _flip(data: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]


def _resume_falls_back(bench: Bench) -> int:
    run = bench.copied_run()
    small = ["--set", "data.options.train=40", "--set", "data.options.test=8", "--set", "model.options.hidden=4"]
    assert bench.train(*small, "--epochs", "2", "--name", "two", dataset="shapes") == 0
    run = RunFolder(bench.folder / "runs" / "two")
    newest = max(run.checkpoints.glob("*.safetensors"))
    newest.write_bytes(_flip(newest.read_bytes(), random.Random(0)))
    return bench.run("train", "--resume", run.path)


def _manifest(change: Callable[[Manifest], object], *, sealed: bool) -> Attempt:
    def attempt(bench: Bench) -> int:
        run, path = _only_checkpoint(bench)
        manifest = json.loads(path.read_text())
        if sealed:
            manifest.pop("digest")
        change(manifest)
        path.write_text(json.dumps(documents.sealed(manifest) if sealed else manifest))
        return bench.run("predict", "--run", run.path, bench.image())

    return attempt


def _payload_alone(bench: Bench) -> int:
    run, manifest = _only_checkpoint(bench)
    (run.checkpoints / "step-999999999.safetensors").write_bytes(manifest.with_suffix(".safetensors").read_bytes())
    return bench.run("predict", "--run", run.path, bench.image())


def _manifest_alone(bench: Bench) -> int:
    run, manifest = _only_checkpoint(bench)
    manifest.with_suffix(".safetensors").unlink()
    return bench.run("predict", "--run", run.path, bench.image())


# weights


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch evil",)


class Custom:
    pass


def _weights_cases() -> Iterator[Case]:
    yield Case(42, "os.system", 5, _weights(lambda: _saved({"w": Hostile()})), "system, and nothing was executed")
    yield Case(43, "protocol 0", 5, _weights(lambda: pickle.dumps({"w": Hostile()}, protocol=0)))
    yield Case(43, "legacy tar", 5, _weights(lambda: tar_of(tar_member("storages"), tar_member("pickle"))))
    foreign = {"numpy": np.ones(3), "Path": Path("x"), "datetime": datetime.datetime(2026, 1, 1), "custom": Custom()}
    for name, value in foreign.items():
        document = {"w": torch.ones(3), "more": value}
        yield Case(44, name, 5, _weights(lambda document=document: _saved(document)), "asks for")  # type: ignore[misc]
    named = {"os.system": torch.ones(3)}
    hostile = {"_target_": "os.system", "_instantiator_": "builtins.eval", "__class__": "os.system"}
    yield Case(45, "keys", 5, _weights(lambda: safetensors.torch.save(named, hostile), "safetensors"))
    yield Case(45, "an exported model's name", 5, _exported_name)
    for name, data in _headers():
        yield Case(46, name, 5, _weights(lambda data=data: data, "safetensors"), slow=name == "10^6 tensors")  # type: ignore[misc]
    yield Case(47, "wrong shapes", 5, _state(lambda name, tensor: tensor[:-1]), "shape")
    yield Case(47, "NaN", 5, _state(lambda name, tensor: tensor * float("nan")), "finite", decision=NO_FLAG)
    yield Case(47, "other classes", 5, _state(lambda name, tensor: tensor, classes=7), "classes")


def _saved(document: Any) -> bytes:
    file = io.BytesIO()
    torch.save(document, file)
    return file.getvalue()


def _weights(make: Callable[[], bytes], suffix: str = "pt") -> Attempt:
    def attempt(bench: Bench) -> int:
        bench.patch.chdir(bench.folder)
        return bench.weights(bench.write(f"weights.{suffix}", make()))

    return attempt


def _exported_name(bench: Bench) -> int:
    spec = natural_spec(3, 28, 28, 3)
    data = exporter.export(build("mlp", spec, OPTIONS), spec, ExportMetadata("os.system", spec, OPTIONS))
    return bench.run("predict", "--model", bench.write("a.safetensors", data), bench.image())


def _headers() -> Iterator[tuple[str, bytes]]:
    """safetensors files whose header lies."""

    def file(header: Any, body: bytes = bytes(16)) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + body

    def tensor(start: int, end: int, *shape: int) -> dict[str, Any]:
        return {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}

    yield "header of 2^63 bytes", struct.pack("<Q", 2**63) + b"{}"
    yield "overlapping offsets", file({"a": tensor(0, 8, 2), "b": tensor(4, 12, 2)}, bytes(12))
    yield "shape × dtype", file({"a": tensor(0, 16, 100)})
    yield "10^6 tensors", file({str(number): tensor(0, 0, 0) for number in range(10**6)}, b"")
    entry = json.dumps(tensor(0, 16, 4))
    yield "duplicate key", file(f'{{"a": {entry}, "a": {entry}}}'.encode())


def _state(change: Callable[[str, torch.Tensor], torch.Tensor], classes: int = 3) -> Attempt:
    """The weights of the right network, each of them changed."""

    def attempt(bench: Bench) -> int:
        state = build("mlp", natural_spec(1, 28, 28, classes), OPTIONS).state_dict()
        changed = {name: change(name, tensor).contiguous() for name, tensor in state.items()}
        path = bench.write("weights.safetensors", safetensors.torch.save(changed))
        return bench.weights(path, "--option", "hidden=4")

    return attempt
