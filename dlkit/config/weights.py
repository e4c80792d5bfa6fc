"""`--weights none`: a recipe's weights, and what goes with weights alone, are left out. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NO_WEIGHTS = "none"
WITH_WEIGHTS = {"model": ("weights", "init_layers"), "train": ("freeze", "unfreeze")}  # keys that need weights


def none_for(value: Any) -> Any:
    """None for "none", which asks for no weights."""
    return None if value == NO_WEIGHTS else value


def from_scratch(under: Mapping[str, Any], over: Mapping[str, Any]) -> Mapping[str, Any]:
    """The lower layer without what needs weights, where the upper one asks for none."""
    model = over.get("model")
    if not isinstance(model, Mapping) or none_for(model.get("weights", "")) is not None:
        return under
    return {section: _without(values, WITH_WEIGHTS.get(section, ())) for section, values in under.items()}


def _without(values: Any, keys: tuple[str, ...]) -> Any:
    if not isinstance(values, Mapping):
        return values
    return {key: value for key, value in values.items() if key not in keys}
