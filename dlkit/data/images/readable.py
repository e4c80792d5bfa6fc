"""Images that cannot be read are left out before the first epoch or batch, where data.on_bad_image is skip.

Left out, not replaced: a neighbour in a bad image's place would count twice. More than 1 % of a split is no accident
but another data set, and refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from dlkit.data.checks.scan import scan_images
from dlkit.data.loader import take
from dlkit.data.splits import ImageFiles, Samples
from dlkit.errors import DataError
from dlkit.specs import MAX_PIXELS

MOST_LEFT_OUT = 0.01  # of a split


def usable(
    parts: Mapping[str, Samples], say: Callable[[str], None], max_pixels: int = MAX_PIXELS
) -> tuple[dict[str, Samples], dict[str, str]]:
    """The splits without their bad images, and the path of each of these with what is wrong with it.

    Raises:
        DataError: they are more than 1 % of a split.
    """
    kept = dict(parts)
    left_out: dict[str, str] = {}
    for name, samples in parts.items():
        if not isinstance(samples, ImageFiles):
            continue
        problems = [look.problem for look in scan_images(samples.paths, max_pixels=max_pixels)]
        bad = {str(path): problem for path, problem in zip(samples.paths, problems, strict=True) if problem}
        if len(bad) > MOST_LEFT_OUT * len(samples):
            path, problem = next(iter(bad.items()))
            raise DataError(
                f"{len(bad):,} of {len(samples):,} {name} images cannot be used, more than {MOST_LEFT_OUT:.0%}; the "
                f"first is {path}: {problem} See them all: dlkit dataset check."
            )
        if bad:
            say(f"warning: left out {len(bad):,} of {len(samples):,} {name} images, such as {next(iter(bad))}.")
            kept[name] = take(samples, np.flatnonzero([not problem for problem in problems]))
        left_out |= bad
    return kept, left_out
