"""A run's state as tensors and plain values, and back: what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from dlkit.errors import ModelFileError
from dlkit.training.checkpoint import Checkpoint
from dlkit.training.loop import Best, Run, Window


def tensors(run: Run) -> dict[str, Tensor]:
    """Weights, buffers, the optimizer's moments, the averaged weights and what regularizers keep, by name."""
    found = {f"model/{name}": tensor for name, tensor in run.model.state_dict().items()}
    if run.averaged is not None:
        found |= {f"ema/{name}": tensor for name, tensor in run.averaged.state_dict().items()}
    found |= _kept_by_regularizers(run)
    for place, moments in run.optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            if isinstance(value, Tensor):
                found[f"optimizer/{place}/{name}"] = value
    return {name: tensor.detach().cpu() for name, tensor in found.items()}


def values(run: Run) -> dict[str, Any]:
    """Counters, the best so far, early stopping, the scaler, and the sums not yet logged."""
    return {
        "step": run.step,
        "epochs_done": run.epochs_done,
        "best": None if run.best is None else asdict(run.best),
        "stale": run.stale,
        "skipped": run.skipped,
        "metrics_lines": run.metrics_lines,
        "window": {key: value for key, value in asdict(run.window).items() if key != "seconds"},
        "scaler": run.scaler.state_dict(),
    }


def restore(run: Run, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's state into a run built from the same recipe.

    Raises:
        ModelFileError: the checkpoint is of another network or optimizer.
    """
    load_into(run.model, _under("model/", checkpoint.tensors), "the checkpoint")
    if run.averaged is not None:
        load_into(run.averaged, _under("ema/", checkpoint.tensors), "the checkpoint's averaged weights")
    for key, tensor in _kept_by_regularizers(run).items():
        if key not in checkpoint.tensors:
            raise ModelFileError(f"the checkpoint of step {checkpoint.step} lacks {key}.")
        tensor.copy_(checkpoint.tensors[key])
    _restore_moments(run.optimizer, _under("optimizer/", checkpoint.tensors))
    state = checkpoint.state
    try:
        run.step, run.epochs_done = state["step"], state["epochs_done"]
        run.best = None if state["best"] is None else Best(**state["best"])
        run.stale, run.skipped, run.metrics_lines = state["stale"], state["skipped"], state["metrics_lines"]
        run.window = Window(**state["window"])
        if run.scaler.is_enabled():
            run.scaler.load_state_dict(state["scaler"])
    except (KeyError, TypeError) as error:
        raise ModelFileError(f"the checkpoint of step {checkpoint.step} lacks state: {error}.") from error


def load_into(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy weights and buffers by name; every name and shape must match.

    Raises:
        ModelFileError: with counts and the first five of each kind.
    """
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in tensors]
    extra = [name for name in tensors if name not in wanted]
    shapes = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(wanted[name].shape)}"
        for name in wanted
        if name in tensors and tensors[name].shape != wanted[name].shape
    ]
    faults = [("missing", missing), ("unexpected", extra), ("of another shape", shapes)]
    if any(names for _, names in faults):
        told = "; ".join(f"{len(names)} {kind}: {', '.join(names[:5])}" for kind, names in faults if names)
        raise ModelFileError(f"{source} does not fit {type(model).__name__}: {told}.")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelFileError(f"{source} holds numbers that are not finite, first in {name}.")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(tensors[name])  # in place: the memory format stays the model's


def _kept_by_regularizers(run: Run) -> dict[str, Tensor]:
    return {
        f"regularizer/{place}/{name}": tensor
        for place, regularizer in enumerate(run.regularizers)
        for name, tensor in regularizer.state().items()
    }


def _restore_moments(optimizer: torch.optim.Optimizer, moments: Mapping[str, Tensor]) -> None:
    parameters = [(parameter, group) for group in optimizer.param_groups for parameter in group["params"]]
    for key, saved in moments.items():
        place, name = key.split("/")
        parameter, group = parameters[int(place)]
        if saved.shape == parameter.shape:
            # Fused kernels walk memory in order: the moments must lie in the parameter's own format.
            value = torch.empty_like(parameter).copy_(saved)
        else:
            value = saved.to(parameter.device if group.get("fused") else "cpu", copy=True)  # the step count
        optimizer.state[parameter][name] = value


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
