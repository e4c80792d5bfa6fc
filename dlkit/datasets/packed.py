"""Your own images in one file that `dlkit dataset pack` wrote: epochs decode nothing.

The images were decoded and resized once. Training sees the same images as from the
original folder, in the same order and with the same augmentation, so the weights are the same. Size, channels and
classes are those of the pack.

Random resized crops (data.augment.resized_crop) are taken from the images in the pack, so pack them larger, with --side
256 or more. They then differ slightly from those of the folder: small crops of larger photographs are softer, and a
crop is resized without the surrounding pixels.
"""

from __future__ import annotations

from pathlib import Path

from dlkit.data.images import packed
from dlkit.data.splits import ImageFiles, Splits

VERIFIED_ON_USE = 1 << 30  # bytes; only `dlkit dataset verify` reads larger packs completely


def load(folder: Path) -> Splits:
    """The splits of the pack `folder`, a file.

    Raises:
        DataError: no such file, or not a pack.
        VerificationError: a truncated or altered pack.
    """
    pack = packed.opened(folder)
    if pack.bytes <= VERIFIED_ON_USE:
        pack.verify()
    samples = {
        split: ImageFiles([packed.PackedImage(part, row) for row in range(len(part))], part.targets)
        for split, part in pack.parts.items()
    }
    groups = pack.parts["train"].groups
    return Splits(pack.spec, samples["train"], samples.get("validation"), samples.get("test"), groups=groups)
