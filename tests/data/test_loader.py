from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dlkit.config.schema import Augment
from dlkit.data import batches
from dlkit.data import workers as loader_workers
from dlkit.data.holdout import holdout_mask
from dlkit.data.images import sources
from dlkit.data.loader import TrainingData, batches_in_order, split
from dlkit.data.splits import ImageFiles, MemoryImages, Samples, Splits
from dlkit.errors import DataError
from dlkit.specs import ImageSpec

CPU = torch.device("cpu")
SPEC = ImageSpec(3, 12, 12, ("a", "b", "c"), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
AUGMENT = Augment(crop_padding=2, horizontal_flip=0.5, rotation=10.0, erasing=0.5)


def in_memory(count: int = 30) -> MemoryImages:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 3, 12, 12), dtype=np.uint8)
    return MemoryImages(images, np.arange(count, dtype=np.int64) % 3)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ImageFiles:
    folder = tmp_path_factory.mktemp("files")
    memory = in_memory()
    paths = []
    for index, image in enumerate(memory.images):
        paths.append(folder / f"{index}.png")
        Image.fromarray(image.transpose(1, 2, 0)).save(paths[-1])
    return ImageFiles(paths, memory.targets)


def data(samples: Samples, **others: object) -> TrainingData:
    settings = {"augment": AUGMENT, "batch_size": 8, "seed": 5, "device": CPU, **others}
    return TrainingData(samples, SPEC, **settings)  # type: ignore[arg-type]


def stream(source: TrainingData, epoch: int = 1, first: int = 0) -> list[tuple[list[int], Tensor]]:
    return [(batch.indices.tolist(), batch.inputs) for batch in source.epoch(epoch, first)]


def same(one: list[tuple[list[int], Tensor]], other: list[tuple[list[int], Tensor]]) -> bool:
    return len(one) == len(other) > 0 and all(
        a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_batch_that_is_changed_in_parts_equals_one_changed_at_once(
    channels_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part has the draws of its own samples."""
    at_once = stream(data(in_memory(), channels_last=channels_last))
    monkeypatch.setattr(batches, "CHUNK_ELEMENTS", 3 * 12 * 12 * 3)  # three images a part
    assert same(at_once, stream(data(in_memory(), channels_last=channels_last)))


def test_an_epoch_holds_every_sample_once_and_the_next_another_order() -> None:
    source = data(in_memory())
    first, second = ([i for indices, _ in stream(source, epoch) for i in indices] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(30)) and first != second


def test_targets_belong_to_their_images() -> None:
    memory = in_memory()
    for batch in data(memory, augment=Augment()).epoch(0):
        assert batch.targets.tolist() == memory.targets[batch.indices.numpy()].tolist()
        raw = torch.from_numpy(memory.images[batch.indices.numpy()]).float() / 255
        wanted = (raw - torch.tensor(SPEC.mean)[:, None, None]) / torch.tensor(SPEC.std)[:, None, None]
        assert torch.allclose(batch.inputs, wanted, atol=1e-6)


def test_an_epoch_begun_in_the_middle_is_the_rest_of_the_whole_one() -> None:
    source = data(in_memory())
    assert same(stream(source, 1, first=2), stream(source, 1)[2:])


@pytest.mark.parametrize("resized_crop", [None, (0.3, 1.0)])
def test_any_number_of_workers_gives_the_same_batches(
    files: ImageFiles, resized_crop: tuple[float, float] | None
) -> None:
    augment = AUGMENT.model_copy(update={"resized_crop": resized_crop})

    def anew() -> ImageFiles:
        return ImageFiles(files.paths, files.targets)  # nothing of it is in memory yet

    alone = stream(data(anew(), augment=augment))
    assert same(alone, stream(data(anew(), workers=2, augment=augment)))
    assert same(alone[1:], stream(data(anew(), workers=1, augment=augment), first=1))


def copied(files: ImageFiles, folder: Path) -> ImageFiles:
    return ImageFiles([Path(shutil.copy(str(path), folder)) for path in files.paths], files.targets)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_small_folder_is_decoded_once_and_later_epochs_are_the_same(
    files: ImageFiles, tmp_path: Path, workers: int
) -> None:
    here = copied(files, tmp_path)
    wanted = [stream(data(in_memory()), epoch) for epoch in range(3)]
    assert same(stream(data(here, workers=workers), 0, first=2), wanted[0][2:])  # an epoch begun in the middle
    assert same(stream(data(here, workers=workers), 1), wanted[1])
    for path in tmp_path.iterdir():
        path.unlink()
    assert same(stream(data(here, workers=workers), 2), wanted[2])
    assert same(stream(data(here, rank=1, world_size=3), 2), [(i[1::3], x[1::3]) for i, x in wanted[2]])


def test_what_is_large_or_cut_at_random_is_decoded_each_time(
    files: ImageFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = copied(files, tmp_path)
    cut = data(here, augment=Augment(resized_crop=(0.3, 1.0)))
    assert len(stream(cut, 0)) == 4 and not same(stream(cut, 0), stream(cut, 1))
    monkeypatch.setattr(sources, "CACHE_BYTES", 30 * 3 * 12 * 12 - 1)
    stream(data(here), 0)
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(DataError, match="no such file"):
        stream(data(here), 1)


def test_files_and_memory_give_the_same_batches(files: ImageFiles) -> None:
    assert same(stream(data(in_memory())), stream(data(files)))


def test_the_shares_of_ranks_make_up_the_batch_of_one() -> None:
    whole = stream(data(in_memory()))
    shares = [stream(data(in_memory(), rank=rank, world_size=3)) for rank in range(3)]
    for number, (indices, images) in enumerate(whole):
        for rank in range(3):
            assert shares[rank][number][0] == indices[rank::3]
            assert torch.equal(shares[rank][number][1], images[rank::3])


def test_augmentation_does_not_depend_on_the_batch_size() -> None:
    def images_by_index(batch_size: int) -> dict[int, Tensor]:
        batches = data(in_memory(), batch_size=batch_size).epoch(0)
        return {int(i): image for batch in batches for i, image in zip(batch.indices, batch.inputs, strict=True)}

    one, other = images_by_index(7), images_by_index(30)
    assert all(torch.allclose(one[index], other[index], atol=1e-6) for index in range(30))


def test_a_policy_is_a_function_of_seed_epoch_and_sample_and_leaves_the_global_stream_alone() -> None:
    source = data(in_memory(8), augment=Augment(policy="trivial"))
    torch.manual_seed(3)
    before = torch.rand(1)
    torch.manual_seed(3)
    one = stream(source)
    assert torch.rand(1) == before
    assert same(one, stream(source)) and not same(one, stream(source, epoch=2))


def test_in_order_batches_hold_every_sample_once_and_unchanged(files: ImageFiles) -> None:
    for samples in (in_memory(), files):
        for workers in (0, 2):
            batches = list(batches_in_order(samples, SPEC, 7, CPU, workers))
            assert [int(i) for batch in batches for i in batch.indices] == list(range(30))
            assert torch.cat([batch.targets for batch in batches]).tolist() == samples.targets.tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_file_is_one_line_that_names_it(files: ImageFiles, tmp_path: Path, workers: int) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("hello")
    samples = ImageFiles([*files.paths[:9], bad], files.targets[:10])
    with pytest.raises(DataError, match=r"bad\.png") as caught:
        list(batches_in_order(samples, SPEC, 4, CPU, workers))
    assert "\n" not in str(caught.value)


def test_the_validation_split_is_cut_from_train_by_class_and_by_seed() -> None:
    targets = np.repeat(np.arange(3), [100, 50, 10]).astype(np.int64)
    held_out = holdout_mask(targets, 0.1, seed=0)
    assert [int(held_out[targets == k].sum()) for k in range(3)] == [10, 5, 1]
    assert (held_out == holdout_mask(targets, 0.1, seed=0)).all()
    assert (held_out != holdout_mask(targets, 0.1, seed=1)).any()


def test_splits_do_not_overlap_and_test_is_never_cut() -> None:
    memory = in_memory()
    parts = split(Splits(SPEC, train=memory, test=in_memory(9)), 0.2, seed=0)
    pictures = {name: {image.tobytes() for image in part.images} for name, part in parts.items()}  # type: ignore[union-attr]
    assert not pictures["train"] & pictures["validation"]
    assert pictures["train"] | pictures["validation"] == {image.tobytes() for image in memory.images}
    assert len(parts["test"]) == 9 and len(parts["validation"]) == 6


def test_a_data_sets_own_validation_split_goes_first() -> None:
    parts = split(Splits(SPEC, train=in_memory(), validation=in_memory(6)), 0.2, seed=0)
    assert len(parts["train"]) == 30 and len(parts["validation"]) == 6


class Doubled:
    """2 × each number; of 3 an error, as Decoder gives one."""

    def __getitem__(self, number: int) -> int | DataError:
        return DataError("a bad image") if number == 3 else 2 * number


@pytest.mark.parametrize("way", [loader_workers.in_threads, loader_workers.in_workers])
def test_workers_give_items_in_order_and_an_error_is_raised_in_its_turn(way: Any) -> None:
    assert list(way(Doubled(), [5, 4, 9, 1, 0, 2, 7], 2)) == [10, 8, 18, 2, 0, 4, 14]
    given = way(Doubled(), [5, 3, 4], 2)
    assert next(given) == 10
    with pytest.raises(DataError, match="a bad image"):
        next(given)


@pytest.mark.parametrize("way", [loader_workers.in_threads, loader_workers.in_workers])
def test_batches_are_prepared_on_the_threads_that_workers_leave(way: Any) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        given = way(Doubled(), [0, 1, 2, 4, 5, 6, 7, 8], 2)
        next(given)
        with loader_workers.beside_workers():
            assert torch.get_num_threads() == 1
        given.close()
        with loader_workers.beside_workers():
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_without_workers_nobody_touches_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even to set it to what it is, for each batch, costs a step of LeNet-5 two per cent."""
    monkeypatch.setattr(torch, "set_num_threads", lambda count: pytest.fail(f"set to {count}"))
    assert len(list(data(in_memory()).epoch(0))) > 1
