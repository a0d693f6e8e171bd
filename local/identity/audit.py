"""Who did what, one line of JSON each, on stderr. Tokens, codes and secrets are never named."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

_LOGGER = logging.getLogger("local.identity.audit")


def audit(event: str, **fields: str | int | float | None) -> None:
    """Note an event.

    Args:
        event: What happened, such as ``token.issued``.
        fields: To whom and for what; what is None is left out.
    """
    moment = datetime.now(UTC).isoformat(timespec="milliseconds")
    told = {name: value for name, value in fields.items() if value is not None}
    _LOGGER.info("%s", json.dumps({"at": moment, "event": event, **told}))


def log_to_stderr() -> None:
    """Write the events where the supervisor keeps them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(logging.INFO)
    _LOGGER.propagate = False
