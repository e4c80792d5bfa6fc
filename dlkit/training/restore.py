"""Trained weights back into a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from dlkit import registry
from dlkit.calibration import record
from dlkit.calibration.record import Calibration
from dlkit.config.schema import Recipe
from dlkit.errors import ModelFileError, UsageError
from dlkit.layers.output_scaling import scale_outputs
from dlkit.runs.run_folder import RunFolder
from dlkit.specs import LINKS, ImageSpec, Link, Spec
from dlkit.training import checkpoint
from dlkit.training.precision import choose_device
from dlkit.training.state import load_into
from dlkit.training.weights_file import EMA, choose, own_parts

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
    sha256: str = ""  # of the checkpoint
    calibration: Calibration | None = None

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


def restore(
    run: RunFolder, which: str = "best", device: str = "auto", say: Say = silent, *, calibrated: bool = True
) -> Restored:
    """The network of a run with the weights of its "best" or "last" checkpoint; averaged weights where it has them.

    Its outputs are scaled as the run's calibration says, where it has one and unless `calibrated` is false.

    Raises:
        ModelFileError: the run holds no whole checkpoint, or the calibration is of another one.
    """
    recipe, spec, place = run.trained_recipe(), run.spec(), choose_device(device)
    model = build(recipe.model.name, spec, dict(recipe.model.options))
    found = _checkpoint(run, which, say)
    _, weights = choose(own_parts(found.tensors), None, f"the checkpoint of {run.name}", silent, default=EMA)
    load_into(model, weights, f"the checkpoint of {run.name}")
    model = model.to(place).eval()
    calibration = record.find(run, found.step, found.sha256) if calibrated else None
    if calibration is not None and calibration.scales:
        scale_outputs(model, calibration.scale, calibration.bias)
    return Restored(model, spec, recipe, place, found.step, run, found.sha256, calibration)


def run_weights(run: RunFolder, which: str = "best", say: Say = silent, part: str | None = None) -> dict[str, Tensor]:
    """The weights of a run's checkpoint by name, as `restore` takes them, or its part "raw" or "ema"."""
    found = _checkpoint(run, which, say)
    return choose(own_parts(found.tensors), part, f"the weights of run {run.name}", say, default=EMA)[1]


def build(name: str, spec: Spec, options: dict[str, Any]) -> nn.Module:
    """A network of the shelf, its weights fresh."""
    module = registry.load("models", name)
    return cast(nn.Module, module.build(spec, **registry.resolved_options("models", name, options)))


def _checkpoint(run: RunFolder, which: str, say: Callable[[str], None]) -> checkpoint.Checkpoint:
    run_id = run.info()["run_id"]
    last = checkpoint.newest(run.checkpoints, run_id, say)
    if last.state.get("epochs_done", 1) == 0:
        say(f"warning: run {run.name} has not trained an epoch yet; these are its weights after step {last.step:,}.")
    best = last.state.get("best")
    if which == "last" or best is None or best["step"] == last.step:
        return last
    try:
        return checkpoint.load(run.checkpoints, best["step"], run_id)
    except ModelFileError as error:
        raise ModelFileError(f"{error}. --checkpoint last uses the newest instead.") from error
