"""What goes into a network and what comes out: the one thing data sets, models and verbs agree on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, ClassVar, Literal

Interpolation = Literal["bilinear", "bicubic"]
INTERPOLATIONS: tuple[Interpolation, ...] = ("bilinear", "bicubic")

# How outputs become class probabilities (dlkit.data.link), by the name of the loss that the network was trained with.
Link = Literal["softmax", "sigmoid", "clip"]
LINKS: Mapping[str, Link] = {"cross_entropy": "softmax", "bce": "sigmoid", "mse": "clip"}

MAX_PIXELS = 50_000_000  # of an image, unless data.max_pixels allows more
PADDING, UNKNOWN = 0, 1  # the token ids that are no word's; the words follow


@dataclass(frozen=True)
class ImageSpec:
    """Images of one size, and the classes they are sorted into.

    mean and std are of pixels scaled to [0, 1], one number a channel. crop is the fraction of the resized image's
    shorter side that the center crop keeps: 1.0 keeps all that fits, 0.875 is ImageNet's 224 of 256. In documents it is
    `crop_ratio` too; those of earlier versions have `crop` alone, and are read with legacy_resize: an image of the
    network's size is not cropped, and the longer side is rounded (dlkit.data.images.resize_crop). interpolation is the
    filter that images are resized with. Larger images than max_pixels are refused.
    """

    kind: ClassVar[str] = "images"

    channels: int
    height: int
    width: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float = 1.0
    legacy_resize: bool = False
    max_pixels: int = MAX_PIXELS
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        assert self.channels in (1, 3) and len(self.mean) == len(self.std) == self.channels, self
        assert self.interpolation in INTERPOLATIONS, self
        assert self.height > 0 and self.width > 0 and 0 < self.crop <= 1 and self.max_pixels > 0, self

    @property
    def outputs(self) -> int:
        """How many numbers a model gives for one input."""
        return len(self.classes)

    def is_prepared(self, width: int, height: int) -> bool:
        """Whether an image of that size is neither resized nor cropped."""
        return (width, height) == (self.width, self.height) and (self.crop == 1 or self.legacy_resize)

    def to_json(self) -> dict[str, Any]:
        fields = {name: value for name, value in asdict(self).items() if name != "legacy_resize"}
        defaults = {"max_pixels": MAX_PIXELS, "interpolation": "bilinear"}  # left out, as before there was a choice
        fields = {name: value for name, value in fields.items() if defaults.get(name) != value}
        return {"kind": self.kind, **fields, **({} if self.legacy_resize else {"crop_ratio": self.crop})}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ImageSpec:
        tuples = {name: tuple(document[name]) for name in ("classes", "mean", "std")}
        fields = {name: value for name, value in _fields(document).items() if name != "crop_ratio"}
        crop = document.get("crop_ratio", document.get("crop", 1.0))
        return cls(**{**fields, **tuples, "crop": crop, "legacy_resize": "crop_ratio" not in document})


@dataclass(frozen=True)
class Tokenization:
    """How text becomes words (dlkit.data.text.tokenization); a spec's `tokens` is its name.

    "words" alone is what all runs had before there was a choice.
    """

    tokenizer: str = "words"  # or "unicode"
    normalize: str = "none"  # "nfc" or "nfkc"
    lower: bool = True

    @property
    def name(self) -> str:
        form = [] if self.normalize == "none" else [self.normalize]
        return "-".join([self.tokenizer, *form, *([] if self.lower else ["cased"])])

    @classmethod
    def parse(cls, name: str) -> Tokenization:
        """Raises: KeyError for a name that no tokenization has."""
        return TOKENIZATIONS[name]


TOKENIZERS, NORMALIZATIONS = ("words", "unicode"), ("none", "nfc", "nfkc")
TOKENIZATIONS = {
    rules.name: rules
    for rules in (Tokenization(*choice) for choice in product(TOKENIZERS, NORMALIZATIONS, (True, False)))
}


@dataclass(frozen=True)
class SequenceSpec:
    """Sequences of any length, and the classes they are sorted into; without classes, one number is asked for.

    A step is a token (vocabulary ids: 0 is padding, 1 an unknown word, the rest are `words` in their order) or a vector
    of `features` numbers; one of the two is None. tokens names how text becomes words (Tokenization, or
    "space"); longest is how many steps are read at most, from the first.
    """

    kind: ClassVar[str] = "sequences"

    classes: tuple[str, ...]
    vocabulary: int | None = None
    features: int | None = None
    words: tuple[str, ...] = ()  # without a space in them; empty where the tokens have no names
    tokens: str = "words"
    longest: int | None = None  # steps

    def __post_init__(self) -> None:
        assert (self.vocabulary is None) != (self.features is None), self
        assert not self.words or self.vocabulary == len(self.words) + 2, (self.vocabulary, len(self.words))

    @property
    def outputs(self) -> int:
        """How many numbers a model gives for one input: one a class, or the one that is asked for."""
        return len(self.classes) or 1

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self), "words": " ".join(self.words)}  # one line, however many

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> SequenceSpec:
        classes = tuple(document["classes"])
        return cls(**{**_fields(document), "classes": classes, "words": _words(document)})


@dataclass(frozen=True)
class TreeSpec:
    """Trees with words at their leaves, or at every node, and the classes that a tree, or each node, is sorted into.

    Ids and words are as in SequenceSpec. labels are what a node may be labelled with where a tree is written in
    brackets, which need not be the classes: SST's 0 to 4 stand in its binary form too. Empty admits any.
    """

    kind: ClassVar[str] = "trees"

    classes: tuple[str, ...]
    vocabulary: int
    words: tuple[str, ...] = ()
    tokens: str = "words"
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert not self.words or self.vocabulary == len(self.words) + 2, (self.vocabulary, len(self.words))

    @property
    def outputs(self) -> int:
        """How many numbers a model gives for one node."""
        return len(self.classes)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self), "words": " ".join(self.words)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> TreeSpec:
        tuples = {name: tuple(document[name]) for name in ("classes", "labels")}
        return cls(**{**_fields(document), **tuples, "words": _words(document)})


Spec = ImageSpec | SequenceSpec | TreeSpec


def from_json(document: Mapping[str, Any]) -> Spec:
    """The spec of any kind that to_json wrote; one without a kind is of images, as the first runs wrote it."""
    kinds: dict[str, type[Spec]] = {spec.kind: spec for spec in (ImageSpec, SequenceSpec, TreeSpec)}
    return kinds[document.get("kind", ImageSpec.kind)].from_json(document)


def _fields(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != "kind"}


def _words(document: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(document["words"].split(" ")) if document["words"] else ()
