"""The errors a command can end with, and their exit codes.

Only the standard library is imported here, so that every layer may use it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class ServiceAnswer:
    """What the API answered where it did not do what was asked.

    Attributes:
        status: The HTTP status.
        text: Its own words for it; empty where it said nothing that can be read.
        extra: What stood beside them, such as the ``ids`` that are missing.
    """

    status: int
    text: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


class AspenError(Exception):
    """A failure that is told to the operator in words.

    Args:
        message: What happened, and why.
        hint: What to do next.
        details: Further lines, such as every bad line of a file.
        answer: The API's own answer, where it is what the API answered.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        details: Sequence[str] = (),
        answer: ServiceAnswer | None = None,
    ):
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = tuple(details)
        self.answer = answer


class BadInputError(AspenError):
    """The command line or an input file cannot be used as it stands."""

    exit_code = 2


class RefusedError(AspenError):
    """The safety rules forbid it, or the operator declined."""

    exit_code = 3


class CredentialsError(AspenError):
    """The target does not accept who is asking, or nobody is signed in."""

    exit_code = 4


class UnreachableError(AspenError):
    """The target does not answer; trying again may help."""

    exit_code = 5


class UncertainError(UnreachableError):
    """A change was sent, no answer came back, and so nobody knows whether it was made."""


class NotFoundError(AspenError):
    """What was named does not exist on the target."""

    exit_code = 6


class ConflictError(AspenError):
    """It contradicts what is already there, or what changed meanwhile."""

    exit_code = 7


INTERRUPTED = 130
"""The exit code after Ctrl-C (128 + SIGINT), as shells expect it."""
