"""What a check of the doctor ends with."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Verdict(enum.Enum):
    """How bad it is, the mildest first."""

    OK = "ok"
    NOTE = "note"
    UNKNOWN = "unknown"
    WARNING = "warning"
    PROBLEM = "problem"

    @property
    def weight(self) -> int:
        """The greater, the worse."""
        return list(Verdict).index(self)


@dataclass(frozen=True)
class Examined:
    """One check's verdict, and what to do next.

    Attributes:
        check: The check's name.
        verdict: How bad it is.
        message: What was found.
        step: What to do next; None where nothing is needed.
        details: What it rests on, the worst first.
    """

    check: str
    verdict: Verdict
    message: str
    step: str | None = None
    details: tuple[str, ...] = ()


def several(count: int, noun: str, one: str = "", many: str | None = None) -> str:
    """So many of something, and what they do: ``1 session waits``, ``2 sessions wait``.

    Args:
        count: How many.
        noun: Of what, in the singular.
        one: What one does.
        many: What several do; None for the same words.
    """
    verb = one if count == 1 or many is None else many
    return f"{count:,} {noun}{'' if count == 1 else 's'} {verb}".rstrip()
