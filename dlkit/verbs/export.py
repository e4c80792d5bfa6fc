"""A trained network as a file that others can run, compared with its run on real images before it gets its name.

`export.json` beside the file says what it is, its SHA-256, and how near its answers came in the runtime that it is
meant for; `verify` measures that again. A file that disagrees never stands under its final name.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dlkit import catalog, durable, exported
from dlkit.engine import run_folder
from dlkit.engine.run_folder import RunFolder
from dlkit.errors import DataError, ModelFileError, StorageError, UsageError, VerificationError
from dlkit.exported import About
from dlkit.specs import ImageSpec
from dlkit.verbs.evaluate import Checkpoint, chosen_run

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image

    from dlkit.data.classifier import Classifier, LogProbabilities, Pixels
    from dlkit.data.samples import ImageFiles, MemoryImages, Samples
    from dlkit.engine.restore import Restored

SCHEMA = "dlkit.export/1"
REPORT = "export.json"
IMAGES = 256  # at least so many are compared, where the split has them
CALIBRATION_IMAGES = 256
ACCURACY_IMAGES = 2000  # of the validation split, at most, for the accuracy before and after quantization
BATCH = 64
TOLERANCES = {"prepared": 1e-4, "normalised": 1e-4, "any_size": 1e-2}  # of a probability
MOST_LOST = 0.05  # of top-1, by int8
AGREEMENT_SLACK = 0.02  # another CPU rounds int8 otherwise
TIMED_S = 0.5

Say = Callable[[str], None]


@dataclass(frozen=True)
class Exported:
    """A file, and what is known of it: its entry in export.json, with what was measured just now."""

    path: Path
    entry: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.export/1`, of this one file."""
        return {"schema": SCHEMA, "path": str(self.path), **self.entry}


def export(
    run: RunFolder | Path | str | None = None,
    *,
    to: str = "onnx",
    output: Path | str | None = None,
    raw: bool = False,
    resize: bool = False,
    opset: int | None = None,
    quantize: str | None = None,
    checkpoint: Checkpoint = "best",
    data_dir: Path | str | None = None,
    runs_dir: Path | str = "runs",
    say: Say = lambda text: None,
) -> Exported:
    """Export a run (the newest, where none is named) to `output`, by default into the run's folder.

    Raises:
        UsageError: no such run, format or option; a missing package; a network that the format cannot hold.
        DataError: the run's data set, on whose images the file is verified, is not there.
        VerificationError: the file's answers are not the run's; nothing is written.
        StorageError: the file cannot be written; nothing is left.
    """
    options = {"raw": raw or None, "resize": resize or None, "opset": opset}
    given = {name: value for name, value in options.items() if value is not None}
    exporter = _exporter(to, given, quantize)
    found = chosen_run(run, Path(runs_dir), say)
    if found.spec().kind != ImageSpec.kind:
        raise UsageError(f"export of run {found.name} is not possible, because its input is {found.spec().kind}.")
    path = _output(output, found, exporter, quantize)
    report = _report(path.parent)
    _check_output(path, report)

    from dlkit.engine.restore import restore

    restored = restore(found, checkpoint, "cpu", say)
    images = Images.of(restored, data_dir, say)
    say(f"exporting {found.name} to {to}")
    about = _about(restored, checkpoint)
    data: bytes = exporter.export(restored.model, about.spec, about, **given)
    details: dict[str, Any] = {}
    if quantize:
        data, details = _quantized(data, path, restored, images, say)
    entry = _entry(data, path, found, _measured(data, path, restored, images)) | details
    _judge(entry, path, found, details)
    _write(path, data, {**report, path.name: entry})
    say(_sentence(entry))
    return Exported(path, entry)


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
    recorded = _recorded(path)
    from dlkit.engine.onnx_file import read_file

    data = read_file(path)
    digest = hashlib.sha256(data).hexdigest()
    if digest != recorded["sha256"]:
        raise VerificationError(
            f"{path} is not what was exported: SHA-256 {digest[:12]}…, {REPORT} says {recorded['sha256'][:12]}…. "
            "Export it again."
        )
    about = _opened(data, path)[0]
    found = _origin(path, recorded, run, Path(runs_dir))
    if found is None:
        say(f"warning: the run {recorded['run']['name']} is not here: only the file's bytes were verified.")
        return Exported(path, {**recorded, "verified": None})

    from dlkit.engine.restore import restore

    restored = restore(found, recorded["run"]["checkpoint"], "cpu", say)
    if about.spec != restored.spec:
        raise VerificationError(f"{path} has other classes or another preprocessing than the run {found.name}.")
    images = Images.of(restored, data_dir, say)
    entry = {**recorded, "verified": _measured(data, path, restored, images)}
    _judge(entry, path, found, recorded)
    say(_sentence(entry))
    return Exported(path, entry)


@dataclass(frozen=True, eq=False)
class Images:
    """Where the images come from that a file is compared on: a split of the run's own data set."""

    spec: ImageSpec
    dataset: str
    split: str
    parts: Mapping[str, Samples]  # by split

    @classmethod
    def of(cls, restored: Restored, data_dir: Path | str | None, say: Say) -> Images:
        """The validation split, else test, else train; fewer than 256 images are said."""
        from dlkit.data import loader
        from dlkit.verbs.dataset import splits

        recipe = restored.recipe
        place = {} if data_dir is None else {"dir": os.fspath(data_dir)}
        found = splits(recipe.data.model_copy(update=place), say=say)
        if found.spec.classes != restored.spec.classes:
            raise DataError(f"data set {recipe.data.name!r} no longer has the classes of the run {restored.run.name}.")
        parts = loader.split(found, recipe.data.validation, recipe.train.seed)
        split = next(name for name in ("validation", "test", "train") if name in parts)
        if len(parts[split]) < IMAGES:
            say(f"the {split} split has {len(parts[split])} images: fewer than {IMAGES} are compared")
        return cls(restored.image_spec, recipe.data.name, split, parts)

    def take(self, split: str, most: int) -> tuple[Pixels, npt.NDArray[np.int64]]:
        """Up to `most` prepared images (N, C, H, W), spread evenly over the split, and their classes."""
        import numpy as np

        from dlkit.data import images
        from dlkit.data.samples import ImageFiles, MemoryImages
        from dlkit.verbs.matched import fitted

        samples = fitted(self._samples(split, most), self.spec)
        if isinstance(samples, MemoryImages):
            return samples.images, samples.targets
        assert isinstance(samples, ImageFiles)
        return np.stack([images.load(path, self.spec) for path in samples.paths]), samples.targets

    def originals(self, most: int) -> Iterator[tuple[Pixels, Pixels]]:
        """The same images as they are, (1, C, H, W) of any size, each with what is prepared of it.

        Those that have the network's size already are enlarged first: nothing of them would be resized.
        """
        import numpy as np
        from PIL import Image

        from dlkit.data import images

        for number, picture in enumerate(_pictures(self._samples(self.split, most), self.spec)):
            if picture.size == (self.spec.width, self.spec.height):
                larger = (self.spec.width + number % 37, self.spec.height + number % 23)
                picture = picture.resize(larger, Image.Resampling.BICUBIC)
            pixels = np.asarray(picture).reshape(picture.height, picture.width, self.spec.channels)
            yield pixels.transpose(2, 0, 1)[None], images.prepare(picture, self.spec)[None]

    def _samples(self, split: str, most: int) -> MemoryImages | ImageFiles:
        import numpy as np

        from dlkit.data import loader
        from dlkit.data.samples import ImageFiles, MemoryImages

        count = len(self.parts[split])
        places = np.linspace(0, count - 1, min(most, count)).round().astype(np.int64)
        samples = loader.take(self.parts[split], places)
        assert isinstance(samples, MemoryImages | ImageFiles), "the run's spec is of images"
        return samples


def _pictures(samples: MemoryImages | ImageFiles, spec: ImageSpec) -> Iterator[Image]:
    import numpy as np
    from PIL import Image

    from dlkit.data import images
    from dlkit.data.samples import ImageFiles

    if isinstance(samples, ImageFiles):
        yield from (images.decode(path, spec.channels) for path in samples.paths)
        return
    for values in samples.images:  # (C, H, W)
        yield Image.fromarray(values[0] if len(values) == 1 else np.ascontiguousarray(values.transpose(1, 2, 0)))


def _exporter(to: str, options: dict[str, Any], quantize: str | None) -> ModuleType:
    catalog.check_options("exporters", to, options)
    if quantize is not None:
        from dlkit.engine.quantize import KINDS

        if quantize not in KINDS:
            raise UsageError(f"--quantize {quantize}: there is {', '.join(KINDS)}.")
        if to != "onnx" or options.get("raw") or options.get("resize"):
            raise UsageError("--quantize is for --to onnx, without --raw and --resize.")
    exporter = catalog.load("exporters", to)
    exported.need(exporter.NEEDS, f"export to {to}")
    return exporter


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


def _check_output(path: Path, report: dict[str, Any]) -> None:
    """Raises: StorageError or UsageError where the file could not be written, before any work."""
    parent = path.parent
    if not parent.is_dir():
        raise StorageError(f"cannot write {path}: there is no folder {parent}. Make it, or give another -o.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write {path}: no permission in {parent}. Give another -o.")
    if os.path.lexists(path) and path.name not in report:
        raise UsageError(f"{path} exists, and {REPORT} beside it knows nothing of it. Remove it, or give another -o.")


def _report(folder: Path) -> dict[str, Any]:
    """The entries of export.json by file name; none where there is no such file.

    Raises:
        UsageError: there is one that dlkit did not write.
    """
    path = folder / REPORT
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}. Remove it, or export into another folder.") from error
    files = document.get("files") if isinstance(document, dict) and document.get("schema") == SCHEMA else None
    if not isinstance(files, dict):
        raise UsageError(f"{path} is not of this dlkit's exports ({SCHEMA}). Export into another folder.")
    return files


def _recorded(path: Path) -> dict[str, Any]:
    """The file's entry in export.json."""
    entry = _report(path.parent).get(path.name)
    if not path.exists():
        raise ModelFileError(f"model file {path}: no such file.")
    try:
        assert entry is not None and isinstance(entry["sha256"], str)
        assert {"name", "id", "path", "checkpoint"} <= entry["run"].keys() and "feed" in entry
        assert entry["run"]["checkpoint"] in ("best", "last")
    except (AssertionError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(
            f"{path}: {REPORT} beside it knows nothing of it, so there is nothing to verify it by. Export it again."
        ) from error
    return dict(entry)


def _about(restored: Restored, checkpoint: str) -> About:
    run, recipe = restored.run, restored.recipe
    lines = [line for line in run.metrics() if line.get("step") == restored.step and "val/top1" in line]
    training = {
        "run": run.name,
        "run_id": run.info()["run_id"],
        "dataset": recipe.data.name,
        "checkpoint": checkpoint,
        "step": restored.step,
        "seed": recipe.train.seed,
        "held_out": recipe.data.validation,
        "validation": {key.removeprefix("val/"): value for key, value in lines[-1].items() if key.startswith("val/")}
        if lines
        else {},
    }
    options = catalog.resolved_options("models", recipe.model.name, dict(recipe.model.options))
    return About(recipe.model.name, restored.image_spec, options, training)


def _quantized(data: bytes, path: Path, restored: Restored, images: Images, say: Say) -> tuple[bytes, dict[str, Any]]:
    """The file in int8, and what that cost and gained."""
    from dlkit.engine.quantize import quantized

    calibration, _ = images.take("train", CALIBRATION_IMAGES)
    say(f"calibrating int8 on {len(calibration)} training images")
    about, before = _opened(data, path)
    with durable.storage_errors(path):
        smaller = quantized(data, about, calibration, path.parent)
    _, after = _opened(smaller, path)
    pixels, targets = images.take(images.split, ACCURACY_IMAGES)
    figures = {
        name: {
            "top1": float((_answers(classify, pixels).argmax(axis=1) == targets).mean()),
            "bytes": size,
            "images_per_s": {str(batch): _speed(classify, pixels[:batch]) for batch in (1, 32)},
        }
        for name, classify, size in (("before", before, len(data)), ("after", after, len(smaller)))
    }
    details = {"kind": "int8", "calibration_images": len(calibration), "images": len(pixels), **figures}
    return smaller, {"quantization": details}


def _measured(data: bytes, path: Path, restored: Restored, images: Images) -> dict[str, Any]:
    """How near the file's answers come to the run's, in the file's own runtime."""
    import numpy as np
    import torch

    from dlkit.data.classifier import torch_classifier

    about, classify = _opened(data, path)
    reference = torch_classifier(restored.model, torch.device("cpu"), restored.image_spec)
    if about.feed == "any_size":
        pairs = [(reference(prepared), classify(original)) for original, prepared in images.originals(IMAGES)]
        wanted, found = (np.concatenate(column) for column in zip(*pairs, strict=True))
        _, targets = images.take(images.split, IMAGES)
    else:
        pixels, targets = images.take(images.split, IMAGES)
        wanted, found = _answers(reference, pixels), _answers(classify, pixels)
    alike = wanted.argmax(axis=1) == found.argmax(axis=1)
    return {
        "at": run_folder.now(),
        "runtime": _exporter_of(path).runtime(),
        "dataset": images.dataset,
        "split": images.split,
        "images": len(wanted),
        "max_difference": float(abs(np.exp(wanted) - np.exp(found)).max()),
        "top1_agreement": float(alike.mean()),
        "top1": float((found.argmax(axis=1) == targets).mean()),
        "top1_of_the_run": float((wanted.argmax(axis=1) == targets).mean()),
    }


def _answers(classify: Classifier, pixels: Pixels) -> LogProbabilities:
    """(N, K). The first image goes alone and the next two together: the number of images must not be fixed."""
    import numpy as np

    cuts = [0, 1, 3, *range(3 + BATCH, len(pixels), BATCH)]
    return np.concatenate([classify(part) for part in np.split(pixels, [cut for cut in cuts[1:] if cut < len(pixels)])])


def _speed(classify: Classifier, pixels: Pixels) -> float:
    """Images a second."""
    classify(pixels)
    rounds, begun = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begun) < TIMED_S:
        classify(pixels)
        rounds += 1
    return round(rounds * len(pixels) / elapsed, 1)


def _opened(data: bytes, path: Path) -> tuple[About, Classifier]:
    """What the bytes say of themselves and what computes their answers, checked as any file would be."""
    if path.suffix.lower() == ".pt2":  # no other program's: see exporters/torch_export.py
        exporter = _exporter_of(path)
        about = exporter.read_about(data)
        return about, exporter.classifier(data, about, "cpu")
    from dlkit.engine.model_file import from_bytes

    file = from_bytes(data, path)
    return file.about, file.load("cpu")


def _exporter_of(path: Path) -> ModuleType:
    modules = (catalog.load("exporters", name) for name in catalog.entries("exporters"))
    found = {module.SUFFIX: module for module in modules}
    if path.suffix.lower() not in found:
        raise UsageError(f"{path}: an exported file ends in {', '.join(found)}.")
    return found[path.suffix.lower()]


def _entry(data: bytes, path: Path, run: RunFolder, verified: dict[str, Any]) -> dict[str, Any]:
    about = _opened(data, path)[0]
    said = about.document()
    return {
        "format": _exporter_of(path).__name__.rpartition(".")[2],
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
            "id": said["training"]["run_id"],
            "path": os.path.relpath(run.path.resolve(), path.parent.resolve()),
            "checkpoint": said["training"]["checkpoint"],
            "step": said["training"]["step"],
        },
        "verified": verified,
    }


def _judge(entry: dict[str, Any], path: Path, run: RunFolder, recorded: dict[str, Any]) -> None:
    """Raises: VerificationError where the file's answers are not the run's."""
    found = entry["verified"]
    if entry["precision"] == "int8":
        lost = found["top1_of_the_run"] - found["top1"]
        before = (recorded.get("verified") or {}).get("top1_agreement", 0)
        right = lost <= MOST_LOST and found["top1_agreement"] >= before - AGREEMENT_SLACK
        bound = f"at most {100 * MOST_LOST:g} points may be lost"
    else:
        tolerance = TOLERANCES[entry["feed"]]
        right = found["max_difference"] <= tolerance  # not so for NaN
        bound = f"at most {tolerance:g}"
    if not right:
        raise VerificationError(
            f"{path} does not answer as the run {run.name} does: max |Δp| {found['max_difference']:.2g} ({bound}), "
            f"top-1 alike for {100 * found['top1_agreement']:.2f} % of {found['images']} images."
        )


def _write(path: Path, data: bytes, files: dict[str, Any]) -> None:
    """The file, then export.json; where that fails, neither."""
    durable.point("export")
    durable.write_bytes(path, data)
    try:
        durable.write_json(path.parent / REPORT, {"schema": SCHEMA, "files": files})
    except StorageError:
        path.unlink(missing_ok=True)
        raise


def _origin(
    path: Path, recorded: dict[str, Any], run: RunFolder | Path | str | None, runs_dir: Path
) -> RunFolder | None:
    """The run that was named, else the one the file came from where it is still there.

    Raises:
        VerificationError: the run that was named is another one.
    """
    said = recorded["run"]
    if run is not None:
        found = chosen_run(run, runs_dir, lambda text: None)
        if found.info()["run_id"] != said["id"]:
            raise VerificationError(f"{path} was exported from another run, {said['name']}, not from {found.name}.")
        return found
    for place in (path.parent / said["path"], runs_dir / said["name"]):
        if (place / "run.json").is_file() and RunFolder(place).info()["run_id"] == said["id"]:
            return RunFolder(place)
    return None


def _sentence(entry: dict[str, Any]) -> str:
    found = entry["verified"]
    text = (
        f"verified on {found['images']} {found['split']} images in {found['runtime']}: "
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
