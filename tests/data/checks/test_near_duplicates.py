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
    assert (
        near_duplicates.hashes(mirror.apply(pictures)) == near_duplicates.hashes(pictures) ^ mirror.bits
    ).mean() > 0.99


@pytest.mark.parametrize("mirror", near_duplicates.MIRRORS, ids=lambda mirror: mirror.name or "as it is")
@pytest.mark.parametrize(("size", "quality"), [(48, 95), (48, 60), (31, 85), (120, 85)])
def test_a_picture_saved_again_is_found_among_others(mirror: near_duplicates.Mirror, size: int, quality: int) -> None:
    pictures = [picture(48, 48, seed=number) for number in range(60)]
    turned = Image.fromarray(np.ascontiguousarray(mirror.apply(np.asarray(pictures[17]))))
    saved = Image.open(io.BytesIO(encoded(turned.resize((size, size)), "JPEG", quality=quality)))
    known = np.stack([scan.thumbnail(image) for image in pictures])
    (match,) = near_duplicates.find_candidates(known, scan.thumbnail(saved)[None])
    assert (match.reference, match.query, match.mirror.name) == (17, 0, mirror.name)
    assert near_duplicates.is_duplicate(match, pictures.__getitem__, saved)


def test_other_pictures_and_blank_ones_are_no_match() -> None:
    assert near_duplicates.find_candidates(thumbnails(300), thumbnails(300, seed=5000)) == []
    blank = np.full((2, 8, 8, 3), 250, np.uint8)
    assert near_duplicates.find_candidates(blank, blank) == []
    assert near_duplicates.find_candidates(blank[:0], thumbnails(3)) == []


def test_pairs_of_one_collection_are_the_planted_ones_and_no_others() -> None:
    """Twelve pictures saved again, some mirrored or smaller, one of them six times; the rest stand alone."""
    pictures = [picture(48, 48, seed=number) for number in range(60)]
    planted = {(number, 60 + number) for number in range(12)}
    for number in range(12):
        copy = np.asarray(pictures[number])[:, :: -1 if number % 2 else 1]
        smaller = Image.fromarray(np.ascontiguousarray(copy)).resize((40, 40)) if number % 3 else Image.fromarray(copy)
        pictures.append(Image.open(io.BytesIO(encoded(smaller, "JPEG", quality=80))).convert("RGB"))
    found = near_duplicates.find_duplicates(
        np.stack([scan.thumbnail(image) for image in pictures]), pictures.__getitem__
    )
    assert {(one, two) for one, two, _ in found} == planted
    assert {mirror.name for one, _, mirror in found if one % 2} == {"flipped"}
    many = [Image.open(io.BytesIO(encoded(pictures[30], "JPEG", quality=q))).convert("RGB") for q in range(80, 96, 3)]
    crowd = np.stack([scan.thumbnail(image) for image in many])
    groups = near_duplicates.groups_of(
        6, [pair[:2] for pair in near_duplicates.find_duplicates(crowd, many.__getitem__)]
    )
    assert groups.tolist() == [0] * 6


def test_groups_are_the_connected_components() -> None:
    assert near_duplicates.groups_of(7, [(5, 1), (2, 1), (6, 4)]).tolist() == [0, 1, 1, 3, 4, 1, 4]
    assert near_duplicates.groups_of(0, []).tolist() == []
