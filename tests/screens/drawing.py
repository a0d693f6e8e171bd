"""A screen as an SVG picture, whose text can be read back."""

from __future__ import annotations

import io
from collections.abc import Sequence
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from rich.ansi import AnsiDecoder
from rich.color import blend_rgb
from rich.color_triplet import ColorTriplet
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tests.screens.terminal import WIDTH

_SVG = "http://www.w3.org/2000/svg"
_CHARACTER, _LINE, _MARGIN = 8.4, 18, 16
_FONT = "ui-monospace, 'Cascadia Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_THEME = TerminalTheme(
    (13, 17, 23),
    (225, 230, 236),
    [
        *((72, 79, 88), (255, 123, 114), (63, 185, 80), (210, 153, 34)),
        *((88, 166, 255), (188, 140, 255), (57, 197, 207), (177, 186, 196)),
    ],
)
_DIMMED = 0.45
_LEAST_BRIGHT = 110  # of 255, for colors that were chosen for light terminals


def draw(title: str, lines: Sequence[str]) -> str:
    """Return a picture of lines with colors, in a dark window that suits any page."""
    rows = [row for line in lines for row in _wrapped(line)]
    width = round(2 * _MARGIN + WIDTH * _CHARACTER)
    height = 2 * _MARGIN + len(rows) * _LINE
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="{_SVG}" {size} role="img" font-family="{_FONT}" font-size="14">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" rx="8" fill="{_THEME.background_color.hex}"/>',
    ]
    console = Console(file=io.StringIO(), color_system="truecolor", width=WIDTH)
    for number, row in enumerate(rows):
        top = _MARGIN + number * _LINE + _LINE * 0.75
        parts.append("<g>" + "".join(_texts(row, top, console)) + "</g>")
    return "\n".join([*parts, "</svg>", ""])


def _wrapped(line: str) -> list[Text]:
    """Return a line as the terminal breaks it."""
    text = next(iter(AnsiDecoder().decode(line)), Text())
    text.rstrip()
    return list(text.divide(range(WIDTH, len(text), WIDTH))) or [text]


def _texts(row: Text, top: float, console: Console) -> list[str]:
    found, column = [], 0
    for segment in row.render(console, end=""):
        words, style = segment.text, segment.style or Style()
        if words:
            attributes = f'x="{_MARGIN + column * _CHARACTER:.1f}" y="{top:.1f}"'
            attributes += f' textLength="{len(words) * _CHARACTER:.1f}"'
            attributes += f' fill="{_color(style)}"' + (' font-weight="bold"' if style.bold else "")
            found.append(f'<text xml:space="preserve" {attributes}>{escape(words)}</text>')
        column += len(words)
    return found


def _color(style: Style) -> str:
    color = style.color.get_truecolor(_THEME) if style.color else _THEME.foreground_color
    missing = _LEAST_BRIGHT - _brightness(color)
    if missing > 0:
        share = missing / (255 - _brightness(color))
        color = blend_rgb(color, ColorTriplet(255, 255, 255), share)
    if style.dim:
        color = blend_rgb(color, _THEME.background_color, _DIMMED)
    return color.hex


def _brightness(color: ColorTriplet) -> float:
    return 0.3 * color.red + 0.59 * color.green + 0.11 * color.blue


def title_of(picture: str) -> str:
    """Return the title of a picture."""
    return ET.fromstring(picture).findtext(f"{{{_SVG}}}title") or ""


def text_of(picture: str) -> list[str]:
    """Return the lines of text on a picture."""
    return ["".join(line.itertext()) for line in ET.fromstring(picture).iter(f"{{{_SVG}}}g")]
