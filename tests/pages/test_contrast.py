"""The stylesheet's colours hold WCAG 2.2 AA, by the formula of WCAG itself, in the light and in the dark."""

import re
from pathlib import Path

import pytest

import shared.web

CSS = (Path(shared.web.__file__).parent / "static" / "budkavle.css").read_text()
GROUNDS = ("ground", "surface", "tint")
TEXT = [(text, ground) for text in ("ink", "ink-soft", "link", "link-strong", "error") for ground in GROUNDS] + [
    ("on-brand", "brand"),
    ("ink", "notice-tint"),
    ("notice", "notice-tint"),
    ("link", "notice-tint"),
    ("error", "error-tint"),
    ("ink", "error-tint"),
    ("link", "error-tint"),
    ("focus", "focus-ground"),
]
PARTS = [("edge", ground) for ground in GROUNDS] + [("brand-mark", "brand")]


def tokens(scheme):
    light, dark = (dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block)) for block in _blocks())
    return light if scheme == "light" else {**light, **dark}


def _blocks():
    return re.findall(r":root \{\n\s+(?:color-scheme: light dark;\n|--ground)[^}]*\}", CSS)[:2]


def luminance(colour):
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_the_formula_is_the_one_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), TEXT)
def test_text_is_read_on_its_ground(scheme, text, ground):
    colours = tokens(scheme)
    assert contrast(colours[text], colours[ground]) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("part", "ground"), PARTS)
def test_edges_of_controls_are_seen(scheme, part, ground):
    colours = tokens(scheme)
    assert contrast(colours[part], colours[ground]) >= 3


def test_no_colour_stands_outside_the_tokens():
    ruled = re.sub(r":root \{.*?\}", "", CSS, flags=re.DOTALL)
    assert set(re.findall(r"#[0-9a-f]{3,6}", ruled)) <= {"#000000"}, "black is for print alone"
