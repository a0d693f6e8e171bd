"""Cells that hold no text that could be meant, such as an error value of a spreadsheet."""

from __future__ import annotations

from typing import Self


class Unusable(str):
    """A cell without a text that could be meant; whoever does not ask finds it blank.

    Args:
        shown: What the person sees there.
        reason: What is wrong with it, as the end of a sentence.
        remedy: What to do about it, if it is more than mending the cell.
    """

    __slots__ = ("reason", "remedy", "shown")
    reason: str
    remedy: str | None
    shown: str

    def __new__(cls, shown: str, reason: str, remedy: str | None = None) -> Self:
        """Make one; as a text it is empty."""
        cell = super().__new__(cls)
        cell.shown, cell.reason, cell.remedy = shown, reason, remedy
        return cell

    def at(self, place: str) -> Self:
        """The same, its reason naming the cell."""
        return type(self)(self.shown, f"{self.reason} (cell {place})", self.remedy)


def shown(cell: str) -> str:
    """What the person sees in a cell."""
    return cell.shown if isinstance(cell, Unusable) else cell
