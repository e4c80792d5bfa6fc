"""Whether an exported file answers as its run does: the same real examples through both, and a bound on the difference.

A file is opened as any stranger's would be, and run in the runtime that it is meant for.
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
from dlkit.export.examples import ENOUGH, Examples, Inputs
from dlkit.export.record import REPORT, Exported, recorded
from dlkit.export_metadata import About
from dlkit.runs import run_folder
from dlkit.runs.run_folder import RunFolder, select_run
from dlkit.specs import ImageSpec

if TYPE_CHECKING:
    from dlkit.inference.classifier import Classifier, LogProbabilities
    from dlkit.training.restore import Restored

BATCH = 64
TOLERANCE = 1e-4  # of a probability
MOST_LOST = 0.05  # of top-1, by int8
AGREEMENT_SLACK = 0.02  # another CPU rounds int8 otherwise

Say = Callable[[str], None]


def verify(
    file: Path | str,
    *,
    run: RunFolder | Path | str | None = None,
    data_dir: Path | str | None = None,
    runs_dir: Path | str = "runs",
    say: Say = lambda text: None,
) -> Exported:
    """Compare an exported file with its export.json, its own seal and its run again; writes nothing.

    Where the run it came from is gone, only the file itself is compared, and a warning says so.

    Raises:
        VerificationError: it is not what was exported, or its answers are not the run's.
        ModelFileError: no such file, or no export.
    """
    path = Path(file)
    before = recorded(path)
    from dlkit.export.formats._onnx_safety import read_file

    data = read_file(path)
    digest = hashlib.sha256(data).hexdigest()
    if digest != before["sha256"]:
        raise VerificationError(
            f"{path} is not what was exported: SHA-256 {digest[:12]}…, {REPORT} says {before['sha256'][:12]}…. "
            "Export it again."
        )
    about = opened(data, path)[0]
    found = _origin(path, before, run, Path(runs_dir))
    if found is None:
        say(f"warning: the run {before['run']['name']} is not here: only the file's bytes were verified.")
        return Exported(path, {**before, "verified": None})

    from dlkit.training.restore import restore

    restored = restore(found, before["run"]["checkpoint"], "cpu", say)
    if about.spec != restored.spec:
        raise VerificationError(f"{path} has other classes or another preprocessing than the run {found.name}.")
    examples = Examples.of(restored, data_dir, say)
    entry = {**before, "verified": measured(data, path, restored, examples)}
    judge(entry, path, found, before)
    say(sentence(entry))
    return Exported(path, entry)


def opened(data: bytes, path: Path) -> tuple[About, Classifier]:
    """What the bytes say of themselves and what computes their answers, checked as any file would be."""
    if path.suffix.lower() == ".pt2":  # no other program's: see exporters/torch_export.py
        exporter = exporter_of(path)
        about = exporter.read_about(data)
        return about, exporter.classifier(data, about, "cpu")
    from dlkit.evaluation.model_file import from_bytes

    file = from_bytes(data, path)
    return file.about, file.load("cpu")


def exporter_of(path: Path) -> ModuleType:
    """The format of a file, by its name's ending."""
    modules = (registry.load("exporters", name) for name in registry.entries("exporters"))
    found = {module.SUFFIX: module for module in modules}
    if path.suffix.lower() not in found:
        raise UsageError(f"{path}: an exported file ends in {', '.join(found)}.")
    return found[path.suffix.lower()]


def measured(data: bytes, path: Path, restored: Restored, examples: Examples) -> dict[str, Any]:
    """How near the file's answers come to the run's, in the file's own runtime."""
    import torch

    from dlkit.inference.torch_classifier import torch_classifier

    about, classify = opened(data, path)
    reference = torch_classifier(restored.model, torch.device("cpu"), restored.spec, restored.link)
    if about.feed == "any_size":
        pairs = [(reference(prepared), classify(original)) for original, prepared in examples.originals(ENOUGH)]
        wanted, found = (np.concatenate(column) for column in zip(*pairs, strict=True))
        _, targets = examples.take(examples.split, ENOUGH)
    else:
        inputs, targets = examples.take(examples.split, ENOUGH)
        wanted, found = answers(reference, inputs), answers(classify, inputs)
    alike = wanted.argmax(axis=1) == found.argmax(axis=1)
    return {
        "at": run_folder.now(),
        "runtime": exporter_of(path).runtime(),
        "dataset": examples.dataset,
        "split": examples.split,
        _counted(examples): len(wanted),
        "max_difference": float(abs(np.exp(wanted) - np.exp(found)).max()),
        "top1_agreement": float(alike.mean()),
        "top1": float((found.argmax(axis=1) == targets).mean()),
        "top1_of_the_run": float((wanted.argmax(axis=1) == targets).mean()),
    }


def answers(classify: Classifier, inputs: Inputs) -> LogProbabilities:
    """(N, K). The first goes alone and the next two together: the number of inputs must not be fixed."""
    ends = [1, 3, *range(3 + BATCH, len(inputs), BATCH), len(inputs)]
    starts = [0, *ends[:-1]]
    return np.concatenate([classify(inputs[a:b]) for a, b in zip(starts, ends, strict=True) if a < len(inputs)])


def judge(entry: dict[str, Any], path: Path, run: RunFolder, before: dict[str, Any]) -> None:
    """Raises: VerificationError where the file's answers are not the run's."""
    found = entry["verified"]
    if entry["precision"] == "int8":
        lost = found["top1_of_the_run"] - found["top1"]
        agreement = (before.get("verified") or {}).get("top1_agreement", 0)
        right = lost <= MOST_LOST and found["top1_agreement"] >= agreement - AGREEMENT_SLACK
        bound = f"at most {100 * MOST_LOST:g} points may be lost"
    else:
        right = found["max_difference"] <= TOLERANCE  # not so for NaN
        bound = f"at most {TOLERANCE:g}"
    if not right:
        raise VerificationError(
            f"{path} does not answer as the run {run.name} does: max |Δp| {found['max_difference']:.2g} ({bound}), "
            f"top-1 alike for {100 * found['top1_agreement']:.2f} % of {_examples(found)}."
        )


def sentence(entry: dict[str, Any]) -> str:
    """What was measured, as it is said."""
    found = entry["verified"]
    text = (
        f"verified on {_examples(found, found['split'])} in {found['runtime']}: "
        f"max |Δp| {found['max_difference']:.1e}, top-1 alike for {100 * found['top1_agreement']:.4g} %"
    )
    if "quantization" in entry:
        before, after = entry["quantization"]["before"], entry["quantization"]["after"]
        text += (
            f"; int8: top-1 {100 * before['top1']:.2f} → {100 * after['top1']:.2f} %, "
            f"{before['bytes'] / after['bytes']:.1f} times smaller, "
            f"{after['images_per_s']['32'] / before['images_per_s']['32']:.2f} times as fast"
        )
    return text


def _counted(examples: Examples) -> str:
    """The key under which a measurement counts its examples."""
    return "images" if isinstance(examples.spec, ImageSpec) else "texts"


def _examples(found: dict[str, Any], split: str = "") -> str:
    key = "images" if "images" in found else "texts"
    return " ".join([str(found[key]), *([split] if split else []), key])


def _origin(path: Path, before: dict[str, Any], run: RunFolder | Path | str | None, runs_dir: Path) -> RunFolder | None:
    """The run that was named, else the one the file came from where it is still there.

    Raises:
        VerificationError: the run that was named is another one.
    """
    said = before["run"]
    if run is not None:
        found = select_run(run, runs_dir, lambda text: None)
        if found.info()["run_id"] != said["id"]:
            raise VerificationError(f"{path} was exported from another run, {said['name']}, not from {found.name}.")
        return found
    for place in (path.parent / said["path"], runs_dir / said["name"]):
        if (place / "run.json").is_file() and RunFolder(place).info()["run_id"] == said["id"]:
            return RunFolder(place)
    return None
