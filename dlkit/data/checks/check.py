"""check: look at every image of a data set and name what would spoil training, or its results.

Faults are what should be mended first: files that cannot be read, pictures in two splits or under two names, classes
without images, labels that say the contrary of the pictures, wrong extensions. Notes are good to know: copies, and what
other programs read otherwise than dlkit does (transparency, EXIF orientation). The list of files to leave out names
damaged images and copies alone, and of a group of copies it keeps one.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dlkit import atomic_io, registry
from dlkit.config.recipe import Data
from dlkit.data import library as dataset
from dlkit.data.checks import texts
from dlkit.data.checks.findings import (
    Seen,
    of_copies,
    of_files,
    of_hashes,
    of_labels,
    of_near_copies,
    of_near_copies_in_a_pool,
)
from dlkit.data.checks.survey import FAULT, NOTE, Finding, Survey, of_folder, of_splits
from dlkit.data.images.decode import Header
from dlkit.data_location import located
from dlkit.errors import UsageError
from dlkit.registry import did_you_mean
from dlkit.specs import MAX_PIXELS, SequenceSpec

SCHEMA = "dlkit.dataset_check/1"
MOST_COMMON = 4  # sizes, modes and formats in the summary
KINDS = (  # of faults, and of notes that may be ignored, in the order in which they are reported
    "one-class", "case-twins", "class-name", "unknown-class", "empty-class", "missing-class", "exchanged-labels",
    "unreadable", "corrupt", "unsupported", "stray-file", "wrong-extension", "tiny", "rotated", "mixed-alpha",
    "two-classes", "leak", "near-leak", "altered", "gone", "duplicate", "near-duplicate",
)  # fmt: skip

Progress = Callable[[int, int], None]  # images done, of how many


@dataclass(frozen=True)
class Report:
    """What a check found; `census` counts the sizes, modes and formats of the images."""

    dataset: str
    images: int
    splits: Mapping[str, Mapping[str, int]]  # split → class → images
    census: Mapping[str, Mapping[str, int]]
    findings: tuple[Finding, ...]

    @property
    def faults(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.level == FAULT]

    @property
    def drop(self) -> list[str]:
        """The files that are best left out, each once."""
        return sorted({finding.path for finding in self.findings if finding.drop})

    @property
    def summary(self) -> str:
        """What was looked at, in a line."""
        parts = [f"{split} {sum(counts.values()):,}" for split, counts in self.splits.items()]
        kinds = "; ".join(map(_most_common, self.census.values()))
        unit = "texts" if "vocabulary" in self.census else "images"
        return f"{self.dataset}: {self.images:,} {unit} ({', '.join(parts)}); {kinds}"

    @property
    def verdict(self) -> str:
        """How many faults of what kinds, and what to do."""
        counts = Counter(found.kind for found in self.faults)
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
        faults = "1 fault" if len(self.faults) == 1 else f"{len(self.faults):,} faults"
        listed = " --fix-list FILE lists damaged images and copies," if self.drop else ""
        return f"{self.dataset}: {faults}: {kinds}.{listed} --ignore KIND passes one over."

    def document(self) -> dict[str, Any]:
        counts = {"faults": len(self.faults), "notes": len(self.findings) - len(self.faults)}
        return {"schema": SCHEMA, **asdict(self), **counts, "drop": self.drop}


def check(
    target: str,
    data_dir: Path | None = None,
    *,
    fix_list: Path | None = None,
    null: bool = False,
    max_pixels: int = MAX_PIXELS,
    hashes: Path | None = None,
    ignore: Collection[str] = (),
    workers: int | None = None,
    say: Callable[[str], None] = lambda text: None,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Look at every image of a folder, or of a data set by its name. Faults of a kind in `ignore` become notes.

    `fix_list` is a file to write the paths of damaged images and of copies to, from the root, a line each, or with
    `null` each followed by a NUL; of a group of copies one is not in it. `hashes` is a list as sha256sum writes it,
    with paths from here or from the folder. By default there are as many processes as cores.

    Raises:
        UsageError: no such data set or kind, or the set holds no images.
        DataError: nothing there that could be a data set.
        StorageError: a folder or a list cannot be read or written.
        WorkerLostError: a process died over a file.
    """
    for kind in ignore:
        if kind not in KINDS:
            raise UsageError(f"no fault is called {kind!r}. {did_you_mean(kind, KINDS)}")
    name, place = located(target, None if data_dir is None else str(data_dir))
    if fix_list is not None:
        with atomic_io.storage_errors(fix_list):
            fix_list.parent.stat()  # before the work
    folder = Path(name if place is None else place)
    if name == "folder" and place is not None and texts.is_text_folder(folder):
        name = "text_folder"
    if hasattr(registry.load("datasets", name), "GIVES"):
        report = _of_texts(name, place, folder, ignore, say)
        _write_fix_list(report, fix_list, null, say)
        return report
    expected = {} if hashes is None else _listed(hashes, folder)
    survey = _survey(name, place, say)
    seen = Seen.of(survey, workers, progress, max_pixels)
    findings = [*survey.findings, *of_files(seen), *of_copies(seen), *of_near_copies(seen), *of_labels(seen)]
    if "group" in registry.entry("datasets", name).options:
        findings += of_near_copies_in_a_pool(seen)
    findings += of_hashes(seen, expected)
    findings = [replace(found, level=NOTE, drop=False) if found.kind in ignore else found for found in findings]
    order = {kind: place for place, kind in enumerate(KINDS)}
    findings.sort(key=lambda found: (found.level != FAULT, order.get(found.kind, len(order)), found.kind))
    census = _counted([look.header for look in seen.looks if look.header is not None])
    splits = {split: dict(counts) for split, counts in survey.counts().items()}
    report = Report(str(folder), len(survey.samples), splits, census, tuple(findings))
    _write_fix_list(report, fix_list, null, say)
    return report


def _of_texts(name: str, place: str | None, folder: Path, ignore: Collection[str], say: dataset.Say) -> Report:
    data = dataset.splits(Data(name=name, dir=place), say=say)
    parts = texts.parts_of(name, data)
    assert isinstance(data.spec, SequenceSpec)
    findings = [replace(one, level=NOTE) if one.kind in ignore else one for one in texts.findings(parts, data.spec)]
    findings.sort(key=lambda one: (one.level != FAULT, one.kind))
    census = {"vocabulary": {f"{len(data.spec.words):,} words": 1}}
    splits = texts.counts(parts, data.spec.classes)
    return Report(str(folder), sum(map(len, parts.values())), splits, census, tuple(findings))


def _write_fix_list(report: Report, fix_list: Path | None, null: bool, say: dataset.Say) -> None:
    if fix_list is not None:
        _write_list(fix_list, report.drop, null, say)


def _write_list(path: Path, drop: Sequence[str], null: bool, say: dataset.Say) -> None:
    """The paths from the root, so that the list means the same in any folder."""
    broken = [] if null else [name for name in drop if "\n" in name]
    names = [os.path.join(os.getcwd(), name) for name in drop if name not in broken]
    atomic_io.write_text(path, "".join(name + ("\0" if null else "\n") for name in names))
    say(f"{path}: {len(names):,} files to leave out")
    if broken:
        say(f"warning: {len(broken):,} names with a line break are left out, such as {broken[0]!a}: -0 lists them.")


def _survey(name: str, place: str | None, say: dataset.Say) -> Survey:
    if name == "folder" and place is not None:
        return of_folder(Path(place))
    return of_splits(dataset.splits(Data(name=name, dir=place), say=say))


def _listed(path: Path, folder: Path) -> dict[str, str]:
    """Path → SHA-256, from the lines of sha256sum."""
    with atomic_io.storage_errors(path):
        lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").split("\n")
    found = {}
    for number, line in enumerate(lines, start=1):
        if not line.rstrip("\r"):
            continue
        digest, _, name = line.rstrip("\r").removeprefix("\\").partition(" ")
        name = name[1:] if name[:1] in (" ", "*") else ""
        if line.startswith("\\"):  # sha256sum's sign that the name holds a line break or a backslash
            name = re.sub(r"\\[\\nr]", lambda match: {"n": "\n", "r": "\r"}.get(match[0][1], "\\"), name)
        if len(digest) != 64 or not name:
            raise UsageError(f"{path}:{number}: not a line of sha256sum. Write it with: sha256sum FILE… > {path.name}")
        found[os.path.normpath(name if os.path.lexists(name) else folder / name)] = digest.lower()
    return found


def _counted(headers: list[Header]) -> dict[str, dict[str, int]]:
    found = {
        "size": Counter(f"{header.width} × {header.height}" for header in headers),
        "mode": Counter(header.mode for header in headers),
        "format": Counter(header.format for header in headers),
    }
    return {name: dict(counts.most_common()) for name, counts in found.items()}


def _most_common(counts: Mapping[str, int]) -> str:
    shown = [f"{value} ({count:,})" if len(counts) > 1 else value for value, count in counts.items()]
    more = f" and {len(shown) - MOST_COMMON:,} more" if len(shown) > MOST_COMMON else ""
    return ", ".join(shown[:MOST_COMMON]) + more
