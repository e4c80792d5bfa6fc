"""The recipe for a person's own photos: network, image size, splits, epochs and batch size that suit them.

Only what neither the command line nor a recipe file sets is chosen. The rest comes from two shipped recipes:
resnet18-folder starts from ImageNet's weights, resnet8-folder from scratch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median_low
from typing import Any

from dlkit import imagenet
from dlkit.config import yaml_file
from dlkit.config.keys import merge
from dlkit.config.resolve import Resolved, Setting, model_in, resolve
from dlkit.config.schema import NO_WEIGHTS, Data
from dlkit.config.yaml_file import Document
from dlkit.data import library
from dlkit.data.download.http import RetryPolicy
from dlkit.data.images.decode import image_size
from dlkit.data.splits import ImageFiles
from dlkit.errors import StorageError, VerificationError
from dlkit.training.weights import IMAGENET, Say, is_imagenet, published

FROM_WEIGHTS, FROM_SCRATCH = ("resnet18", "resnet18-folder"), ("resnet8", "resnet8-folder")  # model, shipped recipe
SIZES_FROM_IMAGENET, SIZES = (128, 160, 192, 224), (32, 48, 64, 96, 128)  # pixels
HELD_OUT = 0.15  # of the photos, for validation and again for test
IMAGES = 30_000  # to train on, over all epochs, as far as their limits allow
EPOCHS = (10, 60)
BATCHES = ((1_000, 16), (10_000, 32))  # photos below which a batch has so many; else the recipe's
RANKS_EPOCHS = 100  # photos of a validation split; fewer tell good epochs from lucky ones too rarely
MAX_COMPARED = 5_000  # photos; looking for near duplicates among more takes minutes
ABSENT = ("", None, NO_WEIGHTS)  # of model.weights: not set, or set to none
MEASURED = 64  # photos whose header is read
QUICK = RetryPolicy(timeout_s=10.0, backoff_s=())  # training goes on without the weights


@dataclass(frozen=True)
class PhotoSurvey:
    """What the choice depends on."""

    photos: int  # for training and the splits that are cut from it
    validation: int  # in a split of the data's own, or of these
    side: int  # median of the shorter sides, pixels
    has_validation: bool
    has_test: bool


def resolve_for_photos(settings: Sequence[Setting], say: Say) -> Resolved:
    """The recipe of these settings over the values chosen for the photos that they name.

    Raises:
        UsageError, DataError: what `resolve` and the data set raise.
    """
    model = model_in(settings)
    given = next((setting.value for setting in reversed(settings) if setting.key == "model.weights"), "")
    draft = resolve(settings=settings, base=_shipped(FROM_SCRATCH if given in ABSENT else FROM_WEIGHTS, model))
    survey = survey_photos(draft.recipe.data, say)
    weights = draft.recipe.model.weights if given != "" else _published_weights(model or FROM_WEIGHTS[0], say)
    shipped = _shipped(FROM_SCRATCH if weights is None else FROM_WEIGHTS, model)
    chosen = {
        "model": {"weights": weights}, "train": _train(survey), "data": _data(survey, draft.recipe.data, weights, say)
    }  # fmt: skip
    result = resolve(settings=settings, base=replace(shipped, values=merge(shipped.values, chosen)))
    return replace(result, source=_summary(survey, result))


def survey_photos(data: Data, say: Say) -> PhotoSurvey:
    """Lists the photos and reads the headers of some; raises what the data set raises."""
    options = {key: value for key, value in data.options.items() if key not in ("test", "group")}
    splits = library.splits(data.model_copy(update={"options": options}), log=say)
    assert isinstance(splits.train, ImageFiles)
    paths = splits.train.paths
    sizes = (image_size(path, data.max_pixels) for path in paths[:: max(1, len(paths) // MEASURED)])
    sides = [min(size) for size in sizes if size is not None]
    side = median_low(sides) if sides else SIZES[-1]
    validation = round(HELD_OUT * len(paths)) if splits.validation is None else len(splits.validation)
    return PhotoSurvey(len(paths), validation, side, splits.validation is not None, splits.test is not None)


def _published_weights(model: str, say: Say) -> str | None:
    """ImageNet's weights if the model has some and they are at hand."""
    if not imagenet.has_weights(model):
        return None
    try:
        published(imagenet.find(model)[0], say, QUICK)
        return IMAGENET
    except (StorageError, VerificationError) as error:
        say(f"training from scratch: the pretrained weights of {model} cannot be fetched: {error}")
        return None


def _shipped(recipe: tuple[str, str], model: str | None) -> Document:
    """A shipped recipe; for another model than its own without what it sets of the model."""
    own, name = recipe
    path = yaml_file.shipped_path(name)
    assert path is not None
    document = yaml_file.read_document(path)
    return document if model in (None, own) else replace(document, values=document.values | {"model": {"name": model}})


def _data(survey: PhotoSurvey, data: Data, weights: str | None, say: Say) -> dict[str, Any]:
    """The size of the images, and the splits that are cut: near duplicates stay on one side."""
    sizes = SIZES_FROM_IMAGENET if is_imagenet(weights) else SIZES
    chosen: dict[str, Any] = {"validation": HELD_OUT}
    if "size" not in data.options:
        chosen["size"] = max((size for size in sizes if size <= survey.side), default=sizes[0])
    if weights is None:
        chosen["augment"] = {"crop_padding": (data.size or chosen.get("size", SIZES[0])) // 8}
    options: dict[str, Any] = {} if survey.has_test else {"test": HELD_OUT}
    cuts = not (survey.has_test and survey.has_validation)
    if cuts and not {"group", "group_column"} & data.options.keys():
        if survey.photos <= MAX_COMPARED:
            options["group"] = "near"
        else:
            say(
                f"near duplicates may be in two splits: they are kept together in up to {MAX_COMPARED:,} photos, or "
                "by --set data.options.group=near"
            )
    return {**chosen, "options": options}


def _train(survey: PhotoSurvey) -> dict[str, Any]:
    epochs = min(max(round(IMAGES / survey.photos), EPOCHS[0]), EPOCHS[1])
    batches = [size for limit, size in BATCHES if survey.photos < limit]
    select = "last" if survey.validation < RANKS_EPOCHS else "best"
    return {"epochs": epochs, "select": select, **({"batch_size": batches[0]} if batches else {})}


def _summary(survey: PhotoSurvey, result: Resolved) -> str:
    recipe = result.recipe
    start = "from scratch" if recipe.model.weights is None else f"from {recipe.model.weights} weights"
    seen = f"at {recipe.data.size} px, {recipe.train.epochs} epochs"
    return f"for {survey.photos:,} photos ({survey.side} px): {recipe.model.name} {start} {seen}"
