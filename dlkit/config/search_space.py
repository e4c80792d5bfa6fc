"""The space that a sweep searches: which keys of a recipe vary, and over what. No torch, and no Optuna.

    optimizer.lr=log:1e-4..1e-1     a range, even in its logarithm
    model.options.dropout=0..0.5    a range; of whole numbers where both ends are such and the key takes no fraction
    optimizer.name=sgd,adam         a choice; its values are YAML, as after --set: [0.9,0.99],[0.9,0.999]

A key that only some choices use varies with them alone: optimizer.momentum beside optimizer.name=sgd,adam.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Any

from dlkit.config import yaml_file
from dlkit.config.checks import USED_BY
from dlkit.config.resolve import Setting, with_settings
from dlkit.config.schema import Recipe
from dlkit.config.yaml_file import describe
from dlkit.errors import UsageError
from dlkit.registry import did_you_mean

MOST_CORNERS = 256  # combinations of ends that are tried before anything is trained
NUMBER = r"[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?"
RANGE = re.compile(rf"(log:)?({NUMBER}?)\.\.({NUMBER})")
FORMS = "KEY=LOW..HIGH, KEY=log:LOW..HIGH or KEY=A,B,C"
SAME_IMAGES = "trials are compared on the same validation samples, which it would change"
NEVER_VARIED = {
    "train.monitor": "it is what trials are compared by",
    **dict.fromkeys(("train.track", "data.workers"), "it changes nothing in a training"),
    **dict.fromkeys(("train.seed", "data.name", "data.dir", "data.validation", "data.on_bad_image"), SAME_IMAGES),
}
MOST_COMBINATIONS = 10_000  # that are listed; a larger space counts as one without end

Values = Mapping[str, Any]  # dotted key → value


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both among them."""

    key: str
    text: str  # as it was written
    low: float
    high: float
    log: bool
    whole: bool

    @property
    def ends(self) -> tuple[Any, ...]:
        return (self.low, self.high)

    @property
    def kind(self) -> str:
        return ("log " if self.log else "") + ("whole numbers" if self.whole else "numbers")


@dataclass(frozen=True)
class Choice:
    """One of a few values, each known by its name."""

    key: str
    text: str
    values: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        return self.values

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(value if isinstance(value, str) else describe(value) for value in self.values)

    @property
    def kind(self) -> str:
        return "choice"

    def name_of(self, value: Any) -> str:
        return self.names[self.values.index(value)]

    def named(self, name: str) -> Any:
        return self.values[self.names.index(name)]


Parameter = Range | Choice


def space(recipe: Recipe, texts: Sequence[str]) -> tuple[Parameter, ...]:
    """The parameters that these words describe, a choice of names before the keys that hang on it.

    All their ends are tried on the recipe, in combination.

    Raises:
        UsageError: there is none, or one that the recipe does not take; the message says what would do.
    """
    if not texts:
        raise UsageError(f"what is to be varied? --param says it: {FORMS}.")
    found = sorted(map(_parsed, texts), key=lambda parameter: not parameter.key.endswith(".name"))
    for place, parameter in enumerate(found):
        if parameter.key in (other.key for other in found[:place]):
            raise UsageError(f"--param names {parameter.key} twice. Once is enough.")
    _refuse_never_used(recipe, found)
    _refuse_another_question(recipe, found)
    for values in corners(found):
        with_settings(recipe, settings(found, values))
    return tuple(_settled(recipe, parameter, found) for parameter in found)


def active(parameter: Parameter, values: Values) -> bool:
    """Whether a parameter does anything beside these values of those before it."""
    section = parameter.key.partition(".")[0]
    users = USED_BY.get(tuple(parameter.key.split("."))[:2])
    return users is None or values.get(f"{section}.name", users[0]) in users


def corners(parameters: Sequence[Parameter]) -> Iterator[Values]:
    """The combinations of the parameters' ends, as many as can be tried."""
    for ends in islice(product(*(parameter.ends for parameter in parameters)), MOST_CORNERS):
        values: dict[str, Any] = {}
        for parameter, end in zip(parameters, ends, strict=True):
            if active(parameter, values):
                values[parameter.key] = end
        yield values


def settings(parameters: Sequence[Parameter], values: Values) -> list[Setting]:
    """The values with the words that they came from, for what a message may say."""
    return [Setting(found.key, values[found.key], _origin(found)) for found in parameters if found.key in values]


def named(parameter: Parameter, values: Values) -> Any:
    """A parameter's value, of a choice its name; none where it was not varied."""
    value = values.get(parameter.key)
    return parameter.name_of(value) if isinstance(parameter, Choice) and parameter.key in values else value


def combinations(parameters: Sequence[Parameter]) -> list[Values] | None:
    """Every combination of choices and whole numbers; None if there is no end to them, or too many to list."""
    found: list[Values] = [{}]
    for parameter in parameters:
        if isinstance(parameter, Range) and not parameter.whole:
            return None
        values = parameter.ends if isinstance(parameter, Choice) else range(int(parameter.low), int(parameter.high) + 1)
        if len(found) * len(values) > 100 * MOST_COMBINATIONS:
            return None
        found = [
            {**partial, parameter.key: value} if active(parameter, partial) else partial
            for partial in found
            for value in (values if active(parameter, partial) else values[:1])
        ]
    return found if len(found) <= MOST_COMBINATIONS else None


def guess(recipe: Recipe, parameters: Sequence[Parameter], text: str) -> Values:
    """The values that `--enqueue KEY=VALUE,…` names; a parameter that it leaves out has the recipe's own value.

    Raises:
        UsageError: a key that does not vary, or a value that is not in the space.
    """
    origin, given = f"--enqueue {text}", dict[str, Any]()
    for part in re.split(r",(?=[\w.]+=)", text):
        key, equals, words = part.partition("=")
        if not equals or key not in (parameter.key for parameter in parameters):
            raise UsageError(
                f"{origin}: {describe(key)} does not vary. {did_you_mean(key, [p.key for p in parameters])}"
            )
        given[key] = yaml_file.parse_value(words, origin)
    own = {parameter.key: value_in(recipe, parameter.key) for parameter in parameters}
    values = within(parameters, {**own, **given}, origin)
    unused = [key for key in given if key not in values]
    if unused:
        raise UsageError(f"{origin}: {unused[0]} does nothing beside the other values. Leave it out.")
    with_settings(recipe, settings(parameters, values))
    return values


def within(parameters: Sequence[Parameter], values: Values, origin: str) -> Values:
    """These values, as the space has them, of the parameters that do something beside the others.

    Raises:
        UsageError: a value is not in the space; `origin` says where it comes from.
    """
    found: dict[str, Any] = {}
    for parameter in parameters:
        if active(parameter, found):
            found[parameter.key] = _member(parameter, values.get(parameter.key), origin)
    return found


def _member(parameter: Parameter, value: Any, origin: str) -> Any:
    if isinstance(parameter, Choice):
        same = [known for known in parameter.values if json.dumps(known) == json.dumps(value)]  # (1, 2) is [1, 2]
        if same:
            return same[0]
    elif isinstance(value, int | float) and not isinstance(value, bool) and parameter.low <= value <= parameter.high:
        if not parameter.whole:
            return float(value)
        if value == int(value):
            return int(value)
    raise UsageError(f"{origin}: {parameter.key} {describe(value)} is not in {parameter.text}. Name one that is.")


def value_in(recipe: Recipe, key: str) -> Any:
    """The recipe's value at a dotted key; none where it has no such option."""
    value: Any = recipe.model_dump()
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _parsed(text: str) -> Parameter:
    key, equals, words = text.partition("=")
    if not equals or not words or not all(part.isidentifier() for part in key.split(".")):
        raise UsageError(f"--param takes {FORMS}, and not {describe(text)}.")
    if key in NEVER_VARIED:
        raise UsageError(f"--param {key} cannot vary: {NEVER_VARIED[key]}.")
    matched = RANGE.fullmatch(words)
    return _range(key, words, *matched.groups()) if matched else _choice(key, words)


def _range(key: str, text: str, log: str | None, *ends: str) -> Range:
    origin = f"--param {key}={text}"
    low, high = (yaml_file.parse_value(end, origin) for end in ends)
    if not all(isinstance(end, int | float) and math.isfinite(end) for end in (low, high)):
        raise UsageError(f"{origin}: a range has a number at either end, such as 1e-4..1e-1.")
    if low >= high:
        raise UsageError(f"{origin}: the least comes first, and the greatest is more.")
    if log and low <= 0:
        raise UsageError(f"{origin}: in the logarithm both ends are above 0.")
    whole = isinstance(low, int) and isinstance(high, int)
    low, high = (low, high) if whole else (float(low), float(high))
    return Range(key, text, low, high, bool(log), whole)


def _choice(key: str, text: str) -> Choice:
    values = yaml_file.parse_value(f"[{text}]", f"--param {key}={text}")
    found = Choice(key, text, tuple(values))
    if text.startswith("log:") or len(found.values) < 2:
        raise UsageError(f"--param {key}={text} leaves no choice. It takes {FORMS}; --set {key}=… fixes a value.")
    if len(set(found.names)) < len(found.names):
        raise UsageError(f"--param {key}={text} names a value twice.")
    return found


def _refuse_never_used(recipe: Recipe, found: Sequence[Parameter]) -> None:
    used = {key for values in corners(found) for key in values}
    for parameter in found:
        if parameter.key not in used:
            section = parameter.key.partition(".")[0]
            message = f"recipe.{parameter.key} does nothing with any {section}.name that is varied"
            users = ", ".join(USED_BY[(section, parameter.key.split(".")[1])])
            raise UsageError(f"{message}; it is for {users}. ({_origin(parameter)})")


def _refuse_another_question(recipe: Recipe, found: Sequence[Parameter]) -> None:
    """A loss is not comparable across kinds of loss; in training not across penalties and augmentations either."""
    monitor = recipe.train.monitor
    changing = {"val/loss": ("loss.name",), "train/loss": ("loss.", "regularizers.", "data.augment.")}.get(monitor, ())
    for parameter in found:
        if parameter.key.startswith(changing):
            raise UsageError(
                f"--param {parameter.key} cannot vary beside --monitor {monitor}: it changes what that measures. "
                "Give --monitor val/top1."
            )


def _settled(recipe: Recipe, parameter: Parameter, found: Sequence[Parameter]) -> Parameter:
    """A range between whole numbers, of fractions too where the key takes them: dropout=0..1, but batch_size=16..64."""
    if not isinstance(parameter, Range) or not parameter.whole:
        return parameter
    values = next(values for values in corners(found) if parameter.key in values)
    fraction = parameter.low + (parameter.high - parameter.low) / math.pi
    try:
        with_settings(recipe, settings(found, {**values, parameter.key: fraction}))
    except UsageError:
        return parameter
    return replace(parameter, whole=False, low=float(parameter.low), high=float(parameter.high))


def _origin(parameter: Parameter) -> str:
    return f"--param {parameter.key}={parameter.text}"
