"""What each key of a recipe is: its type and range, its default, and its meaning, from the schema."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from dlkit.config import schema

NAMES = {"integer": "integer", "number": "number", "boolean": "true or false", "string": "text", "null": "none"}
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
UNBOUNDED = 10**9  # a bound that only keeps numbers sane


@dataclass(frozen=True)
class KeyInfo:
    """One key of a recipe; `default` is None for a key that must be set, and "none" for one that is unset."""

    key: str
    type: str
    default: str | None
    meaning: str


def recipe_keys() -> list[KeyInfo]:
    """All keys, in the schema's order."""
    return list(_section_keys(schema.Recipe, ""))


def _section_keys(section: type[BaseModel], prefix: str) -> Iterator[KeyInfo]:
    properties, comments = _properties(section), _comments(section)
    for name, field in section.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            yield from _section_keys(nested, f"{prefix}{name}.")
        else:
            default = None if field.is_required() else _text(field.default)
            yield KeyInfo(f"{prefix}{name}", _type(properties[name]), default, comments.get(name, ""))


def _properties(section: type[BaseModel]) -> Mapping[str, Any]:
    properties: Mapping[str, Any] = section.model_json_schema()["properties"]
    return properties


def _comments(section: type[BaseModel]) -> dict[str, str]:
    """The comment behind each field."""
    lines = inspect.getsource(section).splitlines()
    (body,) = (node.body for node in ast.parse("\n".join(lines)).body if isinstance(node, ast.ClassDef))
    found = {}
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            source = lines[node.lineno - 1 : node.end_lineno]
            comment = next((line.split("  # ", 1)[1] for line in source if "  # " in line), "")
            found[node.target.id] = comment
    return found


def _type(field: Mapping[str, Any]) -> str:
    if "description" in field:
        return str(field["description"])
    if "anyOf" in field:
        return " or ".join(_type(choice) for choice in field["anyOf"])
    if "enum" in field:
        return " | ".join(_text(value) for value in field["enum"])
    if "prefixItems" in field:
        return f"{len(field['prefixItems'])} values: {_type(field['prefixItems'][0])}"
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    if field.get("type") == "object":
        return "options"
    bounds = [f"{sign} {field[name]:g}" for name, sign in BOUNDS.items() if abs(field.get(name, UNBOUNDED)) < UNBOUNDED]
    return " ".join([NAMES[field["type"]], *bounds])


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_text, value))}]"
    return "{}" if value == {} else f"{value:g}" if isinstance(value, float) else str(value)
