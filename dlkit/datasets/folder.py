"""Your own images in folders: train/CLASS/*, val/, test/; or CLASS/* alone.

Split folders may be named in any letter case and by their usual names: training; valid, validation, dev, eval; testing;
photos_train. Without a validation folder, a part of train is held out. The classes are the folders of train, in natural
order ("2" before "10", case ignored); the other splits use the same classes. Images are recognized by their extension,
in nested folders too. Links to folders are followed, but a link to a folder that contains it is refused. Hidden files
and folders, `__MACOSX`, `Thumbs.db` and the like are ignored.

If there is no test split, data.options.test=0.1 holds out a tenth of train for test: the same files for every seed.
data.options.group keeps related files together, in this split and in the one for validation. It is a regular expression
for a file's path below the folder; the text in its brackets is the file's group: with group=(patient[0-9]+) no patient
is on both sides. group=near groups copies of a picture, saved again, resized or mirrored; this decodes all images
first.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np

from dlkit.data.class_folders import FilesByClass, find_class_folders
from dlkit.data.images import user_images
from dlkit.data.splits import ImageFiles, Splits


def load(
    folder: Path, *, size: int = 224, channels: int = 3, crop: float = 1.0, test: float = 0.0, group: str = ""
) -> Splits:
    """The splits of `folder`, as paths; no image is decoded.

    Raises:
        DataError: what `find_class_folders` raises, or a file without a group.
    """
    options = user_images.ImageOptions("folder", size, channels, crop)
    folders = find_class_folders(folder)
    samples = {split: _image_files(files, folders.classes) for split, files in folders.splits.items()}
    names = (path.relative_to(folder).as_posix() for files in folders.splits["train"].values() for path in files)
    groups = user_images.groups_of(group, samples["train"].paths, names)
    return user_images.splits(options.spec(folders.classes), samples, test=test, groups=groups, notes=folders.notes)


def _image_files(files_by_class: FilesByClass, classes: tuple[str, ...]) -> ImageFiles:
    files = [files_by_class.get(name, ()) for name in classes]
    targets = np.repeat(np.arange(len(classes), dtype=np.int64), [len(group) for group in files])
    return ImageFiles(list(chain.from_iterable(files)), targets)
