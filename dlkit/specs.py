"""What goes into a network and what comes out: the one thing data sets, models and verbs agree on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ImageSpec:
    """Images of one size, and the classes they are sorted into.

    mean and std are of pixels scaled to [0, 1], one number a channel. crop is the fraction of the resized image's
    shorter side that the centre crop keeps: 1.0 keeps all that fits, 0.875 is ImageNet's 224 of 256.
    """

    channels: int
    height: int
    width: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float = 1.0

    def __post_init__(self) -> None:
        assert self.channels in (1, 3) and len(self.mean) == len(self.std) == self.channels, self
        assert self.height > 0 and self.width > 0 and 0 < self.crop <= 1, self

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ImageSpec:
        tuples = {name: tuple(document[name]) for name in ("classes", "mean", "std")}
        return cls(**{**document, **tuples})
