"""Format numbers as a spreadsheet does: leading zeros, decimals, percentages, surrounding text.

Fractions, exponents, conditions, and scaling are not supported: such numbers are read plainly.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Self

_TOKEN = re.compile(
    r"""
      "(?P<quoted>[^"]*)"   | \\(?P<escaped>.)      # text
    | _(?P<space>.)         | \*(?P<fill>.)         # white space
    | \[(?P<bracket>[^\]]*)\]                       # a colour, a currency, a condition
    | (?P<general>General|@)
    | (?P<power>E[+-])
    | (?P<place>[0#?])                              # the place of a digit
    | (?P<sign>[.,%/;])
    | (?P<other>.)
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_COLOUR = re.compile(r"black|blue|cyan|green|magenta|red|white|yellow|color ?\d+", re.IGNORECASE)
_CURRENCY = re.compile(r"\$(?P<symbol>[^-]*)(-.*)?")
_MOST_PLACES = 30  # A format may ask for more decimals, but Excel allows 30.

_Token = tuple[str, str]
"""The kind of a token (``place``, ``general``, ``text``, or the sign itself), and its text."""


class _NotFollowedError(Exception):
    """The format is not supported."""


def general(value: Decimal) -> str:
    """Return a number without a format: all of its digits, and no exponent."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclass(frozen=True)
class NumberFormat:
    """A number format.

    Attributes:
        sections: The layouts of positive, negative, and zero values, as far as they differ; empty
            if the format is not supported.
    """

    sections: tuple[_Section, ...]

    @classmethod
    def of(cls, code: str) -> Self:
        """Parse a format code, such as ``00000`` or ``"LAB-"000``."""
        try:
            return cls(tuple(map(_Section.of, _split(code)[:3])))
        except _NotFollowedError:
            return cls(())

    @property
    def is_followed(self) -> bool:
        """Return True if the format is supported."""
        return bool(self.sections)

    def text(self, value: Decimal) -> str:
        """Return the number as it is shown."""
        if not self.sections:
            return general(value)
        if value < 0 and len(self.sections) > 1:
            return self.sections[1].text(-value)
        if value == 0 and len(self.sections) > 2:  # noqa: PLR2004 - the third one is for zero
            return self.sections[2].text(value)
        shown = self.sections[0].text(abs(value))
        return f"-{shown}" if value < 0 and re.search("[1-9]", shown) else shown


@dataclass(frozen=True)
class _Section:
    """The layout of numbers in one section of a format.

    Attributes:
        whole: The tokens before the decimal point.
        decimals: The tokens after it, or None if there is no point.
        percent: How many times the number is multiplied by a hundred.
    """

    whole: tuple[_Token, ...]
    decimals: tuple[_Token, ...] | None
    percent: int

    @classmethod
    def of(cls, tokens: Sequence[_Token]) -> Self:
        kinds = [kind for kind, _text in tokens]
        places = [index for index, kind in enumerate(kinds) if kind in {"place", "general"}]
        if not tokens or kinds.count(".") > 1 or kinds.count("general") > 1 or "/" in kinds:
            raise _NotFollowedError
        if any(kind == "," and index > places[-1] for index, kind in enumerate(kinds) if places):
            raise _NotFollowedError  # It shows thousands or millions.
        shown = [token for token in tokens if token[0] != ","]
        point = shown.index((".", ".")) if "." in kinds else None
        decimals = None if point is None else tuple(shown[point + 1 :])
        if decimals and sum(kind == "place" for kind, _text in decimals) > _MOST_PLACES:
            raise _NotFollowedError
        return cls(tuple(shown[:point]), decimals, kinds.count("%"))

    def text(self, value: Decimal) -> str:
        """Format a nonnegative number."""
        places = sum(kind == "place" for kind, _text in self.decimals or ())
        with localcontext(prec=100):
            value *= 100**self.percent
            if any(kind == "general" for kind, _text in self.whole):
                return "".join(general(value) if k == "general" else t for k, t in self.whole)
            rounded = value.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
        whole, _point, decimals = f"{rounded:f}".partition(".")
        shown = _whole(self.whole, "" if whole == "0" else whole)
        if self.decimals is not None:
            shown += "." + _decimals(self.decimals, decimals)
        return shown.strip()


def _split(code: str) -> list[list[_Token]]:
    """Return the tokens of each section."""
    sections: list[list[_Token]] = [[]]
    for match in _TOKEN.finditer(code):
        kind, text = match.lastgroup or "other", match[match.lastgroup or 0]
        if kind == "power":
            raise _NotFollowedError
        if kind == "sign" and text == ";":
            sections.append([])
        elif kind == "sign":
            sections[-1].append((text, text))
        elif kind in {"place", "general"}:
            sections[-1].append((kind, text))
        elif kind == "bracket":
            sections[-1].append(("text", _bracket(text)))
        else:
            sections[-1].append(("text", "" if kind in {"space", "fill"} else text))
    return sections


def _bracket(text: str) -> str:
    currency = _CURRENCY.fullmatch(text)
    if currency:
        return currency["symbol"]
    if _COLOUR.fullmatch(text):
        return ""
    raise _NotFollowedError


def _whole(tokens: Sequence[_Token], digits: str) -> str:
    """Format the digits before the point, right-aligned in the format's places."""
    shown: list[str] = []
    places = sum(kind == "place" for kind, _text in tokens)
    for kind, text in reversed(tokens):
        if kind != "place":
            shown.append(text)
            continue
        places -= 1
        taken = digits if places == 0 else digits[-1:]
        digits = digits[: len(digits) - len(taken)]
        shown.append(taken or _filler(text))
    return "".join(reversed(shown))


def _decimals(tokens: Sequence[_Token], digits: str) -> str:
    """Format the digits after the point; ``#`` omits trailing zeros."""
    places = "".join(text for kind, text in tokens if kind == "place")
    kept = max(len(digits.rstrip("0")), places.rfind("0") + 1)
    left = iter([*digits[:kept], *map(_filler, places[kept:])])
    return "".join(next(left) if kind == "place" else text for kind, text in tokens)


def _filler(place: str) -> str:
    return {"0": "0", "?": " "}.get(place, "")
