"""Batch norm and batches of one sample: known before the first step, and no crash after it. The oracle is torch."""

from __future__ import annotations

import copy
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import TINY, same_bits
from torch import Tensor, nn

import dlkit
from dlkit.config.schema import Augment
from dlkit.data.batches import Batch
from dlkit.data.loader import TrainingData
from dlkit.data.splits import MemoryImages
from dlkit.errors import UsageError
from dlkit.runs.run_folder import RunFolder
from dlkit.specs import ImageSpec
from dlkit.training import assembly, train
from dlkit.training.freezing import NOTHING_FROZEN, Freezing
from dlkit.training.smallest_share import check_share, smallest_share

CPU = torch.device("cpu")
SPEC = ImageSpec(3, 8, 8, ("a", "b"), mean=(0.5,) * 3, std=(0.3,) * 3)


def network(*norms: nn.Module) -> nn.Sequential:
    """Maps of 2 × 2 pixels, then of one, then none; the norms stand behind each, in this order."""
    torch.manual_seed(0)
    first, second, last = (*norms, *[nn.Identity()] * (3 - len(norms)))
    maps = (
        nn.Conv2d(3, 4, 3, stride=4, padding=1),
        first,
        nn.MaxPool2d(2),
        second,
        nn.Flatten(),
        nn.Linear(4, 6),
        last,
    )
    return nn.Sequential(*maps, nn.Linear(6, 2))


@pytest.mark.parametrize(
    "norms",
    [
        (), (nn.BatchNorm2d(4),), (nn.Identity(), nn.BatchNorm2d(4)), (nn.Identity(), nn.GroupNorm(2, 4)),
        (nn.BatchNorm2d(4), nn.Identity(), nn.BatchNorm1d(6)),
    ],
)  # fmt: skip
def test_two_samples_are_needed_where_torch_refuses_to_train_on_one(norms: tuple[nn.Module, ...]) -> None:
    model = network(*copy.deepcopy(norms))
    before = copy.deepcopy(model.state_dict())
    found = smallest_share(model, SPEC, NOTHING_FROZEN, CPU)
    assert model.training and all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    try:
        model(torch.zeros(1, 3, 8, 8))
        expected = 1
    except ValueError as error:
        assert "more than 1 value per channel" in str(error)
        expected = 2
    assert found == expected
    model(torch.zeros(2, 3, 8, 8))


def test_a_batch_norm_that_stays_frozen_needs_no_second_sample() -> None:
    model = network(nn.Identity(), nn.BatchNorm2d(4))
    frozen = (("3.weight", "3.bias"),)
    assert smallest_share(model, SPEC, Freezing(frozen), CPU) == 1
    assert smallest_share(model, SPEC, Freezing(frozen, unfreeze=2), CPU) == 2  # it thaws


def training_data(samples: int, **settings: object) -> TrainingData:
    images = np.random.default_rng(0).integers(0, 256, (samples, 3, 8, 8), dtype=np.uint8)
    chosen = {"augment": Augment(), "batch_size": 4, "seed": 0, "device": CPU, "smallest_share": 2, **settings}
    return TrainingData(MemoryImages(images, np.arange(samples) % 2), SPEC, **chosen)  # type: ignore[arg-type]


def test_the_sample_left_over_sits_out_and_in_another_epoch_it_trains() -> None:
    data = training_data(13)
    assert data.steps_per_epoch == 3 and data.unused_samples == 1
    absent = set()
    for epoch in range(6):
        seen = [index for batch in data.epoch(epoch) for index in batch.indices.tolist()]
        assert len(seen) == len(set(seen)) == 12
        absent |= set(range(13)) - set(seen)
        resumed = [batch.indices.tolist() for batch in data.epoch(epoch, 2)]
        assert resumed == [seen[8:]]
    assert len(absent) > 1
    assert training_data(13, smallest_share=1).steps_per_epoch == 4 and training_data(14).steps_per_epoch == 4


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_no_rank_gets_one_sample(world_size: int) -> None:
    for samples in range(2 * world_size, 50):
        ranks = [training_data(samples, batch_size=12, rank=rank, world_size=world_size) for rank in range(world_size)]
        shares = [[len(batch) for batch in data.epoch(0)] for data in ranks]
        assert {len(share) for share in shares} == {ranks[0].steps_per_epoch}
        assert min(chain(*shares)) >= 2
        assert sum(chain(*shares)) == samples - ranks[0].unused_samples and ranks[0].unused_samples < 2 * world_size


@pytest.mark.parametrize("smallest", [1, 2])
def test_parts_of_a_batch_are_alike_and_never_too_small(smallest: int) -> None:
    for size in range(smallest, 30):
        batch = Batch(torch.arange(size)[:, None], torch.arange(size), torch.arange(size), size)
        for count in range(1, 10):
            parts = [part.inputs[:, 0].tolist() for part in batch.parts(count, smallest)]
            assert list(chain(*parts)) == list(range(size))
            sizes = [len(part) for part in parts]
            assert max(sizes) - min(sizes) <= 1 and min(sizes) >= smallest
            assert len(parts) == min(count, size // smallest)


def test_whole_batches_that_are_too_small_are_refused() -> None:
    check_share(1, 1, 1, 1, 4)
    check_share(2, 100, 16, 4, 2)
    for samples, batch_size, accumulate, world_size in ((100, 1, 1, 1), (1, 8, 1, 1), (100, 8, 8, 1), (100, 7, 1, 4)):
        with pytest.raises(UsageError, match="batch norm cannot train on one sample"):
            check_share(2, samples, batch_size, accumulate, world_size)


class Normed(nn.Module):
    """Batch norm over single pixels."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features, self.norm = nn.Linear(3 * 28 * 28, 8), nn.BatchNorm1d(8)
        self.output = nn.Linear(8, classes)

    def forward(self, images: Tensor) -> Tensor:  # (N, 3, 28, 28) -> (N, classes)
        return self.output(self.norm(self.features(images.flatten(1))).relu())  # type: ignore[no-any-return]


def test_a_run_with_a_sample_left_over_trains_reports_it_and_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "build", lambda name, spec, options: Normed(len(spec.classes)))
    settings = {
        **TINY, "data.options.train": 81, "train.batch_size": 12, "train.accumulate": 5, "train.epochs": 3,
        "train.checkpoint_every": 4, "schedule.name": "cosine",
    }  # fmt: skip
    said: list[str] = []

    def run(name: str, **others: object) -> RunFolder:
        return dlkit.train(
            "mlp", dataset="shapes", settings=settings | others, name=name, runs_dir=tmp_path, say=said.append
        )

    gold = run("gold")
    steps = [line["step"] for line in gold.metrics()]
    assert steps == [6, 12, 18] and gold.metrics()[-1]["lr"] < gold.metrics()[0]["lr"]  # of 73 samples 72 are used
    assert len([line for line in said if "1 of 73 samples sit out each epoch" in line]) == 1
    cut = run("cut")
    for manifest in cut.checkpoints.glob("step-*.json"):
        if int(manifest.stem[-9:]) > 16:
            manifest.unlink()
    train.resume_run(cut, changes={}, inexact=False, say=said.append, progress=False)
    assert same_bits(gold, cut)
    with pytest.raises(UsageError, match="a batch of 1 is too small"):
        run("one", **{"train.batch_size": 1, "train.accumulate": 1})
    assert not (tmp_path / "one").exists()
