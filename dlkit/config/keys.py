"""The keys of a recipe, and nested mappings with dotted keys.

The keys are read from the schema's source: importing pydantic takes as long as everything else that a
command needs, too long for reporting a misspelled key.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from dlkit.registry import did_you_mean

Keys = tuple[str, ...]
Tree = Mapping[str, "Tree | None"]  # None: a value, not a section

# other tools' names for our keys, for hints
ALIASES = {
    "learning_rate": "optimizer.lr", "opt": "optimizer", "wd": "optimizer.weight_decay", "dataset": "data",
    "sched": "schedule", "scheduler": "schedule", "batch": "train.batch_size", "n_epochs": "train.epochs",
    "num_epochs": "train.epochs", "max_epochs": "train.epochs", "num_workers": "data.workers",
    "grad_clip": "train.clip_grad", "model_ema": "train.ema", "early_stopping": "train.patience",
}  # fmt: skip


@cache
def tree() -> Tree:
    """The keys of the schema, nested by section."""
    source = ast.parse((Path(__file__).parent / "schema.py").read_text(encoding="utf-8"))
    classes = {node.name: node for node in source.body if isinstance(node, ast.ClassDef)}
    return _section(classes["Recipe"], classes)


def unknown_key(keys: Sequence[str]) -> str | None:
    """An error message for the first of these nested keys that the schema does not have; None if it has them all."""
    section: Tree | None = tree()
    for depth, key in enumerate(keys):
        if section is None:  # inside a value, or an option, which the registry checks
            return None
        if key not in section:
            return f"{'.'.join(('recipe', *keys[:depth]))} has no key {key!r}. {_hint(key, section, keys[:depth])}"
        section = section[key]
    return None


def key_paths() -> list[str]:
    """Every key of a recipe with its sections: optimizer.lr."""
    return list(_paths(tree()))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested mappings by their dotted keys; an empty mapping is a value."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, Mapping) and value
        result |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return result


def merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The base with the overrides on top, nested mappings key by key."""
    result = dict(base)
    for key, value in overrides.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merge(result[key], value) if both else value
    return result


def _section(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> Tree:
    keys: dict[str, Tree | None] = {}
    for field in node.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            kind = field.annotation.id if isinstance(field.annotation, ast.Name) else ""
            keys[field.target.id] = _section(classes[kind], classes) if kind in classes else None
    return keys


def _hint(key: str, section: Tree, section_keys: Sequence[str]) -> str:
    """The nearest key of the section, else the same key elsewhere or our name for it, else all its keys."""
    names = {name: name for name in section}
    elsewhere = {path.rpartition(".")[2]: path for path in reversed(list(_paths(tree())))}
    prefix = "".join(f"{part}." for part in section_keys)
    for name, path in {**elsewhere, **ALIASES}.items():
        names.setdefault(name, path.removeprefix(prefix))
    if key in names:
        return f"Did you mean {names[key]!r}?"
    for choices in (section, names):
        hint = did_you_mean(key, choices)
        if hint.startswith("Did"):
            name = hint.split("'")[1]
            return hint.replace(f"'{name}'", f"'{names[name]}'")
    return f"There are: {', '.join(section)}."


def _paths(section: Tree, prefix: str = "") -> Iterator[str]:
    """Every key, dotted."""
    for name, inner in section.items():
        yield prefix + name
        if inner is not None:
            yield from _paths(inner, f"{prefix}{name}.")
