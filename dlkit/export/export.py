"""Export of a trained network as a file for other runtimes, compared with its run on real examples before it is kept.

`export.json` in the same folder holds the file's description, its SHA-256, and how closely its predictions agree in its
own runtime. A file that disagrees is never written under its final name.
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
from dlkit.export.record import REPORT, ExportResult, read_entries, write_export
from dlkit.export_metadata import FEEDS, ExportMetadata
from dlkit.runs.run_folder import CheckpointName, RunFolder, select_run
from dlkit.specs import ImageSpec, TreeSpec
from dlkit.training.weights import portable, trained_on

if TYPE_CHECKING:
    from dlkit.export.examples import Inputs, VerificationExamples
    from dlkit.inference.classifier import Classifier
    from dlkit.training.restore import Restored

CALIBRATION_IMAGES = 256
ACCURACY_IMAGES = 2000  # maximum, for the accuracy before and after quantization
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
) -> ExportResult:
    """Export a run (by default the newest) to `output`, by default in the run's folder.

    Raises:
        UsageError: no such run, format or option; a missing package; a network that the format cannot represent.
        DataError: the run's data set, on which the file is verified, is missing.
        VerificationError: the file's predictions are not the run's; nothing is written.
        StorageError: the file cannot be written; nothing is left behind.
    """
    options = {"raw": raw or None, "resize": resize or None, "opset": opset}
    format_options = {name: value for name, value in options.items() if value is not None}
    exporter = _exporter(to, format_options, quantize)
    folder = select_run(run, Path(runs_dir), say)
    _check_kind(folder, to, resize, quantize)
    path = _output_path(output, folder, exporter, quantize)
    files = read_entries(path.parent)
    _check_output(path, files)

    from dlkit.export.examples import VerificationExamples
    from dlkit.export.verification import check_agreement, measure, summarize
    from dlkit.training.restore import restore

    restored = restore(folder, checkpoint, "cpu", say)
    examples = VerificationExamples.load(restored, data_dir, say)
    say(f"exporting {folder.name} to {to}")
    about = _about(restored, checkpoint)
    data: bytes = exporter.export(restored.model, about.spec, about, **format_options)
    details: dict[str, Any] = {}
    if quantize:
        data, details = _quantize(data, path, examples, say)
    entry = _entry(data, path, folder, measure(data, path, restored, examples)) | details
    check_agreement(entry, path, folder, details)
    write_export(path, data, {**files, path.name: entry})
    say(summarize(entry))
    return ExportResult(path, entry)


def _exporter(to: str, options: dict[str, Any], quantize: str | None) -> ModuleType:
    registry.check_options("exporters", to, options)
    if quantize is not None:
        from dlkit.export.quantization import KINDS

        if quantize not in KINDS:
            raise UsageError(f"--quantize {quantize}: must be {', '.join(KINDS)}.")
        if to != "onnx" or options.get("raw") or options.get("resize"):
            raise UsageError("--quantize is for --to onnx, without --raw and --resize.")
    exporter = registry.load("exporters", to)
    export_metadata.need(exporter.NEEDS, f"export to {to}")
    return exporter


def _check_kind(run: RunFolder, to: str, resize: bool, quantize: str | None) -> None:
    """Raises: UsageError if the format or an option does not support the run's kind of input."""
    spec = run.spec()
    if isinstance(spec, TreeSpec) and TreeSpec.kind not in registry.entry("exporters", to).takes:
        raise UsageError(
            f"run {run.name} cannot be exported to {to}: the computation of trees depends on each batch, level by "
            "level, but a graph has a fixed order of operations. Use --to safetensors."
        )
    if not isinstance(spec, ImageSpec) and not (spec.words and spec.classes):
        raise UsageError(
            f"run {run.name} cannot be exported: it takes sequences of numbers, but exported files classify images, "
            "text or trees."
        )
    if not isinstance(spec, ImageSpec) and (resize or quantize):
        flag = "--resize" if resize else f"--quantize {quantize}"
        raise UsageError(f"{flag} is for models of images; run {run.name} takes {spec.kind}.")


def _output_path(output: Path | str | None, run: RunFolder, exporter: ModuleType, quantize: str | None) -> Path:
    name = f"model{'-' + quantize if quantize else ''}{exporter.SUFFIX}"
    if output is None:
        return run.path / name
    path = Path(output)
    if path.is_dir():
        return path / name
    if path.suffix.lower() != exporter.SUFFIX:
        raise UsageError(f"-o {path}: files of this format end in {exporter.SUFFIX}.")
    return path


def _check_output(path: Path, files: dict[str, Any]) -> None:
    """Raises: StorageError or UsageError if the file cannot be written; checked before any work."""
    parent = path.parent
    if not parent.is_dir():
        raise StorageError(f"cannot write {path}: folder {parent} does not exist. Create it, or use another -o.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write {path}: no permission to write to {parent}. Use another -o.")
    if os.path.lexists(path) and path.name not in files:
        raise UsageError(f"{path} exists, but {REPORT} has no entry for it. Remove it, or use another -o.")


def _about(restored: Restored, checkpoint: str) -> ExportMetadata:
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
    about = ExportMetadata(recipe.model.name, spec, options, training, reading, FEEDS[spec.kind][0], link=restored.link)
    calibration = restored.calibration
    return about if calibration is None else about.with_(scale=calibration.scale, bias=calibration.bias)


def _quantize(data: bytes, path: Path, examples: VerificationExamples, say: Say) -> tuple[bytes, dict[str, Any]]:
    """The file in int8, with its accuracy, size and speed before and after."""
    from dlkit.export.quantization import quantize as quantize_file
    from dlkit.export.verification import classify_batches, open_export

    calibration, _ = examples.take("train", CALIBRATION_IMAGES)
    assert not isinstance(calibration, list), "only models of images are quantized"
    say(f"calibrating int8 on {len(calibration)} training images")
    about, before = open_export(data, path)
    with atomic_io.storage_errors(path):
        smaller = quantize_file(data, about, calibration, path.parent)
    _, after = open_export(smaller, path)
    pixels, targets = examples.take(examples.split, ACCURACY_IMAGES)
    measurements = {
        name: {
            "top1": float((classify_batches(classify, pixels).argmax(axis=1) == targets).mean()),
            "bytes": size,
            "images_per_s": {str(batch): _throughput(classify, pixels[:batch]) for batch in (1, 32)},
        }
        for name, classify, size in (("before", before, len(data)), ("after", after, len(smaller)))
    }
    details = {"kind": "int8", "calibration_images": len(calibration), "images": len(pixels), **measurements}
    return smaller, {"quantization": details}


def _throughput(classify: Classifier, pixels: Inputs) -> float:
    """Images per second."""
    classify(pixels)
    rounds, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < TIMED_S:
        classify(pixels)
        rounds += 1
    return round(rounds * len(pixels) / elapsed, 1)


def _entry(data: bytes, path: Path, run: RunFolder, verified: dict[str, Any]) -> dict[str, Any]:
    from dlkit.export.verification import exporter_for, open_export

    about = open_export(data, path)[0]
    return {
        "format": exporter_for(path).__name__.rpartition(".")[2],
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
