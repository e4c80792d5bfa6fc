"""The zoo's speed beside torchvision's: `python tests/benchmarks/zoo_speed.py [NAMES] [--rounds N] …`.

NAMES are models with torchvision's weights, comma-separated (by default all of them). Batch 8 of noise at 224 pixels,
CPU, two threads (--threads), SGD with momentum, both ways in one process:

    torchvision   its model in a bare loop: zero_grad, forward, cross entropy, backward, step; eval under inference_mode
    dlkit         dlkit's model in dlkit's own training step (training.loop.train_step, which counts right answers,
                  takes the gradient's norm and refuses one that is not finite), in the memory format that dlkit chooses

A round is a step of each in turn, first one and then the other first; what counts is the median of the ratios within a
round, since the machine's speed drifts. --memory compares the processes' peak over two steps, each in a process of its
own (by default densenet121, "" for none).
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

BATCH, SIZE, CLASSES, WARM = 8, 224, 1000, 2
TORCHVISIONS = {
    name: {"alexnet_owt": "alexnet"}.get(name, name)
    for name in (
        "alexnet_owt",
        *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
        *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
        *(f"densenet{depth}" for depth in (121, 161, 169, 201)),
        "vit_b_16",
    )
}
WAYS, MODES = ("torchvision", "dlkit"), ("training", "inference")

Step = Callable[[], object]


def torchvision_steps(name: str) -> dict[str, Step]:
    """What a tutorial writes."""
    import torch
    from torch.nn.functional import cross_entropy
    from torchvision import models

    model, (images, targets) = models.get_model(TORCHVISIONS[name]), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def train() -> None:
        model.train()
        optimizer.zero_grad()
        cross_entropy(model(images), targets).backward()
        optimizer.step()

    def infer() -> None:
        model.eval()
        with torch.inference_mode():
            model(images)

    return {"training": train, "inference": infer}


def dlkit_steps(name: str) -> dict[str, Step]:
    import torch

    from dlkit.data.batches import Batch
    from dlkit.training.loop import train_step
    from dlkit.training.precision import lay_out, trains_channels_last

    cpu, model, (images, targets) = torch.device("cpu"), build(name), batch()
    side_by_side = images.contiguous(memory_format=torch.channels_last)
    if trains_channels_last(model, natural_spec(), cpu, None):
        model, images = model.to(memory_format=torch.channels_last), side_by_side
    run, step = as_run(model), Batch(images, targets, torch.arange(BATCH), BATCH)

    def train() -> None:
        model.train()
        train_step(run, step)

    def infer() -> None:
        lay_out(model, cpu)  # changes nothing where it has been
        model.eval()
        with torch.inference_mode():
            model(side_by_side)

    return {"training": train, "inference": infer}


def as_run(model: Any) -> Any:
    """The Run that a recipe of SGD with momentum and nothing else comes to."""
    import torch

    from dlkit.config.schema import Loss, Train
    from dlkit.training import losses
    from dlkit.training.distributed import World
    from dlkit.training.loop import Run

    return Run(
        model=model,
        network=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9),
        loss=losses.build(Loss()),
        validation_loss=losses.build(Loss()),
        lr=lambda step: 1e-3,
        regularizers=(),
        settings=Train(epochs=1, batch_size=BATCH),
        device=torch.device("cpu"),
        dtype=None,
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        world=World(),
        averaged=None,
        steps_per_epoch=1,
    )


def build(name: str) -> Any:
    from dlkit.training.restore import build as build_model

    return build_model(name, natural_spec(), {})


def natural_spec() -> Any:
    from dlkit.evaluation import model_summary

    return model_summary.natural_spec(3, SIZE, SIZE, CLASSES)


def batch() -> tuple[Any, Any]:
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randn(BATCH, 3, SIZE, SIZE, generator=generator), torch.arange(BATCH)


def compare(name: str, rounds: int) -> None:
    """Print a model's two speeds in each mode."""
    steps = {"torchvision": torchvision_steps(name), "dlkit": dlkit_steps(name)}
    for mode in MODES:
        for _ in range(WARM):
            for way in WAYS:
                steps[way][mode]()
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        for number in range(rounds):
            for way in WAYS if number % 2 else WAYS[::-1]:
                seconds[way].append(timed(steps[way][mode]))
        report(name, mode, seconds)


def timed(step: Step) -> float:
    begun = time.perf_counter()
    step()
    return time.perf_counter() - begun


def report(name: str, mode: str, seconds: dict[str, list[float]]) -> None:
    ratios = [theirs / ours for theirs, ours in zip(*(seconds[way] for way in WAYS), strict=True)]
    theirs, ours = (BATCH / statistics.median(seconds[way]) for way in WAYS)
    low, high = min(ratios), max(ratios)
    print(
        f"{name:12} {mode:9}  torchvision {theirs:7.2f}  dlkit {ours:7.2f} images/s"
        f"  ratio {statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})",
        flush=True,
    )


def compare_memory(name: str, rounds: int) -> None:
    """Print a model's peak memory in each mode, each measurement a process."""
    for mode in MODES:
        peaks = {way: [peak_of_process(name, way, mode) for _ in range(rounds)] for way in WAYS}
        theirs, ours = (statistics.median(peaks[way]) for way in WAYS)
        print(f"{name:12} {mode:9}  peak memory: torchvision {theirs:,.0f}  dlkit {ours:,.0f} MiB", flush=True)


def peak_of_process(name: str, way: str, mode: str) -> float:
    import torch

    command = [sys.executable, __file__, name, "--threads", str(torch.get_num_threads()), "--peak", way, mode]
    return float(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))


def peak(name: str, way: str, mode: str) -> float:
    """MiB that this process held at most. It imports what the other way does, too, so that only the steps differ."""
    import torchvision  # noqa: F401

    step = {"torchvision": torchvision_steps, "dlkit": dlkit_steps}[way](name)[mode]
    for _ in range(WARM):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(names: Sequence[str], memory: Sequence[str], rounds: int) -> None:
    for name in names:
        compare(name, rounds)
    for name in memory:
        compare_memory(name, rounds)


def listed(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="?", default=",".join(TORCHVISIONS), help="comma-separated; '' for none")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", default="densenet121", help="whose peak memory to compare; '' for none")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()

    import torch

    torch.set_num_threads(given.threads)
    if given.peak:
        print(peak(given.names, *given.peak))
    else:
        threads, rounds = given.threads, given.rounds
        print(f"batch {BATCH}, {SIZE} pixels, {threads} threads, median of {rounds} rounds (min to max)", flush=True)
        main(listed(given.names), listed(given.memory), given.rounds)
