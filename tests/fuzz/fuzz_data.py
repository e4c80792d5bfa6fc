"""What data sets are read from: recipes, images, archives, shards, packs, tables, texts, trees and published arrays."""

from __future__ import annotations

import gzip
import io
import itertools
import lzma
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from corpus import encoded, picture, png_chunk, tar_member, tar_of, zip_of
from hypothesis import strategies as st
from law import Target, check_error, replace_file
from mutation import json_mutants, mutants
from PIL import Image

from dlkit.config import yaml_file
from dlkit.config.resolve import load, resolve
from dlkit.data.download import archives, idx, mat
from dlkit.data.images import decode, packed
from dlkit.data.inputs import ReadAhead, Stream, inputs
from dlkit.data.text.word_vectors import read_vectors
from dlkit.datasets import csv, text_csv, trees, wds
from dlkit.datasets import packed as packed_set
from dlkit.errors import DlkitError
from dlkit.specs import ImageSpec, SequenceSpec, TreeSpec

SPEC = ImageSpec(3, 24, 32, ("a", "b"), (0.5,) * 3, (0.5,) * 3)
YAML = [
    b"*", b"&a ", b"!!", b": ", b"- ", b"[", b"{", b"\n", b"\t", b"#", b"'", b'"', b"\0", b"\xff", b"~", b"\n---\n",
    b"? ", b"| ", b"%", b"\xef\xbb\xbf", b"null", b".nan", b"[" * 30, b"1e-3", b"yes",
]  # fmt: skip
TEXT = [b"\n", b"\r", b"\r\n", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xff", b'"', b",", b";", b"\t", b"(", b")", b" "]
TREES = [*TEXT, b"(" * 3000, b")" * 3000, b"# label = ", b"0", b"3-4", b"1.1"]


def recipes(folder: Path) -> Target:
    paths = [path for name in yaml_file.shipped_names()[:8] if (path := yaml_file.shipped_path(name))]
    path = folder / "recipe.yaml"

    def read(data: bytes) -> None:
        load(replace_file(path, data))
        resolve(recipe=str(path))

    valid = [path.read_bytes() for path in paths]
    return Target(mutants(valid, YAML), read, valid)


# images


def image(format: str, folder: Path) -> Target:
    valid = list(dict.fromkeys(_images(format)))

    def read(data: bytes) -> None:
        decode.load(data, SPEC, notes=[])

    words = [b"\0\0\0\0", b"\xff\xd8", b"\xff\xda", b"IDAT", b"acTL", b"Exif\0\0"]
    return Target(mutants(valid, words), read, [] if format == "AVIF" else valid)  # AVIF is refused by its name


def _images(format: str) -> Iterator[bytes]:
    turned = Image.Exif()
    turned[0x0112], turned[0x010E] = 6, "text"
    small, frames = picture(24, 16), [picture(12, 9, seed=seed) for seed in range(3)]
    plain = small.convert("P") if format == "GIF" else small
    yield encoded(plain, format)
    if format in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        yield encoded(small, format, exif=turned)
    if format in ("GIF", "PNG", "WEBP", "TIFF", "AVIF"):
        yield encoded(frames[0], format, save_all=True, append_images=frames[1:])
    if format in ("PNG", "WEBP", "TIFF"):
        yield encoded(picture(20, 20, "RGBA"), format)
    if format in ("JPEG", "PNG", "TIFF", "PPM", "BMP"):
        yield encoded(small.convert("L"), format)
    if format in ("PNG", "TIFF", "PPM"):
        yield encoded(Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20)), format)
    if format == "JPEG":
        yield encoded(small, format, progressive=True)
        yield encoded(small.convert("CMYK"), format)
    if format == "TIFF":
        for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", "group4"):
            yield encoded(small.convert("1") if compression == "group4" else small, format, compression=compression)
    if format == "PNG":
        yield encoded(small.convert("P"), format, transparency=0)
        text = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"hello")) + png_chunk(b"eXIf", turned.tobytes()[6:])
        yield encoded(small, format)[:33] + text + encoded(small, format)[33:]


# archives


def archive(kind: str, folder: Path) -> Target:
    members = [(f"{number}/é", bytes(range(200))) for number in range(3)]
    made = {
        "plain": tar_of(*(tar_member(name, content, pax_headers={"mtime": "1.5"}) for name, content in members)),
        "long": tar_of(tar_member("n" * 150, b"x" * 600), tar_member("folder", b"", type=b"5")),
    }
    compress: dict[str, Callable[[bytes], bytes]] = {"tar": bytes, "tar.gz": gzip.compress, "tar.xz": lzma.compress}
    valid = [zip_of(*members), zip_of(("a/", b""), ("a/b", b"x" * 999), method=0)]
    strategy = mutants(valid)
    if kind != "zip":
        pack = compress[kind]
        valid = [pack(data) for data in made.values()]
        inner = mutants(list(made.values()), [b"..", b"/", b"\0", b"GNU.sparse.map=1,2\n", b"22 path=../evil\n"])
        strategy = inner if kind == "tar" else inner.map(pack) | mutants(valid)
    count = itertools.count()

    def read(data: bytes) -> None:
        target = folder / f"target{next(count)}"
        try:
            archives.extract(replace_file(folder / "archive", data), target)
        finally:
            shutil.rmtree(target, ignore_errors=True)
            left = sorted(path.name for path in folder.iterdir())
            assert left == ["archive"], f"something was left: {left}"

    return Target(strategy, read, valid)


def shards(folder: Path) -> Target:
    png = encoded(picture(12, 12), "PNG")
    rows = [("0.png", png), ("0.cls", b"cat"), ("1.png", png), ("1.cls", b"dog"), ("1.json", b'{"a": 1}')]
    valid = tar_of(*(tar_member(name, content) for name, content in rows))
    return Target(
        mutants([valid], [b"GNU.sparse.map", b".", b"\0"]),
        lambda data: _decode_all(wds.load(replace_file(folder / "train.tar", data), size=12)),
        [valid],
    )


# packs


def packs(folder: Path) -> Target:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (3, 24, 32), np.uint8) for _ in range(4)]
    facts = {"targets": np.array([0, 1, 0, 1]), "names": ["a/1.png", "b/é.png", "a/3.png", "b/4.png"]}
    valid = []
    for groups in (None, np.arange(4)):
        file = io.BytesIO()
        packed.write(file, SPEC, None, {"train": {**facts, "groups": groups}}, lambda split: images)
        valid.append(file.getvalue())

    def read(data: bytes) -> None:
        _decode_all(packed_set.load(replace_file(folder / "a.pack", data)))

    return Target(mutants(valid) | _pack_headers(valid), read, valid)


def _pack_headers(valid: list[bytes]) -> st.SearchStrategy[bytes]:
    """Packs whose header is JSON still and says other things; its own digest fits again."""
    import hashlib
    import json

    def parts(data: bytes) -> tuple[dict[str, object], bytes]:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        header["__metadata__"]["document"] = json.loads(header["__metadata__"]["document"])
        return header, data[8 + size :]

    def finish(header: object) -> bytes:
        if isinstance(header, dict) and isinstance(metadata := header.get("__metadata__"), dict):
            document = json.dumps(metadata.pop("document", None))
            metadata |= {"document": document, "sha256": hashlib.sha256(document.encode()).hexdigest()}
            header = {"__metadata__": {"schema": metadata.pop("schema", None), **metadata}, **header}
            header["__metadata__"] = {**header["__metadata__"], **metadata}
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + tail

    header, tail = parts(valid[0])
    return json_mutants([header], finish)


# tables, texts, trees


def table(ending: str, folder: Path) -> Target:
    comma = "," if ending == "csv" else "\t"
    names = [f"{number}.png" for number in range(6)]
    for name in names:
        (folder / name).write_bytes(encoded(picture(8, 8), "PNG"))
    header = ("path", "label", "split", "text")
    rows = [header, *((name, "ab"[n % 2], "train", f'a "{n}"') for n, name in enumerate(names))]
    quoted = [[f'"{field.replace(chr(34), chr(34) * 2)}"' if "a " in field else field for field in row] for row in rows]
    text = "".join(comma.join(row) + "\n" for row in quoted)
    valid = [text.encode(), text.encode("utf-16"), text.replace(comma, ";").encode("utf-8-sig")]

    def read(data: bytes) -> int:
        path, refused = replace_file(folder / f"train.{ending}", data), 0
        for read_table in (csv.load, partial(text_csv.load, least=1)):
            try:
                read_table(path)
            except DlkitError as error:
                check_error(error)
                refused += 1
        return refused

    return Target(mutants(valid, TEXT), read, valid)


def tree_file(ending: str, folder: Path) -> Target:
    brackets = b"(3 (2 a) (4 (1 gem) (1 of)))\n(1 (2 dull) (3 film))\n(3 gem)\n"
    rows = "1\ta\ta\tX\t_\t_\t2\tdet\t_\t_\n2\tgem\tgem\tX\t_\t_\t0\troot\t_\t_\n\n"
    conllu = f"# label = good\n{rows}# label = bad\n# text = x\n1-2\ta b\n{rows}".encode()
    valid = [brackets] if ending == "txt" else [conllu, conllu.replace(b"\n", b"\r\n")]

    def read(data: bytes) -> None:
        replace_file(folder / f"train.{ending}", data)
        for form in ("trees", "sequences"):
            trees.load(folder, form=form, least=1)

    return Target(mutants(valid, TREES), read, valid)


def stdin_lines(folder: Path) -> Target:
    """What predict reads from a pipe: names of images, texts, and trees in both forms."""
    words = ("a", "gem")
    specs = [SPEC, SequenceSpec(("a", "b"), 4, words=words), TreeSpec(("1", "3"), 4, words, "words", ("1", "2", "3"))]
    valid = [b"a gem\nfilm of it\n", b"(3 (2 a) (1 gem))\n(1 gem)\n", b"1\ta\t_\t_\t_\t_\t2\n2\tgem\t_\t_\t_\t_\t0\n\n"]

    def read(data: bytes) -> None:
        for spec in specs:
            ahead = ReadAhead(inputs([Stream([data[:50], data[50:]])], spec), spec, 64)
            try:
                for batch in ahead.batches(16, None):
                    for item in batch:
                        if isinstance(item.content, DlkitError):
                            check_error(item.content)
            finally:
                ahead.close()

    return Target(mutants(valid, TREES), read, valid)


def vectors(folder: Path) -> Target:
    valid = [b"a 0.1 0.2 0.3\ngem -1 2e-3 .5\n", b"2 3\na 0.1 0.2 0.3\ngem 1 2 3\n"]

    def read(data: bytes) -> None:
        read_vectors(replace_file(folder / "vectors.txt", data), ("a", "gem"), 3)

    return Target(mutants(valid, [*TEXT, b"nan", b"1e999", b"1_0"]), read, valid)


# published arrays


def idx_file(folder: Path) -> Target:
    values = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)

    def read(data: bytes) -> None:
        idx.read(replace_file(folder / ("a.gz" if data[:1] == b"\x1f" else "a"), data), 3)

    valid = [idx.encode(values), gzip.compress(idx.encode(values))]
    return Target(mutants(valid), read, valid)


def mat_file(folder: Path) -> Target:
    from scipy.io import savemat

    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    valid = []
    for compressed in (False, True):
        file = io.BytesIO()
        savemat(file, {"X": values, "y": values[0], "s": {"name": "é", "n": 3.5}}, do_compression=compressed)
        valid.append(file.getvalue())
    return Target(mutants(valid), lambda data: mat.variables(replace_file(folder / "a.mat", data)), valid)


def _decode_all(splits: object) -> None:
    for source in splits.train.paths:  # type: ignore[attr-defined]
        decode.load(source, splits.spec)  # type: ignore[attr-defined]


FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
DATA: dict[str, Callable[[Path], Target]] = {
    "recipe": recipes,
    **{f"image-{format}": partial(image, format) for format in FORMATS},
    **{f"archive-{kind}": partial(archive, kind) for kind in ("tar", "tar.gz", "tar.xz", "zip")},
    "shards": shards,
    "pack": packs,
    **{f"table-{ending}": partial(table, ending) for ending in ("csv", "tsv")},
    "trees": partial(tree_file, "txt"),
    "conllu": partial(tree_file, "conllu"),
    "stdin": stdin_lines,
    "vectors": vectors,
    "idx": idx_file,
    "mat": mat_file,
}
