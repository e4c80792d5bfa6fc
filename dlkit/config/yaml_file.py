"""Recipe files: YAML with safe and predictable rules, written with every value.

The YAML of a recipe is a small part of YAML: mappings, lists, text, numbers, true, false and null. `1e-3` is a number;
`010`, `12:30:45`, `2026-01-31`, `yes`, `no`, `on` and `off` are text. Errors: a duplicate key, anchors,
aliases, tags, a second document, more than 20 levels, more than 256 KiB, and anything that is not a regular file.
The values are built from the parser's events, so no YAML object is ever constructed.
"""

from __future__ import annotations

import errno
import importlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dlkit.config.keys import Keys
from dlkit.errors import DlkitError, StorageError, UsageError

if TYPE_CHECKING:
    from dlkit.config.schema import Recipe

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20  # levels
MAX_DIGITS = 100  # of an integer

# libyaml's parser where PyYAML was built with it: the same events, ten times as fast
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}
# text that other YAML parsers read as something else; it is quoted
AMBIGUOUS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"([-+]?)\.(inf|nan)", re.IGNORECASE)
NOT_YAML = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
PLAIN_TEXT = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
# not in quoted text as it is: control characters, line breaks, byte order marks, quotes
NEEDS_ESCAPE = re.compile(
    r"[^\x20\x21\x23-\x5b\x5d-\x7e\xa1-\u2027\u202f-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)


@dataclass(frozen=True)
class Document:
    """A recipe as it was written: nested dicts, tuples for lists, and where each key was written."""

    origin: str
    values: dict[str, Any]
    origins: Mapping[Keys, str]  # ("optimizer", "lr") → "recipe.yaml:7:3"


def read(path: Path) -> dict[str, Any]:
    """The values in a recipe file.

    Raises:
        UsageError: not found, not a file, too large, or not the YAML described above.
        StorageError: it cannot be read.
    """
    return read_document(path).values


def read_document(path: Path) -> Document:
    """A recipe file with the position of each key; raises what `read` raises."""
    return parse(read_bytes(path), str(path))


def parse(data: bytes, origin: str) -> Document:
    """The recipe in these bytes; `origin` is their name in error messages."""
    text = _decoded(data, origin)
    builder = _Builder(text, origin)
    values = builder.document()
    if not isinstance(values, dict):
        content = "is empty" if values is None else f"contains {describe(values)}"
        raise UsageError(f"{origin} {content}; a recipe is a mapping, such as `model: {{name: lenet5}}`.")
    return Document(origin, values, builder.origins)


def parse_value(text: str, origin: str) -> Any:
    """The value of `--set key=TEXT`: a scalar, [a, list] or {a: mapping}, by the same rules as in a file."""
    _check_characters(text, origin)
    value = _Builder(text, origin).document()
    if isinstance(value, dict) and not text.lstrip().startswith("{"):
        raise UsageError(f"{origin}: the value reads as a mapping. Quote text that holds ': '.")
    return value


def dump(recipe: Recipe) -> str:
    """YAML with every value of the recipe; parsing it returns the same recipe."""
    return "\n".join(_lines(recipe.model_dump(), "")) + "\n"


def shipped(model: str, dataset: str) -> Path | None:
    """The shipped recipe of this pair; None if there is none."""
    return _shipped().get(f"{model}-{dataset}")


def shipped_names() -> list[str]:
    """The names of the shipped recipes, sorted: lenet5-mnist …"""
    return list(_shipped())


def shipped_path(name: str) -> Path | None:
    """The file of a shipped recipe; None if there is none."""
    return _shipped().get(name)


def header(path: Path) -> str:
    """The comment at the top of a recipe file, without number signs."""
    lines = []
    for line in read_bytes(path).decode("utf-8-sig", errors="replace").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" "))
    return "\n".join(lines)


def describe(value: Any) -> str:
    """A value in an error message, shortened if it is long."""
    if isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = (
        "[" + ", ".join(describe(item) for item in value[:9]) + "]" if isinstance(value, tuple | list) else repr(value)
    )
    return text if len(text) <= 60 else text[:57] + "…"


def read_bytes(path: Path) -> bytes:
    """The bytes of a recipe file; never blocks on a pipe or a device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise UsageError(
            f"recipe file {str(path)!r} not found. `dlkit recipes list` shows the shipped recipes."
        ) from None
    except OSError as error:
        raise _unreadable(error, path) from error
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        raise UsageError(f"{path} is {_kind(kind)}; a recipe is a regular file.")
    try:
        with open(descriptor, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(error, path) from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path} is larger than {MAX_BYTES // 1024} KiB, which no recipe is.")
    return data


@cache
def _shipped() -> dict[str, Path]:
    folder = Path(importlib.import_module("dlkit_recipes").__path__[0])
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _unreadable(error: OSError, path: Path) -> DlkitError:
    if error.errno in (errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO):  # a wrong name, not a disk error
        return UsageError(f"{str(path)!r} is not a recipe file: {error.strerror}.")
    return StorageError(f"cannot read {path}: {error.strerror or error}.")


def _kind(mode: int) -> str:
    kinds = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISCHR: "a device", stat.S_ISBLK: "a device"}
    return next((kind for test, kind in kinds.items() if test(mode)), "not a file")


def _decoded(data: bytes, origin: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise UsageError(f"{origin}:{line}:{column}: byte 0x{data[error.start]:02x} is not UTF-8.") from None
    _check_characters(text, origin)
    return text


def _check_characters(text: str, origin: str) -> None:
    match = NOT_YAML.search(text)
    if match:
        line = text.count("\n", 0, match.start()) + 1
        column = match.start() - text.rfind("\n", 0, match.start())
        raise UsageError(f"{origin}:{line}:{column}: the character U+{ord(match[0]):04X} is not allowed in a recipe.")


class _Builder:
    """Builds nested dicts and tuples from the parser's events, and rejects what a recipe must not contain."""

    def __init__(self, text: str, origin: str) -> None:
        self.origin = origin
        self.origins: dict[Keys, str] = {}
        self._events = self._parse(text)

    def document(self) -> Any:
        next(self._events)  # the stream's start
        start = next(self._events)
        if isinstance(start, yaml.StreamEndEvent):
            return None
        if start.tags:
            raise self._error(start, "a recipe has no %TAG directive")
        value = self._value(next(self._events), ())
        next(self._events)  # the document's end
        another = next(self._events)
        if not isinstance(another, yaml.StreamEndEvent):
            raise self._error(another, "a recipe is one document; a second one starts here")
        return value

    def _parse(self, text: str) -> Iterator[Any]:
        try:
            yield from yaml.parse(text, Loader=LOADER)
        except yaml.MarkedYAMLError as error:
            problem = " ".join(part for part in (error.context, error.problem) if part)
            if "maximum nesting depth" in problem:  # libyaml's own limit, below ours
                problem = f"more than {MAX_DEPTH} levels"
            raise UsageError(
                f"{self._position(error.problem_mark or error.context_mark)}: not valid YAML: {problem}."
            ) from None
        except yaml.YAMLError as error:
            raise UsageError(f"{self.origin}: not valid YAML: {error}.") from None

    def _value(self, event: Any, path: Keys) -> Any:
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise self._error(
                event, "a recipe has no anchors and no aliases (& and *); quote text that starts with one"
            )
        if event.tag is not None:
            raise self._error(
                event, f"a recipe has no tags, and this is one: {event.tag}; quote text that starts with !"
            )
        if len(path) > MAX_DEPTH:
            raise self._error(event, f"more than {MAX_DEPTH} levels")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        return self._mapping(path) if isinstance(event, yaml.MappingStartEvent) else self._list(path)

    def _mapping(self, path: Keys) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event)
            if key in values:
                raise self._error(event, f"duplicate key {key!r}")
            self.origins[*path, key] = self._position(event.start_mark)
            values[key] = self._value(next(self._events), (*path, key))
        return values

    def _key(self, event: Any) -> str:
        if not isinstance(event, yaml.ScalarEvent) or event.anchor is not None or event.tag is not None:
            raise self._error(event, "a key is plain text")
        return str(event.value)  # whatever it looks like: a key `on` is the text

    def _list(self, path: Keys) -> tuple[Any, ...]:
        values: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            values.append(self._value(event, (*path, str(len(values)))))
        return tuple(values)

    def _scalar(self, event: Any) -> bool | int | float | str | None:
        text: str = event.value
        if not event.implicit[0]:  # quoted, or a block of text
            return text
        if text in WORDS:
            return WORDS[text]
        if INTEGER.fullmatch(text):
            if len(text) > MAX_DIGITS:
                raise self._error(event, f"a number of {len(text)} digits")
            return int(text)
        if FLOAT.fullmatch(text):
            return float(text)
        special = NOT_FINITE.fullmatch(text)
        return float(special[1] + special[2]) if special else text

    def _error(self, event: Any, reason: str) -> UsageError:
        return UsageError(f"{self._position(event.start_mark)}: {reason}.")

    def _position(self, mark: Any) -> str:
        return f"{self.origin}:{mark.line + 1}:{mark.column + 1}" if mark else self.origin


def _lines(values: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{_quoted(key)}:"
            yield from _lines(value, indent + "  ")
        else:
            yield f"{indent}{_quoted(key)}: {_format(value)}"


def _format(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(_format(item) for item in value)}]"
    if isinstance(value, str):
        return _quoted(value)
    return (
        {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else repr(value)
    )


def _quoted(text: str) -> str:
    """Text, double-quoted unless it can only be read as itself."""
    if PLAIN_TEXT.fullmatch(text) and text.lower() not in AMBIGUOUS:
        return text
    return '"' + NEEDS_ESCAPE.sub(lambda match: f"\\U{ord(match[0]):08x}", text) + '"'
