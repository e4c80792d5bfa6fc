"""Training speed and memory, side by side: `python tests/benchmarks/train_speed.py [MODEL] [ROUNDS]`.

LeNet-5 on MNIST (its real images if they are in dlkit's cache, else noise of the same shape), batch 128, Adam, CPU:

    ordinary   torchvision's MNIST, ToTensor, Normalize, DataLoader with 2 workers, torch.optim.Adam, a tutorial's model
               (of lenet5 there is none: dlkit's own)
    bare       a loop by hand over one uint8 tensor in memory, normalised a batch at a time, dlkit's model
    dlkit      `dlkit.train`: the images/s that its metrics.jsonl states

Each runs as a process of its own, in turn, ROUNDS times; the medians of the ratios within a round are what counts,
since the machine's speed drifts. images/s is over the training loop after 20 steps; memory is the process's peak.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time

BATCH, STEPS, SKIPPED = 128, 400, 20
WAYS = ("ordinary", "bare", "dlkit")


def ordinary(model_name: str) -> float:
    import torch
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    images, targets = mnist()
    steps = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    # torchvision's own class, its files replaced by the arrays: the work an item costs is the same.
    dataset = datasets.MNIST.__new__(datasets.MNIST)
    dataset.data, dataset.targets = torch.from_numpy(images[:, 0]), torch.from_numpy(targets)
    dataset.transform, dataset.target_transform = steps, None
    loader = DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=2)
    return timed_loop(tutorial() if model_name == "lenet5_relu" else build(model_name), loader)


def tutorial() -> object:
    """LeNet-5 of today in torch's own layers, as tutorials write it: the same 61,706 parameters as lenet5_relu."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def bare(model_name: str) -> float:
    import torch

    images, targets = (torch.from_numpy(array) for array in mnist())

    def batches() -> object:
        while True:
            for places in torch.randperm(len(images)).split(BATCH):
                yield images[places].float().div_(255).sub_(0.1307).div_(0.3081), targets[places]

    return timed_loop(build(model_name), batches())


def dlkit_train(model_name: str) -> float:
    import dlkit

    epochs = -(-STEPS * BATCH // len(mnist()[1]))
    with tempfile.TemporaryDirectory() as folder:
        run = dlkit.train(
            model_name,
            dataset="mnist",
            epochs=epochs,
            batch_size=BATCH,
            settings={
                "optimizer.name": "adam",
                "optimizer.weight_decay": 0,
                "schedule.name": "constant",
                "train.ema": 0,
            },
            name="speed",
            runs_dir=folder,
        )
        lines = run.metrics()[1:-1]
    return statistics.harmonic_mean([line["images_per_s"] for line in lines])


def timed_loop(model: object, batches: object) -> float:
    """Images a second of the loop that every tutorial has."""
    import torch
    from torch.nn.functional import cross_entropy

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)  # type: ignore[attr-defined]
    begun = seen = 0.0
    for step, (images, targets) in enumerate(batches):  # type: ignore[arg-type]
        if step == SKIPPED:
            begun, seen = time.perf_counter(), 0.0
        optimizer.zero_grad()
        loss = cross_entropy(model(images), targets)  # type: ignore[operator]
        loss.backward()
        optimizer.step()
        seen += len(targets)
        if step == STEPS:
            break
    return seen / (time.perf_counter() - begun)


def build(model_name: str) -> object:
    from dlkit.specs import ImageSpec
    from dlkit.training.restore import build as build_model

    return build_model(model_name, ImageSpec(1, 28, 28, tuple("0123456789"), (0.1307,), (0.3081,)), {})


def mnist() -> tuple[object, object]:
    from dlkit.config.schema import Data
    from dlkit.data import library as dataset

    train = dataset.splits(Data(name="mnist"), log=print).train
    return train.images, train.targets  # type: ignore[union-attr]


def measured(way: str, model_name: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, model_name, "--way", way], stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main(model_name: str, rounds: int) -> None:
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in WAYS:
            found[way].append(measured(way, model_name))
            print(f"round {number + 1}  {way:9}", found[way][-1], flush=True)
    print(f"\n{model_name}, batch {BATCH}, median of {rounds} rounds (min to max)")
    for way in WAYS:
        speeds, memory = ([row[key] for row in found[way]] for key in ("images_per_s", "peak_mib"))
        middle, span = statistics.median(speeds), f"{min(speeds):,.0f} to {max(speeds):,.0f}"
        print(f"  {way:9} {middle:8,.0f} images/s ({span})   peak {statistics.median(memory):,.0f} MiB")
    for key, sign in (("images_per_s", "images/s"), ("peak_mib", "peak memory")):
        for other in ("ordinary", "bare"):
            ratios = [ours[key] / theirs[key] for ours, theirs in zip(found["dlkit"], found[other], strict=True)]
            print(
                f"  dlkit / {other}: {statistics.median(ratios):.2f} × {sign} ({min(ratios):.2f} to {max(ratios):.2f})"
            )


if __name__ == "__main__":
    model_name = sys.argv[1] if len(sys.argv) > 1 else "lenet5_relu"
    if "--way" in sys.argv:
        way = {"ordinary": ordinary, "bare": bare, "dlkit": dlkit_train}[sys.argv[-1]]
        speed = way(model_name)
        children = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"images_per_s": round(speed), "peak_mib": round(children)}))
    else:
        main(model_name, int(sys.argv[2]) if len(sys.argv) > 2 else 5)
