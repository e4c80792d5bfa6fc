"""A name is a module: what stands on the shelves, found by reading the files and not by importing them.

A shelf is a folder of this package; each file in it is a family. A family's members are the keys of its literal
`VARIANTS = {"vgg16": {...}}` (the values are options that the member fixes), or the file's own name where it has none.
Its options are the keyword-only arguments of its public function (`build` for models, `load` for data sets).
"""

from __future__ import annotations

import ast
import difflib
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from dlkit.errors import UsageError

MAKERS = {
    "models": "build",
    "datasets": "load",
    "regularizers": "build",
    "exporters": "export",
    "explainers": "explain",
}
NOUNS = {shelf: shelf.removesuffix("s") for shelf in MAKERS} | {"datasets": "data set"}


@dataclass(frozen=True)
class Entry:
    """One name on a shelf: `summary` is the first line of its file's docstring, `fixed` what the variant fixes."""

    name: str
    family: str
    summary: str
    document: str
    fixed: Mapping[str, Any]
    options: Mapping[str, Any]  # keyword-only arguments of the family's maker, with their defaults


@cache
def entries(shelf: str) -> dict[str, Entry]:
    """Every name on a shelf, sorted; no file of it is imported."""
    found = {}
    for path in sorted((Path(__file__).parent / shelf).glob("[!_]*.py")):
        for entry in _read_family(path, MAKERS[shelf]):
            assert entry.name not in found, f"{entry.name} stands twice on the shelf {shelf}"
            found[entry.name] = entry
    return dict(sorted(found.items()))


def entry(shelf: str, name: str) -> Entry:
    """The entry of that name; an unknown name is a UsageError with the nearest right one."""
    shelf_entries = entries(shelf)
    if name not in shelf_entries:
        raise UsageError(f"no {NOUNS[shelf]} is called {name!r}. {did_you_mean(name, shelf_entries)}")
    return shelf_entries[name]


def load(shelf: str, name: str) -> ModuleType:
    """Import the family file that holds this name."""
    return importlib.import_module(f"dlkit.{shelf}.{entry(shelf, name).family}")


def check_options(shelf: str, name: str, options: Mapping[str, Any]) -> None:
    """Refuse an option that the family's maker does not take, without importing it."""
    found = entry(shelf, name)
    for option in options:
        if option not in found.options:
            known = ", ".join(f"{key}={value}" for key, value in found.options.items()) or "none"
            hint = _nearest(option, found.options)
            raise UsageError(
                f"{NOUNS[shelf]} {name!r} has no option {option!r}."
                + (f" Did you mean {hint!r}?" if hint else "")
                + f" Its options: {known}."
            )


def resolved_options(shelf: str, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a name, written out: the maker's defaults, then what the variant fixes, then the caller's."""
    check_options(shelf, name, options)
    found = entry(shelf, name)
    return {**found.options, **found.fixed, **options}


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """A sentence with the nearest right name, or with all of them where none is near."""
    choices = list(choices)
    hint = _nearest(name, choices)
    return f"Did you mean {hint!r}?" if hint else f"There are: {', '.join(choices)}."


def _nearest(name: str, choices: Iterable[str]) -> str | None:
    matches = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.6)
    return matches[0] if matches else None


def _read_family(path: Path, maker: str) -> list[Entry]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    document = ast.get_docstring(tree) or ""
    variants: dict[str, dict[str, Any]] = {path.stem: {}}
    options: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "VARIANTS" for target in targets):
                variants = ast.literal_eval(node.value)
        if isinstance(node, ast.FunctionDef) and node.name == maker:
            for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
                options[argument.arg] = ast.literal_eval(default) if default is not None else None
    summary = document.splitlines()[0] if document else ""
    return [Entry(name, path.stem, summary, document, fixed, options) for name, fixed in variants.items()]
