"""What a recipe's schema cannot say: names on the shelves, keys that would do nothing, and laws between keys.

Each check yields the keys at fault and the sentence about them; recipe.py adds where they were written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dlkit import catalog
from dlkit.errors import UsageError
from dlkit.recipe_errors import TYPES
from dlkit.recipe_file import describe
from dlkit.recipe_keys import Keys

if TYPE_CHECKING:
    from dlkit.recipe import Recipe

Problems = Iterator[tuple[Keys, str]]

# keys that only some choices use: setting one for another choice would do nothing, so it is refused
USED_BY: dict[Keys, tuple[str, ...]] = {
    ("optimizer", "momentum"): ("sgd", "rmsprop"),
    ("optimizer", "nesterov"): ("sgd",),
    ("optimizer", "betas"): ("adam", "adamw"),
    ("optimizer", "eps"): ("adam", "adamw", "adagrad", "rmsprop"),
    ("schedule", "step_epochs"): ("step", "exponential"),
    ("schedule", "gamma"): ("step", "exponential"),
    ("schedule", "final"): ("cosine", "onecycle"),
    ("schedule", "rise"): ("onecycle",),
}


def wrong_names(recipe: Recipe) -> Problems:
    """Models, data sets, regularizers and their options, checked against the shelves; nothing is imported."""
    yield from _wrong_options(
        "models", recipe.model.name, ("model", "name"), recipe.model.options, ("model", "options")
    )
    yield from _wrong_options("datasets", recipe.data.name, ("data", "name"), recipe.data.options, ("data", "options"))
    for name, options in recipe.regularizers.items():
        keys = ("regularizers", name)
        yield from _wrong_options("regularizers", name, keys, options, keys)


def idle_keys(recipe: Recipe, asked: Iterable[Keys]) -> Problems:
    """Keys that the caller set and that the chosen optimizer or schedule does not use."""
    for keys in asked:
        users = USED_BY.get(keys[:2])
        if users is not None and len(keys) > 1 and getattr(recipe, keys[0]).name not in users:
            chosen = getattr(recipe, keys[0]).name
            name = ".".join(keys)
            yield keys, f"recipe.{name} does nothing with {keys[0]} {chosen!r}; it is for {', '.join(users)}."


def broken_laws(recipe: Recipe) -> Problems:
    """What no key can say alone."""
    yield from _broken_data_laws(recipe)
    optimizer, loss, schedule, train = recipe.optimizer, recipe.loss, recipe.schedule, recipe.train
    if loss.label_smoothing > 0 and loss.name != "cross_entropy":
        yield ("loss", "label_smoothing"), f"recipe.loss.label_smoothing goes with cross_entropy, not with {loss.name}."
    if optimizer.nesterov and (optimizer.name != "sgd" or optimizer.momentum == 0):
        yield ("optimizer", "nesterov"), "recipe.optimizer.nesterov needs the optimizer sgd and a momentum above 0."
    if schedule.warmup_epochs >= train.epochs:
        found = f"recipe.schedule.warmup_epochs is {schedule.warmup_epochs:g}"
        yield ("schedule", "warmup_epochs"), f"{found}; it must be less than train.epochs, {train.epochs}."
    if train.accumulate > train.batch_size:
        message = f"recipe.train.accumulate is {train.accumulate}, more than the {train.batch_size} images of a batch."
        yield ("train", "accumulate"), message
    if train.amp == "fp16" and train.device in ("cpu", "mps"):
        yield ("train", "amp"), f"recipe.train.amp fp16 is for CUDA; with the device {train.device} use bf16 or off."


def _broken_data_laws(recipe: Recipe) -> Problems:
    data, augment, monitor = recipe.data, recipe.data.augment, recipe.train.monitor
    if data.name == "folder" and data.dir is None:
        yield ("data", "name"), "the data set 'folder' needs a folder: give --data-dir (recipe.data.dir)."
    if data.validation == 0 and monitor.startswith("val/"):
        found = f"recipe.data.validation is 0, so there is no {monitor} to watch"
        yield ("data", "validation"), f"{found}. Set train.monitor=train/loss, or keep some."
    if augment.scale[0] > augment.scale[1]:
        message = f"recipe.data.augment.scale is {describe(augment.scale)}; the least comes first."
        yield ("data", "augment", "scale"), message
    area = augment.resized_crop
    if area is not None and not area[0] <= area[1] <= 1:
        found = f"recipe.data.augment.resized_crop is {describe(area)}"
        yield ("data", "augment", "resized_crop"), f"{found}; it takes the least area and the greatest, at most 1."


def _wrong_options(shelf: str, name: str, name_keys: Keys, options: Mapping[str, Any], option_keys: Keys) -> Problems:
    try:
        defaults = catalog.entry(shelf, name).options
    except UsageError as error:
        yield name_keys, str(error)
        return
    for option, value in options.items():
        keys = (*option_keys, option)
        try:
            catalog.check_options(shelf, name, {option: value})
        except UsageError as error:
            yield keys, str(error)
            return
        wanted = _wanted_option(value, defaults[option])
        if wanted:
            yield keys, f"recipe.{'.'.join(keys)} is {describe(value)}; it takes {wanted}."


def _wanted_option(value: Any, default: Any) -> str | None:
    """What an option takes, if `value` is not of its default's kind.

    A default of none takes anything, and text takes a whole number too: hidden=512 beside hidden=512,256.
    """
    if default is None or (isinstance(value, bool) and isinstance(default, bool)):
        return None
    kinds = {float: (int, float), str: (int, str)}.get(type(default), (type(default),))
    if isinstance(value, kinds) and not isinstance(value, bool):
        return None
    return f"{TYPES.get(type(default), type(default).__name__)}, such as {describe(default)}"
