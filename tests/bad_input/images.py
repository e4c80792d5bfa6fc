"""Rows 1 to 29: image files."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from bad_input.case import Attempt, Bench, Case
from corpus import IMAGES, Bad, encoded, flipped, jpeg, picture
from PIL import Image

from dlkit.data.images import decode

Pixels = np.ndarray


def cases() -> Iterator[Case]:
    """Every refused file is an answer with an error, exit 4; those that are accepted have the stated pixels."""
    for bad in IMAGES:
        yield Case(bad.row, bad.name, 4, _refused(bad), bad.says)
    yield Case(8, "flipped.jpg", 0, _accepted({"flipped.jpg": flipped(jpeg(), len(jpeg()) - 60)}))
    yield Case(8, "flipped.jpg with its digest", 4, _flipped_is_reported, "1 altered")
    yield Case(9, "exchanged names", 0, _accepted({"a.png": jpeg(), "b.jpg": encoded(picture(), "PNG")}))
    yield Case(11, "dot.png", 0, _accepted({"dot.png": encoded(picture(1, 1), "PNG")}), "single pixel")
    yield Case(
        14,
        "unreadable.png",
        4,
        _unreadable_by_predict,
        "ermission denied",
        decision="predict answers every input: 4 where all failed, and the code 7 in the record",
    )
    yield Case(14, "unreadable.png in training", 7, _unreadable_by_training, "ermission denied")
    yield from _accepted_cases()


def _accepted_cases() -> Iterator[Case]:
    ramp = np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)
    clear = Image.new("RGBA", (9, 9), (255, 0, 0, 0))
    palette = Image.new("P", (9, 9))
    palette.putpalette([255, 0, 0])
    bits = Image.new("1", (2, 1))
    bits.putpixel((1, 0), 1)

    def scaled(pixels: Pixels) -> bool:
        return abs(pixels.mean() - 127.5) <= 1

    def white(pixels: Pixels) -> bool:
        return bool((pixels == 255).all())

    yield Case(15, "ramp.png", 0, _accepted({"ramp.png": encoded(Image.fromarray(ramp), "PNG")}, scaled))
    yield Case(16, "big-endian.tif", 0, _accepted({"ramp.tif": _big_endian(ramp)}, scaled))
    yield Case(18, "cmyk.jpg", 0, _accepted({"white.jpg": encoded(Image.new("CMYK", (8, 8)), "JPEG")}, white))
    yield Case(19, "clear.png", 0, _accepted({"clear.png": encoded(clear, "PNG")}, white))
    flat = {"la.png": encoded(Image.new("LA", (9, 9)), "PNG"), "p.png": encoded(palette, "PNG", transparency=0)}
    yield Case(20, "gray and palette", 0, _accepted(flat, white))
    bits_png = {"bits.png": encoded(bits, "PNG")}
    yield Case(21, "bits.png", 0, _accepted(bits_png, lambda pixels: set(pixels.flat) == {0, 255}))
    yield Case(22, "eight orientations", 0, _accepted(dict(_turned()), _mark_is_top_left))
    yield Case(23, "exif.jpg", 0, _accepted({"exif.jpg": _broken_exif()}), "EXIF")
    frames = [picture(seed=seed) for seed in range(5)]
    moving = {
        f"moves.{ending}": encoded(frames[0], format, save_all=True, append_images=frames[1:])
        for ending, format in (("gif", "GIF"), ("png", "PNG"), ("webp", "WEBP"))
    }
    yield Case(24, "animations", 0, _accepted(moving), "only the first is used")
    profile = {"profile.png": encoded(picture(), "PNG", icc_profile=b"garbage" * 30)}
    yield Case(25, "profile.png", 0, _accepted(profile, lambda pixels: bool((pixels == np.asarray(picture())).all())))


def _refused(bad: Bad) -> Attempt:
    def attempt(bench: Bench) -> int:
        path = bench.folder / bad.name
        bad.make(path)
        return _folder_named_like_an_image(bench, path) if path.is_dir() else bench.predict(path)

    return attempt


def _folder_named_like_an_image(bench: Bench, path: Path) -> int:
    """predict looks into a folder; the loader, which a table or a list may send there, refuses it."""
    bench.image("data/b/1.png")
    (bench.folder / "data" / "a").mkdir()
    bench.write("data/train.csv", "path,label\na/folder.jpg,a\nb/1.png,b\n")
    path.rename(bench.folder / "data" / "a" / "folder.jpg")
    code = bench.run("train", "mlp", f"csv:{bench.folder / 'data'}", "--runs-dir", bench.folder / "runs")
    assert "folder" in bench.err
    return code


def _accepted(files: dict[str, bytes], holds: Callable[[Pixels], bool] = lambda pixels: True) -> Attempt:
    def attempt(bench: Bench) -> int:
        paths = [bench.write(name, data) for name, data in files.items()]
        for path in paths:
            assert holds(np.asarray(decode.decode(path, 3))), path
        code = bench.predict(*paths)
        assert len(bench.answers()) == len(paths)
        return code

    return attempt


def _flipped_is_reported(bench: Bench) -> int:
    for number in range(8):
        bench.write(f"data/{'ab'[number % 2]}/{number}.jpg", encoded(picture(seed=number), "JPEG"))
    digests = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(bench.folder / 'data')}\n"
        for path in sorted((bench.folder / "data").rglob("*.jpg"))
    ]
    path = bench.folder / "data" / "a" / "0.jpg"
    path.write_bytes(flipped(path.read_bytes(), path.stat().st_size - 60))
    list_of_digests = bench.write("SHA256SUMS", "".join(digests))
    code = bench.run("dataset", "check", bench.folder / "data", "--hashes", list_of_digests, "-j", "1")
    assert "a/0.jpg" in bench.out
    return code


def _forbid(bench: Bench, name: str) -> None:
    """Opening files of that name is not permitted (also to root, who may read everything)."""
    before = os.open

    def refuse(path: object, *arguments: object, **options: object) -> int:
        if os.fspath(path).endswith(name):  # type: ignore[call-overload]
            raise PermissionError(13, "Permission denied", path)
        return before(path, *arguments, **options)  # type: ignore[arg-type]

    bench.patch.setattr(os, "open", refuse)


def _unreadable_by_predict(bench: Bench) -> int:
    path = bench.image("secret.png")
    _forbid(bench, "secret.png")
    code = bench.predict(path)
    assert [answer["error"]["code"] for answer in bench.answers()] == [7]  # type: ignore[index]
    return code


def _unreadable_by_training(bench: Bench) -> int:
    for number in range(8):
        bench.image(f"data/{'ab'[number % 2]}/{number}.png", seed=number)
    bench.image("data/a/secret.png", seed=9)
    _forbid(bench, "secret.png")
    return bench.train()


def _big_endian(ramp: Pixels) -> bytes:
    """A TIFF of mode I;16B: values and header in big-endian order."""
    entries = [(256, 4, 64), (257, 4, 64), (258, 3, 16 << 16), (259, 3, 1 << 16), (262, 3, 1 << 16)]
    entries += [(273, 4, 8 + 2 + 8 * 12 + 4), (278, 4, 64), (279, 4, 8192)]
    directory = b"".join(struct.pack(">HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"MM\0*" + struct.pack(">I", 8) + struct.pack(">H", 8) + directory + bytes(4) + ramp.astype(">u2").tobytes()


def _turned() -> Iterator[tuple[str, bytes]]:
    """The same picture, a white mark in its top left corner, stored in all eight orientations."""
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8] = 255
    inverse = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # what the stored one is of the upright one
    for orientation, transpose in inverse.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = Image.fromarray(upright)
        stored = image if transpose is None else image.transpose(Image.Transpose(transpose))
        yield f"turned{orientation}.png", encoded(stored, "PNG", exif=exif)


def _mark_is_top_left(pixels: Pixels) -> bool:
    return pixels.shape == (16, 32, 3) and pixels[:8, :8].mean() > 250 and pixels[:, 8:].mean() < 5


def _broken_exif() -> bytes:
    block = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03\xff\xff\xff\xff\x7f\xff\xff\xff"
    return jpeg()[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg()[2:]
