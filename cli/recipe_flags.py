"""The flags that put a recipe together, declared once for the commands that train: train, ablate, sweep."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlkit.errors import UsageError

from . import console

if TYPE_CHECKING:
    from dlkit.config.resolve import Setting
    from dlkit.config.schema import Recipe

# flag → recipe key; the values of the second table are text as they stand, those of the first are read as YAML
FLAGS = {
    "epochs": "train.epochs", "batch_size": "train.batch_size", "lr": "optimizer.lr", "momentum": "optimizer.momentum",
    "weight_decay": "optimizer.weight_decay", "label_smoothing": "loss.label_smoothing", "clip_grad": "train.clip_grad",
    "warmup_epochs": "schedule.warmup_epochs", "model_ema": "train.ema", "compile": "train.compile",
    "channels_last": "train.channels_last", "workers": "data.workers", "seed": "train.seed",
    "loader_timeout": "data.loader_timeout",
    "patience": "train.patience", "accumulate": "train.accumulate", "validation": "data.validation",
    "dropout": "model.options.dropout", "mixup": "regularizers.mixup.alpha", "cutmix": "regularizers.cutmix.alpha",
    "layer_decay": "optimizer.layer_decay", "focal_gamma": "loss.focal_gamma",
    "logit_adjustment": "loss.logit_adjustment", "img_size": "data.size", "test_split": "data.options.test",
}  # fmt: skip
TEXT_FLAGS = {
    "model": "model.name", "dataset": "data.name", "data_dir": "data.dir", "weights": "model.weights",
    "init_layers": "model.init_layers", "freeze": "train.freeze",
    "opt": "optimizer.name", "sched": "schedule.name", "amp": "train.amp", "device": "train.device",
    "monitor": "train.monitor", "aa": "data.augment.policy", "on_bad_image": "data.on_bad_image",
    "text_column": "data.options.text_column", "path_column": "data.options.path_column",
    "label_column": "data.options.label_column", "class_weights": "loss.class_weights", "classes": "data.classes",
}  # fmt: skip


def takes_recipe(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags below; they are in its context, from which `given_settings` reads them.

    What a recipe starts from stands before the command's own flags, what changes it after them.
    """
    own = inspect.signature(command, eval_str=True).parameters
    context, *others = own.values()
    first, second = (inspect.signature(part, eval_str=True).parameters.values() for part in (_starts, _changes))

    @wraps(command)
    def with_flags(**given: Any) -> None:
        command(**{name: given[name] for name in own})

    with_flags.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (context, *first, *others, *second)]
    )
    return with_flags


def resolved(context: typer.Context) -> Recipe:
    """The recipe that the command line asks for; where it came from is said."""
    from dlkit.config.resolve import names_photos, resolve

    settings, recipe = given_settings(context), context.params["recipe"]
    settings = settings if recipe is not None else _with_data_dir(settings)
    if recipe is None and names_photos(settings):
        from dlkit.training.photo_recipe import resolve_for_photos

        found = resolve_for_photos(settings, console.say)
    else:
        found = resolve(recipe=recipe, settings=settings)
    for note in (f"recipe: {found.source}", *found.notes):
        console.note(note)
    return found.recipe


def given_settings(context: typer.Context) -> list[Setting]:
    """What the command line sets in the recipe, with the words it was set with: --set first, so that flags win."""
    from dlkit.config.resolve import Setting, parse_setting
    from dlkit.config.yaml_file import parse_value

    _place_names(context.params)
    settings = [parse_setting(text) for text in context.params.get("set_") or ()]
    for flag, key in (FLAGS | TEXT_FLAGS).items():
        value = context.params.get(flag)
        if value is None:
            continue
        origin = "" if flag in ("model", "dataset") else f"{spelled(flag)} {value}"
        if flag in FLAGS and isinstance(value, str):
            value = parse_value(value, spelled(flag))
        if flag == "freeze" and value.isdecimal():
            value = int(value)
        settings.append(Setting(key, value, origin))
    return settings + _pretrained(context.params) + _trackers(context)


def _place_names(given: dict[str, Any]) -> None:
    """MODEL and DATA, in either order and each alone, where the recipe's keys expect them.

    Raises:
        UsageError: a word alone that names neither, or two data sets.
    """
    from dlkit import registry
    from dlkit.config.data_location import is_dataset

    model, data, dataset = given.get("model"), given.get("data"), given.get("dataset")
    if model is not None and not registry.is_model(model):
        if is_dataset(model) and (data is None or registry.is_model(data)):
            model, data = data, model
        elif data is None and dataset is None and given.get("data_dir") is None and given.get("recipe") is None:
            raise UsageError(f"{model!r} is neither a model nor data that lies here. {_nearest_start(model)}")
    if data is not None and dataset not in (None, data):
        raise UsageError(f"{data} and --dataset {dataset} are two data sets. Give one.")
    given["model"], given["dataset"] = model, dataset if data is None else data


def _nearest_start(word: str) -> str:
    """The model, data set or folder that a word alone may have meant."""
    from dlkit import registry

    folders = [entry.name for entry in Path().iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    begun = [name for name in registry.entries("models") if name.startswith(word)]
    hint = registry.did_you_mean(word, [*folders, *begun, *registry.names("models"), *registry.entries("datasets")])
    return hint if hint.startswith("Did") else "Give the path of a folder of photos, or see `dlkit models list`."


def _with_data_dir(settings: list[Setting]) -> list[Setting]:
    """The settings with --data-dir as the data set if they name none."""
    from dlkit.config.resolve import Setting

    places = [setting for setting in settings if setting.key == "data.dir"]
    if not places or any(setting.key == "data.name" for setting in settings):
        return settings
    others = [setting for setting in settings if setting.key != "data.dir"]
    return [*others, Setting("data.name", places[-1].value, places[-1].origin)]


def _pretrained(given: dict[str, Any]) -> list[Setting]:
    """What --pretrained and --no-pretrained set."""
    from dlkit.config.resolve import Setting

    pretrained = given.get("pretrained")
    if pretrained is None:
        return []
    flag = "--pretrained" if pretrained else "--no-pretrained"
    if given.get("weights") is not None:
        raise UsageError(f"{flag} and --weights {given['weights']} are the same setting. Give one.")
    return [Setting("model.weights", "imagenet" if pretrained else "none", flag)]


def _trackers(context: typer.Context) -> list[Setting]:
    """What --track and --tensorboard name, together."""
    from dlkit.config.resolve import Setting

    names = split_names(context.params.get("track"))
    shortcut = ["tensorboard"] if context.params.get("tensorboard") else []
    origin = " ".join([f"--track {','.join(names)}"] * bool(names) + ["--tensorboard"] * bool(shortcut))
    return [Setting("train.track", list(dict.fromkeys(names + shortcut)), origin)] if origin else []


def split_names(values: Iterable[str] | None) -> list[str]:
    """The names in the values of an option that may repeat and takes commas: ["a,b", "c"] → ["a", "b", "c"]."""
    return list(dict.fromkeys(name.strip() for value in values or () for name in value.split(",") if name.strip()))


def spelled(parameter: str) -> str:
    """--batch-size, for batch_size."""
    return "--" + parameter.replace("_", "-")


def _starts(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="What to train (`dlkit models list`); may be left out for photos."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Argument(metavar="DATA", help="A folder of photos, another path, or a data set.", show_default=False),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME|PATH", help="Data: a name of `dlkit dataset list`, or a folder, table or shards."),
    ] = None,
    data_dir: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Where your own data lies, for --dataset folder and the like, or lies now."),
    ] = None,
    text_column: Annotated[str | None, typer.Option(metavar="NAME", help="Of --dataset text_csv: its texts.")] = None,
    path_column: Annotated[str | None, typer.Option(metavar="NAME", help="Of --dataset csv: its paths.")] = None,
    label_column: Annotated[str | None, typer.Option(metavar="NAME", help="Of a table or hf: its labels.")] = None,
    recipe: Annotated[str | None, typer.Option(metavar="FILE|NAME", help="A recipe; see `dlkit recipes list`.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any key of the recipe: optimizer.eps=1e-7. May repeat."),
    ] = None,
) -> None: ...


def _changes(
    epochs: Annotated[str | None, typer.Option(metavar="N", help="Times through the training data.")] = None,
    batch_size: Annotated[
        str | None, typer.Option("--batch-size", "-b", metavar="N", help="Images a step; train and lr-find take auto.")
    ] = None,
    lr: Annotated[str | None, typer.Option(metavar="X", help="Learning rate.")] = None,
    opt: Annotated[str | None, typer.Option(metavar="NAME", help="sgd, adam, adamw, adagrad or rmsprop.")] = None,
    sched: Annotated[
        str | None, typer.Option(metavar="NAME", help="Schedule: constant, step, cosine, onecycle or exponential.")
    ] = None,
    weight_decay: Annotated[
        str | None,
        typer.Option("--weight-decay", "--wd", metavar="X", help="Decay of the weights, not of biases and norms."),
    ] = None,
    momentum: Annotated[str | None, typer.Option(metavar="X", help="For sgd and rmsprop.")] = None,
    label_smoothing: Annotated[
        str | None, typer.Option(metavar="X", help="Share of the target spread over all classes.")
    ] = None,
    class_weights: Annotated[
        str | None,
        typer.Option(metavar="KIND|FILE", help="Weights in the loss: balanced, sqrt, effective or a file."),
    ] = None,
    focal_gamma: Annotated[str | None, typer.Option(metavar="X", help="Focal loss with this exponent: 2.")] = None,
    logit_adjustment: Annotated[
        str | None, typer.Option(metavar="X", help="Correct the loss for the frequencies of the classes: 1.")
    ] = None,
    mixup: Annotated[
        str | None, typer.Option(metavar="ALPHA", help="Blend pairs of images: 0.2; see `dlkit recipes regularizers`.")
    ] = None,
    cutmix: Annotated[str | None, typer.Option(metavar="ALPHA", help="Paste boxes between images: 1.0.")] = None,
    clip_grad: Annotated[str | None, typer.Option(metavar="X", help="Greatest norm of the gradient.")] = None,
    warmup_epochs: Annotated[
        str | None, typer.Option(metavar="N", help="Epochs in which the learning rate rises.")
    ] = None,
    model_ema: Annotated[str | None, typer.Option(metavar="DECAY", help="Average the weights: 0.999.")] = None,
    amp: Annotated[str | None, typer.Option(metavar="MODE", help="Mixed precision: off, auto, bf16 or fp16.")] = None,
    compile: Annotated[bool | None, typer.Option("--compile", help="Compile the model with torch.compile.")] = None,
    channels_last: Annotated[
        bool | None,
        typer.Option("--channels-last/--no-channels-last", help="Memory layout; chosen for you where not given."),
    ] = None,
    workers: Annotated[
        str | None, typer.Option("--workers", "-j", metavar="N", help="Processes that decode a folder's images.")
    ] = None,
    loader_timeout: Annotated[
        str | None, typer.Option(metavar="SECONDS", help="That those may stand still before they count as hung.")
    ] = None,
    seed: Annotated[str | None, typer.Option(metavar="N", help="Of all randomness.")] = None,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.")] = None,
    patience: Annotated[
        str | None, typer.Option(metavar="N", help="Stop after N epochs without a better --monitor.")
    ] = None,
    monitor: Annotated[
        str | None, typer.Option(metavar="METRIC", help="val/loss, val/top1, val/macro_f1, val/balanced_accuracy, …")
    ] = None,
    aa: Annotated[
        str | None, typer.Option(metavar="POLICY", help="Automatic augmentation: none, trivial or rand.")
    ] = None,
    accumulate: Annotated[
        str | None,
        typer.Option(metavar="N", help="Compute a batch in N parts to save memory; batch norm then sees only parts."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="imagenet|RUN|FILE|none", help="Weights to start from: transfer learning.")
    ] = None,
    init_layers: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="Of --weights, these parameters alone: 'features.*,conv1'."),
    ] = None,
    freeze: Annotated[
        str | None,
        typer.Option(metavar="PATTERN|N", help="Do not train these parameters, or the first N layers; with --weights."),
    ] = None,
    layer_decay: Annotated[
        str | None, typer.Option(metavar="X", help="Each layer learns at X times the lr of the one after it: 0.75.")
    ] = None,
    validation: Annotated[str | None, typer.Option(metavar="X", help="Share of train kept for validation.")] = None,
    on_bad_image: Annotated[
        str | None, typer.Option(metavar="WHAT", help="error, or skip: leave out up to 1 % of files that are damaged.")
    ] = None,
    img_size: Annotated[
        str | None, typer.Option(metavar="N", help="Pixels a side of the images that the network sees.")
    ] = None,
    test_split: Annotated[
        str | None, typer.Option(metavar="X", help="Share of your own data kept for eval, if it has no test split.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="Train on these classes of the images alone.")
    ] = None,
    pretrained: Annotated[
        bool | None,
        typer.Option("--pretrained/--no-pretrained", help="Start from ImageNet's weights, or from scratch."),
    ] = None,
    dropout: Annotated[str | None, typer.Option(metavar="P", help="The model's dropout, where it has one.")] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,…", help="Show the figures in tensorboard, mlflow or wandb too. May repeat."),
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Same as --track tensorboard.")] = False,
) -> None: ...
