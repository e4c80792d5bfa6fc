"""The parts of a recipe that an ablation can leave out, and the recipe without each. No torch.

The names of parts:

    augment                       all of data.augment; or one key of it: horizontal_flip, crop_padding, policy, …
    dropout, drop_path, …         the model's option of that name, set to 0
    norm, fusion, init            the model's option, set to none, none, torch's own initialization
    lrn, batch_norm, …            norm, by its value
    …                             any option of the model that is true, set to false
    mixup, l2, …                  the regularizer of that name, removed
    weight_decay, label_smoothing, clip_grad, ema, warmup, weights   their key, set to what does nothing
    class_weights, focal_gamma, logit_adjustment, sampler            likewise
    schedule                      the schedule, replaced by a constant learning rate

A recipe has the parts that it uses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlkit import registry
from dlkit.config.schema import Augment, Recipe
from dlkit.errors import UsageError

Changes = Mapping[str, Any]  # dotted key → its value without the part; None removes a regularizer

# name → section, key, and the value that does nothing
KEYS: dict[str, tuple[str, str, Any]] = {
    "weight_decay": ("optimizer", "weight_decay", 0.0),
    "label_smoothing": ("loss", "label_smoothing", 0.0),
    "class_weights": ("loss", "class_weights", None),
    "focal_gamma": ("loss", "focal_gamma", 0.0),
    "logit_adjustment": ("loss", "logit_adjustment", 0.0),
    "sampler": ("data", "sampler", "uniform"),
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
    """The parts that this recipe uses, by name."""
    result: dict[str, dict[str, Any]] = {}
    options = registry.resolved_options("models", recipe.model.name, recipe.model.options)
    for name, value in options.items():
        off = False if value is True else OPTIONS.get(name, value)
        if value != off:
            result[name] = {f"model.options.{name}": off}
    if "norm" in result:
        kind = str(options["norm"])
        result[kind if kind == "lrn" else f"{kind}_norm"] = result["norm"]
    for name, settings in recipe.regularizers.items():
        if registry.is_on(name, settings):
            result.setdefault(name, {})[f"regularizers.{name}"] = None
    for name, (section, key, off) in KEYS.items():
        if getattr(getattr(recipe, section), key) != off:
            result.setdefault(name, {})[f"{section}.{key}"] = off
    if "weights" in result:  # these need weights
        result["weights"] |= {"model.init_layers": None, "train.freeze": None, "train.unfreeze": None}
    return {**result, **_augmentations(recipe.data.augment)}


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


def select(recipe: Recipe, names: Sequence[str]) -> dict[str, Changes]:
    """The parts with these names.

    Raises:
        UsageError: no name, or the recipe does not use the part; the message lists those that it uses.
    """
    used = parts(recipe)
    known = f"This recipe uses: {', '.join(used) or 'nothing that could be left out'}."
    if not names:
        raise UsageError(f"nothing to leave out. Name a part with --drop. {known}")
    for name in names:
        if name not in used:
            raise UsageError(f"--drop {name}: the recipe does not use it. {known}")
    return {name: used[name] for name in dict.fromkeys(names)}


def _augmentations(augment: Augment) -> dict[str, Changes]:
    off = Augment().model_dump()
    active = [name for name, value in augment.model_dump().items() if value != off[name]]
    everything = {f"data.augment.{name}": off[name] for name in active}
    return {"augment": everything, **{name: {f"data.augment.{name}": off[name]} for name in active}} if active else {}
