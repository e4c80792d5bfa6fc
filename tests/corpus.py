"""Bad input, made on the spot: each row has a number, a name, a maker, and what dlkit must answer.

`IMAGES` are files that predict, training and evaluation must refuse; `ARCHIVES` are what extraction must refuse.
"""

from __future__ import annotations

import gzip
import io
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dlkit.errors import DataError, DlkitError, VerificationError


@dataclass(frozen=True)
class Bad:
    """One bad input: `make(path)` puts it there, `says` stands in the message that refuses it."""

    row: int
    name: str
    make: Callable[[Path], object]
    says: str
    error: type[DlkitError] = DataError

    def __str__(self) -> str:
        return f"{self.row}-{self.name}"


# Images


def picture(width: int = 40, height: int = 30, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A picture of smooth colours that no compression makes trivial."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG file with that header and these chunks behind it."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + png_chunk(b"IEND", b"")


def big_png(side: int) -> bytes:
    """A small file of a huge picture: one bit a pixel, all of them zero."""
    pixels = zlib.compress(bytes((1 + (side + 7) // 8) * side), 9)
    return png(side, side, png_chunk(b"IDAT", pixels), depth=1)


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


def write(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def jpeg() -> bytes:
    return encoded(picture(), "JPEG")


def gray_tiff(values: np.ndarray) -> bytes:
    return encoded(Image.fromarray(values), "TIFF")


def _text_bomb() -> bytes:
    text = b"Comment\0\0" + zlib.compress(bytes(65_000_000), 9)
    return png(1, 1, png_chunk(b"zTXt", text), png_chunk(b"IDAT", zlib.compress(b"\0\0")))


def _fifo(path: Path) -> None:
    os.mkfifo(path)


PLAIN_PNG = encoded(picture(), "PNG")

IMAGES = [
    Bad(1, "empty.jpg", write(b""), "empty"),
    Bad(2, "text.png", write(b"hello"), "not an image"),
    Bad(3, "page.jpg", write(b"\n<!DOCTYPE html>\n<html><title>404</title></html>"), "web page"),
    Bad(4, "half.jpg", lambda path: path.write_bytes(jpeg()[: len(jpeg()) // 2]), "damaged"),
    Bad(5, "cut.jpg", lambda path: path.write_bytes(jpeg()[:-1]), "damaged"),
    Bad(6, "half.png", write(PLAIN_PNG[: len(PLAIN_PNG) // 2]), "damaged"),
    Bad(7, "crc.png", write(flipped(PLAIN_PNG, PLAIN_PNG.index(b"IDAT") + 40)), "damaged"),
    Bad(10, "nothing.png", write(png(0, 0)), ""),
    Bad(12, "line.png", write(png(65_535, 1)), "too large"),
    Bad(13, "folder.jpg", Path.mkdir, "folder"),
    Bad(13, "pipe.png", _fifo, "pipe"),
    Bad(13, "dangling.png", lambda path: path.symlink_to("nowhere"), "points to nothing"),
    Bad(13, "missing.png", lambda path: None, "no such file"),
    Bad(17, "float.tif", write(gray_tiff(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))), "float"),
    Bad(17, "int32.tif", write(gray_tiff(np.full((8, 8), 10**8, np.int32))), "32-bit"),
    Bad(26, "bomb.png", write(big_png(9_400)), "too large"),
    Bad(27, "header.png", write(png(15_000, 15_000)), "too large"),
    Bad(28, "text_bomb.png", lambda path: path.write_bytes(_text_bomb()), ""),
    Bad(29, "post.jpg", write(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "EPS"),
    Bad(29, "page.png", write(b"%PDF-1.7\n"), "PDF"),
    Bad(29, "sky.png", write(b"SIMPLE  =                    T".ljust(2880)), "FITS"),
    Bad(29, "layers.png", write(b"8BPS\0\1" + bytes(60)), "PSD"),
    Bad(29, "drawing.png", write(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "SVG"),
    Bad(29, "photo.png", write(b"\0\0\0\x18ftypheic" + bytes(40)), "HE"),
    Bad(29, "film.png", write(b"\0\0\0\x18ftypisom" + bytes(40)), "video"),
]


# Archives


def tar_of(*members: tuple[tarfile.TarInfo, bytes], compress: Callable[[bytes], bytes] = bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return compress(file.getvalue())


def tar_member(name: str, content: bytes = b"x", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def tar_link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return tar_member(name, b"", type=kind, linkname=target)


def zip_of(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def zip_link(name: str, target: bytes) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = 0o120777 << 16
    return info, target


def _xz_bomb() -> bytes:
    """A tar whose one member announces 10 GiB, as 1.5 MB of xz would hold; only its beginning is here."""
    info = tarfile.TarInfo("zeros")
    info.size = 10 << 30
    return lzma.compress(info.tobuf() + bytes(1 << 20))


def _header_bomb() -> bytes:
    """A tar whose extended header, which a reader takes into memory whole, unpacks to 64 MiB."""
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 64 << 20
    packer = zlib.compressobj(9, wbits=31)
    blocks = [packer.compress(info.tobuf()), *(packer.compress(bytes(1 << 20)) for _ in range(64)), packer.flush()]
    return b"".join(blocks)


def _bad_gzip_checksum() -> bytes:
    data = gzip.compress(tar_of(tar_member("a")))
    return data[:-8] + bytes(4) + data[-4:]


def _zip_overlapping() -> bytes:
    """Two entries of the directory that are the same bytes of the file."""
    data = bytearray(zip_of(("a", bytes(1000)), ("b", bytes(1000))))
    first, second = data.index(b"PK\1\2"), data.rindex(b"PK\1\2")
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    return bytes(data)


def _zip_flag(place: int, value: int) -> bytes:
    """A zip with a field of its entry changed, in the local header and in the directory."""
    data = bytearray(zip_of(("a", b"content")))
    local, central = data.index(b"PK\3\4"), data.index(b"PK\1\2")
    struct.pack_into("<H", data, local + 6 + place, value)
    struct.pack_into("<H", data, central + 8 + place, value)
    return bytes(data)


def _bad(row: int, name: str, data: bytes | Callable[[], bytes], says: str = "") -> Bad:
    return Bad(
        row, name, lambda path: path.write_bytes(data if isinstance(data, bytes) else data()), says, VerificationError
    )


ARCHIVES = [
    _bad(48, "climbs.tar", tar_of(tar_member("../evil")), "climbs"),
    _bad(48, "climbs-within.tar", tar_of(tar_member("a/../../evil")), "climbs"),
    _bad(49, "absolute.tar", tar_of(tar_member("/abs/evil")), "absolute"),
    _bad(50, "through-link.tar", tar_of(tar_link("etc", "/etc"), tar_member("etc/evil")), "link"),
    _bad(51, "hard-link.tar", tar_of(tar_link("p", "/etc/passwd", tarfile.LNKTYPE)), "link"),
    _bad(51, "link-inside.tar", tar_of(tar_member("a"), tar_link("b", "a", tarfile.LNKTYPE)), "link"),
    _bad(52, "pipe.tar", tar_of(tar_member("pipe", b"", type=tarfile.FIFOTYPE)), "device"),
    _bad(52, "device.tar", tar_of(tar_member("null", b"", type=tarfile.CHRTYPE)), "device"),
    _bad(53, "no-name.tar", tar_of(tar_link("", ".")), ""),
    _bad(53, "long-name.tar", tar_of(tar_member("n" * 300)), "long"),
    _bad(53, "escape.tar", tar_of(tar_member("a\x1b[2Jb")), "control"),
    _bad(54, "file-as-folder.tar", tar_of(tar_member("a"), tar_member("a/b")), "a file and a folder"),
    _bad(54, "twice.tar", tar_of(tar_member("a"), tar_member("a")), "twice"),
    _bad(54, "case-twins.tar", tar_of(tar_member("A/x"), tar_member("a/y")), "case"),
    _bad(54, "case-twin-files.tar", tar_of(tar_member("A"), tar_member("a")), "case"),
    _bad(55, "cut.tar.gz", gzip.compress(tar_of(tar_member("a", os.urandom(5000))))[:-2000], "damaged"),
    _bad(55, "checksum.tar.gz", _bad_gzip_checksum, "damaged"),
    _bad(55, "bomb.tar.xz", _xz_bomb, "unpacks to more"),
    _bad(55, "header-bomb.tar.gz", _header_bomb, "unpacks to more"),
    _bad(55, "empty.tar", b"", ""),
    _bad(55, "text.tar", b"hello, this is no archive at all" * 40, "damaged"),
    _bad(56, "climbs.zip", zip_of(("../../evil", b"x")), "climbs"),
    _bad(56, "absolute.zip", zip_of(("/evil", b"x")), "absolute"),
    _bad(56, "backslash.zip", zip_of(("..\\evil", b"x")), "backslash"),
    _bad(56, "drive.zip", zip_of(("C:evil", b"x")), "colon"),
    _bad(57, "bomb.zip", lambda: zip_of(("zeros", bytes(50_000_000))), "unpacks to more"),
    _bad(57, "overlap.zip", _zip_overlapping, "overlaps"),
    _bad(58, "link.zip", zip_of(zip_link("etc", b"/etc")), "link"),
    _bad(58, "encrypted.zip", _zip_flag(0, 1), "encrypted"),
    _bad(58, "method.zip", _zip_flag(2, 77), ""),
    # what tarfile and zipfile raise that is none of their own errors
    _bad(0, "sparse.tar", tar_of(tar_member("a", pax_headers={"GNU.sparse.map": "a,b"})), "damaged"),
    _bad(0, "number.tar", tar_of(tar_member("a", pax_headers={"GNU.sparse.map": "9" * 5000})), "damaged"),
    _bad(0, "no-utf8.zip", zip_of(("é", b"x")).replace("é".encode(), b"\xff\xfe"), "damaged"),
]
