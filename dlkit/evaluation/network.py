"""Select the network for predictions: a run's, an exported file's, a registered model with weights, or ResNet-50."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit import imagenet
from dlkit.calibration import record
from dlkit.calibration.record import Calibration
from dlkit.data.download.http import UnreachableError
from dlkit.errors import UsageError
from dlkit.evaluation.bare_weights import Inputs, find_network, title
from dlkit.privacy import offline
from dlkit.runs.run_folder import CheckpointName, RunFolder, list_runs, select_run
from dlkit.specs import LINKS, ImageSpec, Link, SequenceSpec, Spec, TreeSpec
from dlkit.training.weights import IMAGENET, cached

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dlkit.inference.classifier import Classifier

DEFAULT_MODEL = "resnet50"  # if there are no runs

Say = Callable[[str], None]


@dataclass(frozen=True)
class Network:
    """A model that is not built yet; only `load` and `module` import torch."""

    name: str
    spec: Spec
    load: Callable[[str], Classifier]  # from a device's name
    module: Callable[[str], tuple[nn.Module, torch.device]] | None = None  # None: not a torch model
    seed: int = 0
    link: Link = "softmax"
    calibration: Calibration | None = None


def select_network(
    run: RunFolder | Path | str | None,
    model: str | None,
    weights: Path | str | None,
    inputs: Inputs,
    runs_dir: Path,
    checkpoint: CheckpointName,
    say: Say,
) -> Network:
    """The network that the options of predict select."""
    by_name = model is not None or weights is not None
    if by_name and run is not None:
        raise UsageError("a run and --model or --weights cannot be combined. Use one of them.")
    if network := _from_model_file(model, weights, inputs):
        return network
    if by_name:
        return _from_weights(model, weights, inputs, runs_dir, checkpoint, say)
    if inputs.given():
        raise UsageError(f"{inputs.given()[0]} describes --weights, and a run has its own description. Remove it.")
    if run is None and not list_runs(runs_dir):
        return _without_a_run(runs_dir, checkpoint, say)
    return _from_run(select_run(run, runs_dir, say), checkpoint, say)


def check_predictable(network: Network, nodes: bool) -> None:
    """Raises: UsageError if predict cannot read the model's inputs, or they have no nodes."""
    spec = network.spec
    if isinstance(spec, SequenceSpec) and not (spec.classes and spec.words):
        raise UsageError(f"predict reads images and text; {network.name} was trained on sequences of numbers.")
    if nodes and not isinstance(spec, TreeSpec):
        raise UsageError(f"--nodes is for models of trees; {network.name} reads {spec.kind}.")


def with_mc_dropout(network: Network, passes: int) -> Network:
    """The network with that many passes of MC dropout."""
    module, spec = network.module, network.spec
    if module is None or not isinstance(spec, ImageSpec):
        kind = "an exported file" if module is None else f"a model of {spec.kind}"
        raise UsageError(f"--mc-dropout is for a run's or a weights file's model of images; this is {kind}.")

    def load(device: str) -> Any:
        from dlkit.evaluation.mc_dropout import McDropoutClassifier

        return McDropoutClassifier(*module(device), spec, passes, network.seed, network.link)

    return replace(network, load=load, calibration=None)


def _from_run(run: RunFolder, checkpoint: CheckpointName, say: Say) -> Network:
    def module(device: str) -> tuple[nn.Module, torch.device]:
        from dlkit.training.restore import restore

        restored = restore(run, checkpoint, device, say)
        return restored.model, restored.device

    recipe = run.trained_recipe()
    network = _by_torch(recipe.model.name, run.spec(), module, recipe.train.seed, LINKS[recipe.loss.name])
    return replace(network, calibration=record.selected(run, checkpoint))


def _from_model_file(model: str | None, weights: Path | str | None, inputs: Inputs) -> Network | None:
    """The exported file that --model names; None if it is the name of a model."""
    if model is None:
        return None
    from dlkit.evaluation.model_file import is_model_file, open_model_file

    if not is_model_file(model):
        return None
    others = [*(["--weights"] if weights is not None else []), *inputs.given()]
    if others:
        raise UsageError(f"--model {model} has its own weights and classes. Remove {others[0]}.")
    file = open_model_file(Path(model))
    return Network(file.about.model, file.about.spec, file.load, link=file.about.link)


def _from_weights(
    model: str | None,
    weights: Path | str | None,
    inputs: Inputs,
    runs_dir: Path,
    checkpoint: CheckpointName,
    say: Say,
) -> Network:
    """A registered model with weights that have their own spec, or whose spec `inputs` describe."""
    network = find_network(model, weights, inputs, runs_dir, checkpoint, say)
    return _by_torch(title(network, weights), network.spec, network.module, link=network.source.link)


def _without_a_run(runs_dir: Path, checkpoint: CheckpointName, say: Say) -> Network:
    """The default network if there are no runs."""
    if offline() and cached(imagenet.FILES[DEFAULT_MODEL], say) is None:
        raise UnreachableError(
            f"there are no runs in {runs_dir}, and DLKIT_OFFLINE forbids fetching the ImageNet weights of "
            f"{DEFAULT_MODEL}. Unset it, train a run (dlkit train lenet5 --dataset mnist), or name a model and its "
            f"weights: --model NAME --weights FILE."
        )
    published = f"{DEFAULT_MODEL} with ImageNet's weights, published by torchvision"
    say(f"important: there are no runs in {runs_dir}: using {published}")
    return _from_weights(DEFAULT_MODEL, IMAGENET, Inputs(), runs_dir, checkpoint, say)


def _by_torch(
    name: str,
    spec: Spec,
    module: Callable[[str], tuple[nn.Module, torch.device]],
    seed: int = 0,
    link: Link = "softmax",
) -> Network:
    def load(device: str) -> Classifier:
        from dlkit.inference.torch_classifier import torch_classifier
        from dlkit.training import memory
        from dlkit.training.precision import lay_out

        memory.keep_freed()
        model, torch_device = module(device)
        lay_out(model, torch_device)
        return torch_classifier(model, torch_device, spec, link)

    return Network(name, spec, load, module, seed, link)
