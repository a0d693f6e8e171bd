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
