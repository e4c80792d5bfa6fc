"""How near `train --check` comes to a real epoch: `python tests/benchmarks/forecast.py`.

Each recipe is looked at, trained for an epoch, and looked at again, all in one process. The ratios are estimate over
epoch, by the clock and by the processor's time; on a machine with other work the clock's swing with that work.
MNIST must be in the cache.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

from dlkit.config.resolve import resolve
from dlkit.training import forecast
from dlkit.training.distributed import World
from dlkit.training.inputs import Materials, gather
from dlkit.training.train import Watch, train_recipe

RECIPES = (("lenet5", "mnist"), ("resnet20", "shapes"))


def trained(materials: Materials) -> tuple[float, float]:
    """Seconds of a real epoch, from the first step to the end of the run: by the clock, and of the processor."""
    begun: list[float] = []
    watch = Watch(begun=lambda info: begun.extend((time.perf_counter(), time.process_time())))
    with tempfile.TemporaryDirectory() as folder:
        train_recipe(
            materials.recipe, name="epoch", runs_dir=Path(folder), argv=[], say=str, progress=False, watch=watch
        )
        return time.perf_counter() - begun[0], time.process_time() - begun[1]


def main() -> None:
    for model, data in RECIPES:
        settings = {"train.epochs": 1, "schedule.warmup_epochs": 0.0}
        chosen = resolve(model, data, flags=settings).recipe
        materials = gather(chosen, torch.device("cpu"), World(), Path(), str)
        clocks = (time.perf_counter, time.process_time)
        before = [forecast.epoch(materials, clock).seconds for clock in clocks]
        real = trained(materials)
        after = [forecast.epoch(materials, clock).seconds for clock in clocks]
        ratios = [
            f"{name} {first / epoch:.2f} and {second / epoch:.2f}"
            for name, first, second, epoch in zip(("clock", "processor"), before, after, real, strict=True)
        ]
        print(f"{model} on {data}: an epoch takes {real[0]:.1f} s; estimated before and after, {', '.join(ratios)}")


if __name__ == "__main__":
    main()
