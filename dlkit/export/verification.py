"""Verification of an exported file: the same examples through the file and its run, and a bound on the difference.

A file is opened with the checks for files of unknown origin, and executed in its own runtime.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from dlkit import registry
from dlkit.errors import UsageError, VerificationError
from dlkit.export.examples import MIN_EXAMPLES, Inputs, VerificationExamples
from dlkit.export.record import REPORT, ExportResult, read_entry
from dlkit.export_metadata import ExportMetadata
from dlkit.runs import run_folder
from dlkit.runs.run_folder import RunFolder, select_run
from dlkit.specs import ImageSpec

if TYPE_CHECKING:
    from dlkit.inference.classifier import Classifier, LogProbabilities
    from dlkit.training.restore import Restored

BATCH = 64
TOLERANCE = 1e-4  # of a probability
MAX_LOSS = 0.05  # of top-1, for int8
AGREEMENT_SLACK = 0.02  # other CPUs round int8 differently

Say = Callable[[str], None]


def verify(
    file: Path | str,
    *,
    run: RunFolder | Path | str | None = None,
    data_dir: Path | str | None = None,
    runs_dir: Path | str = "runs",
    say: Say = lambda text: None,
) -> ExportResult:
    """Compare an exported file again with its export.json, its own seal and its run; writes nothing.

    If the run is missing, only the file itself is checked, with a warning.

    Raises:
        VerificationError: the file was changed, or its predictions are not the run's.
        ModelFileError: no such file, or not an exported one.
    """
    path = Path(file)
    before = read_entry(path)
    from dlkit.export.formats._onnx_safety import read_file

    data = read_file(path)
    digest = hashlib.sha256(data).hexdigest()
    if digest != before["sha256"]:
        raise VerificationError(
            f"{path} has changed since its export: its SHA-256 is {digest[:12]}…, but {before['sha256'][:12]}… in "
            f"{REPORT}. Export it again."
        )
    about = open_export(data, path)[0]
    folder = _source_run(path, before, run, Path(runs_dir))
    if folder is None:
        say(f"warning: run {before['run']['name']} not found: only the file's bytes were verified.")
        return ExportResult(path, {**before, "verified": None})

    from dlkit.training.restore import restore

    restored = restore(folder, before["run"]["checkpoint"], "cpu", say)
    if about.spec != restored.spec:
        raise VerificationError(f"{path} has other classes or another preprocessing than run {folder.name}.")
    examples = VerificationExamples.load(restored, data_dir, say)
    entry = {**before, "verified": measure(data, path, restored, examples)}
    check_agreement(entry, path, folder, before)
    say(summarize(entry))
    return ExportResult(path, entry)


def open_export(data: bytes, path: Path) -> tuple[ExportMetadata, Classifier]:
    """The description in the file and its classifier, with the checks for files of unknown origin."""
    if path.suffix.lower() == ".pt2":  # only files that dlkit wrote: see formats/torch_export.py
        exporter = exporter_for(path)
        about = exporter.read_about(data)
        return about, exporter.classifier(data, about, "cpu")
    from dlkit.evaluation.model_file import from_bytes

    file = from_bytes(data, path)
    return file.about, file.load("cpu")


def exporter_for(path: Path) -> ModuleType:
    """The format of a file, by the suffix of its name."""
    modules = (registry.load("exporters", name) for name in registry.entries("exporters"))
    by_suffix = {module.SUFFIX: module for module in modules}
    if path.suffix.lower() not in by_suffix:
        raise UsageError(f"{path} is not an exported file: its suffix must be one of {', '.join(by_suffix)}.")
    return by_suffix[path.suffix.lower()]


def measure(data: bytes, path: Path, restored: Restored, examples: VerificationExamples) -> dict[str, Any]:
    """How closely the file's predictions, in its own runtime, agree with the run's."""
    import torch

    from dlkit.inference.torch_classifier import torch_classifier

    about, classify = open_export(data, path)
    reference = torch_classifier(restored.model, torch.device("cpu"), restored.spec, restored.link)
    if about.feed == "any_size":
        pairs = [(reference(prepared), classify(original)) for original, prepared in examples.originals(MIN_EXAMPLES)]
        expected, actual = (np.concatenate(column) for column in zip(*pairs, strict=True))
        _, targets = examples.take(examples.split, MIN_EXAMPLES)
    else:
        inputs, targets = examples.take(examples.split, MIN_EXAMPLES)
        expected, actual = classify_batches(reference, inputs), classify_batches(classify, inputs)
    agrees = expected.argmax(axis=1) == actual.argmax(axis=1)
    return {
        "at": run_folder.now(),
        "runtime": exporter_for(path).runtime(),
        "dataset": examples.dataset,
        "split": examples.split,
        _count_key(examples): len(expected),
        "max_difference": float(abs(np.exp(expected) - np.exp(actual)).max()),
        "top1_agreement": float(agrees.mean()),
        "top1": float((actual.argmax(axis=1) == targets).mean()),
        "top1_of_the_run": float((expected.argmax(axis=1) == targets).mean()),
    }


def classify_batches(classify: Classifier, inputs: Inputs) -> LogProbabilities:
    """(N, K). The first batches are of 1 and 2 inputs, to test that the batch size is not fixed."""
    ends = [1, 3, *range(3 + BATCH, len(inputs), BATCH), len(inputs)]
    starts = [0, *ends[:-1]]
    return np.concatenate([classify(inputs[a:b]) for a, b in zip(starts, ends, strict=True) if a < len(inputs)])


def check_agreement(entry: dict[str, Any], path: Path, run: RunFolder, before: dict[str, Any]) -> None:
    """Raises: VerificationError if the file's predictions are not the run's."""
    result = entry["verified"]
    if entry["precision"] == "int8":
        loss = result["top1_of_the_run"] - result["top1"]
        agreement = (before.get("verified") or {}).get("top1_agreement", 0)
        is_close = loss <= MAX_LOSS and result["top1_agreement"] >= agreement - AGREEMENT_SLACK
        bound = f"at most {100 * MAX_LOSS:g} points of top-1 may be lost"
    else:
        is_close = result["max_difference"] <= TOLERANCE  # False for NaN
        bound = f"at most {TOLERANCE:g}"
    if not is_close:
        raise VerificationError(
            f"the predictions of {path} differ from those of run {run.name}: max |Δp| {result['max_difference']:.2g} "
            f"({bound}), the same top-1 for {100 * result['top1_agreement']:.2f} % of {_describe_examples(result)}."
        )


def summarize(entry: dict[str, Any]) -> str:
    """The measurements in a sentence."""
    result = entry["verified"]
    text = (
        f"verified on {_describe_examples(result, result['split'])} in {result['runtime']}: "
        f"max |Δp| {result['max_difference']:.1e}, the same top-1 for {100 * result['top1_agreement']:.4g} %"
    )
    if "quantization" in entry:
        before, after = entry["quantization"]["before"], entry["quantization"]["after"]
        text += (
            f"; int8: top-1 {100 * before['top1']:.2f} → {100 * after['top1']:.2f} %, "
            f"{before['bytes'] / after['bytes']:.1f} times smaller, "
            f"{after['images_per_s']['32'] / before['images_per_s']['32']:.2f} times as fast"
        )
    return text


def _count_key(examples: VerificationExamples) -> str:
    """The key of the number of examples in a measurement."""
    return "images" if isinstance(examples.spec, ImageSpec) else "texts"


def _describe_examples(result: dict[str, Any], split: str = "") -> str:
    key = "images" if "images" in result else "texts"
    return " ".join([str(result[key]), *([split] if split else []), key])


def _source_run(
    path: Path, before: dict[str, Any], run: RunFolder | Path | str | None, runs_dir: Path
) -> RunFolder | None:
    """The given run, or the one that the file was exported from, if it still exists.

    Raises:
        VerificationError: the file was exported from another run.
    """
    origin = before["run"]
    if run is not None:
        selected = select_run(run, runs_dir, lambda text: None)
        if selected.info()["run_id"] != origin["id"]:
            raise VerificationError(
                f"{path} was exported from another run, {origin['name']}, not from {selected.name}."
            )
        return selected
    for folder in (path.parent / origin["path"], runs_dir / origin["name"]):
        if (folder / "run.json").is_file() and RunFolder(folder).info()["run_id"] == origin["id"]:
            return RunFolder(folder)
    return None
