"""preflight: what can be known of a training before it. A glance before every run, and all of it by `train --check`.

initial loss   near that of logits which are all alike, ln(classes) for the cross entropy
gradients      reach every parameter that is to train
one batch      can be learned by heart: its loss falls by half and more
validation     enough samples to rank epochs
memory         of the real step, against what is free
epoch          how long it will take: steps of the real size from the real loader, validation, saving
disk           room for the checkpoints that are kept

All of it is done to runs that are built for it and thrown away; the run proper is built afterwards, from its seed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dlkit import statistics
from dlkit.config.schema import Recipe
from dlkit.data.batches import Batch
from dlkit.errors import DivergedError
from dlkit.training import forecast, memory, state
from dlkit.training.assembly import batches, new_run
from dlkit.training.batch_size import with_largest_batch
from dlkit.training.distributed import World
from dlkit.training.inputs import Materials, Say, gather, ready, refuse_fitted, silent
from dlkit.training.loop import Run, Window, forward_backward, train_step

SCHEMA = "dlkit.check/1"
FEW = 32  # samples: enough for a glance
HEART_STEPS, HEART_S, HEART_WARM_UP = 300, 30.0, 10  # to learn a batch by heart: at most

SMALL_VALIDATION, WIDE_INTERVAL = 100, 0.2  # samples; width of an accuracy's 95 % interval: too vague to rank epochs

LOUD = 5.0  # times the loss of a guess: deep residual networks begin with three times it, and train

OK, WARNING, FAILED = "ok", "warning", "failed"


@dataclass(frozen=True)
class Check:
    """What was looked at, how it stands (ok, warning, failed), what was found and what is right."""

    check: str
    result: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.check}: {self.found}; expected {self.expected}."


@dataclass(frozen=True)
class Preflight:
    """All checks of a recipe, and the numbers behind the estimates."""

    model: str
    dataset: str
    checks: tuple[Check, ...]
    epoch_s: float
    run_s: float
    checkpoint_bytes: int
    peak_bytes: int | None

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if check.result == FAILED]

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.check/1`."""
        return {"schema": SCHEMA, **asdict(self)}


@dataclass(frozen=True)
class Trial:
    """A run that is thrown away, without regularizers and averages, and the first few samples."""

    run: Run
    batch: Batch
    outputs: int  # classes; 1 where a number is asked for


def glance(materials: Materials, place: Path, say: Say) -> None:
    """Before a run: its first loss, its gradients and the room at `place`, on a few samples; what is wrong is said."""
    trial = small_trial(materials)
    for check in (*first_step(trial, started=materials.start is not None), *validation_size(materials)):
        if check.result != OK:
            say(f"warning: {check}")
    trial.run.optimizer.step()  # its moments are in a checkpoint too
    tell_little_room(trial.run, place, say)


def tell_little_room(run: Run, place: Path, say: Say) -> None:
    """Say where a disk has no room for two checkpoints of a run: one is written before another goes."""
    check = disk(place, sum(tensor.nbytes for tensor in state.tensors(run).values()), kept=1)
    if check.result != OK:
        say(f"warning: {check}")


def preflight(recipe: Recipe, *, runs_dir: Path, auto_batch: bool = False, say: Say = silent) -> Preflight:
    """Look at all that can be known of a recipe's training. Nothing is written."""
    refuse_fitted(recipe)
    with ready(recipe, World(), recipe.train.threads) as device:
        materials = gather(recipe, device, World(), runs_dir, say)
        if auto_batch:
            materials = with_largest_batch(materials, say)
        recipe, epochs = materials.recipe, materials.recipe.train.epochs
        memory.forget_peak(device)
        expected = forecast.epoch(materials)
        peak = memory.peak(device)
        checks = [
            *first_step(small_trial(materials), started=materials.start is not None),
            *by_heart(small_trial(materials), recipe),
            *validation_size(materials),
            memory_fits(peak, memory.available(device)),
            Check("epoch", OK, str(expected), f"{epochs} of them: {forecast.lasting(epochs * expected.seconds)}"),
            disk(runs_dir, expected.checkpoint_bytes, kept=recipe.train.keep + 1),
        ]
        return Preflight(
            model=recipe.model.name,
            dataset=recipe.data.name,
            checks=tuple(checks),
            epoch_s=round(expected.seconds, 3),
            run_s=round(epochs * expected.seconds, 3),
            checkpoint_bytes=expected.checkpoint_bytes,
            peak_bytes=peak,
        )


def small_trial(materials: Materials) -> Trial:
    """Built from the recipe's start, as the run will be."""
    run, _ = new_run(replace(materials, world=World()), silent)
    run = replace(run, regularizers=(), averaged=None, network=run.model)
    run.freezing.apply(run.model.train(), 0)
    training, _ = batches(run, materials.recipe, materials.data)
    few = replace(training, batch_size=min(FEW, training.batch_size), workers=0)
    with closing(few.epoch(0)) as given:  # type: ignore[type-var]
        return Trial(run, next(given), materials.data.spec.outputs)


def first_step(trial: Trial, started: bool) -> list[Check]:
    """The first loss, and where its gradients come to; `started`: from trained weights."""
    losses, _ = forward_backward(trial.run, trial.batch)
    checks = [first_loss(trial, float(losses) / len(trial.batch), started)] if trial.run.classes else []
    return [*checks, reached(trial.run.model)]


def validation_size(materials: Materials) -> list[Check]:
    """Whether the validation split is large enough to tell one epoch from another, if it is what chooses the best."""
    train = materials.recipe.train
    if not train.monitor.startswith("val/") or train.select == "last" or "validation" not in materials.data.splits:
        return []
    samples = len(materials.data.splits["validation"])
    interval = statistics.wilson(samples // 2, samples)  # the widest
    width = interval.high - interval.low
    small = samples < SMALL_VALIDATION or width > WIDE_INTERVAL
    found = f"{samples:,} samples: the 95 % interval of an accuracy spans {100 * width:.0f} points"
    expected = f"{SMALL_VALIDATION} samples or more, to rank epochs: raise data.validation, or set train.select=last"
    return [Check("validation", WARNING if small else OK, found, expected)]


def first_loss(trial: Trial, found: float, started: bool) -> Check:
    """The loss before any step; one that starts from trained weights may be smaller than that of a guess."""
    alike = guessed(trial)
    good = found <= LOUD * alike and (started or found >= alike / 2)  # false for nan
    expected = f"about {alike:.3f}, as where all classes are alike"
    return Check("initial loss", OK if good else WARNING, f"{found:.3f}", expected)


def guessed(trial: Trial) -> float:
    """The loss of logits that are all alike: ln(classes) for the cross entropy."""
    logits = torch.zeros(len(trial.batch), trial.outputs, device=trial.run.device)
    return float(trial.run.loss(logits, trial.batch.targets).mean())


def reached(model: nn.Module) -> Check:
    """Which parameters that are to train got no gradient."""
    named = dict(model.named_parameters())
    missed = [name for name, weight in named.items() if weight.requires_grad and weight.grad is None]
    frozen = sum(weight.numel() for weight in named.values() if not weight.requires_grad)
    total = sum(weight.numel() for weight in named.values())
    found = f"{total - frozen:,} of {total:,} parameters train" + (", the others are frozen" if frozen else "")
    if missed:
        found = f"none reaches {_some(missed)}"
    return Check("gradients", WARNING if missed else OK, found, "one for each parameter that is not frozen")


def by_heart(trial: Trial, recipe: Recipe) -> list[Check]:
    """Learn one batch by heart, at the recipe's highest lr after a short warm-up; then see what gets no gradient."""
    lr, losses, begun = recipe.optimizer.lr, list[float](), time.monotonic()
    run = replace(trial.run, lr=lambda step: lr * min(1.0, (step + 1) / HEART_WARM_UP))
    least = smoothing_entropy(recipe.loss.label_smoothing, trial.outputs) if run.classes else 0.0
    expected = f"to fall by half in {HEART_STEPS} steps"
    try:
        while len(losses) < HEART_STEPS and time.monotonic() - begun < HEART_S and fallen(losses, least) < 0.5:
            run.window = Window()
            train_step(run, trial.batch)
            losses.append(run.window.loss / run.window.samples)
    except DivergedError:
        return [Check("one batch", FAILED, f"diverged after {len(losses)} steps at lr {lr:g}", expected)]
    share = fallen(losses, least)
    found = f"loss {losses[0]:.3f} to {losses[-1]:.3f} in {len(losses)} steps at lr {lr:g}"
    result = OK if share >= 0.5 else WARNING if share >= 0.1 else FAILED
    return [Check("one batch", result, found, expected), alive(run, trial.batch)]


def fallen(losses: Sequence[float], least: float) -> float:
    """The share of the first loss, over the least there can be, that is gone in each of the last three steps."""
    if len(losses) < 4:
        return 0.0
    return 1 - (max(losses[-3:]) - least) / max(losses[0] - least, 1e-6)


def smoothing_entropy(smoothing: float, classes: int) -> float:
    """The least cross entropy with smoothed labels: (1 − ε + ε/K) and K − 1 times ε/K."""
    if smoothing == 0:
        return 0.0
    other = smoothing / classes
    right = 1 - smoothing + other
    return -right * math.log(right) - (classes - 1) * other * math.log(other)


def alive(run: Run, batch: Batch) -> Check:
    """Which parameters' gradients are all zero, after some steps: a start at zero is no death."""
    forward_backward(run, batch)
    graded = [(name, weight.grad) for name, weight in run.model.named_parameters() if weight.grad is not None]
    dead = [name for name, gradient in graded if not bool(gradient.any())]
    found = f"the gradient is zero in {_some(dead)}" if dead else f"none in {len(graded)} tensors"
    return Check("dead parameters", WARNING if dead else OK, found, "none")


def memory_fits(peak: int | None, free: int | None) -> Check:
    """The most that was taken, and what is left."""
    tight = peak is not None and free is not None and free < peak / 10
    return Check("memory", WARNING if tight else OK, f"{memory.gib(peak)} at most", f"{memory.gib(free)} are free")


def disk(place: Path, checkpoint: int, kept: int) -> Check:
    """Room for the checkpoints of a run, and for two at least."""
    needed, free = checkpoint * max(kept, 2), forecast.free_at(place)
    found = f"{free / 2**20:,.0f} MiB are free at {place}"
    expected = f"{needed / 2**20:,.1f} MiB for checkpoints of {checkpoint / 2**20:,.1f} MiB"
    return Check("disk", OK if free >= needed else WARNING, found, expected)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
