"""Explanations as images: the input, its map and the overlay of both, drawn with Pillow.

Orange is evidence for the class, blue against it, and white is neutral. Colors saturate at the map's 99.5th percentile,
so that a single pixel does not dominate. Small images are enlarged pixel by pixel, large ones scaled to one size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from dlkit.explanation.pillow import (
    BACKGROUND,
    BLUE,
    FOREGROUND,
    GRID,
    MARGIN,
    MUTED,
    ORANGE,
    TEXT,
    TITLE,
    Color,
    draw_text,
    save_png,
    text_width,
    truncate,
)

if TYPE_CHECKING:
    from dlkit.explanation.records import Explanation

Map = npt.NDArray[np.float32]  # (H, W)
Pixels = npt.NDArray[np.uint8]  # (C, H, W)

IMAGE_SIDE = 320  # approximate pixels of an image's longer side
MAX_PIXELATED_SIDE = 96  # pixels of smaller images are enlarged as squares
MONTAGE_SIDE = 168
MONTAGE_NOTE = "orange: evidence for the class, blue: against it; below: deletion / insertion AUC"
GAP = 16
BAR_WIDTH = 18
FULL_COLOR_PERCENTILE = 99.5  # the percentile of |map| at which colors saturate
MAX_MAPS, MAX_FILTERS = 64, 64
TILE = 72  # approximate side of a filter or a feature map
COLORMAP: tuple[tuple[float, Color], ...] = (
    (-1.0, (8, 38, 84)), (-0.55, BLUE), (0.0, BACKGROUND), (0.55, (240, 140, 60)), (0.8, ORANGE), (1.0, (120, 28, 0)),
)  # fmt: skip


def draw(explanation: Explanation, path: Path) -> None:
    """Draw image, map and overlay side by side, with class, probability, quality measures and a color bar."""
    width, height = _display_size(_image_of(explanation).shape[1:], IMAGE_SIDE)
    bar_left = MARGIN + 3 * width + 2 * GAP + GAP
    image, top = new_canvas(explanation, bar_left + BAR_WIDTH + 76 + MARGIN, height + TEXT + 16)
    pen = ImageDraw.Draw(image)
    for number, (label, panel) in enumerate(_render_panels(explanation, (width, height)).items()):
        left = MARGIN + number * (width + GAP)
        image.paste(panel, (left, top))
        pen.rectangle((left - 1, top - 1, left + width, top + height), outline=GRID)
        draw_text(pen, (left + width / 2, top + height + 10), label, "ma", MUTED)
    _draw_color_bar(image, (bar_left, top), height, explanation.map)
    save_png(image, path)


def new_canvas(explanation: Explanation, width: int, height: int) -> tuple[Image.Image, int]:
    """A canvas of at least this width with class, probability and quality measures, and the top of the free area."""
    lines = _header_lines(explanation)
    top = MARGIN + TITLE + 10 + len(lines) * (TEXT + 6) + 12
    min_width = max(text_width(_title(explanation), TITLE), *(text_width(text) for text, _ in lines))
    image = Image.new("RGB", (max(width, math.ceil(min_width) + 2 * MARGIN), top + height + MARGIN), BACKGROUND)
    pen = ImageDraw.Draw(image)
    draw_text(pen, (MARGIN, MARGIN), _title(explanation), "la", FOREGROUND, TITLE)
    for number, (text, color) in enumerate(lines):
        draw_text(pen, (MARGIN, MARGIN + TITLE + 10 + number * (TEXT + 6)), text, "la", color)
    return image, top


def montage(explanations: Sequence[Explanation], path: Path) -> None:
    """Draw the overlays of several images (rows) and methods (columns) as one image."""
    methods = list(dict.fromkeys(explanation.method for explanation in explanations))
    rows: list[list[Explanation]] = []
    for explanation in explanations:
        if not rows or explanation.method == methods[0]:
            rows.append([])
        rows[-1].append(explanation)
    size = _display_size(_image_of(explanations[0]).shape[1:], MONTAGE_SIDE)
    column = max(size[0], *(math.ceil(text_width(name)) for name in methods)) + GAP
    row = size[1] + 2 * (TEXT + 5) + GAP
    labels = max(math.ceil(text_width(text)) for line in rows for text in _row_label(line[0]))
    left, top = MARGIN + max(size[0], labels) + GAP, MARGIN + TEXT + 14
    width = max(left + column * len(methods) - GAP, MARGIN + math.ceil(text_width(MONTAGE_NOTE))) + MARGIN
    image = Image.new("RGB", (width, top + row * len(rows) + TEXT + MARGIN), BACKGROUND)
    pen = ImageDraw.Draw(image)
    for number, name in enumerate(methods):
        draw_text(pen, (left + number * column, MARGIN), name, "la", FOREGROUND)
    for number, line in enumerate(rows):
        y = top + number * row
        image.paste(_render_image(_image_of(line[0]), size), (MARGIN, y))
        for index, text in enumerate(_row_label(line[0])):
            draw_text(
                pen, (MARGIN, y + size[1] + 5 + index * (TEXT + 4)), text, "la", FOREGROUND if index == 0 else MUTED
            )
        for explanation in line:
            x = left + methods.index(explanation.method) * column
            image.paste(_render_panels(explanation, size)["overlay"], (x, y))
            warning = "empty" if explanation.empty else "flagged" if explanation.sanity.flagged else ""
            note = warning or f"{explanation.deletion_auc:.2f} / {explanation.insertion_auc:.2f}"
            draw_text(pen, (x, y + size[1] + 5), note, "la", ORANGE if warning else MUTED)
    draw_text(pen, (MARGIN, top + row * len(rows)), MONTAGE_NOTE, "la", MUTED)
    save_png(image, path)


def draw_features(
    pixels: Pixels, filters: npt.NDArray[np.float32] | None, maps: npt.NDArray[np.float32], title: str, path: Path
) -> int:
    """Draw the image, the first filters (maps, C, kh, kw) and the feature maps (C, h, w); return the number of maps."""
    shown = maps[:MAX_MAPS]
    blocks: list[tuple[str, Image.Image]] = [
        ("image", _render_image(pixels, _display_size(pixels.shape[1:], IMAGE_SIDE)))
    ]
    if filters is not None:
        tiles = [_filter_tile(weights) for weights in filters[:MAX_FILTERS]]
        blocks.append((_count_label("first filters", len(tiles), len(filters)), _tile_grid(tiles)))
    blocks.append((_count_label("feature maps", len(shown), len(maps)), _tile_grid([_map_tile(map) for map in shown])))
    top = MARGIN + TITLE + 16
    widths = [max(block.width, math.ceil(text_width(label))) for label, block in blocks]
    width = max(sum(widths) + GAP * 2 * (len(blocks) - 1), math.ceil(text_width(title, TITLE))) + 2 * MARGIN
    height = top + TEXT + 10 + max(block.height for _, block in blocks) + MARGIN
    image = Image.new("RGB", (width, height), BACKGROUND)
    pen, left = ImageDraw.Draw(image), MARGIN
    draw_text(pen, (MARGIN, MARGIN), title, "la", FOREGROUND, TITLE)
    for (label, block), block_width in zip(blocks, widths, strict=True):
        draw_text(pen, (left, top), label, "la", MUTED)
        image.paste(block, (left, top + TEXT + 10))
        left += block_width + 2 * GAP
    save_png(image, path)
    return len(shown)


def render_overlay(explanation: Explanation, side: int) -> Image.Image:
    """The overlay alone, its longer side about `side` pixels."""
    return _render_panels(explanation, _display_size(_image_of(explanation).shape[1:], side))["overlay"]


def apply_colormap(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Values from -1 to 1, (…), as colors, (…, 3)."""
    positions = [position for position, _ in COLORMAP]
    channels = [np.interp(values, positions, [color[channel] for _, color in COLORMAP]) for channel in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)


def normalize(map: Map) -> tuple[Map, float]:
    """The map scaled and clipped to ±1, and the divisor."""
    full = float(np.percentile(np.abs(map), FULL_COLOR_PERCENTILE)) or float(np.abs(map).max()) or 1.0
    return np.clip(map / full, -1, 1).astype(np.float32), full


def _render_panels(explanation: Explanation, size: tuple[int, int]) -> dict[str, Image.Image]:
    values, _ = normalize(explanation.map)
    large = np.asarray(_resize(Image.fromarray(values), size))  # (h, w)
    colors = apply_colormap(large).astype(np.float32)
    picture = _render_image(_image_of(explanation), size)
    gray = np.asarray(picture.convert("L").convert("RGB")).astype(np.float32)
    opacity = 0.85 * np.abs(large)[..., None] ** 0.7
    mixed = (gray * 0.75 + 48) * (1 - opacity) + colors * opacity
    return {
        "image": picture,
        "map": Image.fromarray(colors.astype(np.uint8)),
        "overlay": Image.fromarray(mixed.clip(0, 255).astype(np.uint8)),
    }


def _image_of(explanation: Explanation) -> Pixels:
    assert explanation.image is not None, "an explanation of text has no image"
    return explanation.image


def _title(explanation: Explanation) -> str:
    target = f"{truncate(explanation.target, 60)}: {100 * explanation.probability:.1f} %"
    if explanation.predicted == explanation.target:
        return target
    return f"{target} (prediction: {truncate(explanation.predicted, 60)})"


def _header_lines(explanation: Explanation) -> list[tuple[str, Color]]:
    """The lines below the title, with their colors."""
    where = f" at {explanation.layer}" if explanation.layer else ""
    measures = [f"deletion {explanation.deletion_auc:.2f}", f"insertion {explanation.insertion_auc:.2f}"]
    if explanation.completeness_error is not None:
        measures.append(f"completeness error {100 * explanation.completeness_error:.2g} %")
    if explanation.sanity.correlation is not None:
        measures.append(f"correlation with shuffled weights {explanation.sanity.correlation:.2f}")
    name = truncate(Path(explanation.path).name or "-", 60)
    lines = [(f"{explanation.method}{where} · {explanation.model} · {name}", MUTED), (" · ".join(measures), MUTED)]
    if explanation.empty:
        lines.append(("empty: no evidence for the class there", ORANGE))
    if explanation.sanity.survives:
        lines.append(("flagged: shuffled weights give a similar map", ORANGE))
    if explanation.sanity.random_weights:
        lines.append(("flagged: the network's weights are indistinguishable from random ones", ORANGE))
    return lines


def _row_label(explanation: Explanation) -> tuple[str, str]:
    """The caption of a row's image: the class and the file."""
    answer = f"{truncate(explanation.target, 20)}: {100 * explanation.probability:.1f} %"
    return answer, truncate(Path(explanation.path).name or "-", 24)


def _draw_color_bar(image: Image.Image, position: tuple[int, int], height: int, map: Map) -> None:
    """From evidence against the class to evidence for it; only the upper half for a nonnegative map."""
    left, top = position
    _, full = normalize(map)
    low = -1.0 if map.min() < 0 else 0.0
    column = apply_colormap(np.linspace(1, low, height))[:, None]  # (height, 1, 3)
    image.paste(Image.fromarray(np.repeat(column, BAR_WIDTH, axis=1)), (left, top))
    pen = ImageDraw.Draw(image)
    pen.rectangle((left - 1, top - 1, left + BAR_WIDTH, top + height), outline=GRID)
    for value in (1.0, 0.0, -1.0) if low < 0 else (1.0, 0.5, 0.0):
        y = top + (1 - value) / (1 - low) * (height - 1)
        anchor = "lt" if value == 1 else "lb" if value == low else "lm"
        draw_text(pen, (left + BAR_WIDTH + 8, y), f"{value * full:.2g}", anchor, MUTED)
    draw_text(pen, (left, top + height + 10), "for", "la", ORANGE)
    if low < 0:
        draw_text(pen, (left + text_width("for") + 8, top + height + 10), "against", "la", BLUE)


def _display_size(shape: Sequence[int], side: int) -> tuple[int, int]:
    """(width, height) at which an image of (H, W) is displayed."""
    height, width = shape
    longest = max(height, width)
    factor = max(1, round(side / longest)) if longest <= MAX_PIXELATED_SIDE else side / longest
    return max(1, round(width * factor)), max(1, round(height * factor))


def _render_image(pixels: Pixels, size: tuple[int, int]) -> Image.Image:
    channels_last = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    image = Image.fromarray(channels_last[..., 0] if channels_last.shape[-1] == 1 else channels_last)
    return _resize(image, size).convert("RGB")


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    smooth = max(image.size) > MAX_PIXELATED_SIDE
    return image.resize(size, Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST)


def _filter_tile(weights: npt.NDArray[np.float32]) -> Image.Image:
    """One filter (C, kh, kw): in RGB if it has three channels, else the mean of its channels in the map's colors."""
    if len(weights) == 3:
        largest = float(np.abs(weights).max()) or 1.0
        colors = np.clip(127.5 + 127.5 * weights.transpose(1, 2, 0) / largest, 0, 255).astype(np.uint8)
    else:
        mean = weights.mean(0)
        colors = apply_colormap(mean / (float(np.abs(mean).max()) or 1.0))
    return _resize_tile(Image.fromarray(np.ascontiguousarray(colors)))


def _map_tile(map: Map) -> Image.Image:
    return _resize_tile(Image.fromarray(apply_colormap(normalize(map)[0])))


def _resize_tile(image: Image.Image) -> Image.Image:
    factor = TILE / max(image.size)
    factor = max(1, round(factor)) if factor >= 1 else factor
    return image.resize(
        (max(1, round(image.width * factor)), max(1, round(image.height * factor))), Image.Resampling.NEAREST
    )


def _tile_grid(tiles: Sequence[Image.Image]) -> Image.Image:
    """Tiles of one size in rows, with a frame around each."""
    columns = math.ceil(math.sqrt(len(tiles)))
    width, height = tiles[0].width + 4, tiles[0].height + 4
    sheet = Image.new("RGB", (columns * width, math.ceil(len(tiles) / columns) * height), GRID)
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (number % columns * width + 2, number // columns * height + 2))
    return sheet


def _count_label(noun: str, shown: int, total: int) -> str:
    return f"{total} {noun}" if shown == total else f"{shown} of {total} {noun}"
