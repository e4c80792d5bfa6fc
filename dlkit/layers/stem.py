"""The stem of a network: the paper's for ImageNet images, or the variant for small images in the literature."""

from __future__ import annotations

from dlkit.errors import DataError
from dlkit.layers.options import check_choice
from dlkit.specs import ImageSpec

STEMS = ("auto", "imagenet", "small")
SMALL_BELOW = 64  # pixels of the shorter side


def choose_stem(stem: str, spec: ImageSpec) -> str:
    """The stem, "imagenet" or "small": auto selects small for images whose shorter side is below 64 pixels.

    Raises: UsageError where there is no such stem.
    """
    check_choice("stem", stem, STEMS)
    if stem != "auto":
        return stem
    return "small" if min(spec.height, spec.width) < SMALL_BELOW else "imagenet"


def check_size(spec: ImageSpec, least: int, network: str, way_out: str) -> None:
    """Refuse images that are too small for a network's pooling; way_out is the last sentence of the error.

    Raises: DataError naming the least size.
    """
    if min(spec.height, spec.width) < least:
        raise DataError(
            f"images of {spec.height}×{spec.width} pixels are too small for {network}: each side must have {least} or "
            f"more. {way_out}"
        )
