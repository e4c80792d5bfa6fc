"""Validation errors of a recipe in one line: the wrong value, and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from dlkit.config.keys import Keys, unknown_key
from dlkit.config.yaml_file import describe
from dlkit.registry import did_you_mean

TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "null"}


def explain(error: ValidationError, schema: type[BaseModel], values: Mapping[str, Any]) -> tuple[Keys, str]:
    """The keys of the first error, and its message with the number of further errors."""
    problems = {_keys(values, problem["loc"]): problem for problem in reversed(error.errors(include_url=False))}
    keys, problem = list(problems.items())[-1]
    message = unknown_key(keys) or _wrong_value(keys, problem, schema, values)
    others = len(problems) - 1
    return keys, message if not others else f"{message} And {others} more {'is' if others == 1 else 'are'} wrong."


def _keys(values: Any, location: tuple[int | str, ...]) -> Keys:
    """The keys of a value or of a missing key, without list indices and pydantic's own steps."""
    keys: list[str] = []
    for step in location:
        if not isinstance(values, Mapping):
            break
        keys.append(str(step))
        values = values.get(step)
    return tuple(keys)


def _wrong_value(keys: Keys, problem: Any, schema: type[BaseModel], values: Mapping[str, Any]) -> str:
    name = ".".join(("recipe", *keys))
    allowed = _allowed(*_annotation(schema, keys))
    value: Any = values
    for key in keys:
        if key not in value:
            return f"{name} is missing; it takes {allowed}."
        value = value[key]
    hint = ""
    if problem["type"] == "literal_error" and isinstance(value, str):
        hint = did_you_mean(value, [str(choice) for choice in _choices(_annotation(schema, keys)[0])])
        hint = f" {hint}" if hint.startswith("Did") else ""
    return f"{name} is {describe(value)}; it takes {allowed}.{hint}"


def _annotation(schema: Any, keys: Keys) -> tuple[Any, tuple[Any, ...]]:
    """The type at these keys and its bounds; below the schema's keys, the type of an item."""
    bounds: tuple[Any, ...] = ()
    for key in keys:
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            field = schema.model_fields[key]
            schema, bounds = field.annotation, (*field.metadata, field)
        else:
            schema, bounds = _item_type(schema), ()
    return schema, bounds


def _item_type(annotation: Any) -> Any:
    parts = get_args(annotation)
    return parts[-1] if get_origin(annotation) is dict else Any


def _choices(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [choice for part in get_args(annotation) for choice in _choices(part)]


def _allowed(annotation: Any, bounds: tuple[Any, ...] = ()) -> str:
    """What a type allows, in words: "a whole number from 1 to 256, or null"."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = (item for bound in parts[1:] for item in (bound.metadata if isinstance(bound, FieldInfo) else [bound]))
        return _allowed(parts[0], (*bounds, *inner))
    if origin in (Union, UnionType):
        return ", or ".join(_allowed(part, bounds) for part in parts)
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in parts)
    if origin is tuple:
        return f"a list of {'any length' if ... in parts else len(parts)}, each {_allowed(parts[0])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"a mapping with keys such as {next(iter(annotation.model_fields))!r}"
    if origin is dict:
        return "a mapping"
    return TYPES.get(annotation, "another value") + _bounds(bounds)


def _bounds(bounds: tuple[Any, ...]) -> str:
    described = [bound.description for bound in bounds if isinstance(bound, FieldInfo) and bound.description]
    if described:
        return f": {described[0]}"
    limits = {
        name: getattr(bound, name) for bound in bounds for name in ("ge", "gt", "le", "lt") if hasattr(bound, name)
    }
    if {"ge", "le"} <= limits.keys():
        return f" from {limits['ge']} to {limits['le']}"
    words = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
    return " and".join(f" {word} {limits[name]}" for name, word in words.items() if name in limits)
