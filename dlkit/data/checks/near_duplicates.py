"""Images that are one picture, though their bytes differ: saved again, brought to another size, mirrored.

A perceptual hash finds candidates among millions of pairs, and their pixels decide. The hash is 63 bits: the signs of
the cosine transform of the 8 × 8 gray thumbnail, less its mean. Mirroring a picture turns the signs of every second
frequency, so that one XOR gives the hash of its mirror image.

After Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010, section 3.2, which takes 8 × 8
low frequencies of a 32 × 32 thumbnail against their median.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from dlkit.data.checks.scan import SIDE

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
Thumbnails = npt.NDArray[np.uint8]

MOST_BITS = 10  # that may differ
MOST_CANDIDATES = 64  # for a picture, in each of its mirror images: of more, those of the nearest hashes
FLATTEST = 4.0  # levels of standard deviation; below it a picture is blank, and like every other blank one
COARSELY_APART, APART = 0.04, 0.06  # at most, of thumbnails and of pixels, as `_apart` measures it
STANDS_OUT = 6.0  # within so many times a copy's distance lie other copies, and not a crowd of pictures of its kind
MOST_CROWDED = 24  # thumbnails so near
RIVALS, MOST_COPIES = 8, 2  # next candidates whose pixels are compared too; of them, so many may be so near
COMPARED = 64  # pixels a side at most, where pixels decide
NEARLY_EQUAL = 0.01  # within one collection, pictures so near are one, however many there are of them
BLOCK = 1 << 18  # pairs at a time: they fit a processor's cache

_FREQUENCIES = np.arange(SIDE)
_COSINES = np.cos(np.pi / SIDE * np.outer(_FREQUENCIES, _FREQUENCIES + 0.5))  # (frequency, place)


@dataclass(frozen=True)
class Mirror:
    """A way to turn a picture over."""

    name: str
    bits: np.uint64  # of the hash that it inverts
    horizontal: bool
    vertical: bool

    def of(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """(…, H, W, C) turned over."""
        return pixels[..., :: -1 if self.vertical else 1, :: -1 if self.horizontal else 1, :]


def _mirror(name: str, horizontal: bool, vertical: bool) -> Mirror:
    odd = np.arange(SIDE) % 2 == 1
    inverted = (odd & horizontal)[None, :] ^ (odd & vertical)[:, None]  # (vertical, horizontal frequency)
    return Mirror(name, _packed(inverted[None])[0], horizontal, vertical)


def _packed(bits: npt.NDArray[np.bool_]) -> Hashes:  # (N, 8, 8)
    return np.packbits(bits.reshape(-1, SIDE * SIDE), axis=1).view(np.uint64)[:, 0]


MIRRORS = (
    _mirror("", False, False),
    _mirror("flipped", True, False),
    _mirror("upside down", False, True),
    _mirror("turned by 180°", True, True),
)


def hashes(thumbnails: npt.NDArray[np.uint8]) -> Hashes:
    """(N,) of thumbnails (N, 8, 8, 3)."""
    gray = thumbnails @ np.array([0.299, 0.587, 0.114], np.float32)  # (N, 8, 8)
    bits = _COSINES @ gray @ _COSINES.T > 0  # (N, vertical, horizontal frequency)
    bits[:, 0, 0] = False  # the mean
    return _packed(bits)


@dataclass(frozen=True)
class Match:
    """A known picture, the most alike of those asked about, turned over or as it is, and what else is like that."""

    known: int
    asked: int
    mirror: Mirror
    rivals: tuple[tuple[int, Mirror], ...]  # known


def matches(known: Thumbnails, asked: Thumbnails) -> list[Match]:
    """The known pictures that one of those asked about may be, in their order; thumbnails (N, 8, 8, 3)."""
    first, second, mirror, apart = _candidates(known, asked)
    order = np.lexsort((mirror, apart, second))
    first, second, mirror, apart = first[order], second[order], mirror[order], apart[order]
    # keys that grow with the asked picture, and within one with the distance, which is below 1
    start, end = np.searchsorted(second, second), np.searchsorted(second, second, side="right")
    crowd = np.searchsorted(second + apart, second + STANDS_OUT * apart, side="right") - start
    chosen = np.flatnonzero((apart < COARSELY_APART) & (crowd <= MOST_CROWDED))
    chosen = chosen[np.lexsort((apart[chosen], first[chosen]))]  # of each known picture, the most alike first
    best = chosen[np.unique(first[chosen], return_index=True)[1]]
    found = []
    for place in best:
        others = [other for other in range(start[place], end[place]) if first[other] != first[place]][:RIVALS]
        rivals = tuple((int(first[other]), MIRRORS[mirror[other]]) for other in others)
        found.append(Match(int(first[place]), int(second[place]), MIRRORS[mirror[place]], rivals))
    return found


def pairs_within(thumbnails: Thumbnails, picture: Callable[[int], Image.Image]) -> list[tuple[int, int, Mirror]]:
    """The pairs of one collection that are one picture, the smaller index first; `picture` gives an RGB image."""
    first, second, mirror, apart = _candidates(thumbnails, thumbnails)
    other = first != second
    first, second, mirror, apart = first[other], second[other], mirror[other], apart[other]
    order = np.lexsort((mirror, apart, second))
    first, second, mirror, apart = first[order], second[order], mirror[order], apart[order]
    start, end = np.searchsorted(second, second), np.searchsorted(second, second, side="right")
    crowd = np.searchsorted(second + apart, second + STANDS_OUT * apart, side="right") - start
    near = (apart < COARSELY_APART) & ((crowd <= MOST_CROWDED) | (apart < NEARLY_EQUAL))
    found: dict[tuple[int, int], Mirror] = {}
    for place in np.flatnonzero(near).tolist():
        pair = (min(int(first[place]), int(second[place])), max(int(first[place]), int(second[place])))
        if pair in found:
            continue
        others = [other for other in range(start[place], end[place]) if first[other] != first[place]][:RIVALS]
        rivals = tuple((int(first[other]), MIRRORS[mirror[other]]) for other in others)
        match = Match(int(first[place]), int(second[place]), MIRRORS[mirror[place]], rivals)
        if same_picture(match, picture, picture(match.asked), NEARLY_EQUAL):
            found[pair] = match.mirror
    return [(one, two, mirror) for (one, two), mirror in sorted(found.items(), key=lambda item: item[0])]


def groups_of(count: int, pairs: Iterable[tuple[int, int]]) -> npt.NDArray[np.int64]:
    """(count,) the group of each of so many samples: equal where pairs connect them, else its own."""
    groups = np.arange(count, dtype=np.int64)

    def root(index: int) -> int:
        while groups[index] != index:
            groups[index] = groups[groups[index]]
            index = int(groups[index])
        return index

    for one, two in pairs:
        low, high = sorted((root(one), root(two)))
        groups[high] = low
    return np.array([root(index) for index in range(count)], dtype=np.int64)


def same_picture(match: Match, known: Callable[[int], Image.Image], asked: Image.Image, equal: float = 0.0) -> bool:
    """Whether the two agree in their pixels, and stand out in that, or agree to `equal`.

    `known` gives an RGB image by its place.
    """
    apart = _pixels_apart(known(match.known), asked, match.mirror)
    if apart >= APART or apart < equal:
        return apart < equal
    rivals = [_pixels_apart(known(place), asked, mirror) for place, mirror in match.rivals]
    return sum(rival < STANDS_OUT * apart for rival in rivals) <= MOST_COPIES


def _pixels_apart(known: Image.Image, asked: Image.Image, mirror: Mirror) -> float:
    """How far they are apart at the smaller one's size."""
    size = (min(known.width, asked.width, COMPARED), min(known.height, asked.height, COMPARED))
    first, second = (np.asarray(image.resize(size, Image.Resampling.BILINEAR))[None] for image in (known, asked))
    return float(_apart(first, mirror.of(second))[0])


def _candidates(known: Thumbnails, asked: Thumbnails) -> tuple[Places, Places, Places, npt.NDArray[np.float64]]:
    """Pairs whose hashes are close: the places of both, the mirror's number, and how far the thumbnails are apart."""
    of_known, of_asked = _not_blank(known), _not_blank(asked)
    hashes_known, hashes_asked = hashes(known[of_known]), hashes(asked[of_asked])
    places, apart = [np.empty((3, 0), np.int64)], [np.empty(0)]
    for number, mirror in enumerate(MIRRORS):
        for first, second in _close(hashes_known, hashes_asked ^ mirror.bits):
            first, second = of_known[first], of_asked[second]
            distance = _apart(known[first], mirror.of(asked[second]))
            near = distance < STANDS_OUT * COARSELY_APART
            places.append(np.stack([first[near], second[near], np.full(near.sum(), number)]))
            apart.append(distance[near])
    return *np.concatenate(places, axis=1), np.concatenate(apart)


def _close(known: Hashes, asked: Hashes) -> Iterator[tuple[Places, Places]]:
    """The places in both of pairs of close hashes, block by block."""
    rows = max(1, BLOCK // max(1, len(known)))
    for start in range(0, len(asked), rows):
        differing = np.bitwise_count(known[None, :] ^ asked[start : start + rows, None])
        near = differing <= MOST_BITS
        for row in np.flatnonzero(near.sum(1) > MOST_CANDIDATES):
            near[row] = False
            near[row, np.argpartition(differing[row], MOST_CANDIDATES)[:MOST_CANDIDATES]] = True
        second, first = np.nonzero(near)
        yield first, second + start


def _not_blank(thumbnails: Thumbnails) -> Places:
    return np.flatnonzero(thumbnails.std((1, 2, 3)) >= FLATTEST)


def _apart(first: Thumbnails, second: Thumbnails) -> npt.NDArray[np.float64]:
    """(N,) how far pairs of pictures (N, H, W, 3) are apart: their mean square difference over their variance."""
    one, other = first.astype(np.float32), second.astype(np.float32)
    variance = (one.var((1, 2, 3)) + other.var((1, 2, 3))) / 2
    apart: npt.NDArray[np.float32] = ((one - other) ** 2).mean((1, 2, 3)) / np.maximum(variance, 1)
    return apart.astype(np.float64)
