"""Tar shards: samples are read by offset, and errors name the shard."""

from __future__ import annotations

import http.server
import io
import json
import random
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from corpus import encoded, picture, tar_member, tar_of
from same_images import write_shard

from dlkit import cache
from dlkit.config.schema import Data
from dlkit.data import library
from dlkit.data.fingerprint import fingerprint
from dlkit.data.images import decode, shards
from dlkit.data.loader import split
from dlkit.data.splits import ImageFiles, Splits
from dlkit.datasets import wds
from dlkit.errors import DataError, StorageError, UsageError
from dlkit_cli.main import run

PNG = encoded(picture(12, 12), "PNG")


def sample(key: str, label: str | bytes, ending: str = "png", seed: int = 0) -> list[tuple[str, bytes]]:
    content = label if isinstance(label, bytes) else label.encode()
    return [(f"{key}.{ending}", encoded(picture(12, 12, seed=seed), "PNG")), (f"{key}.cls", content)]


def two(place: Path, name: str = "a.tar") -> Path:
    return write_shard(place / name, [*sample("0", "cat"), *sample("1", "dog", seed=1)])


def labels(splits: Splits, part: str = "train") -> list[str]:
    samples = getattr(splits, part)
    return [splits.spec.classes[target] for target in samples.targets]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("s-{008..011}.tar", ["s-008.tar", "s-009.tar", "s-010.tar", "s-011.tar"]),
        ("s-{8..10}.tar", ["s-8.tar", "s-9.tar", "s-10.tar"]),
        ("{train,val}-{0..1}.tar", ["train-0.tar", "train-1.tar", "val-0.tar", "val-1.tar"]),
        ("{a,}b.tar", ["ab.tar", "b.tar"]),
    ],
)
def test_braces_count_and_choose(pattern: str, names: list[str]) -> None:
    assert shards.expand_braces(pattern) == names


@pytest.mark.parametrize(
    "pattern", ["s-{0..9.tar", "s-0}.tar", "s-{9..0}.tar", "s-{0..99999999999}.tar", "{{0..9}.tar"]
)
def test_invalid_braces_are_reported(pattern: str) -> None:
    with pytest.raises(DataError, match=r"brace|decreasing"):
        shards.expand_braces(pattern)


def test_shards_hold_what_was_put_in_wherever_it_lies(tmp_path: Path) -> None:
    two(tmp_path, "s-00.tar")
    write_shard(
        tmp_path / "s-01.tar", [*sample("deep/x.y/2", "dog", seed=2)[::-1], *sample("3", "ant\n", "JPG", seed=3)]
    )
    splits = wds.load(tmp_path / "s-{00..01}.tar", size=12)
    assert labels(splits) == ["ant", "cat", "dog", "dog"] and splits.spec.classes == ("ant", "cat", "dog")
    assert isinstance(splits.train, ImageFiles)
    for seed, source in zip((3, 0, 1, 2), splits.train.paths, strict=True):
        expected = decode.load(encoded(picture(12, 12, seed=seed), "PNG"), splits.spec)
        assert (decode.load(source, splits.spec) == expected).all()
    assert str(splits.train.paths[3]).endswith("s-01.tar/deep/x.y/2.png")


def test_samples_shuffled_into_other_shards_are_in_the_same_order(tmp_path: Path) -> None:
    kept = [sample(f"{n}", "ab"[n % 2], seed=n) for n in range(12)]
    mixed = random.Random(0).sample(kept, 12)
    for folder, rows in (("kept", kept), ("mixed", mixed)):
        for shard in range(3):
            parts = [member for row in rows[4 * shard : 4 * shard + 4] for member in row]
            write_shard(tmp_path / folder / f"{shard}.tar", parts)
    one, other = (wds.load(tmp_path / folder) for folder in ("kept", "mixed"))
    names = [[source.name for source in splits.train.paths] for splits in (one, other)]  # type: ignore[union-attr]
    assert names[0] == names[1] == [f"{n}.png" for n in (0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11)]
    assert fingerprint(one.train, one.spec.classes) == fingerprint(other.train, other.spec.classes)


def test_numbers_are_places_in_a_list_of_names(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", [*sample("0", "2"), *sample("1", "0"), *sample("2", "owl")])
    numbers = write_shard(tmp_path / "n" / "a.tar", [*sample("0", "10"), *sample("1", "9")])
    (tmp_path / "classnames.txt").write_text("owl\nfox\nbee\n")
    splits = wds.load(tmp_path / "a.tar")
    assert splits.spec.classes == ("owl", "fox", "bee") and sorted(labels(splits)) == ["bee", "owl", "owl"]
    assert "the train split has no image of 'fox'." in splits.warnings
    assert wds.load(numbers).spec.classes == ("9", "10")
    with pytest.raises(DataError, match=r"0\.cls: the label '10' is not one of the 3 class"):
        wds.load(numbers, names=str(tmp_path / "classnames.txt"))


def test_a_label_may_be_a_field_of_json_or_another_file(tmp_path: Path) -> None:
    rows = [("0.png", PNG), ("0.json", json.dumps({"kind": 3}).encode()), ("1.png", PNG), ("1.json", b'{"kind": "x"}')]
    assert wds.load(write_shard(tmp_path / "a.tar", rows), label="json:kind").spec.classes == ("3", "x")
    rows = [("0.png", PNG), ("0.txt", b"x"), ("1.png", PNG), ("1.txt", b"y")]
    assert wds.load(write_shard(tmp_path / "b.tar", rows), label="txt").spec.classes == ("x", "y")


def test_the_words_in_a_shards_name_tell_its_split(tmp_path: Path) -> None:
    for name in ("train/0.tar", "train/1.tar", "validation/0.tar", "my-test-0.tar", ".hidden/test.tar"):
        two(tmp_path / "all", name)
    splits = wds.load(tmp_path / "all")
    assert (len(splits.train), len(splits.validation or []), len(splits.test or [])) == (4, 2, 2)
    two(tmp_path, "test/s-0.tar")
    assert len(wds.load(tmp_path / "test" / "s-0.tar").train) == 2  # a folder that all shards share tells nothing
    with pytest.raises(DataError, match="none for train"):
        wds.load(tmp_path / "all" / "my-test-{0..0}.tar")


def test_samples_of_a_group_stay_together_and_a_test_split_is_cut(tmp_path: Path) -> None:
    rows = [part for n in range(40) for part in sample(f"p{n // 4:02}-{n}", "ab"[n % 2], seed=n)]
    splits = wds.load(write_shard(tmp_path / "a.tar", rows), group="p[0-9]+", test=0.2)
    parts = split(splits, 0.25, 0)
    people = [{source.name[:3] for source in part.paths} for part in parts.values()]  # type: ignore[union-attr]
    assert sum(map(len, people)) == 10 and len(set.union(*people)) == 10 and len(parts) == 3


def test_what_is_hidden_or_no_sample_is_left_out(tmp_path: Path) -> None:
    rows = [("README.md", b"x"), ("._0.png", b"x"), ("__MACOSX/0.png", b"x"), *sample("0", "a"), *sample("1", "b")]
    assert len(wds.load(write_shard(tmp_path / "a.tar", rows)).train) == 2


def test_a_dot_in_a_key_is_named_as_the_cause(tmp_path: Path) -> None:
    members = [member for key in ("photo.v2.1", "photo.v2.2") for member in sample(key, "cat")]
    write_shard(tmp_path / "a.tar", members)
    with pytest.raises(DataError, match=r"'photo.v2.1.png' has a dot .* Rename its files: 'photo_v2_1.png'"):
        wds.load(tmp_path)
    # a second picture beside an image is WebDataset's own use of dots
    write_shard(tmp_path / "a.tar", [*sample("1", "cat"), ("1.seg.png", b""), *sample("2", "dog")])
    assert len(wds.load(tmp_path).train) == 2


def test_numbers_of_5000_digits_are_no_bug(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", [*sample("1", "9" * 5000), *sample("2", "0")])
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match="not one of the 2 class"):
        wds.load(tmp_path)
    with pytest.raises(DataError, match="decreasing or too long"):
        shards.expand_braces("{0.." + "9" * 5000 + "}.tar")


def test_any_damaged_shard_is_read_or_refused(tmp_path: Path) -> None:
    whole, draw = two(tmp_path).read_bytes(), random.Random(0)
    odd = tar_of(tar_member("1.png", pax_headers={"GNU.sparse.map": "a,b"}))
    for number in range(100):
        data = bytearray(whole)
        place = draw.randrange(len(data))
        data[place : place + draw.randint(0, 3)] = draw.randbytes(draw.randint(0, 3))
        (tmp_path / "a.tar").write_bytes(data if number else odd)
        try:
            wds.load(tmp_path)
        except DataError as error:
            assert "\n" not in str(error)


def spoilt(path: Path, kind: str) -> Path:
    """A shard with one thing wrong."""
    good = [*sample("0", "cat"), *sample("1", "dog", seed=1)]
    members = {
        "no label": [*good, ("2.png", PNG)],
        "no image": [*good, ("2.cls", b"cat")],
        "two images": [*good, *sample("2", "cat"), ("2.jpg", PNG)],
        "twice": [*good, ("0.png", PNG)],
        "empty label": [*good, *sample("2", " \n")],
        "not utf-8": [*good, *sample("2", b"\xff")],
        "long label": [*good, *sample("2", b"x" * (wds.MAX_LABEL_BYTES + 1))],
        "twins": [*good, *sample("2", "Cat")],
        "one class": sample("0", "cat"),
    }
    write_shard(path, members.get(kind, good))
    content = path.read_bytes()
    with tarfile.open(path) as archive:
        *_, before, last = archive
        header, end = before.offset, last.offset_data + 512
    changed = {
        "cut": content[: header + 700],
        "no end": content[:end],
        "bad header": content[:header] + b"\xff" * 512 + content[header + 512 :],
        "empty": b"",
        "text": b"hello",
        "gzip": b"\x1f\x8b\x08" + content,
    }
    path.write_bytes(changed.get(kind, content))
    return path


FAULTS = {
    "no label": r"a\.tar/2: has no \.cls.*data\.options\.label", "no image": r"a\.tar/2: 0 images",
    "two images": r"a\.tar/2: 2 images", "twice": r"a\.tar: contains '0\.png' twice", "cut": r"a\.tar: ",
    "no end": r"a\.tar: damaged or truncated", "bad header": r"a\.tar: ", "empty": r"a\.tar: not a complete tar",
    "text": r"a\.tar: not a complete tar", "gzip": r"a\.tar: .*gzip", "twins": r"a\.tar: .*only in case",
    "empty label": r"a\.tar/2\.cls: contains no label", "not utf-8": r"a\.tar/2\.cls: not UTF-8",
    "long label": r"a\.tar/2\.cls: 1,048,577 bytes", "one class": "one class only",
}  # fmt: skip


@pytest.mark.parametrize("kind", FAULTS)
def test_a_bad_shard_is_one_line_that_names_it(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=FAULTS[kind]) as refused:
        wds.load(spoilt(tmp_path / "a.tar", kind))
    assert "\n" not in str(refused.value) and refused.value.exit_code == 4


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(kind: bytes, tmp_path: Path) -> None:
    link = tarfile.TarInfo("2.png")
    link.type, link.linkname = kind, "/etc/passwd"
    (tmp_path / "a.tar").write_bytes(tar_of(tar_member("0.png", PNG), (link, b"")))
    with pytest.raises(DataError, match=r"'2\.png' is a link or a device"):
        wds.load(tmp_path / "a.tar")


def test_missing_shards_are_reported(tmp_path: Path) -> None:
    two(tmp_path, "s-0.tar")
    (tmp_path / "void").mkdir()
    for place, said in (("s-{0..1}.tar", r"s-1\.tar: there is no such file"), ("void", "contains no .tar")):
        with pytest.raises(DataError, match=said):
            wds.load(tmp_path / place)


def test_a_shard_that_shrinks_is_reported(tmp_path: Path) -> None:
    splits = wds.load(two(tmp_path))
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:600])
    with pytest.raises(DataError, match=r"a\.tar/0\.png: .*shorter"):
        decode.load(splits.train.paths[0], splits.spec)  # type: ignore[union-attr]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A loopback server of a folder, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    two(tmp_path / "there", "s-0.tar")
    two(tmp_path / "there", "s-1.tar")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "there")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/s-{{0..1}}.tar", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_shards_at_an_address_are_fetched_once(
    served: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address, asked = served
    monkeypatch.setenv("DLKIT_HOME", str(tmp_path / "home"))
    data = Data(name="wds", dir=address)
    with pytest.raises(StorageError, match=r"s-0\.tar is not in the cache") as refused:
        library.splits(data)
    assert refused.value.exit_code == 7 and asked == []
    monkeypatch.delenv("DLKIT_OFFLINE")
    said: list[str] = []
    assert len(library.splits(data, log=said.append).train) == 4 and len(asked) == 2
    assert len(said) == 2 and "http://127.0.0.1" in said[0]
    monkeypatch.setenv("DLKIT_OFFLINE", "1")
    assert len(library.splits(data).train) == 4 and len(asked) == 2
    assert len(library.splits(Data(name="wds", dir=str(Path(address)))).train) == 4  # as --data-dir gives it
    assert list((cache.datasets_dir() / "wds").rglob("*.tar"))


def test_an_address_that_climbs_out_of_the_cache_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DLKIT_OFFLINE")
    for address in ("http://127.0.0.1:9/../../x.tar", "http://127.0.0.1:9/"):
        with pytest.raises(UsageError, match="URL of a shard"):
            wds.locate(address, True, str)


def test_a_person_trains_with_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [part for n in range(12) for part in sample(f"{n}", "ab"[n % 2], seed=n)]
    write_shard(tmp_path / "s-0.tar", rows)
    common = ["--set", "data.size=8", "-j", "0", "--epochs", "1", "--runs-dir", str(tmp_path / "runs")]
    assert run(["train", "mlp", "--dataset", f"wds:{tmp_path}/s-{{0..0}}.tar", *common, "--name", "a", "-b", "4"]) == 0
    assert run(["eval", str(tmp_path / "runs/a"), "--split", "validation", "--json"]) == 0
    capsys.readouterr()
    assert run(["train", "mlp", "--dataset", f"wds:{tmp_path}/s-{{0..1}}.tar", *common]) == 4
    assert "s-1.tar: there is no such file." in capsys.readouterr().err
    assert run(["train", "mlp", "--dataset", "wsd:x.tar", *common]) == 2
    assert "Did you mean 'wds'?" in capsys.readouterr().err
    assert run(["train", "mlp", "--dataset", "wds:s-0.tar", "wds:s-1.tar", *common]) == 2
    assert "Quote them" in capsys.readouterr().err
    assert run(["train", "mlp", "--dataset", "wds:", *common]) == 2
    assert "--data-dir" in capsys.readouterr().err


def test_a_tar_of_another_writer_is_read(tmp_path: Path) -> None:
    for number, format in enumerate((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        with tarfile.open(tmp_path / f"{number}.tar", "w", format=format) as archive:
            for name, content in [*sample("x" * 120 + "/é", "cat"), *sample("1", "dog", seed=1)]:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        assert len(wds.load(tmp_path / f"{number}.tar").train) == 2
