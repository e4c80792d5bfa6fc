"""A name is a module: what stands on the shelves, found by reading the files and not by importing them.

A shelf is a folder of this package; each file in it is a family. A family's members are the keys of its literal
`VARIANTS = {"vgg16": {...}}` (the values are options that the member fixes), or the file's own name where it has none.
Its options are the keyword-only arguments of its public function (`build` for models, `load` for data sets). A
regularizer's literal `OFF` holds options at which it does nothing; a model's `TAKES` the kinds of spec that it is built
for and a data set's `GIVES` those that it comes in, images where they have none; `NUMBERS = True` says that a data set
asks for a number and has no classes. A file whose name begins with `_` is not listed: models/_timm.py is timm/NAME.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
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
    "trackers": "track",
}
SHOWN = 24  # names that an error lists before it cuts them short
PACKAGES = {shelf: shelf for shelf in MAKERS} | {"exporters": "export/formats", "explainers": "explanation/methods"}
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
    off: Mapping[str, Any]  # of them, those at which a regularizer does nothing
    takes: tuple[str, ...]  # the kinds of spec (dlkit.specs) that a model is built for
    gives: tuple[str, ...]  # the kinds of spec that a data set comes in; its option `form` chooses
    numbers: bool  # whether a data set asks for a number and not for a class


@cache
def entries(shelf: str) -> dict[str, Entry]:
    """Every name on a shelf, sorted; no file of it is imported."""
    found = {}
    for path in sorted((Path(__file__).parent / PACKAGES[shelf]).glob("[!_]*.py")):
        for entry in _read_family(path, MAKERS[shelf]):
            assert entry.name not in found, f"{entry.name} stands twice on the shelf {shelf}"
            found[entry.name] = entry
    return dict(sorted(found.items()))


def entry(shelf: str, name: str) -> Entry:
    """The entry of that name; an unknown name is a UsageError with the nearest right one."""
    if shelf == "models" and name.startswith("timm/"):
        return _of_timm(name)
    shelf_entries = entries(shelf)
    if name not in shelf_entries:
        raise UsageError(f"no {NOUNS[shelf]} is called {name!r}. {did_you_mean(name, shelf_entries)}")
    return shelf_entries[name]


def load(shelf: str, name: str) -> ModuleType:
    """Import the family file that holds this name."""
    return importlib.import_module(".".join(["dlkit", *PACKAGES[shelf].split("/"), entry(shelf, name).family]))


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


def is_on(name: str, options: Mapping[str, Any]) -> bool:
    """Whether a regularizer with these options does anything."""
    resolved = resolved_options("regularizers", name, options)
    return any(resolved[key] != value for key, value in entry("regularizers", name).off.items())


def kind_given(name: str, options: Mapping[str, Any]) -> str:
    """The kind of spec that a data set with these options has."""
    found = entry("datasets", name)
    form = {**found.options, **found.fixed, **options}.get("form")
    return str(form) if form in found.gives else found.gives[0]


def check_pair(model: str, dataset: str, options: Mapping[str, Any]) -> None:
    """Raises: UsageError where the model does not take what the data set with these options gives."""
    given, takes = kind_given(dataset, options), entry("models", model).takes
    if given not in takes:
        fitting = ", ".join(name for name, found in entries("models").items() if given in found.takes)
        raise UsageError(
            f"model {model!r} takes {' or '.join(takes)}, and data set {dataset!r} gives {given}. "
            f"Models for {given}: {fitting}."
        )


def form_for(model: str, dataset: str) -> str | None:
    """The form of a data set that a model takes, where it comes in several and one of them fits."""
    found, takes = entry("datasets", dataset), entry("models", model).takes
    return next((kind for kind in found.gives if kind in takes), None) if "form" in found.options else None


def _of_timm(name: str) -> Entry:
    """A network of the package timm: timm/NAME. Whether timm has it, only building it tells."""
    if importlib.util.find_spec("timm") is None:
        raise UsageError(f"{name} needs timm, which is not installed: python -m pip install 'dlkit[timm]'.")
    (family,) = _read_family(Path(__file__).parent / "models" / "_timm.py", MAKERS["models"])
    options = {key: value for key, value in family.options.items() if key != "architecture"}
    return replace(family, name=name, fixed={"architecture": name.removeprefix("timm/")}, options=options)


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """A sentence with the nearest right name, or with all of them where none is near (the first, if they are many)."""
    choices = list(choices)
    if hint := _nearest(name, choices):
        return f"Did you mean {hint!r}?"
    more = f" and {len(choices) - SHOWN} more" if len(choices) > SHOWN else ""
    return f"There are: {', '.join(choices[:SHOWN])}{more}."


def _nearest(name: str, choices: Iterable[str]) -> str | None:
    matches = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.6)
    return matches[0] if matches else None


def _read_family(path: Path, maker: str) -> list[Entry]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    document = ast.get_docstring(tree) or ""
    variants = _literal(tree, "VARIANTS", {path.stem: {}})
    off = _literal(tree, "OFF", {})
    takes, gives = (tuple(_literal(tree, name, ("images",))) for name in ("TAKES", "GIVES"))
    numbers = bool(_literal(tree, "NUMBERS", False))
    options: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == maker:
            for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
                options[argument.arg] = ast.literal_eval(default) if default is not None else None
    summary = document.splitlines()[0] if document else ""
    return [
        Entry(name, path.stem, summary, document, fixed, options, off, takes, gives, numbers)
        for name, fixed in variants.items()
    ]


def _literal(tree: ast.Module, name: str, default: Any) -> Any:
    """What a file assigns to this name, written out."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                return ast.literal_eval(node.value)
    return default
