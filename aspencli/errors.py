"""The errors that a command can end with, and their exit codes.

Only the standard library is imported here, so that every layer can use this module.
"""

from __future__ import annotations

import json
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
    kind: ClassVar[str] = "failed"  # its name for programs; a contract

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
    kind = "bad_input"


class RefusedError(AspenError):
    """An operation that the safety rules forbid, or that the operator declined."""

    exit_code = 3
    kind = "refused"


class CredentialsError(AspenError):
    """A missing sign-in, or credentials that the target does not accept."""

    exit_code = 4
    kind = "credentials"


class UnreachableError(AspenError):
    """A target that does not respond; trying again may help."""

    exit_code = 5
    kind = "unreachable"


class UncertainError(UnreachableError):
    """A change that was sent without getting a response, so that its outcome is unknown."""

    kind = "uncertain"


class NotFoundError(AspenError):
    """A named object that does not exist on the target."""

    exit_code = 6
    kind = "not_found"


class ConflictError(AspenError):
    """A conflict with existing data, or with a change made in the meantime."""

    exit_code = 7
    kind = "conflict"


INTERRUPTED = 130
"""The exit code after Ctrl-C (128 + SIGINT), as shells expect."""
BUG = "bug"
"""The kind of an error that is a bug in this program."""
_KINDS = {
    error.exit_code: error.kind
    for error in (
        *(AspenError, BadInputError, RefusedError, CredentialsError, UnreachableError),
        *(NotFoundError, ConflictError),
    )
}
JSON_FORMATS = ("json", "jsonl")
"""The formats of results with which errors are JSON, too."""


def kind_of(exit_code: int) -> str:
    """Return the kind of an error that is known only by its exit code."""
    if exit_code >= INTERRUPTED:  # ended by a signal
        return "interrupted"
    return _KINDS.get(exit_code, AspenError.kind)


def error_json(
    exit_code: int,
    message: str,
    *,
    kind: str | None = None,
    next_step: str | None = None,
    details: Sequence[str] = (),
) -> str:
    """Return an error as one line of JSON, in ASCII; its keys are a contract."""
    error = {
        "kind": kind or kind_of(exit_code),
        "exit_code": exit_code,
        "message": message,
        "details": list(details),
        "next_step": next_step,
    }
    return json.dumps({"error": error})
