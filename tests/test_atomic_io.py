from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from dlkit import atomic_io
from dlkit.errors import StorageError


def test_a_write_replaces_the_file_whole_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for text in ("one", "two" * 1000):
        atomic_io.write_text(path, text)
        assert path.read_text() == text
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("point", ["before_open", "mid_write", "before_fsync", "after_fsync", "after_rename"])
def test_a_write_that_dies_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def die(name: str) -> None:
        if name == point:
            raise KeyboardInterrupt

    monkeypatch.setattr(atomic_io, "hook", die)
    with pytest.raises(KeyboardInterrupt):
        atomic_io.write_text(path, "new")
    assert path.read_text() == ("new" if point == "after_rename" else "old")
    monkeypatch.setattr(atomic_io, "hook", None)
    left = atomic_io.remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["a"] and all(name.endswith(".tmp") for name in left)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_refuses_is_one_line_and_the_old_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def refuse(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(StorageError) as caught:
        atomic_io.write_text(path, "new")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert ("disk full" in str(caught.value)) == (code in (errno.ENOSPC, errno.EDQUOT))
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a"]


def test_each_refusal_says_what_it_is_and_a_full_disk_only_what_is_one(tmp_path: Path) -> None:
    said = {
        code: str(atomic_io.storage_error(OSError(code, os.strerror(code)), tmp_path / "a"))
        for code in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG, errno.EIO, errno.ENOENT)
    }
    assert "permission denied" in said[errno.EACCES] and "permission denied" in said[errno.EPERM]
    assert "read-only" in said[errno.EROFS] and "ulimit" in said[errno.EFBIG]
    assert not any("disk full" in text or "again" in text for text in said.values())


def test_every_file_and_then_its_folder_is_synced_before_a_write_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        events.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    def replaced(old: Path, new: Path) -> None:
        events.append("rename")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    atomic_io.write_text(tmp_path / "a", "text")
    assert events == ["file", "rename", "folder"]


def test_lines_are_appended_and_cut_back_to_a_count(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    for number in range(5):
        atomic_io.append_line(path, f"line {number}")
    with open(path, "ab") as file:
        file.write(b"half a li")
    atomic_io.keep_lines(path, 3)
    assert path.read_text() == "line 0\nline 1\nline 2\n"
    atomic_io.keep_lines(path, 10)
    assert path.read_text().count("\n") == 3
