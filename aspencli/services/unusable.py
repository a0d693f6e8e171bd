"""Cells without a usable text, such as those with a spreadsheet error value."""

from __future__ import annotations

from typing import Self


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
