"""The SQLSTATE of a refused connection, whatever language the server's messages are in.

libpq gives a failed connection's SQLSTATE only as text, and by default not at all. So a refused
connection is tried a second time with libpq's verbosity ``PQERRORS_SQLSTATE``, which reduces the
message to the code. psycopg2 exposes the pointer that this requires (``pgconn_ptr``).
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import select
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import psycopg2
from psycopg2 import _psycopg
from psycopg2.extensions import POLL_OK, POLL_READ
from sqlalchemy import event
from sqlalchemy.engine import Engine

_SQLSTATE_ONLY = 3  # PQERRORS_SQLSTATE of libpq-fe.h
_CODE = re.compile(r": +([0-9A-Z]{5})$", re.MULTILINE)
_PATIENCE_S = 10.0
# libpq's own messages for a server that could not be reached, and so did not refuse. They are never
# translated, because the driver's libpq is built without language support.
_NOT_REACHED = re.compile(
    r"Connection refused|could not translate host name|timeout expired|No such file or directory"
    r"|No route to host|Network is unreachable|invalid |could not parse|service file|SSL error"
)
_PROTOCOL_VIOLATION = "08P01"
# PgBouncer 1.18 uses this code for every refusal. Its own messages are never translated; those it
# relays are in the server's language, and keep this code unless they are in English.
_POOLER_STATES = (
    (
        re.compile(r"SASL authentication failed|password authentication failed|no such user"),
        "28P01",
    ),
    (re.compile(r'no such database|database "[^"]*" does not exist'), "3D000"),
    (re.compile(r"no more connections allowed"), "53300"),
)
_ATTRIBUTE = "refusal_state"


def report_refusals(engine: Engine) -> None:
    """Add the SQLSTATE to an engine's connection errors; see `refusal_state`."""
    event.listen(engine, "do_connect", _connect)


def refusal_state(error: BaseException | None) -> str | None:
    """Return the SQLSTATE with which the server refused a connection; None if it did not."""
    found = getattr(error, _ATTRIBUTE, None)
    return found if isinstance(found, str) else None


def _connect(dialect: Any, _record: Any, arguments: Any, parameters: dict[str, Any]) -> Any:
    try:
        return dialect.connect(*arguments, **parameters)
    except psycopg2.OperationalError as error:
        if error.pgcode is None and not arguments and not _NOT_REACHED.search(str(error)):
            setattr(error, _ATTRIBUTE, _meant_state(find_state(parameters), str(error)))
        raise


def _meant_state(state: str | None, words: str) -> str | None:
    """Return the code that the server would have given, if a pooler refused the connection."""
    if state != _PROTOCOL_VIOLATION:
        return state
    return next((meant for text, meant in _POOLER_STATES if text.search(words)), state)


def find_state(parameters: Mapping[str, Any]) -> str | None:
    """Connect again, only to get the SQLSTATE of the refusal.

    Args:
        parameters: The libpq connection parameters.
    """
    set_verbosity = _set_verbosity()
    if set_verbosity is None:
        return None
    plain = {key: value for key, value in parameters.items() if "factory" not in key}
    try:
        connection = psycopg2.connect(**plain, async_=True)
    except psycopg2.Error:
        return None
    with contextlib.closing(connection):
        set_verbosity(connection.pgconn_ptr, _SQLSTATE_ONLY)
        try:
            _finish(connection, float(plain.get("connect_timeout") or _PATIENCE_S))
        except psycopg2.Error as error:
            found = _CODE.findall(str(error))
            return found[-1] if found else None
    return None


def _finish(connection: Any, seconds: float) -> None:
    """Wait until the connection is open or the time is up."""
    deadline = time.monotonic() + seconds
    while (state := connection.poll()) != POLL_OK:
        rest = deadline - time.monotonic()
        reading, writing = ([connection], []) if state == POLL_READ else ([], [connection])
        if rest <= 0 or not any(select.select(reading, writing, [], rest)):
            return


@cache
def _set_verbosity() -> Callable[[int, int], int] | None:
    """Return libpq's function, from the libpq that the driver itself is linked to."""
    try:
        function = ctypes.PyDLL(_psycopg.__file__).PQsetErrorVerbosity
    except (OSError, AttributeError):  # the driver does not expose its libpq
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_int]
    function.restype = ctypes.c_int
    found: Callable[[int, int], int] = function
    return found
