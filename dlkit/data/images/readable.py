"""data.on_bad_image=skip: leave out unreadable images before the first epoch or batch.

They are left out rather than replaced, since a replacement would count twice. More than 1 % of a split is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from dlkit.config.schema import Data
from dlkit.data.checks.scan import scan_images
from dlkit.data.images.formats import BadImageError
from dlkit.data.loader import take
from dlkit.data.splits import ImageFiles, Samples
from dlkit.errors import DataError
from dlkit.specs import MAX_PIXELS

MAX_SKIPPED = 0.01  # of a split; one image in any case


@contextmanager
def explain_bad_images(data: Data) -> Iterator[None]:
    """A block in which the error of a bad image names the ways out.

    Raises:
        BadImageError: what the block raised.
    """
    try:
        yield
    except BadImageError as error:
        if data.on_bad_image == "skip":
            raise
        check = f"`dlkit dataset check {data.dir or data.name}`"
        raise BadImageError(f"{error} Leave it out with --on-bad-image skip; {check} lists all.") from error


def skip_bad_images(
    parts: Mapping[str, Samples], log: Callable[[str], None], max_pixels: int = MAX_PIXELS
) -> tuple[dict[str, Samples], dict[str, str]]:
    """The splits without their bad images, and the problem of each bad image by path.

    Raises:
        DataError: more than 1 % of a split is bad, and more than one image.
    """
    kept = dict(parts)
    skipped: dict[str, str] = {}
    for name, samples in parts.items():
        if not isinstance(samples, ImageFiles):
            continue
        problems = [scan.problem for scan in scan_images(samples.paths, max_pixels=max_pixels)]
        bad = {str(path): problem for path, problem in zip(samples.paths, problems, strict=True) if problem}
        if len(bad) > max(1, MAX_SKIPPED * len(samples)):
            path, problem = next(iter(bad.items()))
            raise DataError(
                f"{len(bad):,} of {len(samples):,} {name} images cannot be used, more than {MAX_SKIPPED:.0%}; the "
                f"first is {path}: {problem} See them all: dlkit dataset check."
            )
        if bad:
            log(f"warning: left out {len(bad):,} of {len(samples):,} {name} images, such as {next(iter(bad))}.")
            kept[name] = take(samples, np.flatnonzero([not problem for problem in problems]))
        skipped |= bad
    return kept, skipped
