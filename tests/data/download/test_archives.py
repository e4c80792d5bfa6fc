"""Unpacking: what is harmless comes out whole, and of anything else nothing does."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import random
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from corpus import ARCHIVES, Bad, tar_member, tar_of, zip_of

from dlkit.data.download.archives import ExtractLimits, extract
from dlkit.errors import StorageError, VerificationError


@pytest.fixture
def canary(tmp_path: Path) -> Callable[[], str]:
    """A tree beside the target; called, it gives the digest of all that is in the test's folder."""
    (tmp_path / "canary" / "deep").mkdir(parents=True)
    (tmp_path / "canary" / "deep" / "bird").write_text("alive")
    (tmp_path / "etc").mkdir()

    def digest() -> str:
        rows = [
            (str(path.relative_to(tmp_path)), path.is_dir(), b"" if path.is_dir() else path.read_bytes())
            for path in sorted(tmp_path.rglob("*"))
        ]
        return hashlib.sha256(repr(rows).encode()).hexdigest()

    return digest


@pytest.mark.parametrize("bad", ARCHIVES, ids=str)
def test_bad_archive_is_refused_and_leaves_nothing(bad: Bad, tmp_path: Path, canary: Callable[[], str]) -> None:
    archive = tmp_path / bad.name
    bad.make(archive)
    before, started = canary(), time.thread_time()
    with pytest.raises(VerificationError) as refused:
        extract(archive, tmp_path / "target")
    assert canary() == before
    assert time.thread_time() - started < 5
    message = str(refused.value)
    assert message.startswith(str(archive)) and bad.says in message and message.isprintable()
    assert refused.value.exit_code == 6


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_any_damaged_archive_is_whole_or_refused(kind: str, tmp_path: Path) -> None:
    """Random bytes changed, inserted or cut off: exit 6 or what was packed, and no other exception."""
    draw, archive = random.Random(0), tmp_path / "a"
    members = [(f"{number}/é", bytes(range(200))) for number in range(3)]
    packed = zip_of(*members)
    if kind == "tar":
        packed = tar_of(*(tar_member(name, content, pax_headers={"mtime": "1.5"}) for name, content in members))
    for number in range(150):
        data = bytearray(packed)
        for _ in range(draw.randint(1, 4)):
            place = draw.randrange(min(len(data), 3000))
            data[place : place + draw.randint(0, 3)] = draw.randbytes(draw.randint(0, 3))
        archive.write_bytes(data)
        try:
            extract(archive, tmp_path / str(number))
        except VerificationError as error:
            assert "\n" not in str(error)


def test_members_beyond_the_limit_are_refused(tmp_path: Path, canary: Callable[[], str]) -> None:
    (tmp_path / "a.zip").write_bytes(zip_of(*((f"f{number}", b"") for number in range(300))))
    (tmp_path / "a.tar").write_bytes(tar_of(*(tar_member(f"f{number}", b"") for number in range(300))))
    before = canary()
    for name in ("a.zip", "a.tar"):
        with pytest.raises(VerificationError, match="299 members"):
            extract(tmp_path / name, tmp_path / "target", ExtractLimits(members=299))
    assert canary() == before


def test_bytes_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of(tar_member("a", bytes(5000)), tar_member("b", bytes(5000))))
    with pytest.raises(VerificationError, match="more than 9000 bytes"):
        extract(tmp_path / "a.tar", tmp_path / "target", ExtractLimits(bytes=9000))


@pytest.mark.slow
def test_zip_of_very_many_empty_entries_is_refused_in_time(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(300_000):
            archive.writestr(str(number), b"")
    started = time.thread_time()
    with pytest.raises(VerificationError, match="members"):
        extract(tmp_path / "a.zip", tmp_path / "target")
    assert time.thread_time() - started < 5


@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress, bz2.compress])
def test_tar_comes_out_whole(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    content = bytes(range(256)) * 3000
    members = [tar_member("set/"[:-1], b"", type=b"5"), tar_member("./set/a.bin", content), tar_member("set/b/c", b"c")]
    (tmp_path / "archive").write_bytes(tar_of(*members, compress=compress))
    extract(tmp_path / "archive", tmp_path / "target")
    found = {str(path.relative_to(tmp_path / "target")) for path in (tmp_path / "target").rglob("*") if path.is_file()}
    assert found == {"set/a.bin", "set/b/c"}
    assert (tmp_path / "target/set/a.bin").read_bytes() == content


def test_zip_comes_out_whole(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zip_of(("set/", b""), ("set/é.txt", b"text"), ("inner.zip", zip_of(("x", b"y")))))
    extract(tmp_path / "a.zip", tmp_path / "target")
    assert (tmp_path / "target/set/é.txt").read_bytes() == b"text"
    assert (tmp_path / "target/inner.zip").is_file()  # an archive inside stays one
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "target"]


def test_tar_that_ends_in_a_zip_is_still_a_tar(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of(tar_member("inner.zip", zip_of(("x", b"y")))))
    extract(tmp_path / "a.tar", tmp_path / "target")
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["inner.zip"]


def test_setuid_file_comes_out_as_an_ordinary_one(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of(tar_member("program", b"#!", mode=0o6755, uid=12345)))
    extract(tmp_path / "a.tar", tmp_path / "target")
    assert (tmp_path / "target/program").stat().st_mode & 0o7111 == 0


def test_missing_archive_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        extract(tmp_path / "none.tar", tmp_path / "target")
    assert list(tmp_path.iterdir()) == []
