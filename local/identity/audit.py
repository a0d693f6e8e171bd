"""The audit log: one line of JSON per event, on stderr, without tokens, codes, or secrets."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

_LOGGER = logging.getLogger("local.identity.audit")


def audit(event: str, **fields: str | int | float | None) -> None:
    """Log an event.

    Args:
        event: The name of the event, such as ``token.issued``.
        fields: The details of the event; those that are None are omitted.
    """
    moment = datetime.now(UTC).isoformat(timespec="milliseconds")
    told = {name: value for name, value in fields.items() if value is not None}
    _LOGGER.info("%s", json.dumps({"at": moment, "event": event, **told}))


def log_to_stderr() -> None:
    """Write the events to stderr, which the supervisor saves."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(logging.INFO)
    _LOGGER.propagate = False
