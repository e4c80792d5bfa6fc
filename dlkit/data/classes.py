"""The names of classes: their order, and which of them could be confused."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence

from dlkit.errors import DataError


def natural(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """A sort key that counts: "2" before "10", "img9" before "img10", case ignored until all else is equal."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return tuple(_counted(part) if part.isdecimal() else (1, 0, part) for part in parts if part), name


def _counted(digits: str) -> tuple[int, int, str]:
    """The order of whole numbers without making one: Python refuses to read more than 4,300 digits."""
    significant = digits.lstrip("0")
    return 0, len(significant), significant


def class_name(name: str) -> str:
    """The name in Unicode's composed form, so that it is the same on every system.

    Raises:
        DataError: it holds a control character or a step upwards; without its place.
    """
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        raise DataError(f"the class name {name!a} holds a line break or another control character.")
    if ".." in re.split(r"[/\\]", name):
        raise DataError(f"the class name {name!a} would lead out of a folder that is called like it.")
    return unicodedata.normalize("NFC", name)


def refuse_twins(names: Iterable[str]) -> None:
    """Two names that a person or another file system could take for one are refused.

    Raises:
        DataError: without its place.
    """
    found: dict[str, str] = {}
    for name in names:
        other = found.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            raise DataError(
                f"the classes {other!a} and {name!a} differ only in case or in how a letter is encoded. "
                "Rename or merge them."
            )


def classes_of(labels: Collection[str]) -> tuple[str, ...]:
    """The classes that labels name, in natural order.

    Raises:
        DataError: fewer than two, or two that could be confused; without its place.
    """
    names = tuple(sorted(set(labels), key=natural))
    if len(names) < 2:
        found = f"one class only, {names[0]!r}" if names else "no sample"
        raise DataError(f"holds {found}; there is nothing to tell apart.")
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
