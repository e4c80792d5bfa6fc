"""A trained network as a file that others can run, compared with its run on real examples before it gets its name.

`export.json` beside the file says what it is, its SHA-256, and how near its answers came in the runtime that it is
meant for. A file that disagrees never stands under its final name.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dlkit import atomic_io, export_metadata, registry
from dlkit.errors import StorageError, UsageError
from dlkit.export.record import REPORT, Exported, report, write
from dlkit.export_metadata import FEEDS, About
from dlkit.runs.run_folder import CheckpointName, RunFolder, select_run
from dlkit.specs import ImageSpec, TreeSpec
from dlkit.training.weights import portable, trained_on

if TYPE_CHECKING:
    from dlkit.export.examples import Examples, Inputs
    from dlkit.inference.classifier import Classifier
    from dlkit.training.restore import Restored

CALIBRATION_IMAGES = 256
ACCURACY_IMAGES = 2000  # of the validation split, at most, for the accuracy before and after quantization
TIMED_S = 0.5

Say = Callable[[str], None]


def export(
    run: RunFolder | Path | str | None = None,
    *,
    to: str = "onnx",
    output: Path | str | None = None,
    raw: bool = False,
    resize: bool = False,
    opset: int | None = None,
    quantize: str | None = None,
    checkpoint: CheckpointName = "best",
    data_dir: Path | str | None = None,
    runs_dir: Path | str = "runs",
    say: Say = lambda text: None,
) -> Exported:
    """Export a run (the newest, where none is named) to `output`, by default into the run's folder.

    Raises:
        UsageError: no such run, format or option; a missing package; a network that the format cannot hold.
        DataError: the run's data set, on whose examples the file is verified, is not there.
        VerificationError: the file's answers are not the run's; nothing is written.
        StorageError: the file cannot be written; nothing is left.
    """
    options = {"raw": raw or None, "resize": resize or None, "opset": opset}
    given = {name: value for name, value in options.items() if value is not None}
    exporter = _exporter(to, given, quantize)
    found = select_run(run, Path(runs_dir), say)
    _check_kind(found, to, resize, quantize)
    path = _output(output, found, exporter, quantize)
    files = report(path.parent)
    _check_output(path, files)

    from dlkit.export.examples import Examples
    from dlkit.export.verification import judge, measured, sentence
    from dlkit.training.restore import restore

    restored = restore(found, checkpoint, "cpu", say)
    examples = Examples.of(restored, data_dir, say)
    say(f"exporting {found.name} to {to}")
    about = _about(restored, checkpoint)
    data: bytes = exporter.export(restored.model, about.spec, about, **given)
    details: dict[str, Any] = {}
    if quantize:
        data, details = _quantized(data, path, examples, say)
    entry = _entry(data, path, found, measured(data, path, restored, examples)) | details
    judge(entry, path, found, details)
    write(path, data, {**files, path.name: entry})
    say(sentence(entry))
    return Exported(path, entry)


def _exporter(to: str, options: dict[str, Any], quantize: str | None) -> ModuleType:
    registry.check_options("exporters", to, options)
    if quantize is not None:
        from dlkit.export.quantization import KINDS

        if quantize not in KINDS:
            raise UsageError(f"--quantize {quantize}: there is {', '.join(KINDS)}.")
        if to != "onnx" or options.get("raw") or options.get("resize"):
            raise UsageError("--quantize is for --to onnx, without --raw and --resize.")
    exporter = registry.load("exporters", to)
    export_metadata.need(exporter.NEEDS, f"export to {to}")
    return exporter


def _check_kind(run: RunFolder, to: str, resize: bool, quantize: str | None) -> None:
    """Raises: UsageError where the format cannot hold what the run reads, or an option is not for it."""
    spec = run.spec()
    if isinstance(spec, TreeSpec) and TreeSpec.kind not in registry.entry("exporters", to).takes:
        raise UsageError(
            f"export of run {run.name} to {to} is not possible, because each batch of trees is computed in steps of "
            "its own, level by level, and a graph holds one fixed order of steps. --to safetensors is."
        )
    if not isinstance(spec, ImageSpec) and not (spec.words and spec.classes):
        raise UsageError(
            f"export of run {run.name} is not possible, because it reads sequences of numbers; an exported file "
            "answers images, text or trees with classes."
        )
    if not isinstance(spec, ImageSpec) and (resize or quantize):
        given = "--resize" if resize else f"--quantize {quantize}"
        raise UsageError(f"{given} is for models of images; run {run.name} reads {spec.kind}.")


def _output(output: Path | str | None, run: RunFolder, exporter: ModuleType, quantize: str | None) -> Path:
    name = f"model{'-' + quantize if quantize else ''}{exporter.SUFFIX}"
    if output is None:
        return run.path / name
    path = Path(output)
    if path.is_dir():
        return path / name
    if path.suffix.lower() != exporter.SUFFIX:
        raise UsageError(f"-o {path}: the name of this format's files ends in {exporter.SUFFIX}.")
    return path


def _check_output(path: Path, files: dict[str, Any]) -> None:
    """Raises: StorageError or UsageError where the file could not be written, before any work."""
    parent = path.parent
    if not parent.is_dir():
        raise StorageError(f"cannot write {path}: there is no folder {parent}. Make it, or give another -o.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write {path}: no permission in {parent}. Give another -o.")
    if os.path.lexists(path) and path.name not in files:
        raise UsageError(f"{path} exists, and {REPORT} beside it knows nothing of it. Remove it, or give another -o.")


def _about(restored: Restored, checkpoint: str) -> About:
    from dlkit.data.text.tokenization import describe_rules

    run, recipe, spec = restored.run, restored.recipe, restored.spec
    lines = [
        line for line in run.metrics(lambda text: None) if line.get("step") == restored.step and "val/top1" in line
    ]
    training = {
        "run": run.name,
        "run_id": run.info()["run_id"],
        "dataset": recipe.data.name,
        "data_options": dict(recipe.data.options),
        "checkpoint": checkpoint,
        "step": restored.step,
        "seed": recipe.train.seed,
        "held_out": recipe.data.validation,
        "trained_on": portable(trained_on(run)),
        "validation": {key.removeprefix("val/"): value for key, value in lines[-1].items() if key.startswith("val/")}
        if lines
        else {},
    }
    settable = registry.entry("models", recipe.model.name).options
    resolved = registry.resolved_options("models", recipe.model.name, dict(recipe.model.options))
    options = {key: value for key, value in resolved.items() if key in settable}
    reading = {} if isinstance(spec, ImageSpec) else describe_rules(spec.tokens)
    about = About(recipe.model.name, spec, options, training, reading, FEEDS[spec.kind][0], link=restored.link)
    calibration = restored.calibration
    return about if calibration is None else about.with_(scale=calibration.scale, bias=calibration.bias)


def _quantized(data: bytes, path: Path, examples: Examples, say: Say) -> tuple[bytes, dict[str, Any]]:
    """The file in int8, and what that cost and gained."""
    from dlkit.export.quantization import quantized
    from dlkit.export.verification import answers, opened

    calibration, _ = examples.take("train", CALIBRATION_IMAGES)
    assert not isinstance(calibration, list), "only images are quantized"
    say(f"calibrating int8 on {len(calibration)} training images")
    about, before = opened(data, path)
    with atomic_io.storage_errors(path):
        smaller = quantized(data, about, calibration, path.parent)
    _, after = opened(smaller, path)
    pixels, targets = examples.take(examples.split, ACCURACY_IMAGES)
    figures = {
        name: {
            "top1": float((answers(classify, pixels).argmax(axis=1) == targets).mean()),
            "bytes": size,
            "images_per_s": {str(batch): _speed(classify, pixels[:batch]) for batch in (1, 32)},
        }
        for name, classify, size in (("before", before, len(data)), ("after", after, len(smaller)))
    }
    details = {"kind": "int8", "calibration_images": len(calibration), "images": len(pixels), **figures}
    return smaller, {"quantization": details}


def _speed(classify: Classifier, pixels: Inputs) -> float:
    """Images a second."""
    classify(pixels)
    rounds, begun = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begun) < TIMED_S:
        classify(pixels)
        rounds += 1
    return round(rounds * len(pixels) / elapsed, 1)


def _entry(data: bytes, path: Path, run: RunFolder, verified: dict[str, Any]) -> dict[str, Any]:
    from dlkit.export.verification import exporter_of, opened

    about = opened(data, path)[0]
    return {
        "format": exporter_of(path).__name__.rpartition(".")[2],
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "dlkit": about.version,
        "model": about.model,
        "feed": about.feed,
        "opset": about.opset,
        "precision": about.precision,
        "classes": len(about.spec.classes),
        "run": {
            "name": run.name,
            "id": about.training["run_id"],
            "path": os.path.relpath(run.path.resolve(), path.parent.resolve()),
            "checkpoint": about.training["checkpoint"],
            "step": about.training["step"],
        },
        "verified": verified,
    }
