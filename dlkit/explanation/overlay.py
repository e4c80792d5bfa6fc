"""Explanations as pictures: an image, its map and both together, with Pillow alone, in the manner of plot.py.

Orange speaks for the class, blue against it, white is nothing. A map is shown up to its 99.5th percentile, so that a
single pixel does not pale the rest. Small images are enlarged pixel by pixel, large ones brought to one size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from dlkit.explanation.drawing import (  # fmt: skip
    BLUE,
    GRID,
    INK,
    MARGIN,
    ORANGE,
    PAPER,
    SOFT,
    TEXT,
    TITLE,
    Colour,
    clipped,
    save,
    text_width,
    write,
)

if TYPE_CHECKING:
    from dlkit.explanation.records import Explanation

Map = npt.NDArray[np.float32]  # (H, W)
Pixels = npt.NDArray[np.uint8]  # (C, H, W)

SIDE = 320  # pixels of an image's longer side, about
PIXELATED = 96  # up to this side, pixels are enlarged as squares
MONTAGE_SIDE = 168
MONTAGE_NOTE = "orange speaks for the class, blue against it; below: deletion / insertion AUC"
GAP = 16
BAR_WIDTH, BAR_STEPS = 18, 256
FULL = 99.5  # the percentile of |map| that has the full colour
MOST_MAPS, MOST_FILTERS = 64, 64
TILE = 72  # about, of a filter or a feature map
SCALE: tuple[tuple[float, Colour], ...] = (
    (-1.0, (8, 38, 84)), (-0.55, BLUE), (0.0, PAPER), (0.55, (240, 140, 60)), (0.8, ORANGE), (1.0, (120, 28, 0)),
)  # fmt: skip


def draw(explanation: Explanation, path: Path) -> None:
    """Image, map and overlay side by side, with class, probability, figures and a colour bar."""
    width, height = _shown_size(_pixels(explanation).shape[1:], SIDE)
    bar_left = MARGIN + 3 * width + 2 * GAP + GAP
    image, top = headed(explanation, bar_left + BAR_WIDTH + 76 + MARGIN, height + TEXT + 16)
    pen = ImageDraw.Draw(image)
    for number, (label, panel) in enumerate(_panels(explanation, (width, height)).items()):
        left = MARGIN + number * (width + GAP)
        image.paste(panel, (left, top))
        pen.rectangle((left - 1, top - 1, left + width, top + height), outline=GRID)
        write(pen, (left + width / 2, top + height + 10), label, "ma", SOFT)
    _colour_bar(image, (bar_left, top), height, explanation.map)
    save(image, path)


def headed(explanation: Explanation, width: int, height: int) -> tuple[Image.Image, int]:
    """A sheet at least so wide, with class, probability and figures at its top, and where so much height is free."""
    lines = _lines(explanation)
    top = MARGIN + TITLE + 10 + len(lines) * (TEXT + 6) + 12
    least = max(text_width(_title(explanation), TITLE), *(text_width(text) for text, _ in lines))
    image = Image.new("RGB", (max(width, math.ceil(least) + 2 * MARGIN), top + height + MARGIN), PAPER)
    pen = ImageDraw.Draw(image)
    write(pen, (MARGIN, MARGIN), _title(explanation), "la", INK, TITLE)
    for number, (text, colour) in enumerate(lines):
        write(pen, (MARGIN, MARGIN + TITLE + 10 + number * (TEXT + 6)), text, "la", colour)
    return image, top


def montage(explanations: Sequence[Explanation], path: Path) -> None:
    """The overlays of several images (rows) and methods (columns) in one picture."""
    methods = list(dict.fromkeys(found.method for found in explanations))
    rows: list[list[Explanation]] = []
    for found in explanations:
        if not rows or found.method == methods[0]:
            rows.append([])
        rows[-1].append(found)
    size = _shown_size(_pixels(explanations[0]).shape[1:], MONTAGE_SIDE)
    column = max(size[0], *(math.ceil(text_width(name)) for name in methods)) + GAP
    row = size[1] + 2 * (TEXT + 5) + GAP
    labels = max(math.ceil(text_width(text)) for line in rows for text in _row_label(line[0]))
    left, top = MARGIN + max(size[0], labels) + GAP, MARGIN + TEXT + 14
    width = max(left + column * len(methods) - GAP, MARGIN + math.ceil(text_width(MONTAGE_NOTE))) + MARGIN
    image = Image.new("RGB", (width, top + row * len(rows) + TEXT + MARGIN), PAPER)
    pen = ImageDraw.Draw(image)
    for number, name in enumerate(methods):
        write(pen, (left + number * column, MARGIN), name, "la", INK)
    for number, line in enumerate(rows):
        y = top + number * row
        image.paste(_picture(_pixels(line[0]), size), (MARGIN, y))
        for place, text in enumerate(_row_label(line[0])):
            write(pen, (MARGIN, y + size[1] + 5 + place * (TEXT + 4)), text, "la", INK if place == 0 else SOFT)
        for found in line:
            x = left + methods.index(found.method) * column
            image.paste(_panels(found, size)["overlay"], (x, y))
            warning = "empty" if found.empty else "flagged" if found.sanity.flagged else ""
            note = warning or f"{found.deletion_auc:.2f} / {found.insertion_auc:.2f}"
            write(pen, (x, y + size[1] + 5), note, "la", ORANGE if warning else SOFT)
    write(pen, (MARGIN, top + row * len(rows)), MONTAGE_NOTE, "la", SOFT)
    save(image, path)


def features(
    pixels: Pixels, filters: npt.NDArray[np.float32] | None, maps: npt.NDArray[np.float32], title: str, path: Path
) -> int:
    """The image, the first convolution's filters (maps, C, kh, kw) and feature maps (C, h, w); how many are shown."""
    shown = maps[:MOST_MAPS]
    blocks: list[tuple[str, Image.Image]] = [("image", _picture(pixels, _shown_size(pixels.shape[1:], SIDE)))]
    if filters is not None:
        tiles = [_filter_tile(weights) for weights in filters[:MOST_FILTERS]]
        blocks.append((_counted("first filters", len(tiles), len(filters)), _tiled(tiles)))
    blocks.append((_counted("feature maps", len(shown), len(maps)), _tiled([_map_tile(map) for map in shown])))
    top = MARGIN + TITLE + 16
    widths = [max(block.width, math.ceil(text_width(label))) for label, block in blocks]
    width = max(sum(widths) + GAP * 2 * (len(blocks) - 1), math.ceil(text_width(title, TITLE))) + 2 * MARGIN
    height = top + TEXT + 10 + max(block.height for _, block in blocks) + MARGIN
    image = Image.new("RGB", (width, height), PAPER)
    pen, left = ImageDraw.Draw(image), MARGIN
    write(pen, (MARGIN, MARGIN), title, "la", INK, TITLE)
    for (label, block), block_width in zip(blocks, widths, strict=True):
        write(pen, (left, top), label, "la", SOFT)
        image.paste(block, (left, top + TEXT + 10))
        left += block_width + 2 * GAP
    save(image, path)
    return len(shown)


def overlaid(explanation: Explanation, side: int) -> Image.Image:
    """The map over the image alone, its longer side about `side` pixels."""
    return _panels(explanation, _shown_size(_pixels(explanation).shape[1:], side))["overlay"]


def coloured(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Values from -1 to 1, (…), as colours, (…, 3)."""
    places = [place for place, _ in SCALE]
    channels = [np.interp(values, places, [colour[channel] for _, colour in SCALE]) for channel in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)


def scaled(map: Map) -> tuple[Map, float]:
    """The map with its full colour at ±1, and what it is divided by."""
    full = float(np.percentile(np.abs(map), FULL)) or float(np.abs(map).max()) or 1.0
    return np.clip(map / full, -1, 1).astype(np.float32), full


def _panels(explanation: Explanation, size: tuple[int, int]) -> dict[str, Image.Image]:
    values, _ = scaled(explanation.map)
    large = np.asarray(_resized(Image.fromarray(values), size))  # (h, w)
    colours = coloured(large).astype(np.float32)
    picture = _picture(_pixels(explanation), size)
    ground = np.asarray(picture.convert("L").convert("RGB")).astype(np.float32)
    opaque = 0.85 * np.abs(large)[..., None] ** 0.7
    mixed = (ground * 0.75 + 48) * (1 - opaque) + colours * opaque
    return {
        "image": picture,
        "map": Image.fromarray(colours.astype(np.uint8)),
        "overlay": Image.fromarray(mixed.clip(0, 255).astype(np.uint8)),
    }


def _pixels(explanation: Explanation) -> Pixels:
    assert explanation.image is not None, "of a text there is no image"
    return explanation.image


def _title(explanation: Explanation) -> str:
    target = f"{clipped(explanation.target, 60)}: {100 * explanation.probability:.1f} %"
    if explanation.predicted == explanation.target:
        return target
    return f"{target} (the model says {clipped(explanation.predicted, 60)})"


def _lines(explanation: Explanation) -> list[tuple[str, Colour]]:
    """What stands below the title, with its colour."""
    where = f" on {explanation.layer}" if explanation.layer else ""
    figures = [f"deletion {explanation.deletion_auc:.2f}", f"insertion {explanation.insertion_auc:.2f}"]
    if explanation.completeness_error is not None:
        figures.append(f"completeness error {100 * explanation.completeness_error:.2g} %")
    if explanation.sanity.correlation is not None:
        figures.append(f"correlation with shuffled weights {explanation.sanity.correlation:.2f}")
    name = clipped(Path(explanation.path).name or "-", 60)
    lines = [(f"{explanation.method}{where} · {explanation.model} · {name}", SOFT), (" · ".join(figures), SOFT)]
    if explanation.empty:
        lines.append(("empty: nothing there speaks for the class", ORANGE))
    if explanation.sanity.survives:
        lines.append(("flagged: much the same map comes from shuffled weights", ORANGE))
    if explanation.sanity.random_weights:
        lines.append(("flagged: the network's weights cannot be told from random ones", ORANGE))
    return lines


def _row_label(explanation: Explanation) -> tuple[str, str]:
    """What stands below a row's image: the answer, and the file."""
    answer = f"{clipped(explanation.target, 20)}: {100 * explanation.probability:.1f} %"
    return answer, clipped(Path(explanation.path).name or "-", 24)


def _colour_bar(image: Image.Image, at: tuple[int, int], height: int, map: Map) -> None:
    """From against the class to for it; of a map without signs the upper half."""
    left, top = at
    _, full = scaled(map)
    low = -1.0 if map.min() < 0 else 0.0
    column = coloured(np.linspace(1, low, height))[:, None]  # (height, 1, 3)
    image.paste(Image.fromarray(np.repeat(column, BAR_WIDTH, axis=1)), (left, top))
    pen = ImageDraw.Draw(image)
    pen.rectangle((left - 1, top - 1, left + BAR_WIDTH, top + height), outline=GRID)
    for value in (1.0, 0.0, -1.0) if low < 0 else (1.0, 0.5, 0.0):
        y = top + (1 - value) / (1 - low) * (height - 1)
        anchor = "lt" if value == 1 else "lb" if value == low else "lm"
        write(pen, (left + BAR_WIDTH + 8, y), f"{value * full:.2g}", anchor, SOFT)
    write(pen, (left, top + height + 10), "for", "la", ORANGE)
    if low < 0:
        write(pen, (left + text_width("for") + 8, top + height + 10), "against", "la", BLUE)


def _shown_size(shape: Sequence[int], side: int) -> tuple[int, int]:
    """(width, height) at which an image of (H, W) is shown."""
    height, width = shape
    longest = max(height, width)
    factor = max(1, round(side / longest)) if longest <= PIXELATED else side / longest
    return max(1, round(width * factor)), max(1, round(height * factor))


def _picture(pixels: Pixels, size: tuple[int, int]) -> Image.Image:
    channels_last = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    image = Image.fromarray(channels_last[..., 0] if channels_last.shape[-1] == 1 else channels_last)
    return _resized(image, size).convert("RGB")


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    smooth = max(image.size) > PIXELATED
    return image.resize(size, Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST)


def _filter_tile(weights: npt.NDArray[np.float32]) -> Image.Image:
    """One filter (C, kh, kw): in colour where it reads three channels, else its channels' mean in the map's scale."""
    if len(weights) == 3:
        full = float(np.abs(weights).max()) or 1.0
        shown = np.clip(127.5 + 127.5 * weights.transpose(1, 2, 0) / full, 0, 255).astype(np.uint8)
    else:
        mean = weights.mean(0)
        shown = coloured(mean / (float(np.abs(mean).max()) or 1.0))
    return _tile(Image.fromarray(np.ascontiguousarray(shown)))


def _map_tile(map: Map) -> Image.Image:
    return _tile(Image.fromarray(coloured(scaled(map)[0])))


def _tile(image: Image.Image) -> Image.Image:
    factor = TILE / max(image.size)
    factor = max(1, round(factor)) if factor >= 1 else factor
    return image.resize(
        (max(1, round(image.width * factor)), max(1, round(image.height * factor))), Image.Resampling.NEAREST
    )


def _tiled(tiles: Sequence[Image.Image]) -> Image.Image:
    """Tiles of one size in rows, a frame around each."""
    columns = math.ceil(math.sqrt(len(tiles)))
    width, height = tiles[0].width + 4, tiles[0].height + 4
    whole = Image.new("RGB", (columns * width, math.ceil(len(tiles) / columns) * height), GRID)
    for number, tile in enumerate(tiles):
        whole.paste(tile, (number % columns * width + 2, number // columns * height + 2))
    return whole


def _counted(what: str, shown: int, of: int) -> str:
    return f"{of} {what}" if shown == of else f"{shown} of {of} {what}"
