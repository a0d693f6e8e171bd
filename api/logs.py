"""The log: to stderr, and without what opens something."""

from __future__ import annotations

import logging
import re
import sys

# A link that opens a tree; what a browser brings back from a sign-in; an invitation's ticket.
_SECRET = re.compile(r"(/access/)[^/?\s]+|([?&](?:code|state|invitation|magic_link)=)[^&\s]+")


class _WithoutSecrets(logging.Filter):
    """Masks secrets in the path of an access line (uvicorn's third argument)."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                masked(value) if isinstance(value, str) else value for value in record.args
            )
        return True


def masked(path: str) -> str:
    """A path, without what opens something."""
    return _SECRET.sub(lambda found: f"{found[1] or found[2]}***", path)


def set_up() -> None:
    """Send the log of this process to stderr."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    # It logs a line for each request that the service makes itself.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").addFilter(_WithoutSecrets())
