"""The network that answers: a run's, an exported file's, one of the shelf with weights, or ResNet-50 of ImageNet."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit import catalog, imagenet
from dlkit.data.web import UnreachableError
from dlkit.engine.run_folder import RunFolder, list_runs
from dlkit.engine.weights import IMAGENET, Weights, cached, find
from dlkit.errors import ModelFileError, UsageError
from dlkit.privacy import offline
from dlkit.recipe import data_for
from dlkit.specs import LINKS, ImageSpec, Link, SequenceSpec, Spec, TreeSpec
from dlkit.verbs.evaluate import Checkpoint, chosen_run

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dlkit.data.classifier import Classifier

DEFAULT_MODEL = "resnet50"  # where there is no run at all

Say = Callable[[str], None]


@dataclass(frozen=True)
class Network:
    """A model that is known but not yet built: `load` imports torch, nothing else here does."""

    name: str
    spec: Spec
    load: Callable[[str], Classifier]  # from a device's name
    module: Callable[[str], tuple[nn.Module, torch.device]] | None = None  # likewise, where torch computes it
    seed: int = 0
    link: Link = "softmax"


def chosen(
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


def check_answerable(network: Network, nodes: bool) -> None:
    """Raises: UsageError where predict cannot read what the model is for, or it has no nodes."""
    spec = network.spec
    if isinstance(spec, SequenceSpec) and not (spec.classes and spec.words):
        raise UsageError(f"predict reads images and text; {network.name} was trained on sequences of numbers.")
    if nodes and not isinstance(spec, TreeSpec):
        raise UsageError(f"--nodes is for models of trees; {network.name} reads {spec.kind}.")


def thinned(network: Network, passes: int) -> Network:
    """The network with its dropout on, that many times."""
    module, spec = network.module, network.spec
    if module is None or not isinstance(spec, ImageSpec):
        kind = "an exported file" if module is None else f"a model of {spec.kind}"
        raise UsageError(f"--mc-dropout is for a run's or a weights file's model of images; this is {kind}.")

    def load(device: str) -> Any:
        from dlkit.engine.mc_dropout import ThinnedClassifier

        return ThinnedClassifier(*module(device), spec, passes, network.seed, network.link)

    return replace(network, load=load)


def _from_run(run: RunFolder, checkpoint: Checkpoint, say: Say) -> Network:
    def module(device: str) -> tuple[nn.Module, torch.device]:
        from dlkit.engine.restore import restore

        restored = restore(run, checkpoint, device, say)
        return restored.model, restored.device

    recipe = run.recipe()
    return _by_torch(recipe.model.name, run.spec(), module, recipe.train.seed, LINKS[recipe.loss.name])


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
    return Network(found.about.model, found.about.spec, found.load, link=found.about.link)


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

    return _by_torch(f"{name} (imagenet)" if weights == IMAGENET else name, spec, module, link=source.link)


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


def _by_torch(
    name: str,
    spec: Spec,
    module: Callable[[str], tuple[nn.Module, torch.device]],
    seed: int = 0,
    link: Link = "softmax",
) -> Network:
    def load(device: str) -> Classifier:
        from dlkit.data.classifier import torch_classifier
        from dlkit.engine import memory
        from dlkit.engine.precision import lay_out

        memory.keep_freed()
        network, place = module(device)
        lay_out(network, place)
        return torch_classifier(network, place, spec, link)

    return Network(name, spec, load, module, seed, link)
