"""The result of a check by ``db doctor``."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Verdict(enum.Enum):
    """The severity of a result, mildest first."""

    OK = "ok"
    NOTE = "note"
    UNKNOWN = "unknown"
    WARNING = "warning"
    PROBLEM = "problem"

    @property
    def weight(self) -> int:
        """Return the severity as a number; higher is worse."""
        return list(Verdict).index(self)


@dataclass(frozen=True)
class Examined:
    """The verdict of a check, and the next step.

    Attributes:
        check: The name of the check.
        verdict: The severity.
        message: A summary of what was found.
        step: What to do next; None if nothing is needed.
        details: The supporting details, worst first.
    """

    check: str
    verdict: Verdict
    message: str
    step: str | None = None
    details: tuple[str, ...] = ()


def several(count: int, noun: str, one: str = "", many: str | None = None) -> str:
    """Return a count with its noun and verb: ``1 session waits``, ``2 sessions wait``.

    Args:
        count: The number.
        noun: The noun in the singular.
        one: The verb in the singular.
        many: The verb in the plural; None if it is the same.
    """
    verb = one if count == 1 or many is None else many
    return f"{count:,} {noun}{'' if count == 1 else 's'} {verb}".rstrip()
