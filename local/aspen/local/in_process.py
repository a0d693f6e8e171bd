"""The service in this process, which answers one request without a port."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from aspencli.errors import AspenError, BadInputError


@dataclass(frozen=True)
class Answered:
    """A response of the service."""

    status: int
    body: bytes


def ask_here(
    dsn: str,
    method: str,
    path: str,
    *,
    user: str | None,
    body: bytes | None,
    around: Callable[[Any], AbstractContextManager[object]],
) -> Answered:
    """Answer a request with the service's own code on a database.

    Args:
        dsn: The address of the database.
        method: The HTTP method, such as ``GET``.
        path: The path with its query.
        user: The user to act as, without signing in, or None.
        body: The JSON body.
        around: Returns a context manager for the request; called with the service's engine.

    Raises:
        AspenError: The service is not installed.
        BadInputError: Its settings in the environment cannot be used.
    """
    try:
        from aspen.api.in_process import Asked, answer, settings_for
        from aspen.api.settings import SettingsError
    except ImportError as error:
        raise AspenError(
            f"The service is not installed: {error}", hint="Install aspencli[local]."
        ) from error
    try:
        settings = settings_for(dsn)
    except SettingsError as error:
        raise BadInputError(
            f"The service cannot start: {error}", hint="Fix or unset it in the environment."
        ) from error
    found = answer(settings, Asked(method, path, user, body), around)
    return Answered(found.status, found.body)
