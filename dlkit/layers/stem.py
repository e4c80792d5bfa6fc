"""How a network begins: as its paper has it for ImageNet's images, or as the literature has it for small ones."""

from __future__ import annotations

from dlkit.errors import DataError
from dlkit.layers.options import check_choice
from dlkit.specs import ImageSpec

STEMS = ("auto", "imagenet", "small")
SMALL_BELOW = 64  # pixels of the shorter side


def choose_stem(stem: str, spec: ImageSpec) -> str:
    """The stem, "imagenet" or "small": auto takes small where the images' shorter side is below 64 pixels.

    Raises: UsageError where there is no such stem.
    """
    check_choice("stem", stem, STEMS)
    if stem != "auto":
        return stem
    return "small" if min(spec.height, spec.width) < SMALL_BELOW else "imagenet"


def check_size(spec: ImageSpec, least: int, network: str, way_out: str) -> None:
    """Refuse images of which a network's pools would leave nothing; way_out is the error's last sentence.

    Raises: DataError naming the least size.
    """
    if min(spec.height, spec.width) < least:
        raise DataError(
            f"images of {spec.height}×{spec.width} pixels are too small for {network}: each side must have {least} or "
            f"more. {way_out}"
        )
