"""Trained weights back into a network: from a run, or from a file of weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from torch import Tensor, nn

from dlkit import catalog
from dlkit.engine import checkpoint
from dlkit.engine.precision import choose_device
from dlkit.engine.run_folder import RunFolder
from dlkit.engine.state import load_into
from dlkit.errors import ModelFileError, UsageError
from dlkit.recipe import Recipe
from dlkit.specs import LINKS, ImageSpec, Link, Spec

MIXED_IN = ("module.", "_orig_mod.")  # what wrappers put before every name
WRAPPED_AS = ("state_dict", "model")  # under which others save a state dict beside their own things
# names in torchvision's published files that its modules have outgrown
OUTGROWN = (
    (re.compile(r"(denselayer[0-9]+\.(?:norm|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(\.mlp)\.linear_2\."), r"\1.3."),
)

Say = Callable[[str], None]


def silent(text: str) -> None:
    """The default `say`."""


@dataclass(frozen=True)
class Restored:
    """A network in eval mode with its weights, and what it needs to be used."""

    model: nn.Module
    spec: Spec
    recipe: Recipe
    device: torch.device
    step: int
    run: RunFolder

    @property
    def link(self) -> Link:
        """How its outputs become class probabilities."""
        return LINKS[self.recipe.loss.name]

    @property
    def image_spec(self) -> ImageSpec:
        """The spec of a network that reads images.

        Raises:
            UsageError: it reads something else.
        """
        if not isinstance(self.spec, ImageSpec):
            raise UsageError(f"run {self.run.name} reads {self.spec.kind}; this is for runs that read images.")
        return self.spec


def restore(run: RunFolder, which: str = "best", device: str = "auto", say: Say = silent) -> Restored:
    """The network of a run with the weights of its "best" or "last" checkpoint; averaged weights where it has them.

    Raises:
        ModelFileError: the run holds no whole checkpoint.
    """
    recipe, spec, place = run.recipe(), run.spec(), choose_device(device)
    model = build(recipe.model.name, spec, dict(recipe.model.options))
    found = _checkpoint(run, which, say)
    load_into(model, _network_only(found.tensors), f"the checkpoint of {run.name}")
    return Restored(model.to(place).eval(), spec, recipe, place, found.step, run)


def run_weights(run: RunFolder, which: str = "best", say: Say = silent) -> dict[str, Tensor]:
    """The weights of a run's checkpoint by name, as `restore` would put them into its network."""
    return _network_only(_checkpoint(run, which, say).tensors)


def checkpoint_step(run: RunFolder, which: str) -> int | None:
    """The step of a run's "best" or "last" checkpoint, as the manifests have it; None if there is none."""
    run_id = run.info()["run_id"]
    for step in reversed(checkpoint.saved_steps(run.checkpoints)):
        try:
            best = checkpoint.read_manifest(run.checkpoints, step, run_id)["state"].get("best")
        except ModelFileError:
            continue
        return step if which == "last" or best is None else int(best["step"])
    return None


def build(name: str, spec: Spec, options: dict[str, Any]) -> nn.Module:
    """A network of the shelf, its weights fresh."""
    module = catalog.load("models", name)
    return cast(nn.Module, module.build(spec, **catalog.resolved_options("models", name, options)))


def read_weights(source: Path, say: Say = silent) -> dict[str, Tensor]:
    """Weights by name from a .safetensors file, or a .pt or .pth state dict read without executing anything.

    Of a run's checkpoint, the network's alone. What wrappers put before the names is stripped, and said.

    Raises:
        ModelFileError: no such file, damaged, or a pickle that holds more than tensors.
    """
    if not source.is_file():
        raise ModelFileError(f"weights {source}: no such file. Give a run, a .safetensors or a .pt state dict.")
    try:
        if source.suffix == ".safetensors":
            found: Any = safetensors.torch.load_file(source)
        else:
            found = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile or damaged file may make a reader raise anything
        raise ModelFileError(f"weights {source} cannot be read: {_why_not(error)}") from error
    return _plain(_network_only(_state_dict(found, source, say)), source, say)


def load_state(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy weights into a network; every name and shape must match (ModelFileError with the first of each kind)."""
    load_into(model, renewed(tensors, model), source)


def renewed(tensors: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Weights of an older torch or torchvision under the names of today, with batch norm's count where it is missing.

    A name is only changed where the network does not have it.
    """
    wanted = model.state_dict()
    found = {name if name in wanted else _grown(name, wanted): tensor for name, tensor in tensors.items()}
    for name, count in wanted.items():
        if name.endswith(".num_batches_tracked") and name.rpartition(".")[0] + ".running_mean" in found:
            found.setdefault(name, count)
    return found


def _checkpoint(run: RunFolder, which: str, say: Callable[[str], None]) -> checkpoint.Checkpoint:
    run_id = run.info()["run_id"]
    last = checkpoint.newest(run.checkpoints, run_id, say)
    best = last.state.get("best")
    if which == "last" or best is None or best["step"] == last.step:
        return last
    try:
        return checkpoint.load(run.checkpoints, best["step"], run_id)
    except ModelFileError as error:
        raise ModelFileError(f"{error}. --checkpoint last uses the newest instead.") from error


def _network_only(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a run's checkpoint, the weights that eval uses: the averaged ones where it has them."""
    for prefix in ("ema/", "model/"):
        under = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        if under:
            return under
    return tensors


def _state_dict(found: Any, source: Path, say: Say) -> dict[str, Tensor]:
    """Tensors by name, also where they lie under a key of their own."""
    if isinstance(found, Mapping):
        inner = [key for key in WRAPPED_AS if isinstance(found.get(key), Mapping)]
        if inner:
            say(f"weights {source}: taking what is saved under {inner[0]!r}")
            found = found[inner[0]]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelFileError(f"weights {source} hold more than tensors by name; save model.state_dict() alone.")
    return {str(name): tensor for name, tensor in found.items()}


def _plain(tensors: Mapping[str, Tensor], source: Path, say: Say) -> dict[str, Tensor]:
    """The weights without what wrappers put before their names."""
    stripped: set[str] = set()
    found = {}
    for name, tensor in tensors.items():
        for prefix in MIXED_IN:
            if name.startswith(prefix):
                stripped.add(prefix)
                name = name.removeprefix(prefix)
        found[name] = tensor
    if len(found) < len(tensors):
        raise ModelFileError(f"weights {source} hold a name twice, with and without {' and '.join(sorted(stripped))}")
    if stripped:
        say(f"weights {source}: stripped {' and '.join(sorted(stripped))} from the names")
    return found


def _grown(name: str, wanted: Mapping[str, Tensor]) -> str:
    for pattern, today in OUTGROWN:
        renamed = pattern.sub(today, name)
        if renamed in wanted:
            return renamed
    return name


def _why_not(error: Exception) -> str:
    """The reader's reason in a line. torch's own advises to execute the file."""
    asked = re.search(r"GLOBAL ([\w.]+)", str(error))
    if asked:
        return f"its pickle asks for {asked[1]}, and nothing was executed. Save model.state_dict() alone."
    if isinstance(error, RuntimeError | safetensors.SafetensorError) and str(error):
        return f"{str(error).splitlines()[0].split('. ')[0].rstrip('.')}."
    return "it is no state dict, or it is damaged."
