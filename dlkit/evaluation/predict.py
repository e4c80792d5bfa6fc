"""Predict images or text with a trained model: a prediction for each input, in order, as soon as it is computed.

A thread reads the inputs and others decode them, at most a fixed number ahead of the model: memory is bounded and the
first prediction does not wait for the last path. Inputs of a pipe or a generator are predicted as they arrive, those of
a list in full batches.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit.calibration.decisions import Decision, decide, fields
from dlkit.data.inputs import InputLike, ReadAhead, inputs, listed
from dlkit.errors import DlkitError, ModelFileError, UsageError
from dlkit.evaluation.bare_weights import Inputs
from dlkit.evaluation.coverage import Coverage
from dlkit.evaluation.network import Network, check_predictable, select_network, with_mc_dropout
from dlkit.evaluation.options import DEFAULT_TOPK, check_batch_size, check_passes
from dlkit.evaluation.prediction import WORDS_SHOWN, Failure, Node, Prediction, Predictions, Ranked, Uncertainty
from dlkit.runs.run_folder import CheckpointName, RunFolder
from dlkit.specs import ImageSpec, Spec

if TYPE_CHECKING:
    import torch

    from dlkit.data.text.treebank import ParsedTree
    from dlkit.inference.classifier import LogProbabilities, Outputs

WAIT_S = 0.05  # that an incomplete batch waits for the next input

Say = Callable[[str], None]


def predict(
    run: RunFolder | Path | str | None = None,
    paths: InputLike | Iterable[InputLike] = (),
    *,
    model: str | None = None,
    weights: Path | str | None = None,
    dataset: str | None = None,
    data_dir: Path | str | None = None,
    classes: Path | str | None = None,
    img_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    model_options: Mapping[str, Any] | None = None,
    topk: int | None = None,
    min_prob: float = 0.0,
    nodes: bool = False,
    mc_dropout: int | None = None,
    abstain: bool = False,
    checkpoint: CheckpointName = "best",
    device: str = "auto",
    batch_size: int = 32,
    runs_dir: Path | str = "runs",
    say: Say = lambda text: None,
) -> Predictions:
    """Predict images in order: files, folders (searched through, sorted), globs, http(s) URLs, or an image's bytes;
    and what a program has in memory: PIL images, arrays and tensors (dlkit.data.images.in_memory), one or many.

    A model of text reads it from .txt files, an example each, or from bytes; of trees they hold one in brackets, as in
    (3 (2 a) (4 gem)), with or without labels, or dependency trees in a .conllu file, and with `nodes` every node
    is predicted. A data.inputs.Stream is lines: paths of images, or examples of text, whose path is then "-:3" of the
    third line; a dependency tree takes several.

    The model is a run's (by default the newest), an exported file's, or `model` with `weights`: "imagenet", a
    run or a file. A bare file needs `dataset` (its images need not be here), or `classes` (a data set, or a file with a
    name a line) and `img_size`; mean and std of the pixels and `model_options` are its network's. If there are no
    runs it is ResNet-50 with ImageNet weights. An input that cannot be read gives a Failure, and the rest continue.
    topk is by default 5 or the number of classes, whichever is less; ranks below min_prob are omitted. mc_dropout is a
    number of passes with dropout enabled (mc_dropout.py), seeded by the run's seed, or 0 for a weights file: the
    probabilities are then their means, and each prediction has its uncertainty.

    A calibrated run's predictions have its decision (calibrate.py), except with mc_dropout. With `abstain` an input
    whose error rate is not bounded by the calibration's max_error has no classes.

    Raises:
        UsageError: no such run, model or k; `abstain` without such a calibration; at once, before anything is read.
        ModelFileError: the checkpoint or weights are damaged or do not fit.
    """
    check_passes(mc_dropout)
    inputs = Inputs(dataset, data_dir, classes, img_size, mean, std, model_options or {})
    network = select_network(run, model, weights, inputs, Path(runs_dir), checkpoint, say)
    check_predictable(network, nodes)
    if mc_dropout is not None:
        network = with_mc_dropout(network, mc_dropout)
    if nodes:  # decisions are about whole inputs
        network = replace(network, calibration=None)
    count = len(network.spec.classes)
    k = min(DEFAULT_TOPK, count) if topk is None else topk
    if not 1 <= k <= count:
        raise UsageError(f"--topk {k}: the model has {count} classes, so k is 1 to {count}.")
    if not 0 <= min_prob <= 1:
        raise UsageError(f"--min-prob {min_prob:g}: a probability is 0 to 1.")
    check_batch_size(batch_size)
    if abstain and "abstained" not in fields(network.calibration):
        raise UsageError(
            f"--abstain needs a threshold, and there is none for {network.name}. Find one: dlkit calibrate RUN "
            "--max-error 0.02; exported files and --mc-dropout have none."
        )
    source = _predictions(network, listed(paths), k, min_prob, nodes, device, batch_size, say)
    answers = map(without_abstained, source) if abstain else source
    return Predictions(answers, fields(network.calibration), source.close)


def without_abstained(prediction: Prediction | Failure) -> Prediction | Failure:
    """Without the classes of an input that the model abstains from."""
    if isinstance(prediction, Failure) or prediction.decision is None or not prediction.decision.abstained:
        return prediction
    return replace(prediction, predictions=())


def _predictions(
    network: Network,
    paths: Iterable[InputLike],
    topk: int,
    min_prob: float,
    nodes: bool,
    device: str,
    batch_size: int,
    say: Say,
) -> Generator[Prediction | Failure, None, None]:
    spec = network.spec
    coverage = Coverage(spec)
    with closing(ReadAhead(inputs(paths, spec), spec, 2 * batch_size)) as ahead:  # decodes while torch is imported
        classify = network.load(device)
        wait_s = None if isinstance(paths, Sequence) else WAIT_S
        for batch in ahead.batches(batch_size, wait_s):
            readable: list[Any] = [read.content for read in batch if not isinstance(read.content, DlkitError)]
            results = iter(_predict_batch(classify, network, readable, topk, nodes) if readable else ())
            for read in batch:
                for note in read.notes:
                    say(f"warning: {note}")
                if isinstance(read.content, DlkitError):
                    yield Failure(read.name, network.name, read.content.exit_code, str(read.content))
                else:
                    ranks, inner, uncertainty, decision = next(results)
                    kept = tuple(ranked for ranked in ranks if ranked.probability >= min_prob)
                    limits = coverage(read, say)
                    notes = (*read.notes, *limits.notes)
                    counts = (limits.unknown, limits.truncated)
                    yield Prediction(read.name, network.name, kept, inner, uncertainty, *counts, notes, decision)


def nodes_of(tree: ParsedTree, log_probabilities: LogProbabilities, spec: Spec) -> tuple[Node, ...]:
    """Each node of a tree in written order with its best class, from (nodes, K)."""
    import numpy as np

    from dlkit.data.text.treebank import subtree_words

    best = log_probabilities.argmax(axis=1)  # (nodes,)
    values = np.exp(log_probabilities[np.arange(len(best)), best]).tolist()
    rows = zip(tree.parents, tree.words, subtree_words(tree, WORDS_SHOWN), best.tolist(), values, strict=True)
    return tuple(
        Node(node, None if parent < 0 else parent, word, words, spec.classes[index], index, probability)
        for node, (parent, word, words, index, probability) in enumerate(rows)
    )


BatchRow = tuple[tuple[Ranked, ...], tuple[Node, ...], Uncertainty | None, Decision | None]


def _predict_batch(classify: Any, network: Network, contents: list[Any], topk: int, nodes: bool) -> Iterator[BatchRow]:
    """For each input its best classes, a tree's nodes if requested, its uncertainty under MC dropout, its decision."""
    import numpy as np

    spec = network.spec
    if nodes:
        of_nodes = classify.nodes(contents)
        roots = np.stack([rows[0] for rows in of_nodes])
        for tree, rows, ranks in zip(contents, of_nodes, _ranked(roots, spec, topk), strict=True):
            yield ranks, nodes_of(tree, rows, spec), None, None
    elif hasattr(classify, "passes"):
        yield from _with_uncertainty(classify.passes(np.stack(contents)), spec, topk, classify.link == "sigmoid")
    else:
        outputs, logs = classify.answer(np.stack(contents) if isinstance(spec, ImageSpec) else contents)
        decisions: Sequence[Decision | None] = [None] * len(outputs)
        if network.calibration is not None and network.calibration.decides:
            decisions = decide(outputs, logs, network.calibration, network.link, spec.classes)
        for ranks, decision in zip(_ranked(logs, spec, topk, outputs), decisions, strict=True):
            yield ranks, (), None, decision


def _with_uncertainty(passes: torch.Tensor, spec: Spec, topk: int, independent: bool) -> Iterator[BatchRow]:
    """From the log probabilities of each pass, (T, N, K)."""
    from dlkit import metrics

    ranks = _ranked(metrics.mean_of_passes(passes).numpy(), spec, topk)
    entropies = metrics.predictive_entropies(passes, independent).tolist()
    informations = metrics.mutual_informations(passes, independent).tolist()
    for best, entropy, information in zip(ranks, entropies, informations, strict=True):
        yield best, (), Uncertainty(len(passes), entropy, information), None


def _ranked(
    log_probabilities: LogProbabilities, spec: Spec, topk: int, outputs: Outputs | None = None
) -> list[tuple[Ranked, ...]]:
    """The best classes of each row of (N, K), ranked by the outputs if given; ties go to the first."""
    import numpy as np

    ranking = log_probabilities if outputs is None else outputs
    finite = not np.isnan(log_probabilities).any() if outputs is None else np.isfinite(outputs).all()
    if not finite:
        raise ModelFileError("the model's outputs are not finite. Train it again.")
    best = np.argsort(-ranking, axis=1, kind="stable")[:, :topk]
    probabilities = np.exp(np.take_along_axis(log_probabilities, best, axis=1))
    return [
        tuple(Ranked(rank, spec.classes[index], index, p) for rank, (index, p) in enumerate(pairs, start=1))
        for pairs in (zip(*row, strict=True) for row in zip(best.tolist(), probabilities.tolist(), strict=True))
    ]
