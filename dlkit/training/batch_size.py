"""--batch-size auto: the largest batch that fits, found by running the real step.

Sizes are doubled from 8. On a GPU until memory runs out or 90 % of it are taken, then halved in between, to an eighth.
On a CPU until two thirds of the free memory would be taken (foreseen, for a process that asks for more may be killed),
or until twice the batch computes less than 5 % more images a second: what is larger only learns more slowly. An epoch
always keeps 16 steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from dlkit.config.resolve import with_changes
from dlkit.data.batches import Batch
from dlkit.data.loader import TrainingData
from dlkit.errors import UsageError
from dlkit.training import memory
from dlkit.training.assembly import batches, new_run
from dlkit.training.inputs import Materials, Say, silent
from dlkit.training.loop import Run, train_step

SMALLEST = 8
STEPS_AN_EPOCH = 16
GPU_SHARE, CPU_SHARE = 0.9, 2 / 3  # of the memory that is free
WORTH = 1.05  # times as quick a larger batch must be, on a CPU
TIMED = 3  # steps of each size; the quickest counts


def with_largest_batch(materials: Materials, say: Say) -> Materials:
    """The same, its recipe with the batch size found.

    Raises:
        UsageError: several processes train together.
    """
    if materials.world.size > 1:
        raise UsageError("--batch-size auto is for one process: give torchrun's processes a number.")
    run, _ = new_run(materials, silent)
    least = run.smallest_share * run.settings.accumulate if run.smallest_share > 1 else 1
    most = max(len(materials.data.splits["train"]) // STEPS_AN_EPOCH, least)
    run.freezing.apply(run.model.train(), 0)
    trial = Trial(replace(run, lr=lambda step: 0.0), batches(run, materials.recipe, materials.data)[0])
    found, reason = (on_gpu if materials.device.type == "cuda" else on_cpu)(
        trial, max(min(SMALLEST, most), least), most
    )
    lr = materials.recipe.optimizer.lr
    say(f"batch size: {found:,} ({reason}); the lr stays {lr:g}, `dlkit lr-find --batch-size {found}` suggests one")
    return replace(materials, recipe=with_changes(materials.recipe, {"train.batch_size": found}))


class Trial:
    """A run whose weights nobody needs, for steps of any size."""

    def __init__(self, run: Run, data: TrainingData) -> None:
        self.run, self.data = run, data

    def step(self, size: int) -> float:
        """Seconds that a step takes, at best."""
        batch = self.batch(size)
        return min(self._timed(batch) for _ in range(TIMED))

    def batch(self, size: int) -> Batch:
        """So many samples; of images a few, over and over."""
        if self.data.spec.kind != "images":
            return next(replace(self.data, batch_size=size).epoch(0))
        few = next(replace(self.data, batch_size=min(size, SMALLEST), workers=0).epoch(0))
        times = math.ceil(size / len(few))
        inputs = torch.cat([few.inputs] * times)[:size]
        return Batch(inputs, few.targets.repeat(times)[:size], few.indices.repeat(times)[:size], total=size)

    def _timed(self, batch: Batch) -> float:
        begun = time.perf_counter()
        train_step(self.run, batch)
        return time.perf_counter() - begun


def on_gpu(trial: Trial, size: int, most: int) -> tuple[int, str]:
    """The largest size, to an eighth, that leaves a tenth of the memory free."""
    total = memory.available(trial.run.device)
    assert total is not None
    found = largest(lambda size: _fits_gpu(trial, size, GPU_SHARE * total), size, most)
    return found, "an epoch keeps 16 steps" if found == most else f"of {memory.gib(total)} on the GPU, 90 % were let be"


def largest(fits: Callable[[int], bool], size: int, most: int) -> int:
    """The largest size from `size` to `most` that fits, to an eighth, found by doubling and halving."""
    good, bad = size, None
    while good < most:
        size = min(2 * good, most) if bad is None else (good + bad) // 2
        if bad is not None and bad - good <= max(good // 8, 1):
            break
        if fits(size):
            good = size
        else:
            bad = size
    return good


def on_cpu(trial: Trial, size: int, most: int) -> tuple[int, str]:
    """The largest doubling whose memory is there and whose speed is worth it."""
    free, before = memory.available(trial.run.device), memory.taken(trial.run.device)
    rate = size / trial.step(size)
    while 2 * size <= most:
        now = memory.peak(trial.run.device)
        if free is not None and before is not None and now is not None and 2 * (now - before) > CPU_SHARE * free:
            return size, f"the next would take {memory.gib(2 * (now - before))} of {memory.gib(free)}"
        seconds = trial.step(2 * size)
        if 2 * size / seconds < WORTH * rate:
            return size, f"{rate:,.0f} {trial.run.counted}/s; twice that is no quicker"
        size, rate = 2 * size, 2 * size / seconds
    return size, f"an epoch keeps {STEPS_AN_EPOCH} steps"


def _fits_gpu(trial: Trial, size: int, budget: float) -> bool:
    memory.forget_peak(trial.run.device)
    try:
        trial.step(size)
    except torch.OutOfMemoryError:
        trial.run.optimizer.zero_grad(set_to_none=True)
        return False
    peak = memory.peak(trial.run.device)
    return peak is None or peak <= budget
