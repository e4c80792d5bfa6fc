"""Near-duplicate images: the same picture in other bytes, because it was saved again, resized or mirrored.

A perceptual hash finds candidates among millions of pairs, then their pixels are compared. The hash has 63 bits: the
signs of the cosine transform of the 8 × 8 gray thumbnail, without the mean. Mirroring flips the signs of every second
frequency, so one XOR gives the hash of the mirror image.

After Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010, section 3.2, which compares
the 8 × 8 low frequencies of a 32 × 32 thumbnail with their median.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from dlkit.data.checks.scan import SIDE

Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]
Distances = npt.NDArray[np.float64]
Thumbnails = npt.NDArray[np.uint8]

MAX_BITS = 10  # differing bits of candidates
MAX_CANDIDATES = 64  # per picture and mirror; the nearest hashes
MIN_STD = 4.0  # levels; a picture below it is blank, and looks like every other blank picture
MAX_THUMBNAIL_DISTANCE, MAX_DISTANCE = 0.04, 0.06  # of thumbnails and of pixels, by `_distance`
CROWD_RADIUS = 6.0  # times the distance of a match: more pictures within it are of one kind, not copies
MAX_CROWD = 24  # thumbnails within that radius
MAX_RIVALS, MAX_CLOSE_RIVALS = 8, 2  # next candidates whose pixels are compared too; of these, as many may be close
MAX_COMPARED_SIDE = 64  # pixels
NEARLY_EQUAL = 0.01  # within one split, closer pictures are duplicates, however many there are
BLOCK = 1 << 18  # pairs at a time, so that they fit a processor's cache

_FREQUENCIES = np.arange(SIDE)
_COSINES = np.cos(np.pi / SIDE * np.outer(_FREQUENCIES, _FREQUENCIES + 0.5))  # (frequency, pixel)


@dataclass(frozen=True)
class Mirror:
    """A way to mirror a picture."""

    name: str
    bits: np.uint64  # of the hash that it flips
    horizontal: bool
    vertical: bool

    def apply(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """(…, H, W, C), mirrored."""
        return pixels[..., :: -1 if self.vertical else 1, :: -1 if self.horizontal else 1, :]


def _mirror(name: str, horizontal: bool, vertical: bool) -> Mirror:
    odd = np.arange(SIDE) % 2 == 1
    inverted = (odd & horizontal)[None, :] ^ (odd & vertical)[:, None]  # (vertical, horizontal frequency)
    return Mirror(name, _pack_bits(inverted[None])[0], horizontal, vertical)


def _pack_bits(bits: npt.NDArray[np.bool_]) -> Hashes:  # (N, 8, 8)
    return np.packbits(bits.reshape(-1, SIDE * SIDE), axis=1).view(np.uint64)[:, 0]


MIRRORS = (
    _mirror("", False, False),
    _mirror("flipped", True, False),
    _mirror("upside down", False, True),
    _mirror("turned by 180°", True, True),
)


def hashes(thumbnails: npt.NDArray[np.uint8]) -> Hashes:
    """(N,) the perceptual hashes of thumbnails (N, 8, 8, 3)."""
    gray = thumbnails @ np.array([0.299, 0.587, 0.114], np.float32)  # (N, 8, 8)
    bits = _COSINES @ gray @ _COSINES.T > 0  # (N, vertical, horizontal frequency)
    bits[:, 0, 0] = False  # the mean
    return _pack_bits(bits)


@dataclass(frozen=True)
class DuplicateCandidate:
    """A reference picture, its nearest query, and the query's next candidates."""

    reference: int
    query: int
    mirror: Mirror
    rivals: tuple[tuple[int, Mirror], ...]  # reference, mirror


def find_candidates(references: Thumbnails, queries: Thumbnails) -> list[DuplicateCandidate]:
    """For each reference thumbnail (N, 8, 8, 3) with a query near it, the nearest one; sorted by reference."""
    pairs = _ranked_pairs(references, queries)
    near = np.flatnonzero((pairs.distances < MAX_THUMBNAIL_DISTANCE) & (pairs.crowd <= MAX_CROWD))
    near = near[np.lexsort((pairs.distances[near], pairs.references[near]))]  # per reference, the nearest first
    nearest = near[np.unique(pairs.references[near], return_index=True)[1]]
    return [pairs.candidate(index) for index in nearest.tolist()]


def find_duplicates(thumbnails: Thumbnails, image: Callable[[int], Image.Image]) -> list[tuple[int, int, Mirror]]:
    """The pairs of duplicates within one split, smaller index first; `image` returns an RGB image by its index."""
    pairs = _ranked_pairs(thumbnails, thumbnails, skip_self=True)
    near = (pairs.distances < MAX_THUMBNAIL_DISTANCE) & ((pairs.crowd <= MAX_CROWD) | (pairs.distances < NEARLY_EQUAL))
    duplicates: dict[tuple[int, int], Mirror] = {}
    for index in np.flatnonzero(near).tolist():
        one, two = sorted((int(pairs.references[index]), int(pairs.queries[index])))
        if (one, two) in duplicates:
            continue
        candidate = pairs.candidate(index)
        if is_duplicate(candidate, image, image(candidate.query), NEARLY_EQUAL):
            duplicates[one, two] = candidate.mirror
    return [(one, two, mirror) for (one, two), mirror in sorted(duplicates.items(), key=lambda item: item[0])]


def groups_of(count: int, pairs: Iterable[tuple[int, int]]) -> npt.NDArray[np.int64]:
    """(count,) the group of each sample; samples connected by pairs share a group (union-find)."""
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


def is_duplicate(
    candidate: DuplicateCandidate, reference: Callable[[int], Image.Image], query: Image.Image, equal: float = 0.0
) -> bool:
    """Whether the pixels agree and few rivals agree as well, or the distance is below `equal`."""
    distance = _pixel_distance(reference(candidate.reference), query, candidate.mirror)
    if distance >= MAX_DISTANCE or distance < equal:
        return distance < equal
    rivals = [_pixel_distance(reference(index), query, mirror) for index, mirror in candidate.rivals]
    return sum(rival < CROWD_RADIUS * distance for rival in rivals) <= MAX_CLOSE_RIVALS


def _pixel_distance(reference: Image.Image, query: Image.Image, mirror: Mirror) -> float:
    """The distance of two pictures at the size of the smaller one."""
    size = (
        min(reference.width, query.width, MAX_COMPARED_SIDE),
        min(reference.height, query.height, MAX_COMPARED_SIDE),
    )
    first, second = (np.asarray(image.resize(size, Image.Resampling.BILINEAR))[None] for image in (reference, query))
    return float(_distance(first, mirror.apply(second))[0])


@dataclass(frozen=True)
class _RankedPairs:
    """Pairs (P,) with close hashes, sorted by query, then distance."""

    references: Indices
    queries: Indices
    mirrors: Indices
    distances: Distances  # of the thumbnails

    @property
    def crowd(self) -> Indices:
        """(P,) pairs of the same query within CROWD_RADIUS times the distance."""
        # these keys are sorted: by query, and within a query by its distance, which is below 1
        keys = self.queries + self.distances
        ends = np.searchsorted(keys, self.queries + CROWD_RADIUS * self.distances, side="right")
        return ends - np.searchsorted(self.queries, self.queries)

    def candidate(self, index: int) -> DuplicateCandidate:
        reference, query = int(self.references[index]), int(self.queries[index])
        start, end = np.searchsorted(self.queries, [query, query + 1]).tolist()
        others = [other for other in range(start, end) if self.references[other] != reference][:MAX_RIVALS]
        rivals = tuple((int(self.references[other]), MIRRORS[self.mirrors[other]]) for other in others)
        return DuplicateCandidate(reference, query, MIRRORS[self.mirrors[index]], rivals)


def _ranked_pairs(references: Thumbnails, queries: Thumbnails, skip_self: bool = False) -> _RankedPairs:
    kept_references, kept_queries = _not_blank(references), _not_blank(queries)
    reference_hashes, query_hashes = hashes(references[kept_references]), hashes(queries[kept_queries])
    indices, distances = [np.empty((3, 0), np.int64)], [np.empty(0)]
    for number, mirror in enumerate(MIRRORS):
        for first, second in _close_hashes(reference_hashes, query_hashes ^ mirror.bits):
            first, second = kept_references[first], kept_queries[second]
            distance = _distance(references[first], mirror.apply(queries[second]))
            near = distance < CROWD_RADIUS * MAX_THUMBNAIL_DISTANCE
            if skip_self:
                near &= first != second
            indices.append(np.stack([first[near], second[near], np.full(near.sum(), number)]))
            distances.append(distance[near])
    (first, second, mirrors), distance = np.concatenate(indices, axis=1), np.concatenate(distances)
    order = np.lexsort((mirrors, distance, second))
    return _RankedPairs(first[order], second[order], mirrors[order], distance[order])


def _close_hashes(references: Hashes, queries: Hashes) -> Iterator[tuple[Indices, Indices]]:
    """The indices of pairs of close hashes, block by block."""
    rows = max(1, BLOCK // max(1, len(references)))
    for start in range(0, len(queries), rows):
        bits = np.bitwise_count(references[None, :] ^ queries[start : start + rows, None])
        near = bits <= MAX_BITS
        for row in np.flatnonzero(near.sum(1) > MAX_CANDIDATES):
            near[row] = False
            near[row, np.argpartition(bits[row], MAX_CANDIDATES)[:MAX_CANDIDATES]] = True
        second, first = np.nonzero(near)
        yield first, second + start


def _not_blank(thumbnails: Thumbnails) -> Indices:
    return np.flatnonzero(thumbnails.std((1, 2, 3)) >= MIN_STD)


def _distance(first: Thumbnails, second: Thumbnails) -> Distances:
    """(N,) mean square difference over variance of pairs of pictures (N, H, W, 3)."""
    one, other = first.astype(np.float32), second.astype(np.float32)
    variance = (one.var((1, 2, 3)) + other.var((1, 2, 3))) / 2
    distance: npt.NDArray[np.float32] = ((one - other) ** 2).mean((1, 2, 3)) / np.maximum(variance, 1)
    return distance.astype(np.float64)
