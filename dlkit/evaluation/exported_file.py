"""Evaluate an exported file on a split: the same metrics as for a run, computed in the file's own runtime.

Nothing is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dlkit.config.data_location import resolve_dataset
from dlkit.config.resolve import data_for
from dlkit.config.schema import Data, OnBadImage
from dlkit.data.classes import missing_classes
from dlkit.errors import DataError, ModelFileError, UsageError
from dlkit.evaluation.bare_weights import Inputs, find_network
from dlkit.evaluation.matching import EvalSplit, by_name, check_kind, readable, resize_samples
from dlkit.evaluation.model_file import ModelFile, is_model_file, open_model_file
from dlkit.evaluation.options import check_batch_size, check_split, resolve_topk
from dlkit.evaluation.result import Evaluation, class_results
from dlkit.export_metadata import ExportMetadata
from dlkit.runs.run_folder import CheckpointName
from dlkit.specs import ImageSpec, Spec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dlkit.data.splits import Samples
    from dlkit.data.text.encoding import Text
    from dlkit.evaluation.outputs import BatchOutputs
    from dlkit.inference.classifier import Classifier, Pixels

Log = Callable[[str], None]


def evaluate_file(
    file: ModelFile | Path | str,
    *,
    dataset: str | None = None,
    data_dir: Path | str | None = None,
    split: str = "test",
    on_bad_image: OnBadImage | None = None,
    topk: int | None = None,
    batch_size: int = 256,
    workers: int | None = None,
    loader_timeout: float | None = None,
    device: str = "auto",
    say: Log = lambda text: None,
    advance: Callable[[int], object] = lambda count: None,
) -> Evaluation:
    """Evaluate an exported .onnx or .safetensors file on a split of a data set, by default the one it was trained on.

    Raises:
        UsageError: no such split or k, or neither the caller nor the file names a data set.
        DataError: the data set has no such split, or a class that the model does not know.
        ModelFileError: the file is malformed, or its outputs are not finite.
        VerificationError: it was changed since it was exported.
    """
    file = file if isinstance(file, ModelFile) else open_model_file(Path(file))
    check_split(split)
    check_batch_size(batch_size)
    names, training = file.about.spec.classes, file.about.training
    k = resolve_topk(topk, len(names), say)
    data = _data(file, dataset, data_dir)
    if on_bad_image is not None:
        data = data.model_copy(update={"on_bad_image": on_bad_image})
    part = _load_split(file, data, split, say)

    from dlkit.data.processes import use_timeout
    from dlkit.evaluation.tally import Tally, single_class_warning

    tally = Tally.empty(len(names), k)
    workers = data.workers if workers is None else workers
    use_timeout(data.loader_timeout if loader_timeout is None else loader_timeout)
    for batch in _compute_outputs(file, file.load(device), part.samples, batch_size, workers):
        tally.add(batch)
        advance(len(batch.targets))
    part = part.with_warnings(single_class_warning(tally.confusion, names), say)
    scores, classes = class_results(tally.confusion.numpy(), names)
    return Evaluation(
        run=file.path,
        model=file.about.model,
        dataset=data.name,
        split=split,
        checkpoint=str(training.get("checkpoint", "")),
        step=int(training.get("step", 0)),
        samples=tally.samples,
        topk=k,
        metrics=tally.metrics(scores),
        classes=classes,
        confusion=tally.confusion.numpy(),
        fingerprint=part.fingerprint,
        warnings=part.warnings,
        left_out=part.left_out,
    )


def open_model(
    model: str | None,
    weights: Path | str | None,
    inputs: Inputs,
    runs_dir: Path,
    checkpoint: CheckpointName,
    say: Log,
) -> ModelFile:
    """An exported file, or a model by name with its weights in the same form.

    Raises:
        UsageError: something is missing. ModelFileError: there are no such weights, or they are of another model.
    """
    if model is not None and weights is None:
        if not is_model_file(model):
            raise UsageError(f"--model {model} needs weights: --weights imagenet, a run or a file.")
        return open_model_file(Path(model))
    if model is not None and is_model_file(model):
        raise UsageError(f"--model {model} has its own weights and classes. Remove --weights.")
    if inputs.dataset is None:
        raise UsageError("--weights needs a data set to evaluate on. Add --dataset NAME.")
    network = find_network(model, weights, inputs, runs_dir, checkpoint, say, other_data=True)
    if not network.spec.classes:
        raise UsageError(f"{network.source.name} predict a number. Evaluate the run that they come from.")

    def load(device: str) -> Classifier:
        from dlkit.inference.torch_classifier import torch_classifier
        from dlkit.training.precision import lay_out

        module, torch_device = network.module(device)
        lay_out(module, torch_device)
        return torch_classifier(module, torch_device, network.spec, network.source.link)

    return ModelFile(Path(str(weights)), ExportMetadata(network.name, network.spec, link=network.source.link), load)


def _data(file: ModelFile, dataset: str | None, data_dir: Path | str | None) -> Data:
    """The data set that the file was trained on, with its options, or another one."""
    own, options = file.about.training.get("dataset"), file.about.training.get("data_options")
    if not (dataset or own):
        raise UsageError(f"{file.path} does not name its data set. Add --dataset NAME.")
    folder = None if data_dir is None else os.fspath(data_dir)
    name, folder = resolve_dataset(str(dataset or own), folder, (file.about.spec.kind,))
    if name != own or options is None:
        return data_for(file.about.model, name, folder, options or {})
    try:
        return Data.model_validate({"name": name, "dir": folder, "options": options})
    except ValueError as error:
        raise ModelFileError(f"{file.path}: its options for data set {name!r} are invalid. Export it again.") from error


def _load_split(file: ModelFile, data: Data, split: str, say: Log) -> EvalSplit:
    """Load a split; if validation was taken from train, the file records how."""
    from dlkit.data.fingerprint import fingerprint
    from dlkit.data.library import splits

    found = splits(data, log=say)
    check_kind(found.spec, file.about.spec, data.name)

    from dlkit.data import loader  # imports torch: after all checks that need none

    training, spec = file.about.training, file.about.spec
    holdout = (float(training.get("held_out", data.validation)), int(training.get("seed", 0)))
    parts = loader.split(found, *holdout)
    if split not in parts:
        raise DataError(f"data set {data.name!r} has no {split} split. It has: {', '.join(parts)}.")
    samples, left_out = readable(parts[split], split, data, say)
    mapped = by_name(samples, found.spec.classes, spec.classes, data.name)
    warnings = [*found.warnings, *missing_classes(mapped.targets.tolist(), split, spec.classes)]
    for warning in warnings:
        say(f"warning: {warning}")
    return EvalSplit(resize_samples(mapped, spec), fingerprint(samples, found.spec.classes), tuple(warnings), left_out)


def _compute_outputs(
    file: ModelFile, classify: Classifier, samples: Samples, batch_size: int, workers: int
) -> Iterator[BatchOutputs]:
    import numpy as np
    import torch

    from dlkit.evaluation.outputs import BatchOutputs
    from dlkit.training.losses import evaluation_losses

    order = np.arange(len(samples), dtype=np.int64)
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    for indices, inputs in zip(batches, _inputs(samples, file.about.spec, batches, workers), strict=True):
        outputs, logs = map(torch.from_numpy, classify.answer(inputs))
        if not bool(outputs.isfinite().all()):
            raise ModelFileError(f"model file {file.path}: its answers are not finite.")
        targets = torch.from_numpy(samples.targets[indices])
        losses = evaluation_losses(outputs, logs, targets, file.about.link)
        yield BatchOutputs(outputs, logs, losses, None, targets, torch.from_numpy(indices))


def _inputs(
    samples: Samples, spec: Spec, batches: list[npt.NDArray[np.int64]], workers: int
) -> Iterator[Pixels | list[Text]]:
    """The inputs of each batch; files are decoded in worker processes."""
    import torch

    from dlkit.data.images.sources import fetcher
    from dlkit.data.splits import SequenceSamples, TreeSamples
    from dlkit.data.text.encoding import decode_samples

    if isinstance(samples, SequenceSamples | TreeSamples):
        yield from (decode_samples(samples, indices) for indices in batches)
        return
    assert isinstance(spec, ImageSpec)
    for images in fetcher(samples, spec, torch.device("cpu"), workers)(batches, 0):
        yield images.numpy()
