"""Near duplicates: a picture saved again, smaller or mirrored is found, and no other one is."""

from __future__ import annotations

import io

import numpy as np
import pytest
from corpus import encoded, picture
from PIL import Image

from dlkit.data.checks import near_duplicates, scan


def thumbnails(count: int, seed: int = 0) -> np.ndarray:
    return np.stack([scan.thumbnail(picture(48, 48, seed=seed + number)) for number in range(count)])


@pytest.mark.parametrize("mirror", near_duplicates.MIRRORS, ids=lambda mirror: mirror.name or "as it is")
def test_the_hash_of_a_mirror_image_is_one_xor_away(mirror: near_duplicates.Mirror) -> None:
    pictures = thumbnails(200)
    assert (near_duplicates.hashes(mirror.of(pictures)) == near_duplicates.hashes(pictures) ^ mirror.bits).mean() > 0.99


@pytest.mark.parametrize("mirror", near_duplicates.MIRRORS, ids=lambda mirror: mirror.name or "as it is")
@pytest.mark.parametrize(("size", "quality"), [(48, 95), (48, 60), (31, 85), (120, 85)])
def test_a_picture_saved_again_is_found_among_others(mirror: near_duplicates.Mirror, size: int, quality: int) -> None:
    pictures = [picture(48, 48, seed=number) for number in range(60)]
    turned = Image.fromarray(np.ascontiguousarray(mirror.of(np.asarray(pictures[17]))))
    saved = Image.open(io.BytesIO(encoded(turned.resize((size, size)), "JPEG", quality=quality)))
    known = np.stack([scan.thumbnail(image) for image in pictures])
    (match,) = near_duplicates.matches(known, scan.thumbnail(saved)[None])
    assert (match.known, match.asked, match.mirror.name) == (17, 0, mirror.name)
    assert near_duplicates.same_picture(match, pictures.__getitem__, saved)


def test_other_pictures_and_blank_ones_are_no_match() -> None:
    assert near_duplicates.matches(thumbnails(300), thumbnails(300, seed=5000)) == []
    blank = np.full((2, 8, 8, 3), 250, np.uint8)
    assert near_duplicates.matches(blank, blank) == []
    assert near_duplicates.matches(blank[:0], thumbnails(3)) == []
