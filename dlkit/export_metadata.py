"""What an exported file says of itself, and the seal that says nobody has changed it.

Every format carries the same JSON document under the key `dlkit`. Under `dlkit.digest` stands the SHA-256 of the whole
file, taken while zeros stood in its place: a changed weight, mean or class is found without any other file.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from dlkit.errors import ModelFileError, UsageError, VerificationError
from dlkit.specs import (
    INTERPOLATIONS,
    LINKS,
    MAX_PIXELS,
    PADDING,
    TOKENIZATIONS,
    UNKNOWN,
    ImageSpec,
    Link,
    SequenceSpec,
    Spec,
    TreeSpec,
)
from dlkit.version import __version__

SCHEMA = "dlkit.model-file/1"
KEY, SEAL_KEY = "dlkit", "dlkit.digest"
UNSEALED = "0" * 64
MAX_SIDE = 20_000  # pixels
MOST_PIXELS = 10**9  # that a file may allow an image to have
MAX_CLASSES = 1_000_000
MAX_WORDS = 10_000_000

# prepared: uint8 (N, H, W, C) of the network's size; any_size: the same of any size, resized and cropped in the file;
# normalised: float32 (N, C, H, W), scaled to [0, 1], less the mean, over the standard deviation
# tokens: int64 ids (N, T), padded behind, and int64 lengths (N,); trees: no array, see data.text.tree_batches
Feed = Literal["prepared", "any_size", "normalised", "tokens", "trees"]
FEEDS: Mapping[str, tuple[Feed, ...]] = {  # by the kind of the spec, its own first
    "images": ("prepared", "any_size", "normalised"), "sequences": ("tokens",), "trees": ("trees",),
}  # fmt: skip


@dataclass(frozen=True)
class ExportMetadata:
    """What is needed to use an exported file, and where it comes from."""

    model: str
    spec: Spec
    options: Mapping[str, Any] = field(default_factory=dict)  # of the model, all written out
    training: Mapping[str, Any] = field(default_factory=dict)  # run, checkpoint, step, data set, validation figures
    reading: Mapping[str, Any] = field(default_factory=dict)  # how text becomes words: dlkit.data.text.corpus.rule
    feed: Feed = "prepared"
    output: Literal["probabilities", "logits"] = "probabilities"
    link: Link = "softmax"  # how the outputs become probabilities: dlkit.data.link
    precision: str = "float32"
    opset: int | None = None
    version: str = __version__
    scale: tuple[float, ...] = (1.0,)  # of a calibrated network's outputs, before the link; in a graph already applied
    bias: tuple[float, ...] = (0.0,)

    @property
    def scales(self) -> bool:
        """Whether the network is calibrated."""
        return self.scale != (1.0,) or self.bias != (0.0,)

    def with_(self, **changes: Any) -> ExportMetadata:
        return replace(self, **changes)

    def raw(self) -> ExportMetadata:
        """The same of the bare network: what goes in is what it reads itself, and logits come out."""
        return replace(self, feed=FEEDS[self.spec.kind][-1], output="logits")

    @property
    def outputs(self) -> str | None:
        """The name under which a graph gives the network's outputs: beside probabilities unless softmax made them."""
        return "logits" if self.output == "logits" or self.link != "softmax" else None

    def to_json(self) -> str:
        return json.dumps(self.document(), ensure_ascii=False)

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.model-file/1`."""
        return {
            "schema": SCHEMA,
            "dlkit": self.version,
            "model": self.model,
            "options": dict(self.options),
            "classes": list(self.spec.classes),
            "input": _image_rules(self.spec, self.feed) if isinstance(self.spec, ImageSpec) else self._text_rules(),
            "output": {"name": self.output, "type": "float32", "link": self.link, **self._calibration()},
            "precision": self.precision,
            "opset": self.opset,
            "training": dict(self.training),
        }

    def _calibration(self) -> dict[str, Any]:
        return {"calibration": {"scale": list(self.scale), "bias": list(self.bias)}} if self.scales else {}

    def _text_rules(self) -> dict[str, Any]:
        spec = self.spec
        found: dict[str, Any] = {"name": self.feed, "feed": self.feed}
        found |= {"padding": PADDING, "unknown": UNKNOWN, "first_word": UNKNOWN + 1}
        if isinstance(spec, SequenceSpec):
            found |= {"type": "int64", "layout": "NT", "lengths": "lengths", "longest": spec.longest}
        elif isinstance(spec, TreeSpec):
            found |= {"labels": list(spec.labels)}
        assert not isinstance(spec, ImageSpec)
        words = {"vocabulary": spec.vocabulary, "tokens": spec.tokens, "words": " ".join(spec.words)}
        return found | {"reading": dict(self.reading)} | words

    @classmethod
    def from_json(cls, text: str) -> ExportMetadata:
        """Raises: ModelFileError where the document is not one, or promises what cannot be; a file may be hostile."""
        try:
            document = json.loads(text)
            assert document["schema"] == SCHEMA, f"schema {document['schema']!r}, this dlkit reads {SCHEMA!r}"
            rules, opset = document["input"], document["opset"]
            about = cls(
                model=_text(document["model"]),
                spec=_spec(document["classes"], rules),
                options={_text(key): value for key, value in document["options"].items()},
                training=dict(document["training"]),
                reading=dict(rules.get("reading", {})),
                feed=rules["feed"],
                output=document["output"]["name"],
                link=document["output"].get("link", "softmax"),  # which files without one have
                precision=_text(document["precision"]),
                opset=None if opset is None else int(opset),
                version=_text(document["dlkit"]),
                **_calibration_of(document["output"].get("calibration"), len(document["classes"])),
            )
            assert about.output in ("probabilities", "logits"), f"output {about.output!r}"
            assert about.link in LINKS.values(), f"link {about.link!r}"
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            AssertionError,
            RecursionError,
            OverflowError,
        ) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ModelFileError(f"what it says of itself cannot be used: {reason}") from error
        return about


def _calibration_of(values: Any, classes: int) -> dict[str, tuple[float, ...]]:
    """The scale and bias of the outputs: one number each, or one a class."""
    if values is None:
        return {}
    found = {name: tuple(_number(value) for value in values[name]) for name in ("scale", "bias")}
    assert all(len(numbers) in (1, classes) for numbers in found.values()), "calibration"
    assert all(number != 0 for number in found["scale"]), "calibration scale"
    return found


def seal(data: bytes, marker: bytes) -> bytes:
    """The file with its digest in the place that follows `marker`."""
    place = _place(data, marker)
    assert place is not None and data[place : place + 64] == UNSEALED.encode()
    digest = hashlib.sha256(data).hexdigest()
    return b"".join([memoryview(data)[:place], digest.encode(), memoryview(data)[place + 64 :]])


def check_seal(data: bytes, marker: bytes) -> None:
    """Raises: VerificationError where the file has a seal that does not fit it. One that has none is not judged."""
    place = _place(data, marker)
    if place is None:
        return
    digest, view = hashlib.sha256(), memoryview(data)
    for part in (view[:place], UNSEALED.encode(), view[place + 64 :]):
        digest.update(part)
    found, said = digest.hexdigest(), bytes(view[place : place + 64]).decode("ascii", "replace")
    if found != said:
        raise VerificationError(f"it was changed since it was exported: SHA-256 {found[:12]}…, sealed as {said[:12]}….")


def need(packages: tuple[str, ...], what: str, extra: str = "export") -> None:
    """Raises: UsageError with the pip command where a package of the extra is missing."""
    from importlib.util import find_spec

    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise UsageError(f"{what} needs {', '.join(missing)}: python -m pip install 'dlkit[{extra}]'")


def _place(data: bytes, marker: bytes) -> int | None:
    """Where the digest stands, or none where the marker stands nowhere or more than once."""
    place = data.find(marker)
    return None if place < 0 or data.find(marker, place + 1) >= 0 else place + len(marker)


def _image_rules(spec: ImageSpec, feed: Feed) -> dict[str, Any]:
    raw = feed == "normalised"
    ratio = {} if spec.legacy_resize else {"crop_ratio": spec.crop}
    larger = {} if spec.max_pixels == MAX_PIXELS else {"max_pixels": spec.max_pixels}
    return {
        "name": "images",
        "feed": feed,
        "type": "float32" if raw else "uint8",
        "layout": "NCHW" if raw else "NHWC",
        "channels": spec.channels,
        "height": spec.height,
        "width": spec.width,
        "crop": spec.crop,
        **ratio,
        "mean": list(spec.mean),
        "std": list(spec.std),
        **larger,
        **({} if spec.interpolation == "bilinear" else {"interpolation": spec.interpolation}),
    }


def _spec(classes: Any, rules: Any) -> Spec:
    assert isinstance(classes, list) and 0 < len(classes) <= MAX_CLASSES, "classes"
    names = tuple(_text(name) for name in classes)
    kind = next((kind for kind, feeds in FEEDS.items() if rules["feed"] in feeds), None)
    assert kind is not None, f"input feed {rules['feed']!r}"
    return _image_spec(names, rules) if kind == ImageSpec.kind else _text_spec(names, rules)


def _text_spec(classes: tuple[str, ...], rules: Any) -> SequenceSpec | TreeSpec:
    words = tuple(_text(rules["words"]).split(" "))
    vocabulary = _whole(rules["vocabulary"], MAX_WORDS)
    assert vocabulary == len(words) + 2 and all(words), "words"
    tokens = _text(rules["tokens"])
    assert tokens == "space" or tokens in TOKENIZATIONS, f"tokens {tokens!r}"
    if rules["feed"] == "trees":
        return TreeSpec(classes, vocabulary, words, tokens, tuple(_text(label) for label in rules["labels"]))
    longest = None if rules["longest"] is None else _whole(rules["longest"], MAX_WORDS)
    return SequenceSpec(classes, vocabulary, words=words, tokens=tokens, longest=longest)


def _image_spec(classes: tuple[str, ...], rules: Any) -> ImageSpec:
    channels, height, width = (_whole(rules[key], MAX_SIDE) for key in ("channels", "height", "width"))
    assert channels in (1, 3), f"channels {channels}"
    mean, std = (tuple(_number(value) for value in rules[key]) for key in ("mean", "std"))
    assert len(mean) == len(std) == channels and all(value > 0 for value in std), "mean and std"
    crop = _number(rules["crop"])
    assert rules.get("crop_ratio", crop) == crop, f"crop_ratio {rules['crop_ratio']!r}"
    assert 0 < crop <= 1 and max(height, width) / crop <= MAX_SIDE, f"crop {crop}"
    max_pixels = _whole(rules.get("max_pixels", MAX_PIXELS), MOST_PIXELS)
    filter = rules.get("interpolation", "bilinear")
    assert filter in INTERPOLATIONS, f"interpolation {filter!r}"
    return ImageSpec(channels, height, width, classes, mean, std, crop, "crop_ratio" not in rules, max_pixels, filter)


def _text(value: Any) -> str:
    assert isinstance(value, str), f"{value!r} is no text"
    return value


def _whole(value: Any, most: int) -> int:
    assert type(value) is int and 1 <= value <= most, f"{value!r} is not 1 to {most}"
    return value


def _number(value: Any) -> float:
    assert isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value), f"{value!r}"
    return float(value)
