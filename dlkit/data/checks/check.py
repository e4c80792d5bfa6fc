"""`dataset check`: scan every image of a data set and report what harms training or its results.

Faults should be fixed: files that cannot be read, pictures in two splits or two classes, classes without images,
swapped labels, wrong extensions. Notes are worth knowing: copies, and what other programs read differently
(transparency, EXIF orientation). The list of files to drop has only damaged images and copies, and never all copies of
an image.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dlkit import atomic_io, registry
from dlkit.config import text_options
from dlkit.config.data_location import resolve_dataset
from dlkit.config.schema import Data
from dlkit.data import library as dataset
from dlkit.data.checks import texts
from dlkit.data.checks.findings import ScannedSurvey
from dlkit.data.checks.survey import FAULT, NOTE, Finding, Survey, survey_folder, survey_splits
from dlkit.data.images.decode import Header
from dlkit.errors import UsageError
from dlkit.registry import did_you_mean
from dlkit.specs import MAX_PIXELS, SequenceSpec

SCHEMA = "dlkit.dataset_check/1"
MAX_SHOWN = 4  # sizes, modes and formats in the summary
KINDS = (  # of faults, and of notes that may be ignored, in the order of the report
    "one-class", "case-twins", "class-name", "unknown-class", "empty-class", "missing-class", "exchanged-labels",
    "unreadable", "corrupt", "unsupported", "stray-file", "wrong-extension", "tiny", "rotated", "mixed-alpha",
    "two-classes", "leak", "near-leak", "altered", "gone", "duplicate", "near-duplicate",
)  # fmt: skip

Log = Callable[[str], None]
Progress = Callable[[int, int], None]  # images done, total


@dataclass(frozen=True)
class CheckReport:
    """The result of a check; `census` counts the sizes, modes and formats of the images."""

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
        """The files to remove."""
        return sorted({finding.path for finding in self.findings if finding.drop})

    @property
    def summary(self) -> str:
        """The data set in a line."""
        parts = [f"{split} {sum(counts.values()):,}" for split, counts in self.splits.items()]
        kinds = "; ".join(map(_most_common, self.census.values()))
        unit = "texts" if "vocabulary" in self.census else "images"
        return f"{self.dataset}: {self.images:,} {unit} ({', '.join(parts)}); {kinds}"

    @property
    def verdict(self) -> str:
        """The number of faults by kind, and what to do."""
        counts = Counter(finding.kind for finding in self.faults)
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
        faults = "1 fault" if len(self.faults) == 1 else f"{len(self.faults):,} faults"
        fix_list = " --fix-list FILE lists damaged images and copies," if self.drop else ""
        return f"{self.dataset}: {faults}: {kinds}.{fix_list} --ignore KIND ignores a kind."

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
    log: Log = lambda text: None,
    progress: Progress = lambda done, total: None,
) -> CheckReport:
    """Scans the images of a folder, or of a data set by name. Faults of a kind in `ignore` become notes.

    fix_list: a file for the absolute paths of damaged images and copies, one per line, or NUL-terminated with `null`;
        one copy of each image is not in it.
    hashes: a list as sha256sum writes it, with paths relative to here or to the folder.
    workers: processes; by default one per core.

    Raises:
        UsageError: no such data set or kind, or the data set holds no images.
        DataError: nothing that could be a data set.
        StorageError: a folder or a list cannot be read or written.
        WorkerLostError: a process died while decoding a file.
    """
    for kind in ignore:
        if kind not in KINDS:
            raise UsageError(f"unknown kind of fault {kind!r}. {did_you_mean(kind, KINDS)}")
    name, path = resolve_dataset(target, None if data_dir is None else str(data_dir))
    if fix_list is not None:
        with atomic_io.storage_errors(fix_list):
            fix_list.parent.stat()  # before the work
    folder = Path(name if path is None else path)
    if name == "folder" and path is not None and texts.is_text_folder(folder):
        name = "text_folder"
    if hasattr(registry.load("datasets", name), "GIVES"):
        report = _check_texts(name, path, folder, ignore, log)
        _write_fix_list(report, fix_list, null, log)
        return report
    expected = {} if hashes is None else _read_hashes(hashes, folder)
    survey = _survey(name, path, log)
    scanned = ScannedSurvey.scan(survey, workers, progress, max_pixels)
    splits_off_validation = "group" in registry.entry("datasets", name).options
    findings = [*survey.findings, *scanned.all_findings(expected, splits_off_validation)]
    findings = [replace(one, level=NOTE, drop=False) if one.kind in ignore else one for one in findings]
    order = {kind: index for index, kind in enumerate(KINDS)}
    findings.sort(key=lambda one: (one.level != FAULT, order.get(one.kind, len(order)), one.kind))
    census = _count_properties([scan.header for scan in scanned.scans if scan.header is not None])
    splits = {split: dict(counts) for split, counts in survey.counts().items()}
    report = CheckReport(str(folder), len(survey.samples), splits, census, tuple(findings))
    _write_fix_list(report, fix_list, null, log)
    return report


def _check_texts(name: str, path: str | None, folder: Path, ignore: Collection[str], log: Log) -> CheckReport:
    data = dataset.splits(Data(name=name, dir=path, options=text_options.for_new_run(name)), log=log)
    parts = texts.parts_of(name, data)
    assert isinstance(data.spec, SequenceSpec)
    findings = [replace(one, level=NOTE) if one.kind in ignore else one for one in texts.findings(parts, data.spec)]
    findings.sort(key=lambda one: (one.level != FAULT, one.kind))
    census = {"vocabulary": {f"{len(data.spec.words):,} words": 1}}
    splits = texts.counts(parts, data.spec.classes)
    return CheckReport(str(folder), sum(map(len, parts.values())), splits, census, tuple(findings))


def _write_fix_list(report: CheckReport, path: Path | None, null: bool, log: Log) -> None:
    """Writes absolute paths, so that the list is valid in any folder."""
    if path is None:
        return
    broken = [] if null else [name for name in report.drop if "\n" in name]
    names = [os.path.join(os.getcwd(), name) for name in report.drop if name not in broken]
    atomic_io.write_text(path, "".join(name + ("\0" if null else "\n") for name in names))
    log(f"{path}: {len(names):,} files to drop")
    if broken:
        log(f"warning: {len(broken):,} names with a line break are not listed, such as {broken[0]!a}. -0 lists them.")


def _survey(name: str, path: str | None, log: Log) -> Survey:
    if name == "folder" and path is not None:
        return survey_folder(Path(path))
    return survey_splits(dataset.splits(Data(name=name, dir=path), log=log))


def _read_hashes(path: Path, folder: Path) -> dict[str, str]:
    """Path → SHA-256, from the output of sha256sum."""
    with atomic_io.storage_errors(path):
        lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").split("\n")
    hashes = {}
    for number, line in enumerate(lines, start=1):
        if not line.rstrip("\r"):
            continue
        digest, _, name = line.rstrip("\r").removeprefix("\\").partition(" ")
        name = name[1:] if name[:1] in (" ", "*") else ""
        if line.startswith("\\"):  # sha256sum escapes line breaks and backslashes in this name
            name = re.sub(r"\\[\\nr]", lambda match: {"n": "\n", "r": "\r"}.get(match[0][1], "\\"), name)
        if len(digest) != 64 or not name:
            raise UsageError(f"{path}:{number}: not a line of sha256sum. Write it with: sha256sum FILE… > {path.name}")
        hashes[os.path.normpath(name if os.path.lexists(name) else folder / name)] = digest.lower()
    return hashes


def _count_properties(headers: list[Header]) -> dict[str, dict[str, int]]:
    counters = {
        "size": Counter(f"{header.width} × {header.height}" for header in headers),
        "mode": Counter(header.mode for header in headers),
        "format": Counter(header.format for header in headers),
    }
    return {name: dict(counts.most_common()) for name, counts in counters.items()}


def _most_common(counts: Mapping[str, int]) -> str:
    shown = [f"{value} ({count:,})" if len(counts) > 1 else value for value, count in counts.items()]
    more = f" and {len(shown) - MAX_SHOWN:,} more" if len(shown) > MAX_SHOWN else ""
    return ", ".join(shown[:MAX_SHOWN]) + more
