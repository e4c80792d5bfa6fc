"""A recipe's own warm-up in a run that is shorter than the recipe: the same share of the run. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULT_EPOCHS = 10  # of recipe.Train


def shorten_warmup(
    values: Mapping[str, Any], base: Mapping[str, Any], overrides: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The merged values of a recipe with a warm-up that fits its epochs, and a note if it had to be shortened.

    Only a warm-up of the base recipe is shortened, and only if the overrides set the epochs: what the user asked for
    is checked like any other value, and so is a recipe that contradicts itself.
    """
    warmup, epochs = _number(values, "schedule", "warmup_epochs", 0), _number(values, "train", "epochs", DEFAULT_EPOCHS)
    planned = _number(base, "train", "epochs", DEFAULT_EPOCHS)
    own = "warmup_epochs" not in _section(overrides, "schedule") and "epochs" in _section(overrides, "train")
    refused = _section(values, "schedule").get("name") == "onecycle"  # with any warm-up
    if refused or not (own and epochs > 0 and epochs <= warmup < planned):
        return dict(values), ()
    shorter = float(f"{epochs * warmup / planned:.3g}")
    note = (
        f"warm-up: the recipe's {warmup:g} of {planned:g} epochs do not fit into {epochs:g}: "
        f"shortened to {shorter:g} epochs, the same share of the run"
    )
    return {**values, "schedule": {**values["schedule"], "warmup_epochs": shorter}}, (note,)


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = values.get(name)
    return section if isinstance(section, Mapping) else {}


def _number(values: Mapping[str, Any], section: str, key: str, default: float) -> float:
    """The number at a key, or NaN for a value of another type, which the schema refuses."""
    value = _section(values, section).get(key, default)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")
