"""Explanations of text as images: its words or its tree, in the colors of overlay.py, drawn with Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import ImageDraw

from dlkit.explanation.overlay import apply_colormap, new_canvas, normalize
from dlkit.explanation.pillow import (
    BACKGROUND,
    FOREGROUND,
    GRID,
    MARGIN,
    MUTED,
    TEXT,
    Color,
    Point,
    draw_text,
    save_png,
    text_width,
    truncate,
)

if TYPE_CHECKING:
    from dlkit.explanation.records import Explanation, NodeAttribution, WordAttribution

PAGE_WIDTH = 760  # pixels, at which lines of words are wrapped
SMALL = 11  # font size
BOX_HEIGHT = TEXT + 10  # a word's height
LINE_HEIGHT = BOX_HEIGHT + SMALL + 16
NOTE_HEIGHT = TEXT + 8
MAX_WORD_LENGTH = 24  # characters
MIN_COLUMN = 92  # pixels for each leaf of a drawn tree
LEVEL_HEIGHT = 58
MAX_LEAVES, MAX_LEVELS = 32, 24  # of a drawn tree; of a larger one only the words are drawn
NOTE = "orange: evidence for the class, blue: against it"
UNKNOWN_NOTE = "; gray text: words that are not in the vocabulary"


def draw(explanation: Explanation, path: Path) -> None:
    """Draw the words of a text, or its tree if it is small enough, with class, probability and quality measures."""
    tree = tree_layout(explanation.nodes) if explanation.nodes else None
    if tree is not None and len(explanation.words) <= MAX_LEAVES and max(tree.heights) <= MAX_LEVELS:
        _draw_tree(explanation, tree, path)
    else:
        _draw_words(explanation, path)


def cell_colors(values: Sequence[float]) -> list[tuple[Color, Color]]:
    """The background color of each value, and a legible text color on it."""
    normalized = normalize(np.array(values, dtype=np.float32))[0]
    backgrounds = [(int(r), int(g), int(b)) for r, g, b in apply_colormap(normalized)]
    return [(background, _text_color(background)) for background in backgrounds]


def _text_color(background: Color) -> Color:
    luminance = 0.299 * background[0] + 0.587 * background[1] + 0.114 * background[2]
    return BACKGROUND if luminance < 140 else FOREGROUND


def _draw_words(explanation: Explanation, path: Path) -> None:
    positions = _wrap_words(explanation.words)
    lines = positions[-1][1] + 1
    image, top = new_canvas(explanation, PAGE_WIDTH + 2 * MARGIN, lines * LINE_HEIGHT + NOTE_HEIGHT)
    pen = ImageDraw.Draw(image)
    colors = cell_colors([word.value for word in explanation.words])
    for word, (left, line), pair in zip(explanation.words, positions, colors, strict=True):
        _draw_word(pen, (MARGIN + left, top + line * LINE_HEIGHT), word, pair)
    _draw_note(pen, top + lines * LINE_HEIGHT, explanation)
    save_png(image, path)


def _draw_note(pen: ImageDraw.ImageDraw, top: float, explanation: Explanation) -> None:
    unknown = any(not word.known for word in explanation.words)
    draw_text(pen, (MARGIN, top), NOTE + (UNKNOWN_NOTE if unknown else ""), "la", MUTED)


def _wrap_words(words: Sequence[WordAttribution]) -> list[tuple[int, int]]:
    """The left edge of each word in pixels, and its line."""
    positions, left, line = [], 0, 0
    for word in words:
        width = _word_width(word)
        if left and left + width > PAGE_WIDTH:
            left, line = 0, line + 1
        positions.append((left, line))
        left += width + 6
    return positions


def _word_width(word: WordAttribution) -> int:
    return max(round(text_width(truncate(word.word, MAX_WORD_LENGTH))) + 12, round(text_width("-0.00", SMALL)))


def _draw_word(pen: ImageDraw.ImageDraw, position: Point, word: WordAttribution, colors: tuple[Color, Color]) -> None:
    """A word on its background color, with its value below."""
    (left, top), width, (background, color) = position, _word_width(word), colors
    pen.rounded_rectangle((left, top, left + width, top + BOX_HEIGHT), 4, fill=background, outline=GRID)
    color = color if word.known else MUTED
    draw_text(pen, (left + width / 2, top + BOX_HEIGHT / 2), truncate(word.word, MAX_WORD_LENGTH), "mm", color)
    draw_text(pen, (left + width / 2, top + BOX_HEIGHT + 3), f"{word.value:+.2f}", "ma", MUTED, SMALL)


@dataclass(frozen=True)
class TreeLayout:
    """The height of each node above the leaves and its horizontal position: its word's, or its children's mean."""

    heights: list[int]
    centers: list[float]


def tree_layout(nodes: Sequence[NodeAttribution]) -> TreeLayout:
    parents = [-1 if node.node.parent is None else node.node.parent for node in nodes]
    heights, children = [0] * len(nodes), [0] * len(nodes)
    centers = [0.0] * len(nodes)
    for node in range(len(nodes) - 1, -1, -1):  # a parent precedes its children
        word_index, parent = nodes[node].word_index, parents[node]
        centers[node] = centers[node] / children[node] if word_index is None else word_index
        if parent >= 0:
            heights[parent] = max(heights[parent], heights[node] + 1)
            centers[parent] += centers[node]
            children[parent] += 1
    return TreeLayout(heights, centers)


def _draw_tree(explanation: Explanation, tree: TreeLayout, path: Path) -> None:
    column = max(MIN_COLUMN, *(_word_width(word) + 10 for word in explanation.words))
    levels = max(tree.heights)
    bottom = (levels + 1) * LEVEL_HEIGHT
    image, top = new_canvas(explanation, len(explanation.words) * column + 2 * MARGIN, bottom + NOTE_HEIGHT)
    pen = ImageDraw.Draw(image)
    positions = [
        (MARGIN + (center + 0.5) * column, top + (levels - height) * LEVEL_HEIGHT)
        for center, height in zip(tree.centers, tree.heights, strict=True)
    ]
    for index, node in enumerate(explanation.nodes[1:], start=1):
        assert node.node.parent is not None
        x, y = positions[node.node.parent]
        pen.line((x, y + BOX_HEIGHT, *positions[index]), fill=GRID, width=2)
    colors = cell_colors([node.value for node in explanation.nodes])
    for node, (x, y), pair, height in zip(explanation.nodes, positions, colors, tree.heights, strict=True):
        if height == 0 and node.word_index is not None:
            word = explanation.words[node.word_index]
            _draw_word(pen, (x - _word_width(word) / 2, y), word, pair)
        else:
            _draw_node(pen, (x, y), node, pair)
    _draw_note(pen, top + bottom, explanation)
    save_png(image, path)


def _draw_node(pen: ImageDraw.ImageDraw, position: Point, node: NodeAttribution, colors: tuple[Color, Color]) -> None:
    """A node's own word, if any, and its most probable class, on its background color, with its value at the right."""
    word = f"{truncate(node.node.word, 14)}: " if node.node.word else ""
    (x, y), name = position, word + truncate(node.node.name, 14)
    half = text_width(name, SMALL) / 2 + 6
    pen.rounded_rectangle((x - half, y, x + half, y + BOX_HEIGHT), 4, fill=colors[0], outline=GRID)
    draw_text(pen, (x, y + BOX_HEIGHT / 2), name, "mm", colors[1], SMALL)
    draw_text(pen, (x + half + 3, y + BOX_HEIGHT / 2), f"{node.value:+.2f}", "lm", MUTED, SMALL)
