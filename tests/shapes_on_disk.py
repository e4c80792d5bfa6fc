"""For the tests of eval and predict: the built-in images as files in class folders, and the form of a JSON document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dlkit.data.splits import MemoryImages
from dlkit.datasets import shapes


def write_folder(folder: Path, split: str, classes: tuple[str, ...] = shapes.CLASSES, count: int = 160) -> list[Path]:
    """Those of the first `count` test shapes that are of `classes`, as folder/split/CLASS/0007.png."""
    samples = shapes.load(train=8, test=count).test
    assert isinstance(samples, MemoryImages)
    paths = []
    for place, (image, target) in enumerate(zip(samples.images, samples.targets.tolist(), strict=True)):
        if shapes.CLASSES[target] in classes:
            path = folder / split / shapes.CLASSES[target] / f"{place:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(path)
            paths.append(path)
    return sorted(paths)


def form(document: Any) -> Any:
    """The keys and types of a document; a list stands for its first item, a schema's name for itself."""
    if isinstance(document, dict):
        return {key: value if key == "schema" else form(value) for key, value in document.items()}
    if isinstance(document, list):
        assert len({repr(form(item)) for item in document}) <= 1
        return [form(item) for item in document[:1]]
    return type(document).__name__
