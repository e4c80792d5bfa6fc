"""What a recipe's merged values need to fit together: implied values, no weights, a shorter warm-up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlkit import registry
from dlkit.config.keys import merge
from dlkit.config.schema import NO_WEIGHTS, Train

NEED_WEIGHTS = {"model": ("weights", "init_layers"), "train": ("freeze", "unfreeze")}

Values = Mapping[str, Any]


def add_implied(values: Values) -> Values:
    """The values over those that follow from the model and the data set: the data's form, a regression's loss."""
    model, data = (section(values, name).get("name") for name in ("model", "data"))
    if not registry.is_model(model) or data not in registry.entries("datasets"):
        return values  # refused later, with a hint
    implied: dict[str, Any] = {}
    form = registry.form_for(model, data)
    if form is not None:
        implied = {"data": {"options": {"form": form}}}
    if registry.entry("datasets", data).numbers:
        implied |= {"loss": {"name": "mse"}, "train": {"monitor": "val/loss"}}
    return merge(implied, values)


def drop_weights(base: Values, overrides: Values) -> Values:
    """The base without the keys that need weights if the overrides set model.weights to none."""
    if section(overrides, "model").get("weights", "") not in (None, NO_WEIGHTS):
        return base
    return {
        name: {key: value for key, value in values.items() if key not in NEED_WEIGHTS.get(name, ())}
        if isinstance(values, Mapping)
        else values
        for name, values in base.items()
    }


def shorten_warmup(values: Values, base: Values, overrides: Values) -> tuple[Values, tuple[str, ...]]:
    """The values with a warm-up that fits the epochs, and a note if it was shortened.

    Only the base recipe's warm-up is shortened, and only if the overrides set the epochs: a warm-up that the user set
    is validated like any other value, and so is a recipe that contradicts itself.
    """
    warmup, epochs = _number(values, "schedule", "warmup_epochs", 0), _number(values, "train", "epochs", Train().epochs)
    planned = _number(base, "train", "epochs", Train().epochs)
    own = "warmup_epochs" not in section(overrides, "schedule") and "epochs" in section(overrides, "train")
    refused = section(values, "schedule").get("name") == "onecycle"  # with any warm-up
    if refused or not (own and epochs > 0 and epochs <= warmup < planned):
        return values, ()
    shorter = float(f"{epochs * warmup / planned:.3g}")
    note = (
        f"warm-up: the recipe's {warmup:g} of {planned:g} epochs do not fit into {epochs:g}: "
        f"shortened to {shorter:g} epochs, the same share of the run"
    )
    return merge(values, {"schedule": {"warmup_epochs": shorter}}), (note,)


def section(values: Values, name: str) -> Values:
    """The mapping at a key; empty if there is none."""
    value = values.get(name)
    return value if isinstance(value, Mapping) else {}


def _number(values: Values, name: str, key: str, default: float) -> float:
    """The number at a key, or NaN for a value of another type, which the schema refuses."""
    value = section(values, name).get(key, default)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")
