from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlkit.data.images.unpack import unpack
from dlkit.datasets import shapes
from dlkit.errors import UsageError


def test_the_files_hold_the_data_sets_own_pixels_under_their_classes(tmp_path: Path) -> None:
    paths = unpack("shapes", tmp_path, limit=5, log=str)
    found = shapes.load()
    assert len(paths) == 5 == len(list(tmp_path.rglob("*.png")))
    for path, image, target in zip(paths, found.test.images, found.test.targets, strict=False):  # type: ignore[union-attr]
        assert path.parent == tmp_path / "test" / found.spec.classes[target]
        assert np.array_equal(np.asarray(Image.open(path)).transpose(2, 0, 1), image)


def test_what_is_there_is_never_overwritten_and_nothing_half_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpack("shapes", tmp_path, limit=1, log=str)
    with pytest.raises(UsageError, match="exists"):
        unpack("shapes", tmp_path, limit=1, log=str)
    shutil.rmtree(tmp_path / "test")
    monkeypatch.setattr(Image, "fromarray", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        unpack("shapes", tmp_path, limit=1, log=str)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="no nonsense"):
        unpack("shapes", tmp_path, split="nonsense", log=str)
