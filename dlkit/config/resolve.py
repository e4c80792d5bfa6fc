"""How a recipe is put together from its layers, and checked.

Each layer goes over the one before: the schema's defaults; a recipe (the given file, else the one shipped for the model
and data set, else a starting point); the caller's settings, in order. The result is validated once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dlkit import registry
from dlkit.config import text_options, yaml_file
from dlkit.config.adaptations import add_implied, drop_weights, section, shorten_warmup
from dlkit.config.checks import (
    USER_DATASETS,
    conflicts,
    mismatched_loss,
    schedule_conflicts,
    unused_keys,
    wrong_kinds,
    wrong_names,
)
from dlkit.config.class_weights import with_class_weights
from dlkit.config.data_location import absolute, resolve_dataset
from dlkit.config.keys import Keys, merge
from dlkit.config.schema import MAY_CHANGE_ON_RESUME, Data, Recipe
from dlkit.config.validation_errors import explain
from dlkit.config.yaml_file import Document, describe
from dlkit.errors import UsageError

# for a model and a data set without a recipe of their own
STARTING_POINT = Document(
    "dlkit's starting point",
    {
        "optimizer": {"name": "adam", "lr": 0.001},
        "schedule": {"name": "cosine"},
        "train": {"epochs": 10, "batch_size": 128},
    },
    {},
)


@dataclass(frozen=True)
class Setting:
    """One value set by the caller: a dotted key, and the words it was set with ("" if they add nothing)."""

    key: str
    value: Any
    origin: str


@dataclass(frozen=True)
class Resolved:
    """A recipe, a description of its source, and notes about values that were adapted."""

    recipe: Recipe
    source: str
    notes: tuple[str, ...] = ()


def parse_setting(text: str) -> Setting:
    """The setting in `--set optimizer.lr=0.1`; the value is YAML: a number, text, true, false, null or a flow list."""
    origin = f"--set {text}"
    key, equals, value = text.partition("=")
    if not equals or not all(part.isidentifier() for part in key.split(".")) or key.count(".") > 10:
        raise UsageError(f"--set takes KEY=VALUE, such as --set optimizer.lr=0.01, and not {describe(text)}.")
    return Setting(key, yaml_file.parse_value(value, origin), origin)


def resolve(
    model: str | None = None,
    dataset: str | None = None,
    *,
    recipe: str | Path | None = None,
    settings: Sequence[Setting] = (),
    flags: Mapping[str, Any] | None = None,
    base: Document | None = None,
) -> Resolved:
    """Put a recipe together: `recipe` is a file or a shipped recipe's name; settings go over it, then flags.

    Flags are {dotted key: value}, for a caller without settings of its own; `base` is in place of a recipe.

    Raises:
        UsageError: no model or data set is given, or a value does not fit the schema, the registry or another value;
            the message names the value, what is allowed, and where the value was written.
    """
    names = {"model.name": model, "data.name": dataset}
    settings = [*settings, *_as_settings(flags or {})]
    settings += (Setting(key, name, "") for key, name in names.items() if name is not None)
    named = None if recipe is None else _named_recipe(recipe)
    if base is not None:
        named = base, base.origin
    overrides = _as_layer(_resolve_dataset(settings, None if named is None else named[0]))
    base, source = named or _base(overrides)
    dataset = _name(overrides, "data")
    if dataset != _name(base, "data"):  # a recipe of this data set sets its text options itself
        defaults = {"data": {"options": text_options.for_new_run(dataset)}}
        base = replace(base, values=merge(defaults, base.values))
    resolved, notes = _combine(base, overrides)
    return Resolved(with_absolute_paths(resolved), source, notes)


def model_in(settings: Sequence[Setting]) -> str | None:
    """The model that the settings name."""
    return _name(_as_layer(settings), "model")


def names_photos(settings: Sequence[Setting]) -> bool:
    """Whether the settings name the user's own photos, here and of any size, and no model that takes other inputs.

    Raises:
        UsageError, DataError: the data set is neither a name nor a path.
    """
    layer = _as_layer(_resolve_dataset(settings, None))
    model, dataset, folder = _name(layer, "model"), _name(layer, "data"), section(layer.values, "data").get("dir")
    datasets, models = registry.entries("datasets"), registry.entries("models")
    photos = dataset in datasets and {"size", "test", "group"} <= datasets[dataset].options.keys()
    here = isinstance(folder, str) and os.path.exists(folder)
    return photos and here and (model not in models or "images" in models[model].takes)


def load(path: Path) -> Recipe:
    """The recipe in a run folder's recipe.yaml; a run of an older version may have one that no new run may have.

    Raises:
        UsageError: it is not a valid recipe.
    """
    recipe, _ = _combine(yaml_file.read_document(path), _as_layer(()), stored=True)
    return recipe


def with_settings(recipe: Recipe, settings: Sequence[Setting], *, stored: bool = False) -> Recipe:
    """The recipe with these settings over it, checked as `resolve` does; raises what `resolve` raises."""
    overrides = _as_layer(settings)
    result = _validate(merge(recipe.model_dump(), overrides.values), (overrides,))
    _check(result, overrides, (overrides,), stored=stored)
    return result


def with_changes(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with the values at these dotted keys replaced, validated again."""
    return with_settings(recipe, _as_settings(changes), stored=True)


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths to its data, so that it means the same in any folder."""
    data = recipe.data
    changes: dict[str, Any] = {}
    if data.dir is not None:
        changes["dir"] = absolute(data.name, data.dir)
    if data.vectors is not None:
        changes["vectors"] = absolute("", data.vectors)
    if data.name == "wds" and data.options.get("names"):
        changes["options"] = {**data.options, "names": absolute("", str(data.options["names"]))}
    return recipe.model_copy(update={"data": data.model_copy(update=changes)}) if changes else recipe


def changes_on_resume(recipe: Recipe, settings: Sequence[Setting]) -> dict[str, Any]:
    """The settings of a resume as {dotted key: value}.

    Raises:
        UsageError: a key may not change on resume, or its value is wrong.
    """
    for setting in settings:
        if setting.key not in MAY_CHANGE_ON_RESUME:
            raise UsageError(
                f"{setting.origin or setting.key} cannot change when a run is resumed. "
                f"These can: {', '.join(MAY_CHANGE_ON_RESUME)}. Start a new run for another recipe."
            )
    data_dir = with_absolute_paths(with_settings(recipe, settings, stored=True)).data.dir
    return {setting.key: data_dir if setting.key == "data.dir" else setting.value for setting in settings}


def data_for(model: str, dataset: str, data_dir: str | None = None, options: Mapping[str, Any] | None = None) -> Data:
    """A data section with the defaults and the form that the model takes; `dataset` may be NAME:PATH or a path.

    Text is read with the text options among `options` (of the model's own data set), or else as in a new run.
    """
    name, data_dir = resolve_dataset(dataset, data_dir, registry.entry("models", model).takes)
    form = registry.form_for(model, name)
    text = text_options.for_new_run(name) if options is None else text_options.like(name, options)
    return Data(name=name, dir=data_dir, options=text if form is None else {**text, "form": form})


def _combine(base: Document, overrides: Document, *, stored: bool = False) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe, and notes about values that were adapted."""
    merged = merge(drop_weights(base.values, overrides.values), overrides.values)
    values, notes = shorten_warmup(add_implied(merged), base.values, overrides.values)
    recipe = _validate(values, (base, overrides))
    _check(recipe, overrides, (base, overrides), stored=stored)
    return recipe, notes


def _validate(values: Mapping[str, Any], layers: Sequence[Document]) -> Recipe:
    values = with_class_weights(values)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        keys, message = explain(error, Recipe, values)
        raise _error(message, keys, layers) from None


def _check(recipe: Recipe, overrides: Document, layers: Sequence[Document], *, stored: bool) -> None:
    """Raises: UsageError. A `stored` recipe belongs to a run, which an older version may have started."""
    later = () if stored else chain(schedule_conflicts(recipe), mismatched_loss(recipe))
    checks = (
        wrong_names(recipe),
        wrong_kinds(recipe),
        unused_keys(recipe, overrides.origins),
        later,
        conflicts(recipe),
    )
    for keys, message in chain(*checks):
        raise _error(message, keys, layers)


def _error(message: str, keys: Keys, layers: Sequence[Document]) -> UsageError:
    """The error, with where the key, or else the nearest key around it, was last written."""
    for layer in reversed(layers):
        for written, origin in layer.origins.items():
            if written[: len(keys)] == keys:
                return UsageError(f"{message} ({origin})" if origin else message)
    return _error(message, keys[:-1], layers) if len(keys) > 1 else UsageError(message)


def _as_settings(values: Mapping[str, Any]) -> list[Setting]:
    return [Setting(key, value, f"{key}={value}") for key, value in values.items()]


def _as_layer(settings: Iterable[Setting]) -> Document:
    """The settings as nested dicts, with the words that set each key."""
    values: dict[str, Any] = {}
    origins: dict[Keys, str] = {}
    for setting in settings:
        keys = tuple(setting.key.split("."))
        nested: Any = tuple(setting.value) if isinstance(setting.value, list) else setting.value
        for key in reversed(keys):
            nested = {key: nested}
        values = merge(values, nested)
        origins[keys] = setting.origin
    return Document("", values, origins)


def _resolve_dataset(settings: Sequence[Setting], base: Document | None) -> list[Setting]:
    """The settings with a data set given as NAME:PATH or as a path split into data.name and data.dir."""
    by_key = {setting.key: setting for setting in settings}
    dataset = by_key.get("data.name")
    if dataset is None or not isinstance(dataset.value, str) or dataset.value in registry.entries("datasets"):
        return list(settings)
    model = by_key["model.name"].value if "model.name" in by_key else base and _name(base, "model")
    takes = registry.entry("models", model).takes if registry.is_model(model) else ()
    name, data_dir = resolve_dataset(dataset.value, by_key["data.dir"].value if "data.dir" in by_key else None, takes)
    parts = [replace(dataset, value=name), Setting("data.dir", data_dir, f"--dataset {dataset.value}")]
    return [*(setting for setting in settings if setting.key not in ("data.name", "data.dir")), *parts]


def _base(overrides: Document) -> tuple[Document, str]:
    """The shipped recipe of a model and a data set, else the starting point."""
    model, dataset = _name(overrides, "model"), _name(overrides, "data")
    if model is None:
        raise UsageError(f"no model given. {_models_for(dataset)}")
    if dataset is None:
        raise UsageError(f"no data set given. {_datasets_for(model)}")
    path = yaml_file.shipped(model, dataset)
    if path is None:
        return STARTING_POINT, f"{STARTING_POINT.origin}, as there is no recipe for {model} on {dataset}"
    return yaml_file.read_document(path), f"{path.stem}, shipped with dlkit"


def _models_for(dataset: str | None) -> str:
    """What to write if the model is missing."""
    if dataset is None:
        return "Write `dlkit train photos` for a folder of your own photos, `dlkit train lenet5 mnist`, or --recipe."
    tried = [name.removesuffix(f"-{dataset}") for name in yaml_file.shipped_names() if name.endswith(f"-{dataset}")]
    kinds = registry.entry("datasets", dataset).gives
    fitting = [name for name, entry in registry.entries("models").items() if set(kinds) & set(entry.takes)]
    first = sorted((name for name in tried if name in fitting), key=_age) or fitting
    return f"Write `dlkit train {first[0]} {dataset}`; models for it: {', '.join(first)}."


def _age(model: str) -> tuple[bool, str]:
    """LeNet-5 first: it is what a newcomer trains in a minute."""
    return not model.startswith("lenet"), model


def _datasets_for(model: str) -> str:
    """What to write if the data set is missing."""
    tried = [name.removeprefix(f"{model}-") for name in yaml_file.shipped_names() if name.startswith(f"{model}-")]
    known = [name for name in tried if name in registry.entries("datasets") and name not in USER_DATASETS]
    example = f"Write `dlkit train {model} {known[0]}`, or" if known else "Write"
    others = ", ".join(known or registry.entries("datasets"))
    return f"{example} `dlkit train {model} photos` for a folder of yours; data sets: {others}."


def _named_recipe(recipe: str | Path) -> tuple[Document, str]:
    """A shipped recipe by its name, else a file."""
    shipped = yaml_file.shipped_path(recipe) if isinstance(recipe, str) else None
    if shipped is not None:
        return yaml_file.read_document(shipped), f"{recipe}, shipped with dlkit"
    if isinstance(recipe, str) and "/" not in recipe and "." not in recipe and not os.path.exists(recipe):
        hint = registry.did_you_mean(recipe, yaml_file.shipped_names())
        raise UsageError(f"recipe {recipe!r} not found: it is neither a shipped recipe nor a file. {hint}")
    return yaml_file.read_document(Path(recipe)), str(recipe)


def _name(document: Document, key: str) -> str | None:
    name = section(document.values, key).get("name")
    return None if name is None else str(name)
