"""A network that begins with the weights of another: what it takes over, and what starts from scratch.

The head is kept where the source knows every class of the data by its name, its rows put into their order; else it
starts from scratch. Pixels are normalised as the weights were trained for; the images' size stays the data's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor, nn

from dlkit import imagenet, registry
from dlkit.errors import ModelFileError, UsageError
from dlkit.layers.order import head, matching
from dlkit.specs import ImageSpec, Spec, Tokenization
from dlkit.training.key_names import adapt_channels, is_cifar_resnet, renamed
from dlkit.training.mismatch import cause
from dlkit.training.restore import Say
from dlkit.training.state import load_into
from dlkit.training.weights import Weights

FREE = {"init", "dropout", "drop_path", "attention_dropout"}  # options that trained weights do not depend on


@dataclass(frozen=True)
class Start:
    """Weights that were read for a network of the name `model`: those of `init_layers` alone where it is given."""

    model: str
    source: Weights
    tensors: Mapping[str, Tensor]
    init_layers: str | None = None


def check(start: Start, freeze: int | str | None) -> None:
    """What can be told of a start before the data are read.

    Raises:
        ModelFileError: the weights are of another network. UsageError: a pattern fits none of their names.
    """
    source = start.source
    if source.model not in (None, start.model) and start.init_layers is None:
        raise ModelFileError(
            f"{source.name} holds {source.model!r}, not {start.model!r}. Train {source.model}, or name the layers that "
            f"both have: --init-layers PATTERN."
        )
    for flag, patterns in (("--init-layers", start.init_layers), ("--freeze", freeze)):
        if isinstance(patterns, str) and not matching(start.tensors, patterns):
            raise UsageError(f"{flag} {patterns} fits no layer of {source.name}. {_beginnings(start.tensors)}")


def read_alike(spec: Spec, start: Start, say: Say) -> Spec:
    """The data's spec, its samples to be read as those that the weights were trained on.

    Images: the source's mean and standard deviation; the size stays the data's. Words: the source's, for which the rows
    of its embedding stand, unless only some layers are taken.

    Raises:
        ModelFileError: the source saw something else.
    """
    theirs, name = start.source.spec, start.source.name
    if theirs is None:
        return spec
    if isinstance(theirs, ImageSpec) and isinstance(spec, ImageSpec):
        return _normalised_alike(spec, theirs, name, say)
    if theirs.kind != spec.kind or isinstance(theirs, ImageSpec) or isinstance(spec, ImageSpec):
        raise ModelFileError(f"{name} was trained on {theirs.kind}, the data are {spec.kind}.")
    if start.init_layers is not None or theirs.words == spec.words:
        return spec
    if theirs.tokens != spec.tokens and "space" not in (theirs.tokens, spec.tokens):
        rules = asdict(Tokenization.parse(theirs.tokens)).items()
        settings = " ".join(f"--set data.options.{key}={str(value).lower()}" for key, value in rules)
        raise ModelFileError(
            f"{name} cuts text by the tokenization {theirs.tokens!r}, this run by {spec.tokens!r}: it would not "
            f"know the words. Add {settings}."
        )
    say(f"words: the {len(theirs.words):,} that {name} knows, in place of the data's {len(spec.words):,}")
    known: dict[str, Any] = {name: getattr(theirs, name) for name in ("words", "vocabulary", "tokens")}
    return replace(spec, **known)


def _normalised_alike(spec: ImageSpec, theirs: ImageSpec, name: str, say: Say) -> ImageSpec:
    mean, std = (_over_channels(values, spec.channels) for values in (theirs.mean, theirs.std))
    size, seen = f"{spec.height}×{spec.width}", f"{theirs.height}×{theirs.width}"
    if size != seen:
        say(f"images stay {size}; {name} saw {seen}")
    if (mean, std) != (spec.mean, spec.std):
        say(f"pixels are normalised as for {name}: mean {_numbers(mean)}, std {_numbers(std)}")
    return replace(spec, mean=mean, std=std, interpolation=theirs.interpolation)


def _over_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """A number for each channel: as they are, repeated, or their mean."""
    return values if len(values) == channels else (sum(values) / len(values),) * channels


def inherit(model: nn.Module, start: Start, spec: Spec, options: Mapping[str, Any], say: Say) -> list[str]:
    """Copy a start's weights into a network fresh from its seed; returns the parameters that start from scratch.

    Raises:
        ModelFileError: the weights do not fit; with counts and the first five of each kind.
    """
    own, given = model.state_dict(), fitted(start.tensors, start.source, model, say)
    if start.init_layers is not None:
        names = set(matching(given, start.init_layers))
        given = {name: tensor for name, tensor in given.items() if name in names}
    taken = _with_head(model, given, start, spec, say)
    kept_out = [name for name in own if name not in given]
    if start.init_layers is None:  # a file may hold all but the head
        kept_out = [name for name in kept_out if name.rpartition(".")[0] == head(model, spec.outputs)]
    fresh = {name: own[name] for name in [*kept_out, *(name for name in given if name not in taken)] if name in own}
    try:
        load_into(model, {**fresh, **taken}, start.source.name)
    except ModelFileError as error:
        reason = _hint(start, options) or cause(model, {**fresh, **taken}, spec, options)
        raise ModelFileError(f"{error}{reason}") from None
    scratch = [name for name, _ in model.named_parameters() if name in fresh]
    if others := _other_options(start, options):
        told = ", ".join(f"{key}={value}" for key, value in others.items())
        say(f"warning: {start.source.name} was built with {told}; this network is not.")
    if options.get("shortcut") == "padding" and is_cifar_resnet(start.tensors):
        say(
            f"warning: {start.source.name} has the names of networks whose shortcuts pad on both sides; this network's "
            f"do not. --set model.options.shortcut=padding_both builds theirs."
        )
    _tell(model, scratch, start.source.name, say)
    return scratch


def fitted(tensors: Mapping[str, Tensor], source: Weights, model: nn.Module, say: Say) -> dict[str, Tensor]:
    """A source's tensors by this network's names, for its channels and, of a ViT, for its images' size."""
    found = adapt_channels(renamed(tensors, model), model, source.name, say)
    resize: Callable[..., dict[str, Tensor]] | None = getattr(model, "at_this_size", None)
    if resize is None:
        return found
    resized = resize(found, source.spec)
    for name, tensor in resized.items():
        if tensor.shape != found[name].shape:
            say(f"{name} is interpolated from {len(found[name][0])} to {len(tensor[0])} positions")
    return resized


def fill(
    model: nn.Module, tensors: Mapping[str, Tensor], source: Weights, spec: Spec, options: Mapping[str, Any], say: Say
) -> None:
    """Copy weights into a network that is to answer with them: all of them, and for as many classes.

    Raises:
        ModelFileError: they do not fit.
    """
    own = fitted(tensors, source, model, say)
    try:
        load_into(model, own, source.name)
    except ModelFileError as error:
        raise ModelFileError(f"{error}{cause(model, own, spec, options)}") from error


def _with_head(model: nn.Module, given: Mapping[str, Tensor], start: Start, spec: Spec, say: Say) -> dict[str, Tensor]:
    """What is taken over: the head's rows for the data's classes, or all but the head where it knows others."""
    name = head(model, spec.outputs)
    if name is None or f"{name}.weight" not in given:
        if start.init_layers is None and name is not None:
            say(f"new head: {name}, for the {spec.outputs:,} classes of the data; {start.source.name} has none")
        return dict(given)
    rows, count = _rows(start.source, spec, len(given[f"{name}.weight"])), len(given[f"{name}.weight"])
    parts = {key for key in given if key.rpartition(".")[0] == name}
    if rows is None:
        others = f"the {count:,} of {start.source.name} differ"
        say(f"new head: {name}, for the {spec.outputs:,} classes of the data; {others}")
        return {key: tensor for key, tensor in given.items() if key not in parts}
    if start.source.spec is None and rows == list(range(count)):
        say(f"{start.source.name} does not name its {count} classes; taking them for the data's, in their order")
    elif rows != list(range(count)):
        say(f"head: {name} keeps the rows of the data's {len(rows)} classes, by their names")
    return {key: tensor[rows] if key in parts else tensor for key, tensor in given.items()}


def _rows(source: Weights, spec: Spec, count: int) -> list[int] | None:
    """Which row of the source's head each class of the data has, or none where it does not know them all."""
    wanted = spec.classes
    published = source.spec is None and len(wanted) == count and set(wanted) == set(imagenet.classes())
    if source.spec is None and not published:
        return list(range(count)) if count == spec.outputs else None
    theirs = imagenet.classes() if source.spec is None else source.spec.classes  # published in that order by everybody
    if imagenet.same_classes(theirs) and imagenet.same_classes(wanted):
        return list(range(count))
    places = {name: place for place, name in enumerate(theirs)}
    return [places[name] for name in wanted] if wanted and all(name in places for name in wanted) else None


def _hint(start: Start, options: Mapping[str, Any]) -> str:
    """The options that the source was built with, where they may explain that its weights do not fit."""
    others = _other_options(start, options)
    told = " ".join(f"--set model.options.{key}={value}" for key, value in others.items())
    return f" It was built with {told}." if others else ""


def _other_options(start: Start, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that the source's network was built with, where it is the same one with others than these."""
    if start.source.model != start.model:
        return {}
    theirs = registry.resolved_options("models", start.model, start.source.options)
    return {key: value for key, value in theirs.items() if key not in FREE and options.get(key, value) != value}


def _tell(model: nn.Module, scratch: Sequence[str], source: str, say: Say) -> None:
    """from run a: 8 of 10 tensors, 60,000 of 60,850 parameters; from scratch: output."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    new, fresh = sum(sizes[name] for name in scratch), set(scratch)
    modules = list(dict.fromkeys(name.rpartition(".")[0] or name for name in sizes if name in fresh))
    total = sum(sizes.values())
    told = f"{len(sizes) - len(scratch)} of {len(sizes)} tensors, {total - new:,} of {total:,} parameters"
    say(f"from {source}: {told}; from scratch: {_some(modules) or 'nothing'}")


def _beginnings(names: Mapping[str, Any]) -> str:
    """Its names begin with: conv1, bn1, layer1."""
    return f"Its names begin with: {_some(list(dict.fromkeys(name.partition('.')[0] for name in names)))}."


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return ", ".join(names[:12]) + more


def _numbers(values: Sequence[float]) -> str:
    return "/".join(f"{value:.3g}" for value in values)
