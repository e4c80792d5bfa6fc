"""How good a trained model is on a split: every sample once, exact counts, intervals, and the files that show them.

Counts are integers and means are summed in float64, so the result does not depend on the batch size or the workers.
The run folder gets evaluation.json, predictions.jsonl, confusion_matrix.csv and plots/confusion_matrix.png; the last
evaluation stands, and evaluation.json says of what.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dlkit import atomic_io, csv_text, registry
from dlkit.config.recipe import Data, OnBadImage, data_for
from dlkit.data_location import located
from dlkit.errors import ModelFileError, StorageError, UsageError
from dlkit.evaluation import record
from dlkit.evaluation.matching import Part, matched
from dlkit.runs import run_folder
from dlkit.runs.data_of_run import data_of_run
from dlkit.runs.run_folder import RunFolder
from dlkit.specs import ImageSpec, Spec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from dlkit import metrics
    from dlkit.data.splits import Samples
    from dlkit.evaluation.tally import Doubts, Metric, Tally
    from dlkit.training.restore import Restored

SCHEMA = "dlkit.eval/1"
SPLITS = ("train", "validation", "test")
DEFAULT_TOPK = 5
MOST_PASSES = 1000  # of Monte Carlo dropout
FILES = ("predictions.jsonl", "confusion_matrix.csv", "plots/confusion_matrix.png", "evaluation.json")
MEANS = tuple(f"{kind}_{score}" for kind in ("macro", "weighted") for score in ("precision", "recall", "f1"))

Say = Callable[[str], None]
Checkpoint = Literal["best", "last"]


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

    run: RunFolder | Path  # or the exported file
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
    mc_dropout: int | None = None  # passes
    left_out: Mapping[str, str] = field(default_factory=dict)  # images that cannot be read, and what is wrong with them
    run_id: str | None = None  # none: an exported file
    weights_sha256: str | None = None  # of the weights that were evaluated

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.eval/1`; `left_out` is in it only if some images were."""
        left_out = {"left_out": dict(self.left_out)} if self.left_out else {}
        return {
            "schema": SCHEMA,
            "run": self.run.name,
            "run_id": self.run_id,
            "model": self.model,
            "dataset": self.dataset,
            "split": self.split,
            "checkpoint": self.checkpoint,
            "step": self.step,
            "weights_sha256": self.weights_sha256,
            "mc_dropout": self.mc_dropout,
            "calibration": None,
            "tta": None,
            "samples": self.samples,
            "fingerprint": self.fingerprint,
            "topk": self.topk,
            "metrics": {name: _without_none(asdict(metric)) for name, metric in self.metrics.items()},
            "classes": [{"class": result.name, **_scores(result)} for result in self.classes],
            "warnings": list(self.warnings),
            **left_out,
        }


def evaluate(
    run: RunFolder | Path | str | None = None,
    *,
    dataset: str | None = None,
    data_dir: Path | str | None = None,
    split: str = "test",
    on_bad_image: OnBadImage | None = None,
    topk: int | None = None,
    checkpoint: Checkpoint = "best",
    mc_dropout: int | None = None,
    batch_size: int = 256,
    workers: int | None = None,
    loader_timeout: float | None = None,
    device: str = "auto",
    runs_dir: Path | str = "runs",
    write: bool = True,
    say: Say = lambda text: None,
    advance: Callable[[int], object] = lambda count: None,
) -> Evaluation:
    """Evaluate a run (the newest, where none is named) on a split of its own data set or of another.

    topk is 5 unless given, or the greatest k that still says something where the model has five classes or fewer.
    Another data set's classes are matched to the model's by name. "train" and "validation" are what training used.
    Images that cannot be read are an error, or with on_bad_image="skip" (or where the run was trained so) left out.
    mc_dropout is a number of passes with the dropout left on (see mc_dropout.py): the figures are then those of
    their mean probabilities, and the uncertainty is measured too.
    `advance` hears of every batch how many samples it held.

    Raises:
        UsageError: no such run, split or k; mc_dropout of a model without dropout.
        DataError: the data set has no such split, or a class that the model does not know.
        ModelFileError: the checkpoint is damaged, or its answers are not finite.
        StorageError: the run folder cannot be written.
    """
    found = chosen_run(run, Path(runs_dir), say)
    if split not in SPLITS:
        raise UsageError(f"there is no split {split!r}. There are: {', '.join(SPLITS)}.")
    if batch_size < 1:
        raise UsageError(f"a batch of {batch_size} holds nothing. Give --batch-size 1 or more.")
    check_passes(mc_dropout)
    spec = found.spec()
    if mc_dropout is not None and not isinstance(spec, ImageSpec):
        raise UsageError(f"--mc-dropout is for models of images; {found.name} reads {spec.kind}.")
    ranks = resolved_topk(topk, len(spec.classes), say)
    if write and not os.access(found.path, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write into {found.path}: permission denied. --no-write only prints the figures.")
    data = _data(found, dataset, data_dir)
    if on_bad_image is not None:
        data = data.model_copy(update={"on_bad_image": on_bad_image})
    part = matched(found, data, split, spec, say)

    from dlkit.data.workers import use_timeout
    from dlkit.evaluation.mc_dropout import check_model
    from dlkit.evaluation.tally import Doubts, Tally, single_class_warning
    from dlkit.training import memory
    from dlkit.training.precision import lay_out
    from dlkit.training.restore import restore

    memory.keep_freed()
    restored = restore(found, checkpoint, device, say)
    lay_out(restored.model, restored.device)
    if mc_dropout is not None:
        check_model(restored.model, f"{restored.recipe.model.name} in run {found.name}")
    tally, doubts = Tally.empty(len(spec.classes), ranks), Doubts(restored.link == "sigmoid")
    loader_workers = data.workers if workers is None else workers
    use_timeout(data.loader_timeout if loader_timeout is None else loader_timeout)
    if not spec.classes:
        from dlkit.evaluation.regression import evaluate_numbers

        return evaluate_numbers(restored, part, data.name, split, checkpoint, batch_size, write, say, advance)
    answers = _answers(restored, part.samples, batch_size, loader_workers, mc_dropout)
    lines = list(_counted(answers, part.samples, spec, tally, doubts, keep=write, advance=advance))
    figures = {} if mc_dropout is None else doubts.metrics()
    part = part.with_warnings(single_class_warning(tally.confusion, spec.classes), say)
    evaluation = _evaluation(restored, part, data.name, split, checkpoint, tally, figures, mc_dropout)
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
        say(f"important: using the newest run, {found.path}")
    return found


def resolved_topk(topk: int | None, classes: int, say: Say) -> int:
    """The k of top-k: as asked, else 5 or what is left below the number of classes.

    Raises:
        UsageError: k is not below the number of classes, where every answer would be right.
    """
    if classes == 0:
        if topk:
            raise UsageError(f"--topk {topk} says nothing: the model answers with a number, not with classes.")
        return 0
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


def check_passes(mc_dropout: int | None) -> None:
    """Raises: UsageError where that many passes make no sense."""
    if mc_dropout is not None and not 1 <= mc_dropout <= MOST_PASSES:
        raise UsageError(
            f"--mc-dropout {mc_dropout}: it is a number of passes, 1 to {MOST_PASSES}; 20 to 100 are usual."
        )


def gate_names(topk: int) -> tuple[str, ...]:
    """The metrics that are better when higher, which a gate can be set on; topk is 0 where there are no classes."""
    if topk == 0:
        return ()
    return tuple(dict.fromkeys(("top1", f"top{topk}", "balanced_accuracy", *MEANS)))


def ceiling_names(topk: int, mc_dropout: int | None) -> tuple[str, ...]:
    """The metrics that are better when lower; topk is 0 where the answers are numbers."""
    if topk == 0:
        return ("mse", "rmse", "mae")
    uncertainty = () if mc_dropout is None else ("predictive_entropy", "mutual_information")
    return tuple(dict.fromkeys(("loss", "ece", "brier", "top1_error", f"top{topk}_error", *uncertainty)))


def _data(run: RunFolder, dataset: str | None, data_dir: Path | str | None) -> Data:
    """The run's own data set, at another place where one is given, or another data set."""
    recipe, place = run.recipe(), None if data_dir is None else os.fspath(data_dir)
    own = recipe.data
    if dataset is not None:
        dataset, place = located(dataset, place, registry.entry("models", recipe.model.name).takes)
    if dataset is None or dataset == own.name:
        return data_of_run(run, own, place)
    loading = {"workers": own.workers, "loader_timeout": own.loader_timeout, "max_pixels": own.max_pixels}
    return data_for(recipe.model.name, dataset, place, own.options).model_copy(update=loading)


@dataclass(frozen=True)
class Answers:
    """A model's answers to a batch: outputs (N, K), by which classes are ranked, log_probabilities (N, K), losses (N,),
    and of several passes the log probabilities of each (T, N, K).

    All float64, and like targets and indices, (N,), on the CPU.
    """

    outputs: Tensor
    log_probabilities: Tensor
    losses: Tensor
    passes: Tensor | None
    targets: Tensor
    indices: Tensor


def _answers(
    restored: Restored, samples: Samples, batch_size: int, workers: int, mc_dropout: int | None
) -> Iterator[Answers]:
    """Run the model over all samples."""
    import torch

    from dlkit.data.link import log_probabilities as link_function
    from dlkit.data.loader import batches_in_order
    from dlkit.evaluation.mc_dropout import log_probabilities_of, passes_of
    from dlkit.metrics import mean_of_passes
    from dlkit.training.losses import evaluation_losses

    seed, link = restored.recipe.train.seed, restored.link
    with torch.inference_mode():
        for batch in batches_in_order(samples, restored.spec, batch_size, restored.device, workers):
            if mc_dropout is None:
                outputs, passes = restored.model(batch.inputs).cpu().double(), None
                log_probabilities = torch.from_numpy(link_function(outputs.numpy(), link))
                ranking = outputs
            else:
                of_passes = passes_of(restored.model, batch.inputs, mc_dropout, seed)
                passes = log_probabilities_of(of_passes, link)
                log_probabilities = ranking = mean_of_passes(passes)
                outputs = log_probabilities.exp().logit(1e-15) if link == "sigmoid" else of_passes.mean(dim=0)
            if not bool(outputs.isfinite().all()):
                raise ModelFileError(f"run {restored.run.name}: the model's answers are not finite. Train it again.")
            targets = batch.targets.cpu()
            losses = evaluation_losses(outputs, log_probabilities, targets, link)
            yield Answers(ranking, log_probabilities, losses, passes, targets, batch.indices.cpu())


def _counted(
    batches: Iterator[Answers],
    samples: Samples,
    spec: Spec,
    tally: Tally,
    doubts: Doubts,
    *,
    keep: bool,
    advance: Callable[[int], object],
) -> Iterator[str]:
    """Sum the answers up; yields lines of predictions.jsonl where they are to be kept."""
    for answers in batches:
        tally.add(answers)
        columns: dict[str, list[float]] = {}
        if answers.passes is not None:
            entropies, informations = doubts.add(answers.passes, answers.targets)
            columns = {"predictive_entropy": entropies.tolist(), "mutual_information": informations.tolist()}
        advance(len(answers.targets))
        if keep:
            yield from _lines(answers, columns, samples, spec, tally.topk)


def _lines(
    answers: Answers, columns: Mapping[str, list[float]], samples: Samples, spec: Spec, topk: int
) -> Iterator[str]:
    """A line for each sample; `columns` hold what else each says, by name."""
    from dlkit.data.splits import ImageFiles
    from dlkit.metrics import ranked

    best = ranked(answers.outputs, topk)  # (N, topk)
    highest = answers.log_probabilities.gather(1, best[:, :1])[:, 0].exp().tolist()
    rows = zip(answers.indices.tolist(), answers.targets.tolist(), best.tolist(), highest, strict=True)
    for place, (index, target, ranks, probability) in enumerate(rows):
        line = {
            "id": str(samples.paths[index]) if isinstance(samples, ImageFiles) else index,
            "target": spec.classes[target],
            "predicted": spec.classes[ranks[0]],
            "probability": probability,
            "topk": [spec.classes[rank] for rank in ranks],
            **{name: values[place] for name, values in columns.items()},
        }
        yield json.dumps(line)


def _evaluation(
    restored: Restored,
    part: Part,
    dataset: str,
    split: str,
    checkpoint: str,
    tally: Tally,
    figures: Mapping[str, Metric],
    mc_dropout: int | None,
) -> Evaluation:
    from dlkit.runs.provenance import tensors_sha256

    confusion = tally.confusion.numpy()
    scores, classes = class_results(confusion, restored.spec.classes)
    return Evaluation(
        run=restored.run,
        model=restored.recipe.model.name,
        dataset=dataset,
        split=split,
        checkpoint=checkpoint,
        step=restored.step,
        samples=tally.samples,
        topk=tally.topk,
        metrics={**tally.metrics(scores), **figures},
        classes=classes,
        confusion=confusion,
        fingerprint=part.fingerprint,
        warnings=part.warnings,
        mc_dropout=mc_dropout,
        left_out=part.left_out,
        run_id=restored.run.info()["run_id"],
        weights_sha256=tensors_sha256(restored.model.state_dict()),
    )


def class_results(
    confusion: npt.NDArray[np.int64], names: tuple[str, ...]
) -> tuple[metrics.Scores, tuple[ClassResult, ...]]:
    """How each class was told from the others, by a confusion matrix (K, K): as arrays, and by name."""
    from dlkit import metrics

    scores = metrics.class_scores(confusion)
    columns = (scores.precision.tolist(), scores.recall.tolist(), scores.f1.tolist(), scores.support.tolist())
    return scores, tuple(ClassResult(*row) for row in zip(names, *columns, strict=True))


def _write(evaluation: Evaluation, lines: list[str]) -> None:
    """Put the evaluation's files into the run folder, evaluation.json last."""
    from dlkit.plots.matrix import confusion_matrix

    assert isinstance(evaluation.run, RunFolder)
    folder = evaluation.run.path
    names = [result.name for result in evaluation.classes]
    kind = evaluation.run.spec().kind
    title = (
        f"{evaluation.model} on {evaluation.dataset}, {evaluation.split}: {evaluation.samples:,} {kind}, "
        f"top-1 {100 * evaluation.metrics['top1'].value:.2f} %"
    )
    predictions_sha256 = record.write_predictions(evaluation.run, lines)
    atomic_io.write_text(folder / "confusion_matrix.csv", _confusion_csv(evaluation.confusion, names))
    confusion_matrix(evaluation.confusion, names, title, folder / "plots" / "confusion_matrix.png")
    record.write_evaluation(evaluation.run, evaluation.document(), predictions_sha256)


def _confusion_csv(confusion: npt.NDArray[np.int64], names: list[str]) -> str:
    """A row for each true class, a column for each predicted one."""
    counts = ([name, *row] for name, row in zip(names, confusion.tolist(), strict=True))
    return csv_text.document([["true\\predicted", *names], *counts])


def _scores(result: ClassResult) -> dict[str, Any]:
    return {name: value for name, value in asdict(result).items() if name != "name"}


def _without_none(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if value is not None}
