"""The report can be read by everyone: contrast in both color schemes, keyboard, landmarks."""

from __future__ import annotations

import re
from pathlib import Path

import dlkit.report

PAGE = Path(dlkit.report.__file__).parent
Color = tuple[float, float, float]


def luminance(color: Color) -> float:
    """Relative luminance by WCAG 2.1 of an sRGB color from 0 to 1."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_on_every_shade_of_the_matrix_has_contrast_of_4_5_in_both_schemes() -> None:
    css = (PAGE / "page.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    schemes = [dict(re.findall(r"--(\w+): (#\w{6}|[\d.]+%);", block)) for block in blocks]
    schemes = [scheme for scheme in schemes if "step" in scheme]
    assert len(schemes) == 2
    for scheme in schemes:
        paper, ink, *hues = (parse_color(scheme[name]) for name in ("paper", "ink", "blue", "orange"))
        for shade in range(1, 11):
            share = shade * float(scheme["step"].rstrip("%")) / 100
            for hue in hues:
                low, high = sorted((luminance(mix(hue, paper, share)), luminance(ink)))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (scheme, shade)


def parse_color(text: str) -> Color:
    red, green, blue = (int(text[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return red, green, blue


def mix(first: Color, second: Color, share: float) -> Color:
    red, green, blue = (share * a + (1 - share) * b for a, b in zip(first, second, strict=True))
    return red, green, blue


def test_scroll_areas_can_be_reached_by_the_keyboard_and_the_page_has_one_main_landmark() -> None:
    markup = "".join(path.read_text(encoding="utf-8") for path in (PAGE / "templates").iterdir())
    assert markup.count('class="scroll"') == markup.count('class="scroll" tabindex="0"') > 0
    assert markup.count("<main>") == markup.count("</main>") == 1
