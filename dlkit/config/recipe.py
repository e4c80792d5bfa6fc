"""A recipe: everything a training run is, as a closed schema, and how one is put together.

Layers, each over the one before: the schema's defaults, a recipe (the file asked for, else the one that dlkit ships for
the model and data set, else a starting point), then what the caller set, in order. The result is validated once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from dlkit import registry
from dlkit.config import text_options, yaml_file
from dlkit.config.checks import broken_laws, idle_keys, mismatched_loss, schedule_conflicts, wrong_kinds, wrong_names
from dlkit.config.keys import Keys
from dlkit.config.validation_errors import explain
from dlkit.config.warmup import shorten_warmup
from dlkit.config.weights import from_scratch, none_for
from dlkit.config.yaml_file import Document, describe
from dlkit.data_location import absolute, located
from dlkit.errors import UsageError
from dlkit.specs import MAX_PIXELS


def _whole(value: Any) -> Any:
    if type(value) is not int:  # a Literal alone would take true and 1.0 for 1
        raise ValueError("not a whole number")
    return value


Count = Annotated[int, Field(ge=1, le=10**9)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Below1 = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Patterns = Annotated[str, Field(min_length=1)]  # globs over the names of parameters, with commas between
Options = dict[str, bool | int | float | str | None]


class Section(BaseModel):
    """What every part of a recipe obeys: no unknown key, no silent conversion, no change after it is made."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Model(Section):
    name: str
    options: Options = {}
    weights: Annotated[str | None, BeforeValidator(none_for)] = None  # to start from: "imagenet", a run or a file
    init_layers: Patterns | None = None  # of them, what fits these; the rest starts from scratch; none: all


class Augment(Section):
    """Random changes to training images; all off by default. Probabilities and ranges, an image at a time."""

    crop_padding: Annotated[int, Field(ge=0, le=512)] = 0  # pixels added on each side before a random crop
    resized_crop: tuple[Positive, Positive] | None = None  # least and greatest area kept, folders only
    horizontal_flip: Fraction = 0.0  # probability
    vertical_flip: Fraction = 0.0  # probability
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0  # degrees, either way
    translate: Fraction = 0.0  # of the side, either way
    scale: tuple[Positive, Positive] = (1.0, 1.0)
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0  # degrees, either way
    brightness: NonNegative = 0.0  # factor in [1 - x, 1 + x]; likewise contrast and saturation
    contrast: NonNegative = 0.0
    saturation: NonNegative = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0  # turns of the colour circle, either way
    erasing: Fraction = 0.0  # probability
    policy: Literal["none", "trivial", "rand"] = "none"  # TrivialAugment or RandAugment, by torchvision


OnBadImage = Literal["error", "skip"]


class Data(Section):
    name: str
    dir: str | None = None
    options: Options = {}
    vectors: str | None = None  # a file of word vectors, as GloVe's are written, to start the embedding from
    validation: Below1 = 0.1  # of train; a data set's own validation split goes first
    size: Count | None = None  # pixels a side; none: the data set's own
    channels: Annotated[Literal[1, 3], BeforeValidator(_whole)] | None = None
    workers: Annotated[int, Field(ge=0, le=256)] = 2  # processes that decode folders
    loader_timeout: Positive = 7.0  # seconds that those may neither compute nor wait for a disk
    max_pixels: Count = MAX_PIXELS  # of an image; larger ones are refused
    on_bad_image: OnBadImage = "error"  # skip: left out before the first epoch or batch, up to 1 % of a split
    augment: Augment = Augment()


class Optimizer(Section):
    name: Literal["sgd", "adam", "adamw", "adagrad", "rmsprop"] = "adam"
    lr: Positive = 0.001
    momentum: Below1 = 0.9  # sgd, rmsprop
    nesterov: bool = False  # sgd
    betas: tuple[Below1, Below1] = (0.9, 0.999)  # adam, adamw
    eps: Positive = 1e-8  # adam, adamw, adagrad, rmsprop
    weight_decay: NonNegative = 0.0
    decay_all: bool = False  # also decay biases and norms
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0  # factor on the lr of each layer, from the last to the first


class Schedule(Section):
    name: Literal["constant", "step", "cosine", "onecycle", "exponential"] = "constant"
    warmup_epochs: NonNegative = 0.0  # from the start of the run; not with onecycle, which has its own
    step_epochs: Positive = (
        30.0  # step: a drop at each multiple, from the start of the run; exponential: to fall by gamma
    )
    milestones: tuple[Positive, ...] | None = None  # step: epochs of the run with a drop, in place of step_epochs
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1  # step and exponential: factor of each drop
    final: Fraction = 0.0  # cosine and onecycle: the last lr as a fraction of the highest
    rise: Annotated[float, Field(gt=0, lt=1)] = 0.3  # onecycle: fraction of the run spent rising


class Loss(Section):
    name: Literal["cross_entropy", "mse", "bce"] = "cross_entropy"
    label_smoothing: Below1 = 0.0


class Train(Section):
    epochs: Count = 10
    batch_size: Annotated[int, Field(ge=1, le=2**20)] = 128  # images a step, over all ranks
    accumulate: Count = 1  # parts a batch is computed in: less memory; batch norm averages each part alone
    clip_grad: Positive | None = None
    clip_mode: Literal["norm", "value"] = "norm"
    ema: Below1 = 0.0  # decay of the averaged weights; 0 is off
    patience: Count | None = None  # epochs without a better monitor before stopping
    freeze: Count | Patterns | None = None  # first layers, or parameters, that keep the weights they start from
    unfreeze: Count | tuple[Count, ...] | None = None  # epochs between two thaws, or those after which one comes
    monitor: Literal["val/loss", "val/top1", "val/top5", "train/loss"] = "val/top1"
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    device: Annotated[
        str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?|mps)$", description="auto, cpu, cuda, cuda:N or mps")
    ] = "auto"
    threads: Count | None = None  # CPU threads; none: torch's choice
    amp: Literal["off", "auto", "bf16", "fp16"] = "off"
    channels_last: bool | None = None  # none: where it is quicker
    compile: bool = False
    checkpoint_every: Count = 500  # steps
    log_every: Count = 100  # steps
    keep: Annotated[int, Field(ge=2, le=10**6)] = 2  # newest checkpoints kept, beside the best
    track: tuple[str, ...] = ()  # where else the figures are shown: tensorboard, mlflow, wandb


class Recipe(Section):
    model: Model
    data: Data
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    loss: Loss = Loss()
    regularizers: dict[str, Options] = {}
    train: Train = Train()


# what a model and a data set without a recipe of their own are trained with
STARTING_POINT = Document(
    "dlkit's starting point",
    {
        "optimizer": {"name": "adam", "lr": 0.001},
        "schedule": {"name": "cosine"},
        "train": {"epochs": 10, "batch_size": 128},
    },
    {},
)

MAY_CHANGE_ON_RESUME = (
    "train.epochs", "train.log_every", "train.checkpoint_every", "train.keep", "train.track", "data.workers",
    "data.loader_timeout", "data.dir",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One value that the caller sets: a dotted key, and the words it was set with ("" where they go without saying)."""

    key: str
    value: Any
    origin: str


@dataclass(frozen=True)
class Resolved:
    """A recipe, in a few words where it came from, and what was changed to make it fit."""

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
) -> Resolved:
    """Put a recipe together: `recipe` is a file or a shipped recipe's name; settings go over it, then flags.

    Flags are {dotted key: value}, for a caller that has no words of its own for them.

    Raises:
        UsageError: no model or data set is named, or something is not as the schema, the shelves and the laws between
            keys want it; the message says what was found, what would do, and where it stands.
    """
    names = {"model.name": model, "data.name": dataset}
    settings = [*settings, *(Setting(key, value, f"{key}={value}") for key, value in (flags or {}).items())]
    settings += (Setting(key, name, "") for key, name in names.items() if name is not None)
    named = None if recipe is None else _named_recipe(recipe)
    asked = _document(_with_place(settings, None if named is None else named[0]))
    base, source = named or _base(asked)
    dataset = _name(asked, "data")
    if dataset != _name(base, "data"):  # a recipe for this data set says itself how its text is read
        under = {"data": {"options": text_options.for_new_run(dataset)}}
        base = replace(base, values=_merged(under, base.values))
    made, notes = _combined(base, asked)
    return Resolved(with_absolute_paths(made), source, notes)


def load(path: Path) -> Recipe:
    """The recipe in a file as it stands there: what a run folder's recipe.yaml says, also of a run that would not start
    today.

    Raises:
        UsageError: it is no valid recipe.
    """
    made, _ = _combined(yaml_file.read_document(path), _document(()), stored=True)
    return made


def _combined(base: Document, asked: Document, *, stored: bool = False) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe, and the notes about what was adapted."""
    layers = (base, asked)
    merged = _merged(from_scratch(base.values, asked.values), asked.values)
    values, notes = shorten_warmup(_fitting(merged), base.values, asked.values)
    made = _validated(values, layers)
    _check(made, asked, layers, stored=stored)
    return made, notes


def changes_on_resume(recipe: Recipe, settings: Sequence[Setting]) -> dict[str, Any]:
    """The settings as {dotted key: value}, where a run may take them up when it goes on.

    Raises:
        UsageError: one is not of the few that may change, or its value is wrong.
    """
    for setting in settings:
        if setting.key not in MAY_CHANGE_ON_RESUME:
            raise UsageError(
                f"{setting.origin or setting.key} cannot change when a run goes on; "
                f"these can: {', '.join(MAY_CHANGE_ON_RESUME)}. Start a new run for another recipe."
            )
    place = with_absolute_paths(over(recipe, settings, stored=True)).data.dir
    return {setting.key: place if setting.key == "data.dir" else setting.value for setting in settings}


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with the values at these dotted keys replaced, validated again."""
    return over(recipe, [Setting(key, value, f"{key}={value}") for key, value in changes.items()], stored=True)


def over(recipe: Recipe, settings: Sequence[Setting], *, stored: bool = False) -> Recipe:
    """The recipe with these settings over it, checked like one that is put together; `resolve` says what it raises."""
    asked = _document(settings)
    made = _validated(_merged(recipe.model_dump(), asked.values), (asked,))
    _check(made, asked, (asked,), stored=stored)
    return made


def _check(made: Recipe, asked: Document, layers: Sequence[Document], *, stored: bool) -> None:
    """Raises: UsageError. A `stored` recipe is a run's own, which an older dlkit may have begun."""
    later = () if stored else chain(schedule_conflicts(made), mismatched_loss(made))
    checks = (wrong_names(made), wrong_kinds(made), idle_keys(made, asked.places), later, broken_laws(made))
    for keys, message in chain(*checks):
        raise _refusal(message, keys, layers)


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """The recipe with the locations of its data from the root, so that it means the same in any folder."""
    data = recipe.data
    changes: dict[str, Any] = {}
    if data.dir is not None:
        changes["dir"] = absolute(data.name, data.dir)
    if data.vectors is not None:
        changes["vectors"] = absolute("", data.vectors)
    if data.name == "wds" and data.options.get("names"):
        changes["options"] = {**data.options, "names": absolute("", str(data.options["names"]))}
    return recipe.model_copy(update={"data": data.model_copy(update=changes)}) if changes else recipe


def _with_place(settings: Sequence[Setting], base: Document | None) -> list[Setting]:
    """The settings, a data set's NAME:PLACE or path in its two parts: the data set that reads it, and where it lies."""
    given = {setting.key: setting for setting in settings}
    dataset = given.get("data.name")
    if dataset is None or not isinstance(dataset.value, str) or dataset.value in registry.entries("datasets"):
        return list(settings)
    model = given["model.name"].value if "model.name" in given else base and _name(base, "model")
    takes = registry.entry("models", model).takes if model in registry.entries("models") else ()
    name, place = located(dataset.value, given["data.dir"].value if "data.dir" in given else None, takes)
    parts = [replace(dataset, value=name), Setting("data.dir", place, f"--dataset {dataset.value}")]
    return [*(setting for setting in settings if setting.key not in ("data.name", "data.dir")), *parts]


def _document(settings: Iterable[Setting]) -> Document:
    """The settings as a layer: nested dicts, each key with the words it was set with."""
    values: dict[str, Any] = {}
    places: dict[Keys, str] = {}
    for setting in settings:
        keys = tuple(setting.key.split("."))
        nested: Any = tuple(setting.value) if isinstance(setting.value, list) else setting.value
        for key in reversed(keys):
            nested = {key: nested}
        values = _merged(values, nested)
        places[keys] = setting.origin
    return Document("", values, places)


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(under)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _merged(result[key], value) if both else value
    return result


def data_for(model: str, dataset: str, place: str | None = None, options: Mapping[str, Any] | None = None) -> Data:
    """A data section with nothing set but the form that the model takes; `dataset` may be NAME:PLACE or a path.

    Text is read as with these data options, those of the model's own data set, or else as in a new run.
    """
    name, place = located(dataset, place, registry.entry("models", model).takes)
    form = registry.form_for(model, name)
    chosen = text_options.for_new_run(name) if options is None else text_options.like(name, options)
    return Data(name=name, dir=place, options=chosen if form is None else {**chosen, "form": form})


def _fitting(values: dict[str, Any]) -> dict[str, Any]:
    """The values with what goes without saying: the form of the data that the model takes, and the loss of numbers."""
    model, data = (_text(values, section, "name") for section in ("model", "data"))
    if model not in registry.entries("models") or data not in registry.entries("datasets"):
        return values  # it will be said
    under: dict[str, Any] = {}
    form = registry.form_for(model, data)
    if form is not None:
        under = {"data": {"options": {"form": form}}}
    if registry.entry("datasets", data).numbers:
        under |= {"loss": {"name": "mse"}, "train": {"monitor": "val/loss"}}
    return _merged(under, values)


def _text(values: Mapping[str, Any], section: str, key: str) -> str:
    found = values.get(section)
    value = found.get(key) if isinstance(found, Mapping) else None
    return value if isinstance(value, str) else ""


def _base(asked: Document) -> tuple[Document, str]:
    """The recipe that dlkit has for a model and a data set, else its starting point."""
    model, dataset = _name(asked, "model"), _name(asked, "data")
    if model is None:
        raise UsageError(
            f"which model? Name one, or give --recipe. There are: {', '.join(registry.entries('models'))}."
        )
    if dataset is None:
        raise UsageError(f"which data set? Give --dataset. There are: {', '.join(registry.entries('datasets'))}.")
    path = yaml_file.shipped(model, dataset)
    if path is None:
        return STARTING_POINT, f"{STARTING_POINT.origin}, as there is no recipe for {model} on {dataset}"
    return yaml_file.read_document(path), f"{path.stem}, shipped with dlkit"


def _named_recipe(recipe: str | Path) -> tuple[Document, str]:
    """A shipped recipe by its name, where that is all that was given; else a file."""
    shipped = yaml_file.shipped_path(recipe) if isinstance(recipe, str) else None
    if shipped is not None:
        return yaml_file.read_document(shipped), f"{recipe}, shipped with dlkit"
    if isinstance(recipe, str) and "/" not in recipe and "." not in recipe and not os.path.exists(recipe):
        hint = registry.did_you_mean(recipe, yaml_file.shipped_names())
        raise UsageError(f"no recipe and no file is called {recipe!r}. {hint}")
    return yaml_file.read_document(Path(recipe)), str(recipe)


def _name(document: Document, section: str) -> str | None:
    values = document.values.get(section)
    name = values.get("name") if isinstance(values, Mapping) else None
    return None if name is None else str(name)


def _validated(values: Mapping[str, Any], layers: Sequence[Document]) -> Recipe:
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        keys, message = explain(error, Recipe, values)
        raise _refusal(message, keys, layers) from None


def _refusal(message: str, keys: Keys, layers: Sequence[Document]) -> UsageError:
    """The error, with the place where the key was last written, or else the nearest key around it."""
    for layer in reversed(layers):
        for written, place in layer.places.items():
            if written[: len(keys)] == keys:
                return UsageError(f"{message} ({place})" if place else message)
    return _refusal(message, keys[:-1], layers) if len(keys) > 1 else UsageError(message)
