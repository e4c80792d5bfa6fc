"""The parts of a recipe that can be left out, and what it says without each: what an ablation needs. No torch.

A part is called

    augment                       for all of data.augment; or one key of it: horizontal_flip, crop_padding, policy, …
    dropout, drop_path, …         for the model's option of that name, then 0
    norm, fusion, init            for the model's option: none, none, torch's own initialization
    lrn, batch_norm, …            for norm, by what it is
    …                             for any option of the model that is true, then false
    mixup, l2, …                  for the regularizer of that name, then gone
    weight_decay, label_smoothing, clip_grad, ema, warmup, weights   for their key, then what does nothing
    schedule                      for a schedule, then a constant learning rate

and is there to be left out where the recipe uses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlkit import registry
from dlkit.config.schema import Augment, Recipe
from dlkit.errors import UsageError

Changes = Mapping[str, Any]  # dotted key → its value without the part; a regularizer's is None: it goes

# name → section, key, and the value that does nothing
KEYS: dict[str, tuple[str, str, Any]] = {
    "weight_decay": ("optimizer", "weight_decay", 0.0),
    "label_smoothing": ("loss", "label_smoothing", 0.0),
    "clip_grad": ("train", "clip_grad", None),
    "ema": ("train", "ema", 0.0),
    "warmup": ("schedule", "warmup_epochs", 0.0),
    "schedule": ("schedule", "name", "constant"),
    "weights": ("model", "weights", None),
}
OPTIONS: dict[str, Any] = {
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "drop_path": 0.0,
    "norm": "none",
    "fusion": "none",
    "init": "torch",
}


def parts(recipe: Recipe) -> dict[str, Changes]:
    """What this recipe uses that could be left out, by name."""
    found: dict[str, dict[str, Any]] = {}
    options = registry.resolved_options("models", recipe.model.name, recipe.model.options)
    for name, value in options.items():
        off = False if value is True else OPTIONS.get(name, value)
        if value != off:
            found[name] = {f"model.options.{name}": off}
    if "norm" in found:
        kind = str(options["norm"])
        found[kind if kind == "lrn" else f"{kind}_norm"] = found["norm"]
    for name, settings in recipe.regularizers.items():
        if registry.is_on(name, settings):
            found.setdefault(name, {})[f"regularizers.{name}"] = None
    for name, (section, key, off) in KEYS.items():
        if getattr(getattr(recipe, section), key) != off:
            found.setdefault(name, {})[f"{section}.{key}"] = off
    if "weights" in found:  # these go with weights alone
        found["weights"] |= {"model.init_layers": None, "train.freeze": None, "train.unfreeze": None}
    return {**found, **_augmentations(recipe.data.augment)}


def without(recipe: Recipe, changes: Changes) -> Recipe:
    """The recipe with these changes."""
    document = recipe.model_dump()
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = document
        for name in sections:
            section = section[name]
        if sections == ["regularizers"]:
            del section[last]
        else:
            section[last] = value
    return Recipe.model_validate(document)


def chosen(recipe: Recipe, names: Sequence[str]) -> dict[str, Changes]:
    """The parts of these names.

    Raises:
        UsageError: none is named, or the recipe does not use one; the message says which it uses.
    """
    there = parts(recipe)
    known = f"This recipe uses: {', '.join(there) or 'nothing that could be left out'}."
    if not names:
        raise UsageError(f"what is to be left out? --drop names it. {known}")
    for name in names:
        if name not in there:
            raise UsageError(f"--drop {name}: the recipe does not use it. {known}")
    return {name: there[name] for name in dict.fromkeys(names)}


def _augmentations(augment: Augment) -> dict[str, Changes]:
    off = Augment().model_dump()
    on = [name for name, value in augment.model_dump().items() if value != off[name]]
    every = {f"data.augment.{name}": off[name] for name in on}
    return {"augment": every, **{name: {f"data.augment.{name}": off[name]} for name in on}} if on else {}
