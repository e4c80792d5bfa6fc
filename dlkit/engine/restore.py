"""Trained weights back into a network: from a run, or from a file of weights."""

from __future__ import annotations

from collections.abc import Callable
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
from dlkit.errors import ModelFileError
from dlkit.recipe import Recipe
from dlkit.specs import ImageSpec

MIXED_IN = ("module.", "_orig_mod.")  # what wrappers put before every name


@dataclass(frozen=True)
class Restored:
    """A network in eval mode with its weights, and what it needs to be used."""

    model: nn.Module
    spec: ImageSpec
    recipe: Recipe
    device: torch.device
    step: int
    run: RunFolder


def restore(
    run: RunFolder, which: str = "best", device: str = "auto", say: Callable[[str], None] = lambda text: None
) -> Restored:
    """The network of a run with the weights of its "best" or "last" checkpoint; averaged weights where it has them.

    Raises:
        ModelFileError: the run holds no whole checkpoint.
    """
    recipe, spec, place = run.recipe(), run.spec(), choose_device(device)
    model = build(recipe.model.name, spec, dict(recipe.model.options))
    found = _checkpoint(run, which, say)
    prefix = "ema/" if recipe.train.ema else "model/"
    weights = {name.removeprefix(prefix): tensor for name, tensor in found.tensors.items() if name.startswith(prefix)}
    load_into(model, weights, f"the checkpoint of {run.name}")
    return Restored(model.to(place).eval(), spec, recipe, place, found.step, run)


def build(name: str, spec: ImageSpec, options: dict[str, Any]) -> nn.Module:
    """A network of the shelf, its weights fresh."""
    module = catalog.load("models", name)
    return cast(nn.Module, module.build(spec, **catalog.resolved_options("models", name, options)))


def read_weights(source: Path) -> dict[str, Tensor]:
    """Weights by name from a .safetensors file, or a .pt or .pth state dict read without executing anything.

    Raises:
        ModelFileError: no such file, damaged, or a pickle that holds more than tensors.
    """
    if not source.is_file():
        raise ModelFileError(f"weights {source}: no such file. Give a run, a .safetensors or a .pt state dict.")
    try:
        if source.suffix == ".safetensors":
            tensors = safetensors.torch.load_file(source)
        else:
            tensors = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile or damaged file may make a reader raise anything
        raise ModelFileError(
            f"weights {source} cannot be read: {(str(error).splitlines() or [type(error).__name__])[0]}"
        ) from error
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ModelFileError(f"weights {source} hold more than tensors by name; save model.state_dict() alone.")
    return {_plain(str(name)): tensor for name, tensor in tensors.items()}


def load_state(model: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Copy weights into a network; every name and shape must match (ModelFileError with the first of each kind)."""
    load_into(model, tensors, source)


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


def _plain(name: str) -> str:
    for prefix in MIXED_IN:
        name = name.removeprefix(prefix)
    return name
