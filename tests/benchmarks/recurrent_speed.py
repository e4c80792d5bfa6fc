"""Training speed of a recurrent model on images read row by row: `python tests/benchmarks/recurrent_speed.py [ROUNDS]`.

MNIST (its real images if they are in dlkit's cache, else none: see train_speed.py), 28 rows of 28 pixels, batch 128,
hidden size 128, Adam, one CPU thread; for the LSTM and the GRU:

    bare    a loop by hand over one uint8 tensor in memory, torch.nn.LSTM or GRU and a linear layer
    dlkit   `dlkit.train`: the images/s that its metrics.jsonl states

Each runs as a process of its own, in turn, ROUNDS times; the medians of the ratios within a round are what counts.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile

from train_speed import BATCH, STEPS, mnist, timed_loop

MODELS = ("lstm", "gru")


def bare(model_name: str) -> float:
    import torch
    from torch import nn

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = {"lstm": nn.LSTM, "gru": nn.GRU}[model_name](28, 128, batch_first=True)
            self.output = nn.Linear(128, 10)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.output(self.rnn(images.squeeze(1))[0][:, -1])

    images, targets = (torch.from_numpy(array) for array in mnist())

    def batches() -> object:
        while True:
            for places in torch.randperm(len(images)).split(BATCH):
                yield images[places].float().div_(255).sub_(0.1307).div_(0.3081), targets[places]

    return timed_loop(Rows(), batches())


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
                "schedule.name": "constant",
                "model.options.hidden_size": 128,
                "train.clip_grad": None,
            },
            name="speed",
            runs_dir=folder,
        )
        lines = run.metrics()[1:-1]
    return statistics.harmonic_mean([line["images_per_s"] for line in lines])


def measured(way: str, model_name: str) -> float:
    command = [sys.executable, __file__, model_name, "--way", way]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def main(rounds: int) -> None:
    for model_name in MODELS:
        ratios, found = [], []
        for number in range(rounds):
            theirs, ours = measured("bare", model_name), measured("dlkit", model_name)
            ratios.append(ours / theirs)
            found.append(ours)
            print(f"{model_name}  round {number + 1}  bare {theirs:,.0f}  dlkit {ours:,.0f} images/s", flush=True)
        span = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"{model_name}: dlkit / bare {statistics.median(ratios):.2f} ({span}), {statistics.median(found):,.0f}/s")


if __name__ == "__main__":
    if "--way" in sys.argv:
        import torch

        torch.set_num_threads(1)
        way = {"bare": bare, "dlkit": dlkit_train}[sys.argv[-1]]
        print(json.dumps(way(sys.argv[1])))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
