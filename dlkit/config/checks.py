"""Checks of a recipe beyond its schema: registry names, keys without an effect, and constraints between keys.

Each check yields the wrong keys and a message; resolve.py adds where they were written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dlkit import imagenet, registry
from dlkit.config.keys import Keys
from dlkit.config.validation_errors import TYPES
from dlkit.config.yaml_file import describe
from dlkit.errors import UsageError

if TYPE_CHECKING:
    from dlkit.config.schema import Recipe

# regularizers that are set by another key
KEY_OF_REGULARIZER = {
    "label_smoothing": "loss.label_smoothing", "weight_decay": "optimizer.weight_decay", "ema": "train.ema",
    "dropout": "model.options.dropout", "drop_path": "model.options.drop_path", "early_stopping": "train.patience",
    "random_erasing": "data.augment.erasing", "gradient_clipping": "train.clip_grad",
    "class_weights": "loss.class_weights", "focal_loss": "loss.focal_gamma", "sampler": "data.sampler",
    "logit_adjustment": "loss.logit_adjustment",
}  # fmt: skip

# data sets of the user's own, and what they are read from
USER_DATASETS = {
    "folder": "a folder", "csv": "a table", "wds": "tar shards", "hf": "a folder or a name of the hub",
    "packed": "a pack", "text_folder": "a folder", "text_csv": "a file or a folder", "trees": "a folder",
}  # fmt: skip

Problems = Iterator[tuple[Keys, str]]

# keys that only some optimizers or schedules use; setting one for another is an error
USED_BY: dict[Keys, tuple[str, ...]] = {
    ("optimizer", "momentum"): ("sgd", "rmsprop"),
    ("optimizer", "nesterov"): ("sgd",),
    ("optimizer", "betas"): ("adam", "adamw"),
    ("optimizer", "eps"): ("adam", "adamw", "adagrad", "rmsprop"),
    ("schedule", "step_epochs"): ("step", "exponential"),
    ("schedule", "milestones"): ("step",),
    ("schedule", "gamma"): ("step", "exponential"),
    ("schedule", "final"): ("cosine", "onecycle"),
    ("schedule", "rise"): ("onecycle",),
}


def wrong_names(recipe: Recipe) -> Problems:
    """Models, data sets, regularizers and their options that are not in the registries; imports nothing."""
    yield from _wrong_options(
        "models", recipe.model.name, ("model", "name"), recipe.model.options, ("model", "options")
    )
    yield from _wrong_options("datasets", recipe.data.name, ("data", "name"), recipe.data.options, ("data", "options"))
    for name in recipe.train.track:
        try:
            registry.entry("trackers", name)
        except UsageError as error:
            yield ("train", "track"), str(error)
    for name, options in recipe.regularizers.items():
        keys = ("regularizers", name)
        if name in KEY_OF_REGULARIZER:
            yield keys, f"regularizer {name!r} not found: it is set by recipe.{KEY_OF_REGULARIZER[name]}."
        yield from _wrong_options("regularizers", name, keys, options, keys)
        for option, value in options.items():
            if isinstance(value, int | float) and value < 0:
                message = f"recipe.regularizers.{name}.{option} is {describe(value)}; it takes a number of at least 0."
                yield (*keys, option), message


def wrong_kinds(recipe: Recipe) -> Problems:
    """A model that does not accept what the data set provides, and keys for another kind of data."""
    data = recipe.data
    gives, form = registry.entry("datasets", data.name).gives, data.options.get("form")
    if form is not None and form not in gives:
        message = f"recipe.data.options.form is {describe(form)}. {registry.did_you_mean(str(form), gives)}"
        yield ("data", "options", "form"), message
    try:
        registry.check_pair(recipe.model.name, data.name, data.options)
    except UsageError as error:
        yield ("model", "name"), str(error)
    kind = registry.data_kind(data.name, data.options)
    if kind == "images":
        if data.vectors is not None:
            yield ("data", "vectors"), f"recipe.data.vectors is for words; data set {data.name!r} provides images."
        return
    reason = f"is for images; data set {data.name!r} provides {kind}. Leave it out."
    for key in ("size", "channels", "max_pixels", "classes"):
        if getattr(data, key) != type(data).model_fields[key].default:
            yield ("data", key), f"recipe.data.{key} {reason}"
    for key, value in data.augment:
        if value != type(data.augment).model_fields[key].default:
            yield ("data", "augment", key), f"recipe.data.augment.{key} {reason}"
    if recipe.train.channels_last:
        yield ("train", "channels_last"), f"recipe.train.channels_last {reason}"


def unused_keys(recipe: Recipe, overrides: Iterable[Keys]) -> Problems:
    """Keys set by the caller that the selected optimizer or schedule does not use."""
    for keys in overrides:
        users = USED_BY.get(keys[:2])
        if users is not None and len(keys) > 1 and getattr(recipe, keys[0]).name not in users:
            selected = getattr(recipe, keys[0]).name
            name = ".".join(keys)
            yield keys, f"recipe.{name} does nothing with {keys[0]} {selected!r}; it is for {', '.join(users)}."


def mismatched_loss(recipe: Recipe) -> Problems:
    """A loss that the model's outputs cannot minimize; earlier versions allowed it."""
    if recipe.model.options.get("output") == "rbf" and recipe.loss.name != "cross_entropy":
        reason = "its outputs are negative squared distances, never above 0. Use cross_entropy."
        yield (
            ("loss", "name"),
            f"recipe.loss.name {recipe.loss.name!r} does not fit model option output 'rbf': {reason}",
        )


def conflicts(recipe: Recipe) -> Problems:
    """Values that contradict each other."""
    yield from _data_conflicts(recipe)
    yield from _regularizer_conflicts(recipe)
    yield from _transfer_conflicts(recipe)
    yield from _regression_conflicts(recipe)
    yield from _imbalance_conflicts(recipe)
    optimizer, loss, schedule, train = recipe.optimizer, recipe.loss, recipe.schedule, recipe.train
    if loss.label_smoothing > 0 and loss.name != "cross_entropy":
        yield ("loss", "label_smoothing"), f"recipe.loss.label_smoothing goes with cross_entropy, not with {loss.name}."
    if optimizer.nesterov and (optimizer.name != "sgd" or optimizer.momentum == 0):
        yield ("optimizer", "nesterov"), "recipe.optimizer.nesterov needs the optimizer sgd and a momentum above 0."
    if list(schedule.milestones or ()) != sorted(set(schedule.milestones or ())):
        yield (
            ("schedule", "milestones"),
            f"recipe.schedule.milestones is {list(schedule.milestones or ())}; they must increase.",
        )
    if schedule.warmup_epochs >= train.epochs:
        value = f"recipe.schedule.warmup_epochs is {schedule.warmup_epochs:g}"
        yield ("schedule", "warmup_epochs"), f"{value}; it must be less than train.epochs, {train.epochs}."
    if train.patience is not None and train.select == "last":
        yield ("train", "patience"), "recipe.train.patience needs train.select=best: it stops if no epoch is better."
    if train.accumulate > train.batch_size:
        message = f"recipe.train.accumulate is {train.accumulate}, more than the {train.batch_size} images of a batch."
        yield ("train", "accumulate"), message
    if train.amp == "fp16" and train.device in ("cpu", "mps"):
        yield ("train", "amp"), f"recipe.train.amp fp16 is for CUDA; with the device {train.device} use bf16 or off."


def schedule_conflicts(recipe: Recipe) -> Problems:
    """Warm-ups that only runs of older versions may have."""
    schedule = recipe.schedule
    warmup = f"recipe.schedule.warmup_epochs is {schedule.warmup_epochs:g}"
    if schedule.name == "onecycle" and schedule.warmup_epochs > 0:
        message = f"{warmup}, but onecycle has a warm-up of its own, schedule.rise. Leave it out (--warmup-epochs 0)."
        yield ("schedule", "warmup_epochs"), message
    if schedule.name == "step" and schedule.milestones and schedule.milestones[0] < schedule.warmup_epochs:
        message = f"recipe.schedule.milestones begin at epoch {schedule.milestones[0]:g}, within the warm-up: {warmup}."
        yield ("schedule", "milestones"), message


def _regularizer_conflicts(recipe: Recipe) -> Problems:
    on = {name: options for name, options in recipe.regularizers.items() if registry.is_on(name, options)}
    decay = recipe.optimizer.weight_decay
    if "gaussian_prior" in on and "l2" in on:
        message = "recipe.regularizers.l2 is a Gaussian prior too, as gaussian_prior is. Leave one out."
        yield ("regularizers", "l2"), message
    for name in ("l2", "gaussian_prior"):
        if name in on and decay > 0 and (name == "gaussian_prior" or recipe.optimizer.name != "adamw"):
            both = f"recipe.optimizer.weight_decay is {decay:g} and recipe.regularizers.{name} is on"
            yield ("regularizers", name), f"{both}: weights would decay twice. Leave one out (--weight-decay 0)."
    if on.get("gaussian_prior", {}).get("mean") == "start" and recipe.model.weights is None:
        message = "recipe.regularizers.gaussian_prior.mean is 'start', but there is no --weights to start from."
        yield ("regularizers", "gaussian_prior", "mean"), message
    if "swa" in on and recipe.train.ema > 0:
        message = "recipe.regularizers.swa and recipe.train.ema average the weights twice. Leave one out."
        yield ("regularizers", "swa"), message


def _regression_conflicts(recipe: Recipe) -> Problems:
    name, monitor = recipe.data.name, recipe.train.monitor
    if not registry.entry("datasets", name).numbers:
        return
    if recipe.loss.name != "mse":
        yield (
            ("loss", "name"),
            f"data set {name!r} is a regression: recipe.loss.name is mse, not {recipe.loss.name}.",
        )
    if not monitor.endswith("loss"):
        yield (
            ("train", "monitor"),
            f"data set {name!r} is a regression: recipe.train.monitor is a loss, not {monitor}.",
        )


def _imbalance_conflicts(recipe: Recipe) -> Problems:
    loss = recipe.loss
    for key in ("focal_gamma", "logit_adjustment"):
        if getattr(loss, key) > 0 and loss.name != "cross_entropy":
            yield ("loss", key), f"recipe.loss.{key} goes with cross_entropy, not with {loss.name}."
    corrections: dict[Keys, bool] = {
        ("loss", "class_weights"): loss.class_weights is not None,
        ("loss", "logit_adjustment"): loss.logit_adjustment > 0,
        ("data", "sampler"): recipe.data.sampler == "balanced",
    }
    on = [keys for keys, is_on in corrections.items() if is_on]
    if len(on) > 1:
        names = " and ".join(f"recipe.{'.'.join(keys)}" for keys in on)
        yield on[-1], f"{names} each correct the frequencies of the classes: together they correct twice. Keep one."
    if on and registry.entry("datasets", recipe.data.name).numbers:
        yield on[0], f"recipe.{'.'.join(on[0])} is for classes; data set {recipe.data.name!r} is a regression."


def _transfer_conflicts(recipe: Recipe) -> Problems:
    model, train = recipe.model, recipe.train
    kind, _, tag = (model.weights or "").partition(":")
    if kind == "imagenet" and registry.is_model(model.name) and not model.name.startswith("timm/"):
        try:
            imagenet.find(model.name, tag or None)
        except UsageError as error:
            yield ("model", "weights"), str(error)
    for keys, value in ((("model", "init_layers"), model.init_layers), (("train", "freeze"), train.freeze)):
        if value is not None and model.weights is None:
            name = f"recipe.{'.'.join(keys)}"
            yield (
                keys,
                f"{name} is {describe(value)}, but there are no weights to start from. Set --weights.",
            )
    if train.unfreeze is not None and train.freeze is None:
        yield ("train", "unfreeze"), "recipe.train.unfreeze has no effect without train.freeze. Set it too (--freeze)."


def _data_conflicts(recipe: Recipe) -> Problems:
    data, augment, monitor = recipe.data, recipe.data.augment, recipe.train.monitor
    if data.name in USER_DATASETS and data.dir is None:
        message = f"the data set {data.name!r} needs {USER_DATASETS[data.name]}: give --data-dir (recipe.data.dir)."
        yield ("data", "name"), message
    if data.validation == 0 and monitor.startswith("val/"):
        message = f"recipe.data.validation is 0, so there is no {monitor}. Set train.monitor=train/loss or a fraction."
        yield ("data", "validation"), message
    if augment.scale[0] > augment.scale[1]:
        message = f"recipe.data.augment.scale is {describe(augment.scale)}; the minimum comes first."
        yield ("data", "augment", "scale"), message
    area = augment.resized_crop
    if area is not None and not area[0] <= area[1] <= 1:
        message = f"recipe.data.augment.resized_crop is {describe(area)}; it takes a minimum and maximum, at most 1."
        yield ("data", "augment", "resized_crop"), message


def _wrong_options(kind: str, name: str, name_keys: Keys, options: Mapping[str, Any], option_keys: Keys) -> Problems:
    try:
        defaults = registry.entry(kind, name).options
    except UsageError as error:
        yield name_keys, str(error)
        return
    for option, value in options.items():
        keys = (*option_keys, option)
        try:
            registry.check_options(kind, name, {option: value})
        except UsageError as error:
            yield keys, str(error)
            return
        allowed = _allowed_type(value, defaults[option])
        if allowed:
            yield keys, f"recipe.{'.'.join(keys)} is {describe(value)}; it takes {allowed}."


def _allowed_type(value: Any, default: Any) -> str | None:
    """The type of an option, if `value` is not of its default's type.

    A default of None accepts anything, and text accepts an integer too: hidden=512 as well as hidden=512,256.
    """
    if default is None or (isinstance(value, bool) and isinstance(default, bool)):
        return None
    kinds = {float: (int, float), str: (int, str)}.get(type(default), (type(default),))
    if isinstance(value, kinds) and not isinstance(value, bool):
        return None
    return f"{TYPES.get(type(default), type(default).__name__)}, such as {describe(default)}"
