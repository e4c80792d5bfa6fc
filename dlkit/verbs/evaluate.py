"""How good a trained model is on a split: every sample once, exact counts, intervals, and the files that show them.

Counts are integers and means are summed in float64, so the result does not depend on the batch size or the workers.
The run folder gets evaluation.json, predictions.jsonl, confusion_matrix.csv and plots/confusion_matrix.png; the last
evaluation stands, and evaluation.json says of what.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dlkit import durable
from dlkit.engine import run_folder
from dlkit.engine.run_folder import RunFolder
from dlkit.errors import DataError, ModelFileError, StorageError, UsageError
from dlkit.recipe import Data
from dlkit.specs import ImageSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from dlkit.data.samples import Samples
    from dlkit.engine.restore import Restored

SCHEMA = "dlkit.eval/1"
SPLITS = ("train", "validation", "test")
DEFAULT_TOPK = 5
FILES = ("predictions.jsonl", "confusion_matrix.csv", "plots/confusion_matrix.png", "evaluation.json")
MEANS = tuple(f"{kind}_{score}" for kind in ("macro", "weighted") for score in ("precision", "recall", "f1"))

Say = Callable[[str], None]
Checkpoint = Literal["best", "last"]


@dataclass(frozen=True)
class Metric:
    """One figure; a proportion comes with its 95 % Wilson interval."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ClassResult:
    """How one class was told from the others; 0 where nothing was to be divided by."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int  # samples of this class


@dataclass(frozen=True, eq=False)  # arrays have no one truth to compare by
class Evaluation:
    """What an evaluation found. Accuracies are fractions, loss is in nats."""

    run: RunFolder
    model: str
    dataset: str
    split: str
    checkpoint: str  # best or last
    step: int
    samples: int
    topk: int
    metrics: Mapping[str, Metric]
    classes: tuple[ClassResult, ...]
    confusion: npt.NDArray[np.int64]  # (K, K): rows are the true classes, columns the predicted ones
    fingerprint: str  # SHA-256 of the split
    warnings: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.eval/1`."""
        return {
            "schema": SCHEMA,
            "run": self.run.name,
            "model": self.model,
            "dataset": self.dataset,
            "split": self.split,
            "checkpoint": self.checkpoint,
            "step": self.step,
            "samples": self.samples,
            "fingerprint": self.fingerprint,
            "topk": self.topk,
            "metrics": {name: _without_none(asdict(metric)) for name, metric in self.metrics.items()},
            "classes": [{"class": result.name, **_scores(result)} for result in self.classes],
            "warnings": list(self.warnings),
        }


def evaluate(
    run: RunFolder | Path | str | None = None,
    *,
    dataset: str | None = None,
    data_dir: Path | str | None = None,
    split: str = "test",
    topk: int | None = None,
    checkpoint: Checkpoint = "best",
    batch_size: int = 256,
    workers: int | None = None,
    device: str = "auto",
    runs_dir: Path | str = "runs",
    write: bool = True,
    say: Say = lambda text: None,
    advance: Callable[[int], object] = lambda count: None,
) -> Evaluation:
    """Evaluate a run (the newest, where none is named) on a split of its own data set or of another.

    topk is 5 unless given, or the greatest k that still says something where the model has five classes or fewer.
    Another data set's classes are matched to the model's by name. "train" and "validation" are what training used.
    `advance` hears of every batch how many samples it held.

    Raises:
        UsageError: no such run, split or k.
        DataError: the data set has no such split, or a class that the model does not know.
        ModelFileError: the checkpoint is damaged, or its answers are not finite.
        StorageError: the run folder cannot be written.
    """
    found = chosen_run(run, Path(runs_dir), say)
    if split not in SPLITS:
        raise UsageError(f"there is no split {split!r}. There are: {', '.join(SPLITS)}.")
    if batch_size < 1:
        raise UsageError(f"a batch of {batch_size} holds nothing. Give --batch-size 1 or more.")
    spec = found.spec()
    ranks = resolved_topk(topk, len(spec.classes), say)
    if write and not os.access(found.path, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write into {found.path}: no permission. --no-write only prints the figures.")
    data = _data(found, dataset, data_dir)
    part = _part(found, data, split, spec, say)

    from dlkit.engine.restore import restore

    restored = restore(found, checkpoint, device, say)
    tally = Tally.empty(len(spec.classes), ranks)
    loader_workers = data.workers if workers is None else workers
    lines = list(_answers(restored, part.samples, batch_size, loader_workers, tally, keep=write, advance=advance))
    evaluation = _evaluation(restored, part, data.name, split, checkpoint, tally)
    if write:
        _write(evaluation, lines)
        say(f"written into {found.path}: {', '.join(FILES)}")
    return evaluation


def chosen_run(run: RunFolder | Path | str | None, runs_dir: Path, say: Say) -> RunFolder:
    """The run that was named, or the newest one, which is then said."""
    if isinstance(run, RunFolder):
        return run
    found = run_folder.find(None if run is None else os.fspath(run), runs_dir)
    if run is None:
        say(f"using the newest run, {found.path}")
    return found


def resolved_topk(topk: int | None, classes: int, say: Say) -> int:
    """The k of top-k: as asked, else 5 or what is left below the number of classes.

    Raises:
        UsageError: k is not below the number of classes, where every answer would be right.
    """
    if topk is None:
        k = max(1, min(DEFAULT_TOPK, classes - 1))
        if k < DEFAULT_TOPK:
            say(f"top-{k} instead of top-{DEFAULT_TOPK}: the model has {classes} classes")
        return k
    if topk < 1:
        raise UsageError(f"--topk {topk}: k counts from 1.")
    if topk >= classes:
        raise UsageError(
            f"--topk {topk} says nothing: with {classes} classes every answer is among the best {classes}. "
            f"Take {classes - 1} or less."
        )
    return topk


def gate_names(topk: int) -> tuple[str, ...]:
    """The metrics that are better when higher, which a gate can be set on."""
    return tuple(dict.fromkeys(("top1", f"top{topk}", *MEANS)))


@dataclass
class Tally:
    """What is summed over batches; nothing in it grows with the number of samples."""

    topk: int
    confusion: Tensor  # (K, K) int64
    bins: Tensor  # (3, bins) float64, metrics.calibration_bins
    samples: int = 0
    correct: int = 0
    correct_topk: int = 0
    loss: float = 0.0
    brier: float = 0.0

    @classmethod
    def empty(cls, classes: int, topk: int) -> Tally:
        import torch

        from dlkit.metrics import CALIBRATION_BINS

        bins = torch.zeros(3, CALIBRATION_BINS, dtype=torch.float64)
        return cls(topk, torch.zeros(classes, classes, dtype=torch.int64), bins)

    def add(self, log_probabilities: Tensor, targets: Tensor) -> None:
        """Add a batch: (N, K) float64 and (N,), both on the CPU."""
        from dlkit import metrics

        probabilities = log_probabilities.exp()
        predicted = metrics.ranked(log_probabilities, 1)[:, 0]  # (N,)
        confidence = probabilities.gather(1, predicted[:, None])[:, 0]
        right = predicted == targets
        self.samples += len(targets)
        self.correct += int(right.sum())
        self.correct_topk += int(metrics.topk_correct(log_probabilities, targets, self.topk).sum())
        self.loss += float(metrics.cross_entropies(log_probabilities, targets).sum())
        self.brier += float(metrics.brier_scores(probabilities, targets).sum())
        self.confusion += metrics.confusion_matrix(targets, predicted, len(self.confusion))
        self.bins += metrics.calibration_bins(confidence, right)


def _data(run: RunFolder, dataset: str | None, data_dir: Path | str | None) -> Data:
    """The run's own data set, at another place where one is given, or another data set."""
    own = run.recipe().data
    place = None if data_dir is None else os.fspath(data_dir)
    if dataset is None or dataset == own.name:
        return own if place is None else own.model_copy(update={"dir": place})
    return Data(name=dataset, dir=place, workers=own.workers)


@dataclass(frozen=True)
class Part:
    """A split as the model can take it, and what a person should know of it."""

    samples: Samples
    fingerprint: str
    warnings: tuple[str, ...]


def _part(run: RunFolder, data: Data, split: str, spec: ImageSpec, say: Say) -> Part:
    """The split: its targets count the model's classes, its images have the model's size."""
    from dlkit.data.fingerprint import fingerprint
    from dlkit.verbs.dataset import splits

    found = splits(data, say=say)

    from dlkit.data import loader  # imports torch: after all that may be refused without it

    parts = loader.split(found, data.validation, run.recipe().train.seed)
    if split not in parts:
        raise DataError(
            f"data set {data.name!r} has no {split} split. It has: {', '.join(parts)}; give one by --split."
        )
    now = fingerprint(parts[split], found.spec.classes)
    mapped = by_name(parts[split], found.spec.classes, spec.classes, data.name)
    warnings = [*found.warnings, *_changes(run, data.name, split, now), *_missing(mapped, split, spec)]
    for warning in warnings:
        say(f"warning: {warning}")
    return Part(_fitted(mapped, spec), now, tuple(warnings))


def by_name(samples: Samples, theirs: tuple[str, ...], ours: tuple[str, ...], dataset: str) -> Samples:
    """The same samples, their targets counting our classes: classes are one where their names are.

    Raises:
        DataError: a sample's class is not one of ours.
    """
    import numpy as np

    if theirs == ours:
        return samples
    places = {name: place for place, name in enumerate(ours)}
    unknown = [theirs[target] for target in np.unique(samples.targets).tolist() if theirs[target] not in places]
    if unknown:
        raise DataError(
            f"data set {dataset!r} has {_listed(unknown)}, which the model does not know: it has {_listed(ours)}."
        )
    lookup = np.array([places.get(name, -1) for name in theirs], dtype=np.int64)
    return replace(samples, targets=lookup[samples.targets])


def _changes(run: RunFolder, dataset: str, split: str, now: str) -> list[str]:
    """A warning where the data are not what they were: in training, or (test) when they were last evaluated."""
    if dataset == run.recipe().data.name:
        trained = run.info().get("data", {}).get(split, {}).get("sha256", now)
        if trained != now:
            return [f"the {split} split is not what it was when the run was trained: {trained[:12]}…, now {now[:12]}…."]
    before = _last_document(run)
    same = before.get("dataset") == dataset and before.get("split") == split
    if same and before.get("fingerprint", now) != now:
        return [f"the {split} split is not what it was at the last evaluation."]
    return []


def _last_document(run: RunFolder) -> dict[str, Any]:
    try:
        found = json.loads((run.path / "evaluation.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _missing(samples: Samples, split: str, spec: ImageSpec) -> list[str]:
    present = set(samples.targets.tolist())
    missing = [name for place, name in enumerate(spec.classes) if place not in present]
    return [f"the {split} split has no sample of {_listed(missing)}."] if missing else []


def _fitted(samples: Samples, spec: ImageSpec) -> Samples:
    """Images in memory brought to the model's channels and size; files are when they are read."""
    import numpy as np
    from PIL import Image

    from dlkit.data.images import prepare
    from dlkit.data.samples import MemoryImages

    if not isinstance(samples, MemoryImages) or samples.images.shape[1:] == (spec.channels, spec.height, spec.width):
        return samples
    mode = "L" if spec.channels == 1 else "RGB"
    pictures = (
        Image.fromarray(image.squeeze(0) if len(image) == 1 else image.transpose(1, 2, 0)) for image in samples.images
    )
    return replace(samples, images=np.stack([prepare(picture.convert(mode), spec) for picture in pictures]))


def _answers(
    restored: Restored,
    samples: Samples,
    batch_size: int,
    workers: int,
    tally: Tally,
    *,
    keep: bool,
    advance: Callable[[int], object],
) -> Iterator[str]:
    """Run the model over all samples into the tally; yields lines of predictions.jsonl where they are to be kept."""
    import torch

    from dlkit.data.loader import batches_in_order

    with torch.inference_mode():
        for batch in batches_in_order(samples, restored.spec, batch_size, restored.device, workers):
            log_probabilities = restored.model(batch.inputs).cpu().double().log_softmax(dim=1)
            if not bool(log_probabilities.isfinite().all()):
                raise ModelFileError(f"run {restored.run.name}: the model's answers are not finite. Train it again.")
            targets = batch.targets.cpu()
            tally.add(log_probabilities, targets)
            advance(len(targets))
            if keep:
                yield from _lines(log_probabilities, targets, batch.indices.cpu(), samples, restored.spec, tally.topk)


def _lines(
    log_probabilities: Tensor, targets: Tensor, indices: Tensor, samples: Samples, spec: ImageSpec, topk: int
) -> Iterator[str]:
    from dlkit.data.samples import ImageFiles
    from dlkit.metrics import ranked

    best = ranked(log_probabilities, topk)  # (N, topk)
    highest = log_probabilities.gather(1, best[:, :1])[:, 0].exp().tolist()
    for index, target, ranks, probability in zip(
        indices.tolist(), targets.tolist(), best.tolist(), highest, strict=True
    ):
        line = {
            "id": str(samples.paths[index]) if isinstance(samples, ImageFiles) else index,
            "target": spec.classes[target],
            "predicted": spec.classes[ranks[0]],
            "probability": probability,
            "topk": [spec.classes[rank] for rank in ranks],
        }
        yield json.dumps(line)


def _evaluation(restored: Restored, part: Part, dataset: str, split: str, checkpoint: str, tally: Tally) -> Evaluation:
    from dlkit import metrics

    confusion = tally.confusion.numpy()
    scores = metrics.class_scores(confusion)
    columns = (scores.precision.tolist(), scores.recall.tolist(), scores.f1.tolist(), scores.support.tolist())
    rows = zip(restored.spec.classes, *columns, strict=True)
    return Evaluation(
        run=restored.run,
        model=restored.recipe.model.name,
        dataset=dataset,
        split=split,
        checkpoint=checkpoint,
        step=restored.step,
        samples=tally.samples,
        topk=tally.topk,
        metrics=_metrics(tally, scores),
        classes=tuple(ClassResult(*row) for row in rows),
        confusion=confusion,
        fingerprint=part.fingerprint,
        warnings=part.warnings,
    )


def _metrics(tally: Tally, scores: Any) -> dict[str, Metric]:
    from dlkit import metrics

    found: dict[str, Metric] = {}
    for k, correct in {1: tally.correct, tally.topk: tally.correct_topk}.items():
        found[f"top{k}"] = Metric(**asdict(metrics.wilson(correct, tally.samples)))
        found[f"top{k}_error"] = Metric(**asdict(metrics.wilson(tally.samples - correct, tally.samples)))
    found["loss"] = Metric(tally.loss / tally.samples)
    found["ece"] = Metric(metrics.expected_calibration_error(tally.bins))
    found["brier"] = Metric(tally.brier / tally.samples)
    for kind, means in (("macro", metrics.macro_means(scores)), ("weighted", metrics.weighted_means(scores))):
        found |= {f"{kind}_{name}": Metric(value) for name, value in asdict(means).items()}
    return found


def _write(evaluation: Evaluation, lines: list[str]) -> None:
    """Put the evaluation's files into the run folder, evaluation.json last."""
    from dlkit.verbs import plot

    folder = evaluation.run.path
    names = [result.name for result in evaluation.classes]
    title = (
        f"{evaluation.model} on {evaluation.dataset}, {evaluation.split}: {evaluation.samples:,} images, "
        f"top-1 {100 * evaluation.metrics['top1'].value:.2f} %"
    )
    durable.write_text(folder / "predictions.jsonl", "".join(line + "\n" for line in lines))
    durable.write_text(folder / "confusion_matrix.csv", _confusion_csv(evaluation.confusion, names))
    plot.confusion_matrix(evaluation.confusion, names, title, folder / "plots" / "confusion_matrix.png")
    durable.write_json(folder / "evaluation.json", evaluation.document())


def _confusion_csv(confusion: npt.NDArray[np.int64], names: list[str]) -> str:
    """A row for each true class, a column for each predicted one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["true\\predicted", *names])
    writer.writerows([name, *counts] for name, counts in zip(names, confusion.tolist(), strict=True))
    return text.getvalue()


def _scores(result: ClassResult) -> dict[str, Any]:
    return {name: value for name, value in asdict(result).items() if name != "name"}


def _without_none(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if value is not None}


def _listed(names: list[str] | tuple[str, ...]) -> str:
    """class 'a' · classes 'a', 'b', 'c' and 4 more."""
    shown = ", ".join(repr(name) for name in names[:5])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{'class' if len(names) == 1 else 'classes'} {shown}{more}"
