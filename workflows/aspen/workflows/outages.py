"""Recognize that the database or AWS is away for a while, as after a restart."""

from __future__ import annotations

from collections.abc import Iterator

# By module and name, since this must not load what the step did not.
_AWAY = {
    ("psycopg2", "OperationalError"),
    ("psycopg2", "InterfaceError"),
    ("botocore.exceptions", "ConnectTimeoutError"),
    ("botocore.exceptions", "ConnectionClosedError"),
    ("botocore.exceptions", "ConnectionError"),
    ("botocore.exceptions", "EndpointConnectionError"),
    ("botocore.exceptions", "HTTPClientError"),
    ("botocore.exceptions", "ReadTimeoutError"),
}
_STATES = ("08", "57P")
"""The beginnings of PostgreSQL's codes for lost connections and for shutdowns."""
_SERVER_ERRORS = 500


def is_outage(error: BaseException) -> bool:
    """Return True if an error, or its cause, is that the database or AWS cannot be reached."""
    return any(_is_away(one) for one in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        inner = getattr(error, "orig", None)  # of SQLAlchemy, which wraps the driver's
        if isinstance(inner, BaseException):
            yield inner
        error = error.__cause__ or error.__context__


def _is_away(error: BaseException) -> bool:
    if isinstance(error, ConnectionError):
        return True
    kinds = {(one.__module__, one.__name__) for one in type(error).__mro__}
    if kinds & _AWAY:
        code = getattr(error, "pgcode", None)
        return code is None or str(code).startswith(_STATES)
    if ("botocore.exceptions", "ClientError") in kinds:
        answer = getattr(error, "response", {}).get("ResponseMetadata", {})
        return bool(answer.get("HTTPStatusCode", 0) >= _SERVER_ERRORS)
    return False
