"""Formats with traps of their own: TIFF, whose decoder forgives damage, AVIF and HEIC; and the limit on pixels."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from corpus import encoded, picture, png
from PIL import Image

import dlkit
from dlkit.config.resolve import resolve
from dlkit.data import library
from dlkit.data.images import decode, formats
from dlkit.data.images.formats import UnsupportedImageError
from dlkit.data.splits import ImageFiles
from dlkit.errors import DataError
from dlkit.evaluation.predict import predict
from dlkit.evaluation.prediction import Prediction
from dlkit.specs import ImageSpec, from_json

COMPRESSIONS = {"group4": "1", "tiff_adobe_deflate": "RGB", "tiff_lzw": "RGB", "jpeg": "RGB"}


def tiff(compression: str) -> bytes:
    return encoded(picture(200, 200).convert(COMPRESSIONS[compression]), "TIFF", compression=compression)


def damaged(data: bytes) -> dict[str, bytes]:
    """The first strip spoilt: its second half gone, noise in it, and the file cut off."""
    image = Image.open(io.BytesIO(data))
    offset, count = image.tag_v2[273][0], image.tag_v2[279][0]  # type: ignore[attr-defined]
    half, end = offset + count // 2, offset + count
    noise = np.random.default_rng(0).bytes(end - half)
    return {
        "zeros": data[:half] + bytes(end - half) + data[end:],
        "noise": data[:half] + noise + data[end:],
        "cut": data[:half],
    }


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_damaged_tiff_is_refused_and_a_whole_one_read(compression: str) -> None:
    data = tiff(compression)
    assert decode.decode(data, 3).size == (200, 200)
    for spoilt in damaged(data).values():
        with pytest.raises(DataError, match="damaged") as refused:
            decode.decode(spoilt, 3)
        assert not isinstance(refused.value, UnsupportedImageError)


def test_libtiff_prints_nothing(tmp_path: Path) -> None:
    """Its messages are the C library's own: only a process's stderr shows them."""
    for number, data in enumerate(damaged(tiff("group4")).values()):
        (tmp_path / f"{number}.tif").write_bytes(data)
    code = f"""
from pathlib import Path
from dlkit.data.checks import scan
assert not any(scan.scan_image(path).header for path in Path({str(tmp_path)!r}).iterdir())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_tiff_of_a_kind_that_pillow_lacks_is_not_called_damaged() -> None:
    data = bytearray(encoded(picture(), "TIFF"))
    place = data.index(b"\x03\x01\x03\0\x01\0\0\0")  # the tag of its compression
    data[place + 8 : place + 10] = (34712).to_bytes(2, "little")  # JPEG 2000
    with pytest.raises(UnsupportedImageError):
        decode.decode(bytes(data), 3)


def test_heic_needs_its_extra_and_is_then_read(monkeypatch: pytest.MonkeyPatch) -> None:
    formats.register_heif.cache_clear()
    with monkeypatch.context() as context:
        context.setattr(formats.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(UnsupportedImageError, match=r"pip install 'dlkit\[heif\]'"):
            decode.decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", 3)
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    for format in ("HEIF",):
        found = np.asarray(decode.decode(encoded(picture(64, 48), format, quality=90), 3)).astype(int)
        assert np.abs(found - np.asarray(picture(64, 48)).astype(int)).mean() < 12


def test_max_pixels_moves_the_limit_for_all_that_look_at_a_runs_images(tmp_path: Path) -> None:
    for number in range(8):
        path = tmp_path / f"photos/{'ab'[number % 2]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(40, 30, seed=number), "PNG"))
    settings = {"data.size": 8, "data.workers": 0, "train.epochs": 1, "train.threads": 1, "data.max_pixels": 1000}
    photos = str(tmp_path / "photos")
    with pytest.raises(DataError, match=r"above 0\.001 megapixels .* data\.max_pixels allows more"):
        dlkit.train("mlp", dataset=photos, settings=settings, runs_dir=tmp_path / "runs")
    larger = settings | {"data.max_pixels": 100_000_000}
    run = dlkit.train("mlp", dataset=photos, settings=larger, runs_dir=tmp_path / "runs")
    spec = run.spec()
    assert isinstance(spec, ImageSpec) and spec.max_pixels == 100_000_000 and from_json(spec.to_json()) == spec
    large = tmp_path / "large.png"
    Image.new("1", (8000, 7000)).save(large)  # 56 megapixels
    assert all(isinstance(answer, Prediction) for answer in predict(run, [large]))
    with pytest.raises(DataError, match=r"above 50 megapixels or 20,000 pixels a side; it is 8,000 × 7,000"):
        decode.decode(large, 1)


def test_the_longest_side_grows_with_max_pixels() -> None:
    with pytest.raises(DataError, match="30,000 pixels a side"):
        decode.check_size((30_001, 10), 75_000_000)
    decode.check_size((30_000, 10), 75_000_000)
    with pytest.raises(DataError, match="too large"):
        decode.decode(png(65_535, 1), 3)
    data = resolve("mlp", "shapes", flags={"data.max_pixels": 60_000_000}).recipe.data
    assert not isinstance(library.splits(data).train, ImageFiles)  # of no consequence there
