"""Damage that spreadsheets do to cells: errors, numbers, dates, and formulas."""

from __future__ import annotations

import re
from typing import Self

from aspencli.text import quote

# Errors as Excel, LibreOffice, and Google Sheets show them. Nearly all translations end in ! or ?.
_ERROR = re.compile(r"#[¡¿]?[^\W\d_][\w/.]{0,24}[!?]|#{2,}|Err:[0-9]{3}|Loading\.\.\.")
_ERRORS = frozenset(
    {
        *("#N/A", "#NA", "#NV", "#N/D", "#N/B", "#I/T", "#YOK", "#HIÁNYZIK", "#NEDOSTUPNÝ"),
        *("#NENÍ_K_DISPOZICI", "#MANGLER", "#GETTING_DATA", "#REF", "#VALUE", "#DIV/0", "#NAME"),
        *("#NUM", "#NULL", "#SPILL", "#CALC", "#FIELD", "#BEZUG", "#WERT"),
        *("#\u041d/\u0414", "#\u0394/\u03a5"),  # Russian and Greek
    }
)
_LONGEST_ERROR = 28
MISSING = frozenset(
    {
        *("na", "n/a", "n.a.", "n.a", "n/d", "nd", "nan", "null", "(null)", "<null>", "nil"),
        *("none", "<na>", "(none)", "(blank)", "(empty)", "blank", "empty", "undefined", "undef"),
        *("void", "missing", "unknown", "not known", "not available", "not applicable"),
        *("not collected", "not provided", "not recorded", "not specified", "restricted access"),
        *(
            "tbd",
            "tba",
            "pending",
            "-",
            "--",
            "---",
            "?",
            "??",
            "???",
            ".",
            "..",
            "...",
            "_",
            "\\n",
        ),
    }
)
"""Words that people and programs write for a missing value, in lower case."""
_LONGEST_WORD = max(map(len, MISSING))
_MONTH = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec|Mrz|Mai|Okt|Dez"
_LOCAL_MONTH = "janv|févr|avr|juin|juil|août|déc|ene|dic|giu|lug|ott|mrt"
_SCIENTIFIC = r"[+-]?\d+(?:[.,]\d+)?[Ee][+-]\d{1,3}|[+-]?\d+[.,]\d+[Ee]\d{1,3}"
_DATE = "|".join(
    [
        rf"\d{{1,2}}-(?:{_MONTH})(?:-\d{{2,4}})?",
        rf"(?:{_MONTH})-\d{{2}}(?:\d{{2}})?",
        rf"\d{{1,2}}-(?:{_LOCAL_MONTH})\.?",
        r"\d{1,2}/\d{1,2}/(?:\d{2}|\d{4})",
        r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d)?",
    ]
)
_KINDS = (
    (_SCIENTIFIC, "is in scientific notation, as spreadsheets display long numbers"),
    (_DATE, "is a date; spreadsheets convert identifiers such as MAR1 to dates"),
    (r"\d+\.0+", "ends in .0, which spreadsheets and programs add to whole numbers"),
    (r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", "is a number with thousands separators"),
)
_REMEDY = "format the column as text and enter it again"
_DAMAGED = tuple((re.compile(pattern), why) for pattern, why in _KINDS)
_DAMAGED_STARTS = frozenset("+-0123456789ADFJMNOS")
_FORMULA = re.compile(r"=\s*(?:[\"'@(]|[A-Za-z_.]+\(|\$?[A-Za-z]{1,3}\$?\d)")
_CONSTANT = re.compile(r"=\s*\"((?:[^\"]|\"\")*)\"")
# No damaged value above has one of these forms, and most identifiers do.
plainly_whole = re.compile(
    r"[A-Za-z][ -~]{8,126}[0-9]|(?:[A-Za-z]{1,2}|[A-Za-z]{4,20})[-_/]?[0-9]{1,60}|[0-9]{1,60}"
).fullmatch
"""Match an identifier that is neither damaged nor odd, with a single regular expression."""

power_like = re.compile(r"[0-9]{1,15}[Ee][0-9]{1,3}").fullmatch
"""Match an identifier that a spreadsheet would change but has not changed yet."""


class Unusable(str):
    """A cell without a usable text; it compares as blank unless checked for.

    Args:
        shown: The text that the spreadsheet shows.
        reason: What is wrong with it, as the end of a sentence.
        remedy: What to do about it, if more than fixing the cell.
    """

    __slots__ = ("reason", "remedy", "shown")
    reason: str
    remedy: str | None
    shown: str

    def __new__(cls, shown: str, reason: str, remedy: str | None = None) -> Self:
        """Create a cell whose string value is empty."""
        cell = super().__new__(cls)
        cell.shown, cell.reason, cell.remedy = shown, reason, remedy
        return cell

    def at(self, place: str) -> Self:
        """Return a copy whose reason names the cell."""
        return type(self)(self.shown, f"{self.reason} (cell {place})", self.remedy)


def shown(cell: str) -> str:
    """Return the text that the spreadsheet shows in a cell."""
    return cell.shown if isinstance(cell, Unusable) else cell


def error_in(text: str) -> str | None:
    """Return a reason if a cell holds a spreadsheet error instead of a value, else None."""
    if text[:1] not in {"#", "E", "L"} or len(text) > _LONGEST_ERROR:
        return None
    is_error = text.upper().rstrip("!?") in _ERRORS or (
        _ERROR.fullmatch(text) is not None and (text[0] != "#" or text == text.upper())
    )
    return f"contains the error {text}" if is_error else None


def missing_in(text: str) -> str | None:
    """Return a reason if a cell holds a word for a missing value, else None."""
    if len(text) > _LONGEST_WORD or text.lower() not in MISSING:
        return None
    return f"is {quote(text)}, which usually means a missing value"


def damage_to_identifier(text: str) -> str | None:
    """Return what a spreadsheet did to an identifier, with the remedy; None if it is intact."""
    first = text[:1]
    if first == "'":
        return "starts with an apostrophe, which spreadsheets use to mark text; remove it"
    if first == "=":
        constant = _CONSTANT.fullmatch(text)
        if constant:
            meant = constant[1].replace('""', '"')
            return f"is a formula; use its value instead: {quote(meant)}"
        if _FORMULA.match(text):
            return "is a formula; save its value instead"
    if first == '"' == text[-1] and len(text) > 1:
        return f"is in quotes; remove them: {quote(text[1:-1])}"
    for pattern, why in _DAMAGED if first in _DAMAGED_STARTS else ():
        if pattern.fullmatch(text):
            return f"{quote(text)} {why}; {_REMEDY}"
    return None
