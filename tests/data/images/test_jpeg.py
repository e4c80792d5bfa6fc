"""The quick decoder of plain JPEG files gives what the careful one gives, and leaves it all others."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlkit.data.images import decode, jpeg, resize_crop
from dlkit.data.images.sources import Decoder
from dlkit.data.splits import ImageFiles
from dlkit.specs import ImageSpec

SPEC = ImageSpec(3, 24, 32, ("a", "b"), (0.5,) * 3, (0.5,) * 3)


def picture(mode: str = "RGB", size: tuple[int, int] = (32, 24), seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize(size).convert(mode)


def saved(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@pytest.fixture(autouse=True)
def needs_the_decoder() -> None:
    if not jpeg.agrees():
        pytest.skip("torchvision's JPEG decoder is not there, or differs from Pillow's: it is not used")


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("options", [{"quality": 30}, {"quality": 95, "progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("size", [(32, 24), (33, 17), (1, 1), (250, 9)])
def test_plain_files_have_the_same_pixels(
    mode: str, subsampling: int, options: dict[str, Any], size: tuple[int, int]
) -> None:
    content = saved(picture(mode, size), subsampling=subsampling, comment=b"a comment", **options)
    for channels in (3, 1) if mode == "L" else (3,):
        assert jpeg.plain_size(content, channels) == size
        found, wanted = jpeg.decode(content, channels), resize_crop.pixels(decode.decode(content, channels))
        assert found is not None and np.array_equal(found.numpy(), wanted)


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(picture(), exif=exif)


@pytest.mark.parametrize(
    "content",
    [
        turned(),
        saved(picture("CMYK")),
        saved(picture(), icc_profile=b"0" * 200),
        saved(picture())[:-2],
        saved(picture(), "PNG"),
        b"",
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff\xc0\xff\xff\xff\xd9",
    ],
    ids=["turned", "cmyk", "profile", "cut", "png", "empty", "hollow", "no-frame"],
)
def test_other_files_are_not_decode_plain(content: bytes) -> None:
    assert jpeg.plain_size(content, 3) is None


def test_colours_are_not_made_gray_by_another_rule() -> None:
    assert jpeg.plain_size(saved(picture()), 1) is None


def test_damage_is_left_to_the_careful_decoder() -> None:
    content = saved(picture(), quality=95)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        hurt = bytearray(content)
        hurt[int(rng.integers(20, len(hurt) - 2))] ^= 1 << int(rng.integers(8))
        size = jpeg.plain_size(bytes(hurt), 3)
        found = None if size is None else jpeg.decode(bytes(hurt), 3)
        if found is not None:
            assert np.array_equal(found.numpy(), resize_crop.pixels(decode.decode(bytes(hurt), 3))), seed


def test_a_folder_of_all_sorts_is_read_as_predict_reads_it(tmp_path: Path) -> None:
    contents = [saved(picture(seed=1)), turned(), saved(picture(size=(64, 50))), saved(picture("CMYK"))]
    paths = [tmp_path / f"{number}.jpg" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    decoder = Decoder(ImageFiles(paths, np.zeros(len(paths), np.int64)), SPEC)
    assert decoder.use_torchvision and decoder._decode_plain(paths[0]) is not None
    for number, path in enumerate(paths):
        assert np.array_equal(decoder.image(0, number).numpy(), decode.load(path, SPEC))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_random_crops_equal_pillows_up_to_two_levels(mode: str, subsampling: int, tmp_path: Path) -> None:
    """Noise shows at once where the pixels around a part are mixed into its edges."""
    sizes = [(120, 90), (33, 47), (61, 29), (35, 201), (7, 9)]
    noise = [Image.effect_noise(size, 120).convert(mode) for size in sizes]
    paths = [tmp_path / f"{number}.jpeg" for number in range(len(sizes))]
    for path, image in zip(paths, noise, strict=True):
        path.write_bytes(saved(image, subsampling=subsampling, quality=95))
    spec = SPEC if mode == "RGB" else replace(SPEC, channels=1, mean=(0.5,), std=(0.5,))
    samples = ImageFiles(paths, np.zeros(len(paths), np.int64))
    quick, careful = Decoder(samples, spec, 0, (0.3, 1.0)), Decoder(samples, spec, 0, (0.3, 1.0))
    careful.use_torchvision = False
    for epoch in range(4):
        for index in range(len(paths)):
            assert quick._decode_plain(paths[index]) is not None
            difference = quick.image(epoch, index).int() - careful.image(epoch, index).int()
            assert difference.abs().max() <= 2, sizes[index]


def test_an_image_of_the_networks_size_is_quick_only_if_nothing_is_cropped(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(saved(picture()))
    cropped = replace(SPEC, crop=0.875)
    for spec, plain in ((SPEC, True), (cropped, False), (replace(cropped, legacy_resize=True), True)):
        decoder = Decoder(ImageFiles([path], np.zeros(1, np.int64)), spec)
        assert (decoder._decode_plain(path) is not None) == plain
        assert np.array_equal(decoder.image(0, 0).numpy(), decode.load(path, spec))
