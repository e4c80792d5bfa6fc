"""Imagenette and Imagewoof: ten easy classes of ImageNet, and ten breeds of dogs, about 13,000 photographs each.

Howard, "Imagenette", 2019 (no paper: github.com/fastai/imagenette). Second edition; its validation set (30 %) is the
test split here, as in published comparisons. imagenette and imagewoof have a shorter side of 320 pixels,
imagenette_160 and imagewoof_160 one of 160; `size` is the side of the network's input.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from dlkit.atomic_io import storage_errors
from dlkit.data.classes import natural
from dlkit.data.download.archives import extract
from dlkit.data.images.user_images import ImageOptions
from dlkit.data.splits import About, Source, Splits
from dlkit.datasets import folder as folders
from dlkit.errors import UsageError, VerificationError
from dlkit.specs import ImageSpec

VARIANTS = {
    "imagenette": {"pixels": 320, "size": 224},
    "imagenette_160": {"pixels": 160, "size": 128},
    "imagewoof": {"subset": "woof", "pixels": 320, "size": 224},
    "imagewoof_160": {"subset": "woof", "pixels": 160, "size": 128},
}
MIRRORS = ("https://s3.amazonaws.com/fast-ai-imageclas/", "https://fast-ai-imageclas.s3.amazonaws.com/")
MD5 = {  # (subset, pixels): as torchvision pins them
    ("nette", 320): "3df6f0d01a2c9592104656642f5e78a3",
    ("nette", 160): "e793b78cc4c9e9a4ccc0c1155377a412",
    ("woof", 320): "0f46d997ec2264e97609196c95897a44",
    ("woof", 160): "3d200a7be99704a0d7509be2a9fbfe15",
}
NAMES = {  # WordNet's number → the class
    "nette": {
        "n01440764": "tench", "n02102040": "English springer", "n02979186": "cassette player",
        "n03000684": "chain saw", "n03028079": "church", "n03394916": "French horn", "n03417042": "garbage truck",
        "n03425413": "gas pump", "n03445777": "golf ball", "n03888257": "parachute",
    },
    "woof": {
        "n02086240": "Shih-Tzu", "n02087394": "Rhodesian ridgeback", "n02088364": "beagle",
        "n02089973": "English foxhound", "n02093754": "Border terrier", "n02096294": "Australian terrier",
        "n02099601": "golden retriever", "n02105641": "Old English sheepdog", "n02111889": "Samoyed",
        "n02115641": "dingo",
    },
}  # fmt: skip
SIZES = {"nette": {"train": 9_469, "test": 3_925}, "woof": {"train": 9_025, "test": 3_929}}


def _archive(subset: str, pixels: int) -> str:
    return f"image{subset}2-{pixels}.tgz"


def _about(subset: str, pixels: int) -> About:
    name = _archive(subset, pixels)
    kinds = "breeds of dogs" if subset == "woof" else "easy classes"
    return About(
        title=f"Image{subset}, ten {kinds} of ImageNet, {pixels} pixels",
        classes=10,
        sizes=SIZES[subset],
        licence="Apache 2.0; the photographs under ImageNet's terms, for non-commercial research",
        citation="Howard, Imagenette, fast.ai, 2019",
        files={name: [Source(mirror + name, f"md5:{MD5[subset, pixels]}", 0) for mirror in MIRRORS]},
    )


ABOUT = {
    "imagenette": _about("nette", 320),
    "imagenette_160": _about("nette", 160),
    "imagewoof": _about("woof", 320),
    "imagewoof_160": _about("woof", 160),
}


def fetch(
    folder: Path, download: Callable[[str], Path], *, subset: str = "nette", pixels: int = 320, size: int = 224
) -> None:
    """Extract train/CLASS/ and test/CLASS/ with the names of the classes."""
    archive = _archive(subset, pixels)
    unpacked = folder / "unpacked"
    extract(download(archive), unpacked)
    with storage_errors(folder):
        for part, split in (("train", "train"), ("val", "test")):
            (folder / split).mkdir()
            for number, name in NAMES[subset].items():
                source = unpacked / Path(archive).stem / part / number
                if not source.is_dir():
                    raise VerificationError(f"{archive} has no folder {part}/{number}.")
                source.rename(folder / split / name)
        shutil.rmtree(unpacked)


def spec(*, subset: str = "nette", pixels: int = 320, size: int = 224, crop: float = 0.875) -> ImageSpec:
    """The spec, without the data."""
    _check_options(subset, pixels)
    return ImageOptions("imagenette", size, 3, crop).spec(tuple(sorted(NAMES[subset].values(), key=natural)))


def load(folder: Path, *, subset: str = "nette", pixels: int = 320, size: int = 224, crop: float = 0.875) -> Splits:
    """Paths of the photographs; `size` is the side of the network's input in pixels."""
    _check_options(subset, pixels)
    return folders.load(folder, size=size, crop=crop)


def _check_options(subset: str, pixels: int) -> None:
    if (subset, pixels) not in MD5:
        raise UsageError(
            f"data set 'imagenette' takes subset nette or woof, pixels 160 or 320; not {subset}, {pixels}."
        )
