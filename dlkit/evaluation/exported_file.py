"""How good an exported file is on a split: the same figures as of a run, its answers from the file's own runtime.

Nothing is written: a file has no folder of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dlkit.config.recipe import Data, OnBadImage, data_for
from dlkit.data_location import located
from dlkit.errors import DataError, ModelFileError, UsageError
from dlkit.evaluation.bare_weights import Inputs, find_network
from dlkit.evaluation.evaluate import SPLITS, Answers, Evaluation, class_results, resolved_topk
from dlkit.evaluation.matching import Part, by_name, check_kind, fitted, missing_classes, readable
from dlkit.evaluation.model_file import ModelFile, is_model_file, open_model_file
from dlkit.export_metadata import About
from dlkit.specs import ImageSpec, Spec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dlkit.data.splits import Samples
    from dlkit.data.text.encoding import Text
    from dlkit.inference.classifier import Classifier, Pixels

Say = Callable[[str], None]


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
    say: Say = lambda text: None,
    advance: Callable[[int], object] = lambda count: None,
) -> Evaluation:
    """Evaluate an exported .onnx or .safetensors file on a split of a data set, by default of the one it learnt from.

    Raises:
        UsageError: no such split or k, or no data set is named and the file names none.
        DataError: the data set has no such split, or a class that the model does not know.
        ModelFileError: the file is malformed, or its answers are not finite.
        VerificationError: it was changed since it was exported.
    """
    found = file if isinstance(file, ModelFile) else open_model_file(Path(file))
    if split not in SPLITS:
        raise UsageError(f"there is no split {split!r}. There are: {', '.join(SPLITS)}.")
    if batch_size < 1:
        raise UsageError(f"a batch of {batch_size} holds nothing. Give --batch-size 1 or more.")
    ranks = resolved_topk(topk, len(found.about.spec.classes), say)
    data = _data(found, dataset, data_dir)
    if on_bad_image is not None:
        data = data.model_copy(update={"on_bad_image": on_bad_image})
    part = _part(found, data, split, say)

    from dlkit.data.workers import use_timeout
    from dlkit.evaluation.tally import Tally, single_class_warning

    tally = Tally.empty(len(found.about.spec.classes), ranks)
    jobs = data.workers if workers is None else workers
    use_timeout(data.loader_timeout if loader_timeout is None else loader_timeout)
    for answers in _answers(found, found.load(device), part.samples, batch_size, jobs):
        tally.add(answers)
        advance(len(answers.targets))
    part = part.with_warnings(single_class_warning(tally.confusion, found.about.spec.classes), say)
    scores, classes = class_results(tally.confusion.numpy(), found.about.spec.classes)
    training = found.about.training
    return Evaluation(
        run=found.path,
        model=found.about.model,
        dataset=data.name,
        split=split,
        checkpoint=str(training.get("checkpoint", "")),
        step=int(training.get("step", 0)),
        samples=tally.samples,
        topk=ranks,
        metrics=tally.metrics(scores),
        classes=classes,
        confusion=tally.confusion.numpy(),
        fingerprint=part.fingerprint,
        warnings=part.warnings,
        left_out=part.left_out,
    )


def opened(
    model: str | None,
    weights: Path | str | None,
    inputs: Inputs,
    runs_dir: Path,
    checkpoint: Literal["best", "last"],
    say: Say,
) -> ModelFile:
    """The exported file that `model` names, or the model of that name with its weights, as if it were such a file.

    Raises:
        UsageError: something is missing. ModelFileError: there are no such weights, or they are of another model.
    """
    if model is not None and weights is None:
        if not is_model_file(model):
            raise UsageError(f"--model {model} needs weights: --weights imagenet, a run or a file.")
        return open_model_file(Path(model))
    if model is not None and is_model_file(model):
        raise UsageError(f"--model {model} holds its own weights and classes. Leave --weights out.")
    if inputs.dataset is None:
        raise UsageError("which data set are --weights evaluated on? Give --dataset NAME.")
    network = find_network(model, weights, inputs, runs_dir, checkpoint, say, other_data=True)
    if not network.spec.classes:
        raise UsageError(f"{network.source.name} answer with a number: evaluate the run that they come from.")

    def load(device: str) -> Classifier:
        from dlkit.inference.classifier import torch_classifier
        from dlkit.training.precision import lay_out

        module, place = network.module(device)
        lay_out(module, place)
        return torch_classifier(module, place, network.spec, network.source.link)

    return ModelFile(Path(str(weights)), About(network.name, network.spec, link=network.source.link), load)


def _data(file: ModelFile, dataset: str | None, data_dir: Path | str | None) -> Data:
    """The data set that the file learnt from, with its options, or another one."""
    own, options = file.about.training.get("dataset"), file.about.training.get("data_options")
    if not (dataset or own):
        raise UsageError(f"{file.path} does not say which data set it learnt from: give --dataset NAME.")
    place = None if data_dir is None else os.fspath(data_dir)
    name, place = located(str(dataset or own), place, (file.about.spec.kind,))
    if name != own or options is None:
        return data_for(file.about.model, name, place, options or {})
    try:
        return Data.model_validate({"name": name, "dir": place, "options": options})
    except ValueError as error:
        raise ModelFileError(f"{file.path}: the options that it names of data set {name!r} are none.") from error


def _part(file: ModelFile, data: Data, split: str, say: Say) -> Part:
    """The split; where validation was cut from train, the file says how, so that it is the same cut."""
    from dlkit.data.fingerprint import fingerprint
    from dlkit.data.library import splits

    found = splits(data, say=say)
    check_kind(found.spec, file.about.spec, data.name)

    from dlkit.data import loader  # imports torch: after all that may be refused without it

    training, spec = file.about.training, file.about.spec
    cut = (float(training.get("held_out", data.validation)), int(training.get("seed", 0)))
    parts = loader.split(found, *cut)
    if split not in parts:
        raise DataError(f"data set {data.name!r} has no {split} split. It has: {', '.join(parts)}.")
    samples, left_out = readable(parts[split], split, data, say)
    mapped = by_name(samples, found.spec.classes, spec.classes, data.name)
    warnings = [*found.warnings, *missing_classes(mapped, split, spec)]
    for warning in warnings:
        say(f"warning: {warning}")
    return Part(fitted(mapped, spec), fingerprint(samples, found.spec.classes), tuple(warnings), left_out)


def _answers(
    file: ModelFile, classify: Classifier, samples: Samples, batch_size: int, workers: int
) -> Iterator[Answers]:
    import numpy as np
    import torch

    from dlkit.training.losses import evaluation_losses

    places = np.arange(len(samples), dtype=np.int64)
    shares = [places[start : start + batch_size] for start in range(0, len(places), batch_size)]
    for indices, inputs in zip(shares, _inputs(samples, file.about.spec, shares, workers), strict=True):
        outputs, logs = map(torch.from_numpy, classify.answer(inputs))
        if not bool(outputs.isfinite().all()):
            raise ModelFileError(f"model file {file.path}: its answers are not finite.")
        targets = torch.from_numpy(samples.targets[indices])
        losses = evaluation_losses(outputs, logs, targets, file.about.link)
        yield Answers(outputs, logs, losses, None, targets, torch.from_numpy(indices))


def _inputs(
    samples: Samples, spec: Spec, shares: list[npt.NDArray[np.int64]], workers: int
) -> Iterator[Pixels | list[Text]]:
    """Batch after batch, as a classifier takes them; files are decoded in worker processes."""
    import torch

    from dlkit.data.images.sources import fetcher
    from dlkit.data.splits import SequenceSamples, TreeSamples
    from dlkit.data.text.encoding import texts_of

    if isinstance(samples, SequenceSamples | TreeSamples):
        yield from (texts_of(samples, places) for places in shares)
        return
    assert isinstance(spec, ImageSpec)
    for images in fetcher(samples, spec, torch.device("cpu"), workers)(shares, 0):
        yield images.numpy()
