"""Class names: their order, and names that are too similar."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence

from dlkit.errors import DataError


def natural(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Sort key of natural order: "2" before "10", "img9" before "img10"; case breaks ties."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return tuple(_number_key(part) if part.isdecimal() else (1, 0, part) for part in parts if part), name


def _number_key(digits: str) -> tuple[int, int, str]:
    """Sort key of a number given as digits: int() refuses more than 4,300 of them."""
    significant = digits.lstrip("0")
    return 0, len(significant), significant


def class_name(name: str) -> str:
    """The name in composed form (NFC), so that it is the same on every system.

    Raises:
        DataError: it contains a control character or ".."; the message does not name the file.
    """
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        raise DataError(f"the class name {name!a} contains a line break or another control character.")
    if ".." in re.split(r"[/\\]", name):
        raise DataError(f"the class name {name!a} contains '..', so a folder of this name would be outside its parent.")
    return unicodedata.normalize("NFC", name)


def refuse_twins(names: Iterable[str]) -> None:
    """Refuse names that a person or another file system could confuse.

    Raises:
        DataError: two such names; the message does not name the file.
    """
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            raise DataError(
                f"the classes {other!a} and {name!a} differ only in case or in the encoding of a letter. "
                "Rename or merge them."
            )


def classes_of(labels: Collection[str]) -> tuple[str, ...]:
    """The distinct labels, in natural order.

    Raises:
        DataError: fewer than two, or two that could be confused; the message does not name the file.
    """
    names = tuple(sorted(set(labels), key=natural))
    if len(names) < 2:
        content = f"one class only, {names[0]!r}" if names else "no samples"
        raise DataError(f"has {content}; a classifier needs two.")
    refuse_twins(names)
    return names


def missing_classes(targets: Iterable[int], split: str, classes: Sequence[str]) -> list[str]:
    """A warning if the split has no sample of a class."""
    present = set(targets)
    missing = [name for index, name in enumerate(classes) if index not in present]
    return [f"the {split} split has no sample of {quote_names(missing)}."] if missing else []


def quote_names(names: Sequence[str]) -> str:
    """class 'a' · classes 'a', 'b', 'c', 'd', 'e' and 4 more."""
    shown = ", ".join(repr(name) for name in names[:5])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{'class' if len(names) == 1 else 'classes'} {shown}{more}"
