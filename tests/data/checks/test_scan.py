"""Many images are scanned by helper processes: the same results in the same order, and no process is forked."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from corpus import encoded, picture

from dlkit.data import processes
from dlkit.data.checks import scan
from dlkit.data.images.byte_ranges import ByteRange
from dlkit.errors import WorkerLostError
from dlkit.specs import MAX_PIXELS


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """300 images, of 30 files."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(30):
        (folder / f"{number:02}.jpg").write_bytes(encoded(picture(24, 24, seed=number), "JPEG"))
    (folder / "03.jpg").write_bytes((folder / "03.jpg").read_bytes()[:300])
    return sorted(folder.iterdir()) * 10


@pytest.fixture(autouse=True)
def _processes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "ALONE_S", 0.0)


def test_processes_see_what_one_does_in_the_same_order(files: list[Path]) -> None:
    one, several = (list(scan.scan_images(files, workers)) for workers in (1, 3))
    assert len(one) == len(several) == len(files)
    for first, second in zip(one, several, strict=True):
        assert (first.problem, first.header, first.digest) == (second.problem, second.header, second.digest)
        assert (first.thumbnail is None) == (second.thumbnail is None)
        assert first.thumbnail is None or (first.thumbnail == second.thumbnail).all()


def test_few_files_are_in_flight_at_a_time(files: list[Path]) -> None:
    asked = []

    class Watched(list[Path]):
        def __getitem__(self, places: slice) -> list[Path]:  # type: ignore[override]
            asked.append(places.start)
            return super().__getitem__(places)

    watched = Watched(files)
    looks = scan._scan_in_processes(watched, 2, MAX_PIXELS)
    next(looks)
    assert len(asked) == 2 * scan.PREFETCH < len(files) // scan.BATCH
    looks.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGKILL, r"killed by SIGKILL\) while .*\.jpg and 15 more.*-j 1"), (signal.SIGSTOP, "hang")],
)
def test_a_process_that_dies_or_hangs_over_a_file_ends_the_scan_and_no_process_is_left(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    monkeypatch.setattr(processes, "POLL_S", 0.1)
    monkeypatch.setattr(processes, "_timeout_s", 0.5)
    pools = []

    class Seen(processes.Helpers):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            pools.append(self)

    monkeypatch.setattr(scan, "Helpers", Seen)
    scans = scan._scan_in_processes(files, 2, MAX_PIXELS)
    next(scans)
    (pool,) = pools
    for process in pool.processes:
        process.send_signal(number)
    with pytest.raises(WorkerLostError, match=words) as raised:
        list(scans)
    assert "\n" not in str(raised.value) and all(process.poll() is not None for process in pool.processes)


def test_a_scan_forks_no_process_and_its_helpers_import_no_torch(files: list[Path]) -> None:
    """A fork would copy the locks of torch's threads and of a process group, but not the threads that release them."""
    forks: list[int] = []
    os.register_at_fork(before=lambda: forks.append(1))
    scans = scan._scan_in_processes(files, 2, MAX_PIXELS)
    next(scans)
    for process in scans.gi_frame.f_locals["helpers"].processes:  # type: ignore[attr-defined]
        maps = Path(f"/proc/{process.pid}/maps")
        assert not maps.exists() or "libtorch" not in maps.read_text()
    assert 1 + len(list(scans)) == len(files) and not forks


def test_images_that_are_no_files_are_scanned_by_their_bytes(files: list[Path]) -> None:
    def stored(path: Path) -> ByteRange:
        return ByteRange(path, "inside", 0, path.stat().st_size + 1000 * (path.name == "00.jpg"))

    sources = [stored(path) for path in files]
    one, several = (list(scan.scan_images(sources, workers)) for workers in (1, 2))
    assert [(a.problem, a.digest) for a in one] == [(b.problem, b.digest) for b in several]
    assert sum("shorter than" in scan.problem for scan in several) == 10
