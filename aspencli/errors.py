"""The errors that a command can end with, and their exit codes.

Only the standard library is imported here, so that every layer can use this module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

_SERVER_ERRORS = 500  # the lowest HTTP status after which a change may have been made


@dataclass(frozen=True)
class ServiceAnswer:
    """An error response from the API.

    Attributes:
        text: The error message; empty if there is none that can be read.
        extra: The other fields of the response, such as the missing ``ids``.
    """

    status: int
    text: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


class AspenError(Exception):
    """A failure with a message for the operator.

    Args:
        message: What happened, and why.
        hint: What to do next.
        details: More lines, such as each invalid line of a file.
        answer: The API's response, if it caused the failure.
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

    @property
    def is_rejection(self) -> bool:
        """Return True if the API rejected a request, and so did not carry it out."""
        return self.answer is not None and self.answer.status < _SERVER_ERRORS


class BadInputError(AspenError):
    """An invalid command line or input file."""

    exit_code = 2


class RefusedError(AspenError):
    """An operation that the safety rules forbid, or that the operator declined."""

    exit_code = 3


class CredentialsError(AspenError):
    """A missing sign-in, or credentials that the target does not accept."""

    exit_code = 4


class UnreachableError(AspenError):
    """A target that does not respond; trying again may help."""

    exit_code = 5


class UncertainError(UnreachableError):
    """A change that was sent without getting a response, so that its outcome is unknown."""


class NotFoundError(AspenError):
    """A named object that does not exist on the target."""

    exit_code = 6


class ConflictError(AspenError):
    """A conflict with existing data, or with a change made in the meantime."""

    exit_code = 7


INTERRUPTED = 130
"""The exit code after Ctrl-C (128 + SIGINT), as shells expect."""
