"""What a trained model sees in images, or reads in text: an answer for each input, in order, as soon as it is known.

A thread reads the inputs and a few decode them, ahead of the model by a bounded number of images; so memory is bounded
and the first answer does not wait for the last path. Paths that come one at a time (a pipe, a generator) are answered
as they come; a list is answered in full batches.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit import catalog, imagenet
from dlkit.data.download import UnreachableError, offline
from dlkit.data.inputs import Ahead, Given, Stream, inputs
from dlkit.engine.run_folder import RunFolder, list_runs
from dlkit.engine.weights import IMAGENET, Weights, cached, find
from dlkit.errors import DlkitError, ModelFileError, UsageError
from dlkit.recipe import data_for
from dlkit.specs import ImageSpec, SequenceSpec, Spec, TreeSpec
from dlkit.verbs.evaluate import DEFAULT_TOPK, Checkpoint, check_passes, chosen_run

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dlkit.data.classifier import Classifier, LogProbabilities
    from dlkit.data.parses import Parsed

SCHEMA = "dlkit.predict/1"
DEFAULT_MODEL = "resnet50"  # where there is no run at all
WORDS_SHOWN = 30  # of a node
WAIT_S = 0.05  # how long a batch that has begun waits for another image of a slow source

Say = Callable[[str], None]


@dataclass(frozen=True)
class Ranked:
    """One class that an input may be of; ranks count from 1."""

    rank: int
    name: str
    index: int
    probability: float


@dataclass(frozen=True)
class Node:
    """A node of a tree, numbered from its root in the order in which it is written, and its most probable class."""

    node: int
    parent: int | None
    words: str  # below it, the first WORDS_SHOWN
    name: str
    index: int
    probability: float

    def document(self) -> dict[str, Any]:
        """As it stands in `dlkit.predict/1`."""
        return {
            "node": self.node,
            "parent": self.parent,
            "words": self.words,
            "class": self.name,
            "index": self.index,
            "probability": self.probability,
        }


@dataclass(frozen=True)
class Uncertainty:
    """What passes with dropout on leave open about an input, in nats: in all, and for want of agreement."""

    passes: int
    predictive_entropy: float
    mutual_information: float


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one input, best first: of a tree its root's, and its nodes' where asked for."""

    path: str
    model: str
    predictions: tuple[Ranked, ...]
    nodes: tuple[Node, ...] = ()
    uncertainty: Uncertainty | None = None

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.predict/1`."""
        rows = [
            {"rank": r.rank, "class": r.name, "index": r.index, "probability": r.probability} for r in self.predictions
        ]
        nodes = [node.document() for node in self.nodes]
        found = {"schema": SCHEMA, "path": self.path, "model": self.model, "predictions": rows}
        return found | ({"nodes": nodes} if nodes else {}) | self._doubts()

    def _doubts(self) -> dict[str, Any]:
        if self.uncertainty is None:
            return {}
        figures = asdict(self.uncertainty)
        return {"mc_dropout": figures.pop("passes"), **figures}


@dataclass(frozen=True)
class Failure:
    """An input that could not be read; `code` is the exit code of its kind of error."""

    path: str
    model: str
    code: int
    message: str
    schema: str = SCHEMA

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.predict/1` or the verb's own."""
        error = {"code": self.code, "message": self.message}
        return {"schema": self.schema, "path": self.path, "model": self.model, "error": error}


def predict(
    run: RunFolder | Path | str | None = None,
    paths: Given | Iterable[Given] = (),
    *,
    model: str | None = None,
    weights: Path | str | None = None,
    dataset: str | None = None,
    data_dir: Path | str | None = None,
    topk: int | None = None,
    min_prob: float = 0.0,
    nodes: bool = False,
    mc_dropout: int | None = None,
    checkpoint: Checkpoint = "best",
    device: str = "auto",
    batch_size: int = 32,
    runs_dir: Path | str = "runs",
    say: Say = lambda text: None,
) -> Iterator[Prediction | Failure]:
    """Answer images in order: files, folders (searched through, sorted), globs, http(s) URLs, or an image's bytes.

    A model of text reads it from .txt files, an example each, or from bytes; of trees they hold one in brackets, as in
    (3 (2 a) (4 gem)), whose labels may be left out, and with `nodes` every node is answered. A data.inputs.Stream is
    lines: paths of images, or examples of text, whose path is then "-:3" of the third line.

    The model is a run's (the newest, where none is named), an exported file's, or `model` with `weights`: "imagenet", a
    run or a file; a file that does not say what its images and classes are needs `dataset` for that. Where there is no
    run at all it is ResNet-50 with ImageNet's weights. An input that cannot be read is answered by a Failure and the
    rest go on. topk is 5, or the number of classes where that is less; ranks below min_prob are left out. mc_dropout is
    a number of passes with the dropout left on (engine/mc_dropout.py), drawn from the run's seed, or 0 of a file's
    weights: the probabilities are then their means, and the uncertainty is told.

    Raises:
        UsageError: no such run, model or k; at once, before anything is read.
        ModelFileError: the checkpoint or weights are damaged or do not fit.
    """
    check_passes(mc_dropout)
    network = _chosen(run, model, weights, dataset, data_dir, Path(runs_dir), checkpoint, say)
    _check_answerable(network, nodes)
    if mc_dropout is not None:
        network = _thinned(network, mc_dropout)
    classes = len(network.spec.classes)
    k = min(DEFAULT_TOPK, classes) if topk is None else topk
    if not 1 <= k <= classes:
        raise UsageError(f"--topk {k}: the model has {classes} classes, so k is 1 to {classes}.")
    if not 0 <= min_prob <= 1:
        raise UsageError(f"--min-prob {min_prob:g}: a probability is 0 to 1.")
    if batch_size < 1:
        raise UsageError(f"a batch of {batch_size} holds nothing. Give --batch-size 1 or more.")
    listed = [paths] if isinstance(paths, str | Path | bytes | Stream) else paths
    return _predictions(network, listed, k, min_prob, nodes, device, batch_size, say)


@dataclass(frozen=True)
class Network:
    """A model that is known but not yet built: `load` imports torch, nothing else here does."""

    name: str
    spec: Spec
    load: Callable[[str], Classifier]  # from a device's name
    module: Callable[[str], tuple[nn.Module, torch.device]] | None = None  # likewise, where torch computes it
    seed: int = 0


def _check_answerable(network: Network, nodes: bool) -> None:
    """Raises: UsageError where predict cannot read what the model is for, or it has no nodes."""
    spec = network.spec
    if isinstance(spec, SequenceSpec) and not (spec.classes and spec.words):
        raise UsageError(f"predict reads images and text; {network.name} was trained on sequences of numbers.")
    if nodes and not isinstance(spec, TreeSpec):
        raise UsageError(f"--nodes is for models of trees; {network.name} reads {spec.kind}.")


def _by_torch(name: str, spec: Spec, module: Callable[[str], tuple[nn.Module, torch.device]], seed: int = 0) -> Network:
    def load(device: str) -> Classifier:
        from dlkit.data.classifier import torch_classifier
        from dlkit.engine import memory
        from dlkit.engine.precision import lay_out

        memory.keep_freed()
        network, place = module(device)
        lay_out(network, place)
        return torch_classifier(network, place, spec)

    return Network(name, spec, load, module, seed)


def _thinned(network: Network, passes: int) -> Network:
    """The network with its dropout on, that many times."""
    module, spec = network.module, network.spec
    if module is None or not isinstance(spec, ImageSpec):
        kind = "an exported file" if module is None else f"a model of {spec.kind}"
        raise UsageError(f"--mc-dropout is for a run's or a weights file's model of images; this is {kind}.")

    def load(device: str) -> Any:
        from dlkit.engine.mc_dropout import ThinnedClassifier

        return ThinnedClassifier(*module(device), spec, passes, network.seed)

    return replace(network, load=load)


def _chosen(
    run: RunFolder | Path | str | None,
    model: str | None,
    weights: Path | str | None,
    dataset: str | None,
    data_dir: Path | str | None,
    runs_dir: Path,
    checkpoint: Checkpoint,
    say: Say,
) -> Network:
    """The network that the caller means."""
    by_name = model is not None or weights is not None
    if by_name and run is not None:
        raise UsageError("give a run, or --model and --weights; not both.")
    if network := _from_model_file(model, [weights, dataset, data_dir]):
        return network
    if by_name:
        return _from_weights(model, weights, dataset, data_dir, runs_dir, checkpoint, say)
    if dataset is not None or data_dir is not None:
        raise UsageError("--dataset says what --weights are for; a run knows that itself.")
    if run is None and not list_runs(runs_dir):
        return _without_a_run(runs_dir, checkpoint, say)
    return _from_run(chosen_run(run, runs_dir, say), checkpoint, say)


def _from_run(run: RunFolder, checkpoint: Checkpoint, say: Say) -> Network:
    def module(device: str) -> tuple[nn.Module, torch.device]:
        from dlkit.engine.restore import restore

        restored = restore(run, checkpoint, device, say)
        return restored.model, restored.device

    recipe = run.recipe()
    return _by_torch(recipe.model.name, run.spec(), module, recipe.train.seed)


def _from_model_file(model: str | None, others: list[Path | str | None]) -> Network | None:
    """The exported file that --model names, or none where it is a name of the shelf."""
    if model is None:
        return None
    from dlkit.engine.model_file import is_model_file, open_model_file

    if not is_model_file(model):
        return None
    if any(other is not None for other in others):
        raise UsageError(f"--model {model} holds its own weights and classes. Leave --weights and --dataset out.")
    found = open_model_file(Path(model))
    return Network(found.about.model, found.about.spec, found.load)


def _from_weights(
    model: str | None,
    weights: Path | str | None,
    dataset: str | None,
    data_dir: Path | str | None,
    runs_dir: Path,
    checkpoint: Checkpoint,
    say: Say,
) -> Network:
    """A model of the shelf, with weights that know their images and classes, or are for those of `dataset`."""
    if model is not None:
        catalog.entry("models", model)
    if weights is None:
        raise UsageError(f"--model {model} needs weights: --weights imagenet, a run or a file.")
    source = find(weights, model, runs_dir, say, checkpoint)
    name = model or source.model
    if name is None:
        raise UsageError(f"{source.name} do not say which model they are of: give --model NAME.")
    if source.model not in (None, name):
        raise ModelFileError(f"{source.name} holds {source.model!r}, not {name!r}. Give --model {source.model}.")
    spec = _spec(source, name, dataset, data_dir, say)

    def module(device: str) -> tuple[nn.Module, torch.device]:
        from dlkit.engine.precision import choose_device
        from dlkit.engine.restore import build
        from dlkit.engine.transfer import fill

        chosen, found = choose_device(device), build(name, spec, dict(source.options))
        fill(found, source, spec)
        return found.to(chosen).eval(), chosen

    return _by_torch(f"{name} (imagenet)" if weights == IMAGENET else name, spec, module)


def _spec(source: Weights, model: str, dataset: str | None, data_dir: Path | str | None, say: Say) -> Spec:
    """The images, or the text, and the classes that weights are for."""
    if source.spec is not None and (dataset is not None or data_dir is not None):
        raise UsageError(f"{source.name}: it is known which images and classes they are for. Leave --dataset out.")
    if source.spec is None and dataset is None:
        raise UsageError(f"{source.name} do not say which images and classes they are for: give --dataset NAME.")
    found = source.spec
    if found is None:
        from dlkit.verbs.dataset import splits

        place = None if data_dir is None else os.fspath(data_dir)
        assert dataset is not None
        data = data_for(model, dataset, place)
        catalog.check_pair(model, data.name, data.options)
        found = splits(data, say=say).spec
    return found


def _without_a_run(runs_dir: Path, checkpoint: Checkpoint, say: Say) -> Network:
    """What answers where nothing was ever trained."""
    if offline() and cached(imagenet.FILES[DEFAULT_MODEL], say) is None:
        raise UnreachableError(
            f"there are no runs in {runs_dir}, and DLKIT_OFFLINE forbids fetching the ImageNet weights of "
            f"{DEFAULT_MODEL}. Unset it, train a run (dlkit train lenet5 --dataset mnist), or name a model and its "
            f"weights: --model NAME --weights FILE."
        )
    say(f"there are no runs in {runs_dir}: using {DEFAULT_MODEL} with ImageNet's weights, published by torchvision")
    return _from_weights(DEFAULT_MODEL, IMAGENET, None, None, runs_dir, checkpoint, say)


def _predictions(
    network: Network,
    paths: Iterable[Given],
    topk: int,
    min_prob: float,
    nodes: bool,
    device: str,
    batch_size: int,
    say: Say,
) -> Iterator[Prediction | Failure]:
    spec = network.spec
    with closing(Ahead(inputs(paths, spec), spec, 2 * batch_size)) as ahead:  # decodes while torch is imported
        classify = network.load(device)
        wait_s = None if isinstance(paths, Sequence) else WAIT_S
        for batch in ahead.batches(batch_size, wait_s):
            readable: list[Any] = [read.content for read in batch if not isinstance(read.content, DlkitError)]
            answers = iter(_answers(classify, spec, readable, topk, nodes) if readable else ())
            for read in batch:
                for note in read.notes:
                    say(f"warning: {note}")
                if isinstance(read.content, DlkitError):
                    yield Failure(read.name, network.name, read.content.exit_code, str(read.content))
                else:
                    ranks, inner, doubts = next(answers)
                    kept = tuple(ranked for ranked in ranks if ranked.probability >= min_prob)
                    yield Prediction(read.name, network.name, kept, inner, doubts)


def nodes_of(tree: Parsed, log_probabilities: LogProbabilities, spec: Spec) -> tuple[Node, ...]:
    """Each node of a tree, as it is written, with its best class, from (nodes, K)."""
    import numpy as np

    from dlkit.data.parses import words_below

    best = log_probabilities.argmax(axis=1)  # (nodes,)
    values = np.exp(log_probabilities[np.arange(len(best)), best]).tolist()
    rows = zip(tree.parents, words_below(tree, WORDS_SHOWN), best.tolist(), values, strict=True)
    return tuple(
        Node(node, None if parent < 0 else parent, words, spec.classes[index], index, probability)
        for node, (parent, words, index, probability) in enumerate(rows)
    )


Answer = tuple[tuple[Ranked, ...], tuple[Node, ...], Uncertainty | None]


def _answers(classify: Any, spec: Spec, contents: list[Any], topk: int, nodes: bool) -> Iterator[Answer]:
    """Of each input the best classes, where asked for those of a tree's nodes, and what passes leave open."""
    import numpy as np

    if nodes:
        of_nodes = classify.nodes(contents)
        roots = np.stack([rows[0] for rows in of_nodes])
        for tree, rows, ranks in zip(contents, of_nodes, _ranked(roots, spec, topk), strict=True):
            yield ranks, nodes_of(tree, rows, spec), None
    elif hasattr(classify, "passes"):
        yield from _doubtful(classify.passes(np.stack(contents)), spec, topk)
    else:
        found = classify(np.stack(contents) if isinstance(spec, ImageSpec) else contents)
        yield from ((ranks, (), None) for ranks in _ranked(found, spec, topk))


def _doubtful(passes: torch.Tensor, spec: Spec, topk: int) -> Iterator[Answer]:
    """From the log probabilities of each pass, (T, N, K)."""
    from dlkit import metrics

    ranks = _ranked(metrics.mean_of_passes(passes).numpy(), spec, topk)
    figures = (metrics.predictive_entropies(passes).tolist(), metrics.mutual_informations(passes).tolist())
    for best, entropy, information in zip(ranks, *figures, strict=True):
        yield best, (), Uncertainty(len(passes), entropy, information)


def _ranked(log_probabilities: LogProbabilities, spec: Spec, topk: int) -> list[tuple[Ranked, ...]]:
    """The best classes of each row of (N, K); of equals the one that stands first."""
    import numpy as np

    if not np.isfinite(log_probabilities).all():
        raise ModelFileError("the model's answers are not finite. Train it again.")
    best = np.argsort(-log_probabilities, axis=1, kind="stable")[:, :topk]
    probabilities = np.exp(np.take_along_axis(log_probabilities, best, axis=1))
    return [
        tuple(Ranked(rank, spec.classes[index], index, p) for rank, (index, p) in enumerate(pairs, start=1))
        for pairs in (zip(*row, strict=True) for row in zip(best.tolist(), probabilities.tolist(), strict=True))
    ]
