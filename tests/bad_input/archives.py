"""Rows 48 to 60: archives, as `dataset unbundle` and `dataset download --from` take them."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Iterator

from bad_input.case import Attempt, Bench, Case, exit_code
from corpus import ARCHIVES, Bad, tar_member, tar_of, zip_of

from dlkit.data.download import idx
from dlkit.data.download.archives import extract


def cases() -> Iterator[Case]:
    for bad in ARCHIVES:
        if bad.row:
            yield Case(bad.row, bad.name, 6, _refused(bad), bad.says)
    yield Case(52, "setuid.tar", 0, _setuid)
    yield Case(57, "nested.zip", 0, _nested, decision="an archive within an archive is never opened: it is a file")
    yield Case(59, "300,000 entries", 6, _many_entries, slow=True)
    yield Case(60, "wrong digest", 6, _wrong_digest, "expected")


def _refused(bad: Bad) -> Attempt:
    def attempt(bench: Bench) -> int:
        path = bench.folder / bad.name
        bad.make(path)
        home = bench.folder / "home"
        bench.patch.setenv("DLKIT_HOME", str(home))
        code = bench.run("dataset", "unbundle", path)
        left = [str(found) for found in home.rglob("*") if found.is_file() and not found.name.endswith(".lock")]
        assert left == []
        return code

    return attempt


def _setuid(bench: Bench) -> int:
    path = bench.write("a.tar", tar_of(tar_member("program", b"#!", mode=0o6755)))
    code = exit_code(lambda: extract(path, bench.folder / "target"))
    assert (bench.folder / "target" / "program").stat().st_mode & 0o7111 == 0
    return code


def _nested(bench: Bench) -> int:
    inner = zip_of(("../evil", b"x"))
    path = bench.write("a.zip", zip_of(("inner.zip", inner)))
    code = exit_code(lambda: extract(path, bench.folder / "target"))
    assert [found.name for found in (bench.folder / "target").rglob("*")] == ["inner.zip"]
    return code


def _many_entries(bench: Bench) -> int:
    path = bench.folder / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(300_000):
            archive.writestr(str(number), b"")
    return exit_code(lambda: extract(path, bench.folder / "target"))


def _wrong_digest(bench: Bench) -> int:
    mirror = bench.folder / "mirror"
    mirror.mkdir()
    for name, size in idx.LIKE_MNIST.items():  # the right sizes, and wrong bytes
        (mirror / f"{name}.gz").write_bytes(gzip.compress(bytes(size), 1))
    home = bench.folder / "home"
    bench.patch.setenv("DLKIT_HOME", str(home))
    code = bench.run("dataset", "download", "mnist", "--from", mirror)
    assert [path for path in home.rglob("*") if path.is_file() and not path.name.endswith(".lock")] == []
    return code
