"""A name is a module: the registries, listed by reading their files instead of importing them.

A registry is a folder of this package; each file in it is a family. Its members are the keys of its literal
`VARIANTS = {"vgg16": {...}}` (the values are options that the member fixes), or the file's own name without one. Its
options are the keyword-only arguments of its public function (`build` for models, `load` for data sets). Literals say
the rest: a regularizer's `OFF` has the options at which it does nothing, a model's `TAKES` the kinds of spec that it
accepts, a data set's `GIVES` those that it provides (images by default), and `NUMBERS = True` marks a regression. A
file whose name begins with `_` holds the networks of a package: models/_timm.py is timm/NAME.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

from dlkit import packages
from dlkit.errors import UsageError

FACTORIES = {
    "models": "build",
    "datasets": "load",
    "regularizers": "build",
    "exporters": "export",
    "explainers": "explain",
    "trackers": "track",
}
MAX_BEGUN = 4  # names that begin like a wrong one
MAX_LISTED = 24  # names in an error message
PACKAGES = {name: name for name in FACTORIES} | {"exporters": "export/formats", "explainers": "explanation/methods"}
NOUNS = {name: name.removesuffix("s") for name in FACTORIES} | {"datasets": "data set"}


@dataclass(frozen=True)
class Entry:
    """One name of a registry; `document` is its file's docstring and `summary` the first line of it."""

    name: str
    family: str
    summary: str
    document: str
    fixed: Mapping[str, Any]  # options that the variant fixes
    options: Mapping[str, Any]  # keyword-only arguments of the family's public function, with their defaults
    off: Mapping[str, Any]  # the options at which a regularizer does nothing
    takes: tuple[str, ...]  # the kinds of spec (dlkit.specs) that a model accepts
    gives: tuple[str, ...]  # the kinds of spec that a data set provides; its option `form` selects one
    numbers: bool  # whether a data set's targets are numbers instead of classes


@cache
def entries(registry: str) -> dict[str, Entry]:
    """The entries of a registry by name, sorted; no file is imported."""
    result: dict[str, Entry] = {}
    for path in sorted((Path(__file__).parent / PACKAGES[registry]).glob("[!_]*.py")):
        for entry in _read_family(path, FACTORIES[registry]):
            assert entry.name not in result, f"{entry.name} is in the registry {registry} twice"
            result[entry.name] = entry
    return dict(sorted(result.items()))


def entry(registry: str, name: str) -> Entry:
    """The entry of a name.

    Raises:
        UsageError: unknown name; the message suggests the nearest one.
    """
    if registry == "models" and packages.is_member(name):
        return _of_package(name)
    known = entries(registry)
    if name not in known:
        raise UsageError(f"{NOUNS[registry]} {name!r} not found. {_suggestion(registry, name)}")
    return known[name]


def names(registry: str, with_timm: bool = True) -> list[str]:
    """Every name that `entry` knows, those of packages last."""
    packaged = ("torchvision", "timm") if with_timm else ("torchvision",)
    more = [name for package in packaged for name in packages.names(package)] if registry == "models" else []
    return [*entries(registry), *more]


def is_model(name: Any) -> TypeGuard[str]:
    """Whether this is the name of a model, or written as one of a package."""
    return isinstance(name, str) and (name in entries("models") or packages.is_member(name))


def load(registry: str, name: str) -> ModuleType:
    """Import the family file that holds this name."""
    return importlib.import_module(".".join(["dlkit", *PACKAGES[registry].split("/"), entry(registry, name).family]))


def check_options(registry: str, name: str, options: Mapping[str, Any]) -> None:
    """Raises: UsageError for an option that the family does not have. Imports nothing."""
    allowed = entry(registry, name).options
    for option in options:
        if option not in allowed:
            known = ", ".join(f"{key}={value}" for key, value in allowed.items()) or "none"
            hint = _nearest(option, allowed)
            raise UsageError(
                f"{NOUNS[registry]} {name!r} has no option {option!r}."
                + (f" Did you mean {hint!r}?" if hint else "")
                + f" Its options: {known}."
            )


def resolved_options(registry: str, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a name: the defaults, overridden by what the variant fixes, then by the caller's."""
    check_options(registry, name, options)
    member = entry(registry, name)
    return {**member.options, **member.fixed, **options}


def is_on(name: str, options: Mapping[str, Any]) -> bool:
    """Whether a regularizer with these options does anything."""
    resolved = resolved_options("regularizers", name, options)
    return any(resolved[key] != value for key, value in entry("regularizers", name).off.items())


def data_kind(name: str, options: Mapping[str, Any]) -> str:
    """The kind of spec that a data set with these options provides."""
    dataset = entry("datasets", name)
    form = {**dataset.options, **dataset.fixed, **options}.get("form")
    return str(form) if form in dataset.gives else dataset.gives[0]


def check_pair(model: str, dataset: str, options: Mapping[str, Any]) -> None:
    """Raises: UsageError if the model does not accept what the data set with these options provides."""
    kind, takes = data_kind(dataset, options), entry("models", model).takes
    if kind not in takes:
        fitting = ", ".join(name for name, other in entries("models").items() if kind in other.takes)
        raise UsageError(
            f"model {model!r} takes {' or '.join(takes)}, but data set {dataset!r} provides {kind}. "
            f"Models for {kind}: {fitting}."
        )


def form_for(model: str, dataset: str) -> str | None:
    """The form of a data set that a model accepts; None if the data set has one form or none fits."""
    data, takes = entry("datasets", dataset), entry("models", model).takes
    return next((kind for kind in data.gives if kind in takes), None) if "form" in data.options else None


def _of_package(name: str) -> Entry:
    """A network of torchvision or timm."""
    package, _, architecture = name.partition("/")
    if importlib.util.find_spec(package) is None:
        raise UsageError(f"{name} needs {package}, which is not installed: python -m pip install 'dlkit[{package}]'.")
    members = list(packages.MEMBERS[package]())
    if architecture.partition(".")[0] not in members:
        hint = _nearest(architecture, members)
        raise UsageError(
            f"{package} has no network {architecture!r}. "
            + (f"Did you mean '{package}/{hint}'?" if hint else f"See dlkit models list '{package}/*'.")
        )
    (family,) = _read_family(Path(__file__).parent / "models" / f"_{package}.py", FACTORIES["models"])
    options = {key: value for key, value in family.options.items() if key != "architecture"}
    return replace(family, name=name, fixed={"architecture": architecture}, options=options)


def _suggestion(registry: str, name: str) -> str:
    """What an unknown name may have meant; of networks with one name, dlkit's own, then torchvision's."""
    full = {known.partition("/")[2] or known: known for known in reversed(names(registry))}
    begun = [known for known in full if known.startswith(name) and len(name) >= 3]
    begun.sort(key=lambda known: (full[known] != known, len(known), known))
    near = [name] if name in full else begun[:MAX_BEGUN] or [found for found in [_nearest(name, full)] if found]
    return f"Did you mean {' or '.join(repr(full[one]) for one in near)}?" if near else _listed(entries(registry))


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """A sentence with the nearest name, or with the names that exist if none is near."""
    choices = list(choices)
    hint = _nearest(name, choices)
    return f"Did you mean {hint!r}?" if hint else _listed(choices)


def _listed(choices: Collection[str]) -> str:
    more = f" and {len(choices) - MAX_LISTED} more" if len(choices) > MAX_LISTED else ""
    return f"There are: {', '.join(list(choices)[:MAX_LISTED])}{more}."


def _nearest(name: str, choices: Iterable[str]) -> str | None:
    matches = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.6)
    return matches[0] if matches else None


def _read_family(path: Path, factory: str) -> list[Entry]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    document = ast.get_docstring(tree) or ""
    variants = _literal(tree, "VARIANTS", {path.stem: {}})
    off = _literal(tree, "OFF", {})
    takes, gives = (tuple(_literal(tree, name, ("images",))) for name in ("TAKES", "GIVES"))
    numbers = bool(_literal(tree, "NUMBERS", False))
    options: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == factory:
            for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
                options[argument.arg] = ast.literal_eval(default) if default is not None else None
    summary = document.splitlines()[0] if document else ""
    return [
        Entry(name, path.stem, summary, document, fixed, options, off, takes, gives, numbers)
        for name, fixed in variants.items()
    ]


def _literal(tree: ast.Module, name: str, default: Any) -> Any:
    """The literal that a file assigns to a name."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                return ast.literal_eval(node.value)
    return default
