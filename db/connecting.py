"""What a session is told when it is opened; without SQLAlchemy, which takes its time to load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# SQLAlchemy 2.1 reads a bare postgresql:// as psycopg 3, which is not installed here.
DRIVER = "postgresql+psycopg2"
SCHEMA = "aspen"
_NAME_LIMIT = 63  # bytes; PostgreSQL cuts application_name there (NAMEDATALEN - 1)


class InvalidDatabaseUrlError(ValueError):
    """A database address that cannot be used; its text never repeats the address."""


@dataclass(frozen=True)
class Limits:
    """How long the server may keep a session waiting, in milliseconds; 0 means no limit.

    Attributes:
        statement_ms: The longest a statement may run (``statement_timeout``).
        lock_ms: The longest a statement may wait for a lock (``lock_timeout``).
        idle_ms: The longest a transaction may stay open with nothing to do
            (``idle_in_transaction_session_timeout``).
        connect_s: The longest a connection may take to open, in seconds.
    """

    statement_ms: int = 60_000
    lock_ms: int = 5_000
    idle_ms: int = 0
    connect_s: int = 10


def cut_name(name: str) -> str:
    """What PostgreSQL keeps of a name."""
    return name.encode()[:_NAME_LIMIT].decode(errors="ignore")


def session_arguments(
    application_name: str, limits: Limits, *, schema: str = SCHEMA, writable: bool
) -> dict[str, Any]:
    """What the driver is told for each new connection, beside the address (libpq keywords).

    Args:
        application_name: What the server's activity views show.
        limits: The time limits of the session.
        schema: The schema that unqualified names are looked up in, before ``public``.
        writable: Whether its transactions may write unless they say otherwise.
    """
    settings = {
        "search_path": f"{schema},public",
        "default_transaction_read_only": "off" if writable else "on",
        "statement_timeout": str(limits.statement_ms),
        "lock_timeout": str(limits.lock_ms),
        "idle_in_transaction_session_timeout": str(limits.idle_ms),
    }
    return {
        "application_name": application_name,
        "connect_timeout": limits.connect_s,
        # Whatever PGCLIENTENCODING says: names come in every script.
        "client_encoding": "utf8",
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
        # A dead peer is noticed in about a minute instead of two hours.
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 60_000,
    }
