"""Logging to stderr, with secrets masked."""

from __future__ import annotations

import logging
import re
import sys

# A magic link to a tree, the query of a sign-in callback, and the ticket of an invitation.
_SECRET = re.compile(r"(/access/)[^/?\s]+|([?&](?:code|state|invitation|magic_link)=)[^&\s]+")


class _WithoutSecrets(logging.Filter):
    """A filter that masks secrets in the path of an access log line (uvicorn's third argument)."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                masked(value) if isinstance(value, str) else value for value in record.args
            )
        return True


def masked(path: str) -> str:
    """Return a path with its secrets masked."""
    return _SECRET.sub(lambda found: f"{found[1] or found[2]}***", path)


def set_up() -> None:
    """Configure this process to log to stderr."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    # httpx logs a line for each outgoing request of the service.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").addFilter(_WithoutSecrets())
