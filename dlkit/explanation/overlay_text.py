"""Explanations of text as pictures: its words, or its tree, in the colours of overlay.py, with Pillow alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import ImageDraw

from dlkit.explanation.drawing import GRID, INK, MARGIN, PAPER, SOFT, TEXT, Colour, clipped, save, text_width, write
from dlkit.explanation.overlay import coloured, headed, scaled

if TYPE_CHECKING:
    from dlkit.explanation.records import Explanation, Part, Word

PAGE = 760  # pixels, the width that words are set in
SMALL = 11  # font size
BOX = TEXT + 10  # a word's height
LINE = BOX + SMALL + 16
NOTE_HEIGHT = TEXT + 8
LONGEST_WORD = 24  # characters
COLUMN = 92  # pixels a leaf of a drawn tree has at least
LEVEL = 58
MOST_LEAVES, MOST_LEVELS = 32, 24  # of a tree that is drawn; else its words are
NOTE = "orange speaks for the class, blue against it"
UNKNOWN_NOTE = "; in grey: words that the vocabulary does not have"


def draw(explanation: Explanation, path: Path) -> None:
    """The text's words, or its tree where it is small enough to be read, with class, probability and figures."""
    tree = placed(explanation.parts) if explanation.parts else None
    if tree is not None and len(explanation.words) <= MOST_LEAVES and max(tree.heights) <= MOST_LEVELS:
        _draw_tree(explanation, tree, path)
    else:
        _draw_words(explanation, path)


def colours(values: Sequence[float]) -> list[tuple[Colour, Colour]]:
    """The ground of each value in the map's scale, and what can be read on it."""
    full = scaled(np.array(values, dtype=np.float32))[0]
    grounds = [(int(r), int(g), int(b)) for r, g, b in coloured(full)]
    return [(ground, _readable_on(ground)) for ground in grounds]


def _readable_on(ground: Colour) -> Colour:
    luminance = 0.299 * ground[0] + 0.587 * ground[1] + 0.114 * ground[2]
    return PAPER if luminance < 140 else INK


def _draw_words(explanation: Explanation, path: Path) -> None:
    places = _set(explanation.words)
    lines = places[-1][1] + 1
    image, top = headed(explanation, PAGE + 2 * MARGIN, lines * LINE + NOTE_HEIGHT)
    pen = ImageDraw.Draw(image)
    inks = colours([word.value for word in explanation.words])
    for word, (left, line), ink in zip(explanation.words, places, inks, strict=True):
        _box(pen, (MARGIN + left, top + line * LINE), word, ink)
    _note(pen, top + lines * LINE, explanation)
    save(image, path)


def _note(pen: ImageDraw.ImageDraw, top: float, explanation: Explanation) -> None:
    unknown = any(not word.known for word in explanation.words)
    write(pen, (MARGIN, top), NOTE + (UNKNOWN_NOTE if unknown else ""), "la", SOFT)


def _set(words: Sequence[Word]) -> list[tuple[int, int]]:
    """Where each word begins, in pixels from the left, and in which line."""
    places, left, line = [], 0, 0
    for word in words:
        width = _width(word)
        if left and left + width > PAGE:
            left, line = 0, line + 1
        places.append((left, line))
        left += width + 6
    return places


def _width(word: Word) -> int:
    return max(round(text_width(clipped(word.word, LONGEST_WORD))) + 12, round(text_width("-0.00", SMALL)))


def _box(pen: ImageDraw.ImageDraw, at: tuple[float, float], word: Word, ink: tuple[Colour, Colour]) -> None:
    """A word on its colour, its value below."""
    (left, top), width, (ground, colour) = at, _width(word), ink
    pen.rounded_rectangle((left, top, left + width, top + BOX), 4, fill=ground, outline=GRID)
    shown = colour if word.known else SOFT
    write(pen, (left + width / 2, top + BOX / 2), clipped(word.word, LONGEST_WORD), "mm", shown)
    write(pen, (left + width / 2, top + BOX + 3), f"{word.value:+.2f}", "ma", SOFT, SMALL)


@dataclass(frozen=True)
class Placed:
    """Of each node how high it stands over the leaves, and where: at its own word, or amid the nodes below it."""

    heights: list[int]
    centres: list[float]


def placed(parts: Sequence[Part]) -> Placed:
    """Where each node of a tree is drawn."""
    parents = [-1 if part.node.parent is None else part.node.parent for part in parts]
    heights, children = [0] * len(parts), [0] * len(parts)
    centres = [0.0] * len(parts)
    for node in range(len(parts) - 1, -1, -1):  # a parent is written before its children
        place, above = parts[node].place, parents[node]
        centres[node] = centres[node] / children[node] if place is None else place
        if above >= 0:
            heights[above] = max(heights[above], heights[node] + 1)
            centres[above] += centres[node]
            children[above] += 1
    return Placed(heights, centres)


def _draw_tree(explanation: Explanation, tree: Placed, path: Path) -> None:
    column = max(COLUMN, *(_width(word) + 10 for word in explanation.words))
    levels = max(tree.heights)
    bottom = (levels + 1) * LEVEL
    image, top = headed(explanation, len(explanation.words) * column + 2 * MARGIN, bottom + NOTE_HEIGHT)
    pen = ImageDraw.Draw(image)
    at = [
        (MARGIN + (centre + 0.5) * column, top + (levels - height) * LEVEL)
        for centre, height in zip(tree.centres, tree.heights, strict=True)
    ]
    for place, part in enumerate(explanation.parts[1:], start=1):
        assert part.node.parent is not None
        x, y = at[part.node.parent]
        pen.line((x, y + BOX, *at[place]), fill=GRID, width=2)
    inks = colours([part.value for part in explanation.parts])
    for part, (x, y), ink, height in zip(explanation.parts, at, inks, tree.heights, strict=True):
        if height == 0 and part.place is not None:
            word = explanation.words[part.place]
            _box(pen, (x - _width(word) / 2, y), word, ink)
        else:
            _node(pen, (x, y), part, ink)
    _note(pen, top + bottom, explanation)
    save(image, path)


def _node(pen: ImageDraw.ImageDraw, at: tuple[float, float], part: Part, ink: tuple[Colour, Colour]) -> None:
    """A node's own word where it has one, and its most probable class, on its colour, its value beside it."""
    own = f"{clipped(part.node.word, 14)}: " if part.node.word else ""
    (x, y), name = at, own + clipped(part.node.name, 14)
    half = text_width(name, SMALL) / 2 + 6
    pen.rounded_rectangle((x - half, y, x + half, y + BOX), 4, fill=ink[0], outline=GRID)
    write(pen, (x, y + BOX / 2), name, "mm", ink[1], SMALL)
    write(pen, (x + half + 3, y + BOX / 2), f"{part.value:+.2f}", "lm", SOFT, SMALL)
