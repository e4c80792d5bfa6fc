"""Your own images in one file that `dlkit dataset pack` wrote: an epoch of it decodes nothing.

The images were decoded and resized once. Training sees what it would have seen in the folder they came from, in the
same order and with the same augmentation, so the weights come out the same. Size, channels and classes are the pack's.

Random resized crops (data.augment.resized_crop) are cut from the images as they are in the pack. Pack them larger for
that, with --side 256 or more. They are then not the folder's bit for bit: a small part of a photograph larger than that
is softer than the photograph itself, and a part is resized without what lies around it.
"""

from __future__ import annotations

from pathlib import Path

from dlkit.data.images import packed
from dlkit.data.splits import ImageFiles, Splits

VERIFIED_ON_USE = 1 << 30  # bytes; of a larger pack `dlkit dataset verify` alone reads all


def load(folder: Path) -> Splits:
    """The splits of the pack `folder`, a file.

    Raises:
        DataError: no such file, or not a pack.
        VerificationError: it was cut or altered.
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
