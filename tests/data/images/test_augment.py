from __future__ import annotations

import math
from collections.abc import Callable
from itertools import repeat

import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional

from dlkit.config.schema import Augment
from dlkit.data.images import augment as changes
from dlkit.data.images.augment import ERASED_AREA, ERASED_ASPECT
from dlkit.data.images.resize_crop import random_box


def drawn(**numbers: float) -> Callable[[str], Tensor]:
    """A draw that gives every sample the same number, 0.5 (no change) where none is named."""
    return lambda name: torch.full((2,), numbers.get(name, 0.5))


def pictures(channels: int = 3, size: int = 8) -> Tensor:
    return torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0))


def test_nothing_asked_for_changes_nothing() -> None:
    images = pictures()
    assert changes.change_pixels(changes.move_pixels(images, Augment(), drawn()), Augment(), drawn()) is images


def test_crop_is_the_shifted_image_with_zeros_from_outside() -> None:
    images = pictures()
    found = changes.random_crop(images, 2, drawn(crop_top=0.0, crop_left=0.99))
    wanted = torch.zeros_like(images)
    wanted[:, :, 2:, :-2] = images[:, :, :-2, 2:]  # two rows down, two columns left
    assert torch.equal(found, wanted)


def test_flips_mirror_and_spare_the_improbable() -> None:
    images = pictures()
    numbers = torch.tensor([0.2, 0.8])
    found = changes.random_flip(images, -1, 0.5, numbers)
    assert torch.equal(found[0], images[0].flip(-1)) and torch.equal(found[1], images[1])


@pytest.mark.parametrize("size", [8, 9])
def test_a_quarter_turn_equals_rot90(size: int) -> None:
    images = pictures(size=size)
    found = changes.random_affine(images, Augment(rotation=90.0), drawn(rotation=1.0))
    assert torch.allclose(found, images.rot90(1, (-2, -1)), atol=1e-5) or torch.allclose(
        found, images.rot90(-1, (-2, -1)), atol=1e-5
    )


def test_the_middle_draw_is_the_identity_of_every_affine_change() -> None:
    images = pictures()
    everything = Augment(rotation=30.0, translate=0.2, scale=(0.5, 2.0), shear=20.0)
    assert torch.allclose(changes.random_affine(images, everything, drawn()), images, atol=1e-5)


def test_translate_shifts_by_a_fraction_of_the_side() -> None:
    images = pictures()
    found = changes.random_affine(images, Augment(translate=0.25), drawn(translate_x=1.0))
    assert torch.allclose(found[..., :-2], images[..., 2:], atol=1e-5)  # a quarter of 8 pixels


def test_scale_two_shows_the_middle_half() -> None:
    images = torch.zeros(2, 1, 8, 8)
    images[:, :, 2:6, 2:6] = 1
    found = changes.random_affine(images, Augment(scale=(0.5, 2.0)), drawn(scale=1.0))
    assert torch.allclose(found[..., 1:-1, 1:-1], torch.ones(()))  # the border mixes with its neighbours


def test_color_jitter_by_the_middle_draw_is_the_identity() -> None:
    images = pictures()
    everything = Augment(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.2)
    assert torch.allclose(changes.color_jitter(images, everything, drawn()), images, atol=1e-5)


def test_brightness_contrast_and_saturation_at_zero_are_black_flat_and_grey() -> None:
    images = pictures()
    black = changes.color_jitter(images, Augment(brightness=1.0), drawn(brightness=0.0))
    flat = changes.color_jitter(images, Augment(contrast=1.0), drawn(contrast=0.0))
    grey = changes.color_jitter(images, Augment(saturation=1.0), drawn(saturation=0.0))
    assert black.abs().max() == 0
    assert flat.flatten(1).std(dim=1).max() < 1e-6
    assert (grey[:, 0] - grey[:, 1]).abs().max() < 1e-6


LARGEST = math.nextafter(1.0, 0.0)

OPERATIONS = {  # torchvision's functions, in the order in which they are applied here
    "brightness": functional.adjust_brightness,
    "contrast": functional.adjust_contrast,
    "saturation": functional.adjust_saturation,
    "hue": functional.adjust_hue,
}


@pytest.mark.parametrize("names", [*([name] for name in OPERATIONS), list(OPERATIONS)], ids="-".join)
@pytest.mark.parametrize("channels", [3, 1])
def test_color_jitter_is_torchvisions_with_a_clamp_after_each_operation(names: list[str], channels: int) -> None:
    images = torch.rand(2, channels, 16, 16, generator=torch.Generator().manual_seed(0))
    images[0, :, :4] = torch.tensor([0.0, 1.0, 0.5, 0.2])[:, None]  # gray, black and white have no hue
    extents = {"brightness": 0.9, "contrast": 0.9, "saturation": 0.9, "hue": 0.5}
    augment = Augment(**{name: extents[name] for name in names})
    for draw in (0.0, 0.1, 0.45, 0.8, LARGEST):
        found = changes.color_jitter(images, augment, drawn(**dict.fromkeys(names, draw)))
        expected, bytes_ = images, (images * 255).round().to(torch.uint8)
        for name in names:
            amount = (2 * draw - 1) * extents[name] + (name != "hue")
            expected, bytes_ = (OPERATIONS[name](part, amount) for part in (expected, bytes_))
        assert (found - expected).abs().max() <= 1e-5
        assert (found * 255 - bytes_).abs().max() <= 3 + 3 * len(names)  # uint8 truncates after each operation


def test_hue_keeps_the_value_and_comes_back_after_a_whole_turn() -> None:
    images = pictures()
    third = changes.rotate_hue(images, torch.tensor([1 / 3, 1 / 3]))
    assert torch.allclose(third, images.roll(1, dims=1), atol=1e-5)  # red becomes green, green blue, blue red
    assert torch.allclose(changes.rotate_hue(images, torch.ones(2)), images, atol=1e-5)


def test_erasing_blanks_one_box_of_the_stated_area() -> None:
    images = torch.ones(2, 3, 32, 32)
    found = changes.erase(images, 1.0, drawn(erase_area=0.5, erase=0.0))
    blank = (found[0, 0] == 0).float()
    low, high = changes.ERASED_AREA
    assert blank.mean().item() == pytest.approx((low + high) / 2, abs=0.03)
    rows, columns = blank.amax(1).sum(), blank.amax(0).sum()
    assert (rows * columns).item() == blank.sum().item()  # a full box
    assert math.isclose(found[0].std(dim=0).max().item(), 0.0)  # the same box in every channel


def test_each_change_leaves_other_samples_alone() -> None:
    """What a sample becomes does not depend on its batch mates."""
    augment = Augment(crop_padding=2, horizontal_flip=0.5, rotation=20.0, brightness=0.3, contrast=0.3, hue=0.1)
    images, numbers = pictures(), {name: torch.rand(2) for name in NAMES}

    def changed(places: slice) -> Tensor:
        def draw(name: str) -> Tensor:
            return numbers[name][places]

        return changes.change_pixels(changes.move_pixels(images[places], augment, draw), augment, draw)

    together = changed(slice(0, 2))
    for place in range(2):
        alone = changed(slice(place, place + 1))
        assert torch.allclose(alone[0], together[place], atol=1e-6)


# the ends of [0, 1) in float32
ENDS = (0.0, float(torch.nextafter(torch.ones(()), torch.zeros(()))))


def constant(number: float, size: int = 2) -> Callable[[str], Tensor]:
    return lambda name: torch.full((size,), number)


@pytest.mark.parametrize("number", ENDS)
def test_at_both_ends_of_the_draws_every_change_stays_within_the_image(number: float) -> None:
    everything = Augment(
        crop_padding=4, horizontal_flip=1.0, vertical_flip=1.0, rotation=180.0, translate=1.0, scale=(0.5, 2.0),
        shear=45.0, brightness=1.0, contrast=1.0, saturation=1.0, hue=0.5,
    )  # fmt: skip
    changed = changes.change_pixels(
        changes.move_pixels(pictures(), everything, constant(number)), everything, constant(number)
    )
    assert changed.shape == (2, 3, 8, 8) and bool(torch.isfinite(changed).all())
    assert changed.min() >= 0 and changed.max() <= 1


@pytest.mark.parametrize("number", ENDS)
def test_at_both_ends_of_the_draws_a_crop_is_the_first_or_the_last_window(number: float) -> None:
    images = pictures()
    for padding in (*range(1, 18), 32, 33):
        offset = 0 if number == 0 else 2 * padding
        padded = torch.nn.functional.pad(images, (padding,) * 4)
        expected = padded[:, :, offset : offset + 8, offset : offset + 8]
        assert torch.equal(changes.random_crop(images, padding, constant(number)), expected), padding


@pytest.mark.parametrize("number", ENDS)
def test_a_certain_flip_flips_every_image_and_an_impossible_one_none(number: float) -> None:
    images, numbers = pictures(), torch.full((2,), number)
    assert torch.equal(changes.random_flip(images, -1, 1.0, numbers), images.flip(-1))
    assert torch.equal(changes.random_flip(images, -1, 0.0, numbers), images)


@pytest.mark.parametrize("area", ENDS)
@pytest.mark.parametrize("aspect", ENDS)
@pytest.mark.parametrize("corner", ENDS)
def test_an_erased_box_lies_inside_the_image_at_both_ends_of_the_draws(
    area: float, aspect: float, corner: float
) -> None:
    numbers = {"erase_area": area, "erase_aspect": aspect, "erase_top": corner, "erase_left": corner, "erase": ENDS[1]}
    for height, width in ((32, 32), (1, 1), (2, 17), (28, 3), (1, 40)):
        blank = changes.erase(torch.ones(2, 1, height, width), 1.0, drawn(**numbers))[0, 0] == 0
        pixels = (ERASED_AREA[0] if area == 0 else ERASED_AREA[1]) * height * width
        ratio = ERASED_ASPECT if aspect == 0 else 1 / ERASED_ASPECT  # height / width
        sides = [min(max(math.sqrt(pixels * ratio), 1), height), min(max(math.sqrt(pixels / ratio), 1), width)]
        rows, columns = blank.any(1).nonzero()[:, 0], blank.any(0).nonzero()[:, 0]
        assert [len(rows), len(columns)] == [pytest.approx(side, abs=0.51) for side in sides]
        assert (rows[0] == 0 and columns[0] == 0) if corner == 0 else (rows[-1] == height - 1)


@pytest.mark.parametrize("number", [0.0, LARGEST])  # Python's floats, in which files are cropped
def test_a_random_box_lies_inside_the_image_at_both_ends_of_the_draws(number: float) -> None:
    for width, height in ((1, 1), (7, 5), (224, 224), (4000, 3)):
        for area in ((0.08, 1.0), (1.0, 1.0), (1e-6, 1e-6)):
            left, top, right, bottom = random_box(width, height, area, repeat(number))
            assert 0 <= left < right <= width and 0 <= top < bottom <= height


NAMES = [
    "crop_top", "crop_left", "horizontal_flip", "rotation", "shear", "scale", "translate_x", "translate_y",
    "brightness", "contrast", "saturation", "hue",
]  # fmt: skip
