"""ImageNet: 1.28 million photographs of a thousand kinds of things, from your own ILSVRC 2012 files.

Russakovsky et al., "ImageNet large scale visual recognition challenge", IJCV 2015. The owners provide the three
files to registered users; `dlkit dataset download imagenet --from FOLDER` imports them. Extraction proceeds class by
class and resumes after an interruption. The published validation images, labelled by the development kit, are the test
split here, as in published comparisons; the validation split is held out from train.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlkit import imagenet
from dlkit.atomic_io import storage_errors
from dlkit.data.download import mat
from dlkit.data.download.archives import extract
from dlkit.data.splits import About, Source, Splits
from dlkit.datasets import folder as folders
from dlkit.errors import MALFORMED, VerificationError
from dlkit.specs import ImageSpec

BASE_URL = "https://image-net.org/data/ILSVRC/2012/"
TRAIN, VALIDATION, KIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
PUBLISHED = {  # bytes, MD5
    TRAIN: (147_897_477_120, "1d675b47d978889d74fa0da5fadfb00e"),
    VALIDATION: (6_744_924_160, "29b22e2961454d5413ddabcf34fc5622"),
    KIT: (2_568_145, "fa75699e90414af021442c21a62c3abf"),
}
KIT_FOLDER = "ILSVRC2012_devkit_t12"

ABOUT = About(
    title="ImageNet (ILSVRC 2012), from your own tar files",
    classes=1000,
    sizes={"train": 1_281_167, "test": 50_000},
    licence="for non-commercial research and education, by agreement with its owners",
    citation="Russakovsky et al., IJCV 2015",
    files={name: [Source(BASE_URL + name, f"md5:{md5}", size)] for name, (size, md5) in PUBLISHED.items()},
)


def fetch(folder: Path, download: Callable[[str], Path]) -> None:
    """Extract train/CLASS/ and test/CLASS/, next to the archives until extraction is complete."""
    kit, validation, train = download(KIT), download(VALIDATION), download(TRAIN)
    work = kit.parent
    if not (work / "kit").is_dir():
        extract(kit, work / "kit")
    ids, labels = _kit(work / "kit" / KIT_FOLDER / "data")
    names = dict(zip(sorted(ids.values()), imagenet.classes(), strict=True))
    _unpack_train(train, work / "train", names)
    if not (work / "validation").is_dir():
        extract(validation, work / "validation")
    _sort_validation(work / "validation", work / "test", [names[ids[label]] for label in labels])
    with storage_errors(folder):
        for split in ("train", "test"):
            (work / split).rename(folder / split)


def spec(*, size: int = 224, crop: float = 0.875) -> ImageSpec:
    """The spec, without the data; classes in the order of published weights."""
    return replace(imagenet.spec(), height=size, width=size, crop=crop)


def load(folder: Path, *, size: int = 224, crop: float = 0.875) -> Splits:
    """Paths of the photographs; `size` is the side of the network's input in pixels."""
    return folders.load(folder, size=size, crop=crop)


def _kit(data: Path) -> tuple[dict[int, str], list[int]]:
    """The WordNet number of each of the 1,000 ids, and the ids of the validation images, from the development kit."""
    synsets: Any = mat.variables(data / "meta.mat").get("synsets")
    count = len(imagenet.classes())
    try:
        synset_of = {int(entry["ILSVRC2012_ID"].item()): str(entry["WNID"]) for entry in synsets}
        ids = {
            number: name for number, name in synset_of.items() if number <= count
        }  # higher ids are groups of classes
        labels = [int(line) for line in (data / "ILSVRC2012_validation_ground_truth.txt").read_text().split()]
    except (OSError, *MALFORMED) as error:
        raise VerificationError(f"{data}: not the development kit of ILSVRC 2012: {error}.") from error
    if len(ids) != count or not set(labels) <= set(ids):
        raise VerificationError(f"{data}: the development kit names {len(ids)} classes instead of {count:,}.")
    return ids, labels


def _unpack_train(archive: Path, target: Path, names: dict[str, str]) -> None:
    """Extract a tar file of one tar file per class; skips classes that exist already."""
    with storage_errors(target):
        target.mkdir(exist_ok=True)
    inner = target.with_name(".class.tar")
    with storage_errors(archive), tarfile.open(archive) as outer:
        for member in outer:
            name = names.get(Path(member.name).stem)
            content = outer.extractfile(member)
            if name is None or content is None:
                raise VerificationError(f"{archive}: contains {member.name!r}, which is not a class of ImageNet.")
            if (target / name).is_dir():
                continue
            with open(inner, "wb") as file:
                shutil.copyfileobj(content, file, 1 << 20)
            extract(inner, target / name)
    inner.unlink(missing_ok=True)
    if missing := set(names.values()) - {path.name for path in target.iterdir()}:
        raise VerificationError(f"{archive}: lacks {len(missing)} classes, such as {min(missing)!r}.")


def _sort_validation(images: Path, target: Path, classes: Sequence[str]) -> None:
    """Move the images, in the order of their names, into one folder per class."""
    with storage_errors(target):
        for name in set(classes):
            (target / name).mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(classes, start=1):
            file = f"ILSVRC2012_val_{number:08d}.JPEG"
            if (images / file).is_file():
                (images / file).rename(target / name / file)
            elif not (target / name / file).is_file():
                raise VerificationError(f"{VALIDATION} has no {file}.")
