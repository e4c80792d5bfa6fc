"""Evaluate a trained model on a split: every sample once, exact counts, intervals, and files in the run folder.

Counts are integers and means are summed in float64, so the result does not depend on the batch size or the workers.
The run folder gets evaluation.json, predictions.jsonl, confusion_matrix.csv and figures in plots/, which replace
those of an earlier evaluation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit import registry
from dlkit.config.data_location import resolve_dataset
from dlkit.config.resolve import data_for
from dlkit.config.schema import Data, OnBadImage
from dlkit.errors import StorageError, UsageError
from dlkit.evaluation import record
from dlkit.evaluation.matching import EvalSplit, load_split
from dlkit.evaluation.options import check_batch_size, check_passes, check_split, resolve_topk
from dlkit.evaluation.result import Evaluation, Metric, class_results
from dlkit.runs.data_of_run import data_of_run
from dlkit.runs.run_folder import CheckpointName, RunFolder, select_run
from dlkit.specs import ImageSpec, Spec

if TYPE_CHECKING:
    from dlkit.data.splits import Samples
    from dlkit.evaluation.decision_tally import DecisionTally
    from dlkit.evaluation.outputs import BatchOutputs
    from dlkit.evaluation.tally import Tally, Uncertainties
    from dlkit.training.restore import Restored

Log = Callable[[str], None]


def evaluate(
    run: RunFolder | Path | str | None = None,
    *,
    dataset: str | None = None,
    data_dir: Path | str | None = None,
    split: str = "test",
    on_bad_image: OnBadImage | None = None,
    topk: int | None = None,
    checkpoint: CheckpointName = "best",
    mc_dropout: int | None = None,
    batch_size: int = 256,
    workers: int | None = None,
    loader_timeout: float | None = None,
    device: str = "auto",
    runs_dir: Path | str = "runs",
    write: bool = True,
    say: Log = lambda text: None,
    advance: Callable[[int], object] = lambda count: None,
) -> Evaluation:
    """Evaluate a run (by default the newest) on a split of its own data set or of another.

    topk is by default 5, or the number of classes less 1 if that is smaller. The classes of another data set are
    matched by name. "train" and "validation" are the splits that training used. Unreadable images are an error, or
    skipped with on_bad_image="skip" or if the run was trained so. mc_dropout is a number of passes with dropout enabled
    (mc_dropout.py): the metrics are then those of the mean probabilities, and uncertainty is measured too.
    `say` receives log messages, `advance` the number of samples in each batch.

    Raises:
        UsageError: no such run, split or k; mc_dropout of a model without dropout.
        DataError: the data set has no such split, or a class that the model does not know.
        ModelFileError: the checkpoint is damaged, or its outputs are not finite.
        StorageError: the run folder cannot be written.
    """
    run = select_run(run, Path(runs_dir), say)
    check_split(split)
    check_batch_size(batch_size)
    check_passes(mc_dropout)
    spec = run.spec()
    if mc_dropout is not None and not isinstance(spec, ImageSpec):
        raise UsageError(f"--mc-dropout is for image models; run {run.name} reads {spec.kind}.")
    k = resolve_topk(topk, len(spec.classes), say)
    if write and not os.access(run.path, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write into {run.path}: permission denied. Use --no-write to print only.")
    data = _data(run, dataset, data_dir)
    if on_bad_image is not None:
        data = data.model_copy(update={"on_bad_image": on_bad_image})
    part = load_split(run, data, split, spec, say)

    from dlkit.data.images.readable import explain_bad_images
    from dlkit.data.processes import use_timeout
    from dlkit.evaluation.mc_dropout import check_model
    from dlkit.evaluation.outputs import compute_outputs
    from dlkit.evaluation.tally import Tally, Uncertainties, single_class_warning
    from dlkit.training import memory
    from dlkit.training.precision import lay_out
    from dlkit.training.restore import restore

    memory.keep_freed()
    restored = restore(run, checkpoint, device, say)
    lay_out(restored.model, restored.device)
    if mc_dropout is not None:
        check_model(restored.model, f"{restored.recipe.model.name} in run {run.name}")
    use_timeout(data.loader_timeout if loader_timeout is None else loader_timeout)
    if not spec.classes:
        from dlkit.evaluation.regression import evaluate_numbers

        return evaluate_numbers(restored, part, data.name, split, checkpoint, batch_size, write, say, advance)
    tally, uncertainties = Tally.empty(len(spec.classes), k), Uncertainties(restored.link == "sigmoid")
    workers = data.workers if workers is None else workers
    batches = compute_outputs(restored, part.samples, batch_size, workers, mc_dropout)
    decisions = _decision_tally(restored) if mc_dropout is None else None
    with explain_bad_images(data):
        lines = list(
            _accumulate(batches, part.samples, spec, tally, uncertainties, decisions, write=write, advance=advance)
        )
    part = part.with_warnings(single_class_warning(tally.confusion, spec.classes), say)
    extra = {} if mc_dropout is None else uncertainties.metrics()
    extra |= {} if decisions is None else decisions.metrics()
    evaluation = _evaluation(restored, part, data.name, split, checkpoint, tally, extra, mc_dropout)
    if write:
        curve = None if decisions is None or not decisions.calibration.decides else decisions
        written = record.write_files(evaluation, lines, tally.bins.numpy(), curve)
        say(f"wrote {', '.join(written)} to {run.path}")
    return evaluation


def _decision_tally(restored: Restored) -> DecisionTally | None:
    """What adds up the decisions of a calibrated run."""
    if restored.calibration is None:
        return None
    from dlkit.evaluation.decision_tally import DecisionTally

    return DecisionTally(restored.calibration, restored.link, restored.spec.classes)


def _data(run: RunFolder, dataset: str | None, data_dir: Path | str | None) -> Data:
    """The run's own data set, from data_dir if given, or another data set."""
    recipe, folder = run.recipe(), None if data_dir is None else os.fspath(data_dir)
    own = recipe.data
    if dataset is not None:
        dataset, folder = resolve_dataset(dataset, folder, registry.entry("models", recipe.model.name).takes)
    if dataset is None or dataset == own.name:
        return data_of_run(run, own, folder)
    loading = {"workers": own.workers, "loader_timeout": own.loader_timeout, "max_pixels": own.max_pixels}
    return data_for(recipe.model.name, dataset, folder, own.options).model_copy(update=loading)


def _accumulate(
    batches: Iterator[BatchOutputs],
    samples: Samples,
    spec: Spec,
    tally: Tally,
    uncertainties: Uncertainties,
    decisions: DecisionTally | None,
    *,
    write: bool,
    advance: Callable[[int], object],
) -> Iterator[str]:
    """Add up the batches; yields the lines of predictions.jsonl if they will be written."""
    for batch in batches:
        tally.add(batch)
        columns: dict[str, list[Any]] = {} if decisions is None else decisions.add(batch)
        if batch.passes is not None:
            entropy, information = uncertainties.add(batch.passes, batch.targets)
            columns = {"predictive_entropy": entropy.tolist(), "mutual_information": information.tolist()}
        advance(len(batch.targets))
        if write:
            yield from record.prediction_lines(batch, columns, samples, spec, tally.topk)


def _evaluation(
    restored: Restored,
    part: EvalSplit,
    dataset: str,
    split: str,
    checkpoint: str,
    tally: Tally,
    extra: Mapping[str, Metric],
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
        metrics={**tally.metrics(scores), **extra},
        classes=classes,
        confusion=confusion,
        fingerprint=part.fingerprint,
        warnings=part.warnings,
        mc_dropout=mc_dropout,
        left_out=part.left_out,
        run_id=restored.run.info()["run_id"],
        calibration=restored.calibration,
        weights_sha256=tensors_sha256(restored.model.state_dict()),
    )
