"""The audit log: what people and programs did, as one line of JSON per event on stderr.

It contains no tokens, codes, or secrets. During a request, its events are also collected for
Auth0's tenant log.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime

_LOGGER = logging.getLogger(__name__)

Value = str | int | float


@dataclass(frozen=True)
class AuditEvent:
    """An event, such as ``token.issued``, with its details.

    Attributes:
        at: When it happened, in seconds since 1970.
    """

    name: str
    at: float
    details: Mapping[str, Value]


_COLLECTED: ContextVar[list[AuditEvent] | None] = ContextVar("collected", default=None)


def audit(event: str, **details: Value | None) -> None:
    """Log an event with its details; those that are None are omitted."""
    found = AuditEvent(
        event, time.time(), {name: value for name, value in details.items() if value is not None}
    )
    moment = datetime.fromtimestamp(found.at, UTC).isoformat(timespec="milliseconds")
    _LOGGER.info("%s", json.dumps({"at": moment, "event": event, **found.details}))
    collected = _COLLECTED.get()
    if collected is not None:
        collected.append(found)


@contextmanager
def collecting() -> Iterator[list[AuditEvent]]:
    """Yield a list of the events that the block logs, also in threads that it starts."""
    events: list[AuditEvent] = []
    token = _COLLECTED.set(events)
    try:
        yield events
    finally:
        _COLLECTED.reset(token)


def log_to_stderr() -> None:
    """Write the events to stderr, which the supervisor saves."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(logging.INFO)
    _LOGGER.propagate = False
