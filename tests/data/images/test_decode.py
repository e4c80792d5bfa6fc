"""The image loader: what it reads, how it makes it RGB or gray, and what it refuses."""

from __future__ import annotations

import os
import struct
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from corpus import IMAGES, Bad, encoded, gray_tiff, jpeg, picture, png, png_chunk
from PIL import Image, ImageFile

from dlkit import imagenet, specs
from dlkit.data import rng as randomness
from dlkit.data.images import decode, resize_crop
from dlkit.errors import DataError, StorageError
from dlkit.specs import ImageSpec

SPEC = ImageSpec(3, 24, 32, ("a", "b"), (0.5,) * 3, (0.5,) * 3)


def pixels(source: Path | bytes, channels: int = 3, notes: list[str] | None = None) -> np.ndarray:
    image = decode.decode(source, channels, notes=notes)
    assert image.mode == ("L" if channels == 1 else "RGB")
    return np.asarray(image)


@pytest.mark.parametrize("bad", IMAGES, ids=str)
def test_bad_image_is_refused_at_once_with_its_path(bad: Bad, tmp_path: Path) -> None:
    path = tmp_path / bad.name
    bad.make(path)
    started = time.thread_time()  # not by the clock: a machine with other work would fail
    with pytest.raises(bad.error) as refused:
        decode.decode(path, 3)
    assert time.thread_time() - started < 5
    message = str(refused.value)
    assert message.startswith(str(path)) and bad.says in message and "\n" not in message


def test_unreadable_file_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(picture(), "PNG"))

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageError, match=r"secret\.png.*Permission denied"):
        decode.decode(path, 3)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF"])
def test_every_allowed_format_is_read_by_content_whatever_its_name(format: str, tmp_path: Path) -> None:
    path = tmp_path / "named.xyz"
    path.write_bytes(encoded(picture(), format))
    expected = np.asarray(picture()).astype(int)
    assert np.abs(pixels(path).astype(int) - expected).mean() < 12
    assert (pixels(path) == pixels(path.read_bytes())).all()


def test_pillows_own_guards_are_as_pillow_set_them() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_cut(format: str) -> None:
    ramp = np.linspace(0, 65535, 256 * 16).astype(np.uint16).reshape(64, 64)
    expected = np.rint(ramp / 257)
    assert (pixels(encoded(Image.fromarray(ramp), format), channels=1) == expected).all()
    assert abs(pixels(encoded(Image.fromarray(ramp), format)).mean() - 127.5) < 1


def test_big_endian_sixteen_bit_tiff_is_scaled() -> None:
    ramp = np.linspace(0, 65535, 256).astype(">u2").reshape(16, 16)
    entries = [(256, 4, 16), (257, 4, 16), (258, 3, 16 << 16), (259, 3, 1 << 16), (262, 3, 1 << 16)]
    entries += [(273, 4, 8 + 2 + 8 * 12 + 4), (278, 4, 16), (279, 4, 512)]
    directory = struct.pack(">H", 8) + b"".join(
        struct.pack(">HHII", tag, kind, 1, value) for tag, kind, value in entries
    )
    data = b"MM\0*" + struct.pack(">I", 8) + directory + bytes(4) + ramp.tobytes()
    assert (pixels(data, channels=1) == np.rint(ramp / 257)).all()


def test_white_cmyk_jpeg_is_white() -> None:
    assert (pixels(encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG")) == 255).all()


def test_transparent_pixels_are_white() -> None:
    assert (pixels(encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 0)), "PNG")) == 255).all()
    assert (pixels(encoded(Image.new("LA", (4, 4), (0, 0)), "PNG"), channels=1) == 255).all()


def test_half_transparent_red_is_pink() -> None:
    assert pixels(encoded(Image.new("RGBA", (1, 1), (255, 0, 0, 128)), "PNG"))[0, 0].tolist() == [255, 127, 127]


def test_palette_and_its_transparent_colour() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    assert pixels(encoded(image, "PNG"))[0].tolist() == [[255, 0, 0], [0, 0, 255]]
    assert pixels(encoded(image, "PNG", transparency=0))[0].tolist() == [[255, 255, 255], [0, 0, 255]]


def test_rgb_with_a_transparent_colour() -> None:
    image = Image.new("RGB", (2, 1), (10, 20, 30))
    image.putpixel((1, 0), (1, 2, 3))
    assert pixels(encoded(image, "PNG", transparency=(10, 20, 30)))[0].tolist() == [[255, 255, 255], [1, 2, 3]]


def test_one_bit_becomes_black_and_white() -> None:
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert pixels(encoded(image, "PNG"))[0].tolist() == [[0, 0, 0], [255, 255, 255]]
    assert pixels(encoded(image, "PNG"), channels=1)[0].tolist() == [0, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_orientation_brings_the_mark_to_the_same_corner(format: str, orientation: int) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8] = 255
    turned = Image.fromarray(upright)
    inverse = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    if inverse in decode._TRANSPOSES:
        turned = turned.transpose(decode._TRANSPOSES[inverse])
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = pixels(encoded(turned, format, exif=exif))
    assert found.shape == (16, 32, 3)
    assert found[:8, :8].mean() > 200 and found[8:, 8:].mean() < 50


def test_broken_exif_is_ignored_with_a_note() -> None:
    data = jpeg()
    block = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03\xff\xff\xff\xff\x7f\xff\xff\xff"
    broken = data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]
    notes: list[str] = []
    assert (pixels(broken, notes=notes) == pixels(data)).all()
    assert len(notes) == 1 and "EXIF" in notes[0]


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_used_with_one_note(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), (250 - 40 * number, 0, 0)) for number in range(5)]
    notes: list[str] = []
    found = pixels(encoded(frames[0], format, save_all=True, append_images=frames[1:], lossless=True), notes=notes)
    assert abs(found[..., 0].astype(int) - 250).max() < 6
    assert len(notes) == 1 and "first" in notes[0]


def test_garbage_colour_profile_is_ignored() -> None:
    data = encoded(picture(), "PNG", icc_profile=b"garbage" * 30)
    assert (pixels(data) == np.asarray(picture())).all()


def test_single_pixel_is_enlarged_with_a_note() -> None:
    notes: list[str] = []
    found = decode.load(encoded(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG"), SPEC, notes=notes)
    assert found.shape == (3, 24, 32) and (found == np.array([9, 8, 7])[:, None, None]).all()
    assert len(notes) == 1


def test_no_mutation_of_an_image_raises_anything_but_a_data_error() -> None:
    rng = np.random.default_rng(0)
    originals = [encoded(picture(), format) for format in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")]
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(60):
            for data in originals:
                mutated = bytearray(data)
                for place in rng.integers(0, len(data), 4):
                    mutated[place] = int(rng.integers(256))
                try:
                    decode.decode(bytes(mutated), 3)
                except DataError:
                    refused += 1
    assert refused > 50


def test_loading_says_nothing_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    pixels(jpeg())
    with pytest.raises(DataError):
        pixels(png(9_999, 9_999, png_chunk(b"IDAT", b"")))
    assert capfd.readouterr() == ("", "")


def test_threads_decode_alike_and_leave_the_warning_filters_alone() -> None:
    data, before = jpeg(), list(warnings.filters)
    expected = pixels(data)
    right: list[bool] = []

    def work() -> None:
        right.extend((pixels(data) == expected).all() for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(right) == 160 and all(right)
    assert list(warnings.filters) == before


def test_image_of_the_right_size_passes_unchanged() -> None:
    image = picture(32, 24)
    assert (resize_crop.prepare(image, SPEC) == np.asarray(image).transpose(2, 0, 1)).all()


@pytest.mark.parametrize("size", [(1, 1), (64, 48), (640, 48), (20, 500), (33, 24), (5000, 2), (2, 5000)])
@pytest.mark.parametrize("crop", [1.0, 0.875, 0.3])
def test_prepared_image_always_has_the_networks_size(size: tuple[int, int], crop: float) -> None:
    spec = ImageSpec(3, 24, 32, ("a", "b"), (0.5,) * 3, (0.5,) * 3, crop)
    assert resize_crop.prepare(picture(*size), spec).shape == (3, 24, 32)


PRESETS = [
    torchvision.models.ResNet50_Weights.IMAGENET1K_V1,  # 224 of 256
    torchvision.models.ResNet50_Weights.IMAGENET1K_V2,  # 224 of 232
    torchvision.models.ViT_B_16_Weights.IMAGENET1K_V1,
]
ODD_SIZES = [
    (224, 224),
    (256, 256),
    (225, 223),
    (500, 333),
    (333, 501),
    (31, 301),
    (640, 53),
    (257, 611),
    (99, 1237),
    (7, 9),
]


@pytest.mark.parametrize("preset", PRESETS, ids=str)
def test_published_weights_see_the_pixels_of_their_published_transforms(preset: Any) -> None:
    """torchvision's presets are the oracle, at the network's own size too: 224 is cut from 256 all the same."""
    transforms = preset.transforms()
    spec = replace(imagenet.spec(), crop=transforms.crop_size[0] / transforms.resize_size[0])
    mean, std = (torch.tensor(values)[:, None, None] for values in (spec.mean, spec.std))
    rng = np.random.default_rng(0)
    for width, height in ODD_SIZES:
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
        expected = ((transforms(image) * std + mean) * 255).round().to(torch.uint8).numpy()
        assert (resize_crop.prepare(image, spec) == expected).all(), image.size


def test_runs_of_earlier_versions_keep_their_preprocessing() -> None:
    """Their documents have no crop_ratio: an image of the network's size is not cropped, the longer side is rounded."""
    document = imagenet.spec().to_json()
    assert document["crop_ratio"] == document["crop"] == 0.875 and specs.from_json(document) == imagenet.spec()
    del document["crop_ratio"]
    old = specs.from_json(document)
    assert isinstance(old, ImageSpec) and old.legacy_resize and old.to_json() == document
    image = picture(224, 224)
    assert (resize_crop.prepare(image, old) == np.asarray(image).transpose(2, 0, 1)).all()
    long = picture(250, 334)
    expected = long.resize((256, 334), Image.Resampling.BILINEAR).resize((256, 342), Image.Resampling.BILINEAR)
    assert (resize_crop.prepare(long, old) == np.asarray(expected.crop((16, 59, 240, 283))).transpose(2, 0, 1)).all()


def test_prepare_keeps_the_aspect_and_the_centre() -> None:
    """Resizing to cover and cropping, as two steps of Pillow, is the reference."""
    image = picture(120, 60)
    spec = ImageSpec(3, 28, 28, ("a", "b"), (0.5,) * 3, (0.5,) * 3, 0.875)
    expected = image.resize((64, 32), Image.Resampling.BILINEAR).crop((18, 2, 46, 30))
    assert (resize_crop.prepare(image, spec) == np.asarray(expected).transpose(2, 0, 1)).all()


def test_gray_model_gets_one_channel() -> None:
    spec = ImageSpec(1, 28, 28, ("a", "b"), (0.5,), (0.5,))
    assert decode.load(jpeg(), spec).shape == (1, 28, 28)


def test_a_large_jpeg_is_decoded_whole_and_only_by_earlier_runs_at_a_fraction_of_its_size() -> None:
    data = encoded(picture(1600, 1200), "JPEG", quality=95)
    whole = resize_crop.prepare(decode.decode(data, 3), SPEC)
    assert (decode.load(data, SPEC) == whole).all()
    drafted = decode.load(data, replace(SPEC, legacy_resize=True))
    assert decode.decode(data, 3, draft=(64, 48)).width < 1600
    assert 0 < np.abs(drafted.astype(int) - whole).mean() < 2


def test_random_crop_depends_on_its_numbers_alone() -> None:
    image = picture(200, 100)
    crops = [
        resize_crop.random_resized_crop(image, SPEC, (0.1, 1.0), randomness.numbers(seed, 0, 0)) for seed in (1, 1, 2)
    ]
    assert (crops[0] == crops[1]).all() and (crops[0] != crops[2]).any()
    assert crops[0].shape == (3, 24, 32) and crops[0].flags.writeable


def test_random_box_lies_inside_and_has_the_wanted_area() -> None:
    for sample in range(300):
        left, top, right, bottom = resize_crop.random_box(200, 150, (0.2, 0.5), randomness.numbers(0, 0, sample))
        assert 0 <= left < right <= 200 and 0 <= top < bottom <= 150
        assert 0.18 < (right - left) * (bottom - top) / (200 * 150) < 0.52
        assert 0.7 < (right - left) / (bottom - top) < 1.4
    assert resize_crop.random_box(1000, 3, (1.0, 1.0), randomness.numbers(0, 0, 0)) == (498, 0, 502, 3)


def test_float_in_zero_to_one_is_refused_rather_than_black() -> None:
    with pytest.raises(DataError, match="float"):
        decode.decode(gray_tiff(np.full((4, 4), 0.5, np.float32)), 1)
