"""forecast: how long an epoch of a recipe takes, and how large its checkpoints are, from some steps of a run's own."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch

from dlkit.data.batches import Batch
from dlkit.data.loader import TrainingData
from dlkit.training import state
from dlkit.training.assembly import batches, new_run
from dlkit.training.inputs import Materials, silent
from dlkit.training.loop import Run, train_step, validate

FIRST_STEPS = 2  # they are slower: memory is got, kernels are chosen
MEASURED_S, MEASURED_STEPS = 5.0, 20  # after them, at least
PATIENCE_S = 60.0  # and at most
VALIDATED_S = 2.0

Clock = Callable[[], float]  # seconds


@dataclass(frozen=True)
class Epoch:
    """What an epoch takes, in seconds, and the bytes of the checkpoint it ends with."""

    steps: int
    training: float
    validation: float
    saving: float
    checkpoint_bytes: int

    @property
    def seconds(self) -> float:
        return self.training + self.validation + self.saving

    def __str__(self) -> str:
        step = f"{self.steps:,} step{'s' if self.steps > 1 else ''} of {1000 * self.training / self.steps:.3g} ms"
        return f"{lasting(self.seconds)}: {step}, validation {lasting(self.validation)}, saving {lasting(self.saving)}"


def epoch(materials: Materials, clock: Clock = time.perf_counter) -> Epoch:
    """From the real loader, steps of the real size and one checkpoint, in memory; the run is thrown away."""
    run, _ = new_run(materials, silent)
    run.freezing.apply(run.model.train(), 0)
    training, validation = batches(run, materials.recipe, materials.data)
    steps, kept = training.steps_per_epoch, materials.data.splits
    training_s = training_time(run, training, clock)
    validation_s = 0.0 if validation is None else validation_time(run, validation, len(kept["validation"]), clock)
    begun = clock()
    payload = safetensors.torch.save({name: tensor.contiguous() for name, tensor in state.tensors(run).items()})
    hashlib.sha256(payload).hexdigest()
    saves = 1 + (steps - 1) // run.settings.checkpoint_every
    return Epoch(steps, training_s, validation_s, (clock() - begun) * saves, len(payload))


def training_time(run: Run, training: TrainingData, clock: Clock) -> float:
    """Seconds of an epoch's steps; what the first ones take is counted once."""
    begun, first = clock(), 0.0
    with closing(training.epoch(0)) as given:  # type: ignore[type-var]
        for done, batch in enumerate(given, start=1):
            train_step(run, batch)
            now = clock() - begun
            if done <= FIRST_STEPS:
                first = now
            elif now > PATIENCE_S or (now - first > MEASURED_S and done - FIRST_STEPS >= MEASURED_STEPS):
                return first + (training.steps_per_epoch - FIRST_STEPS) * (now - first) / (done - FIRST_STEPS)
    return clock() - begun


def validation_time(run: Run, validation: Callable[[], Iterator[Batch]], samples: int, clock: Clock) -> float:
    """Seconds of a validation, from the first batches of it."""
    begun, seen = clock(), 0

    def some() -> Iterator[Batch]:
        nonlocal seen
        for batch in validation():
            yield batch
            seen += batch.total
            if clock() - begun > VALIDATED_S:
                return

    validate(run, some(), lambda: 0)
    return (clock() - begun) * samples / seen


def free_at(place: Path) -> int:
    """Bytes that are free where a folder is, or would be."""
    there = next(folder for folder in (place, *place.absolute().parents) if folder.is_dir())
    return shutil.disk_usage(there).free


def lasting(seconds: float) -> str:
    """0.3 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 9.95 else f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
