"""The most expensive statements, from any version of ``pg_stat_statements``."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from aspen.database.engine import ReadSession
from aspen.database.errors import sqlstate
from aspencli.diagnostics.session import Rights, columns_of, masked, rights
from aspencli.errors import NotFoundError
from aspencli.text import sql_name

_NAME = "pg_stat_statements"
_NOT_LOADED = "55000"  # object_not_in_prerequisite_state
_FORBIDDEN = "42501"
_HIDDEN = "<insufficient privilege>"


class Order(enum.Enum):
    """The measure by which statements are ordered."""

    TOTAL = "total"
    MEAN = "mean"
    CALLS = "calls"
    READ = "read"
    TEMP = "temp"


# The names of each column, newest first (extension 1.11, 1.8, and before).
_NAMES = {
    "total_ms": ("total_exec_time", "total_time"),
    "mean_ms": ("mean_exec_time", "mean_time"),
    "max_ms": ("max_exec_time", "max_time"),
    "read_ms": ("shared_blk_read_time", "blk_read_time"),
}
_ORDERS = {
    Order.TOTAL: "total_ms",
    Order.MEAN: "mean_ms",
    Order.CALLS: "calls",
    Order.READ: "read_bytes",
    Order.TEMP: "temp_bytes",
}
_QUERY = """
SELECT * FROM (
    SELECT s.queryid AS query_id, pg_get_userbyid(s.userid)::text AS user, s.calls,
        s.{total_ms} AS total_ms, s.{mean_ms} AS mean_ms, s.{max_ms} AS max_ms, s.rows,
        s.{total_ms} / nullif(sum(s.{total_ms}) OVER (), 0) AS share,
        s.shared_blks_hit / nullif(s.shared_blks_hit + s.shared_blks_read, 0)::float8 AS hit,
        s.shared_blks_read * b.size AS read_bytes, s.{read_ms} AS read_ms,
        s.temp_blks_written * b.size AS temp_bytes, s.query,
        count(*) OVER () AS seen, count(*) FILTER (WHERE s.query = :hidden) OVER () AS hidden
    FROM {view} s, (SELECT current_setting('block_size')::bigint AS size) b
    WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
) AS statements
ORDER BY {order} DESC, total_ms DESC LIMIT :limit
"""


@dataclass(frozen=True)
class Outlier:
    """A normalized statement, and its cost since statistics were reset.

    Attributes:
        query_id: The server's ID for it; None if it is hidden.
        user: The user that ran it.
        calls: The number of calls.
        total_ms: The total time, in milliseconds.
        mean_ms: The mean time of a call.
        max_ms: The time of the slowest call.
        rows: The total number of rows returned or changed.
        share: The share of the time of all statements in this database, from 0 to 1.
        hit: The share of pages found in shared buffers, from 0 to 1.
        read_bytes: The bytes requested from the operating system instead.
        read_ms: The time spent on that; 0 if the server does not measure it (track_io_timing).
        temp_bytes: The bytes written to temporary files, for lack of work_mem.
        query: The text; None if it is hidden.
    """

    query_id: int | None
    user: str
    calls: int
    total_ms: float
    mean_ms: float
    max_ms: float
    rows: int
    share: float | None
    hit: float | None
    read_bytes: int
    read_ms: float
    temp_bytes: int
    query: str | None


@dataclass(frozen=True)
class Outliers:
    """The most expensive statements.

    Attributes:
        statements: The statements, most expensive first.
        seen: The number of statements tracked in this database.
        hidden: The number of those whose text is hidden from this user.
        since: When statistics were last reset; None before PostgreSQL 14.
        rights: The user's visibility rights.
    """

    statements: tuple[Outlier, ...]
    seen: int
    hidden: int
    since: Any
    rights: Rights


def outliers(session: ReadSession, *, order: Order = Order.TOTAL, limit: int | None) -> Outliers:
    """Return the most expensive statements.

    Args:
        session: The session to query.
        order: The measure of cost.
        limit: The maximum number of statements; None for all.

    Raises:
        NotFoundError: The extension is not available; the hint explains how to install it.
    """
    schema = _schema(session)
    view = f"{schema}.{_NAME}"
    columns = columns_of(session, view)
    names = {key: next(n for n in known if n in columns) for key, known in _NAMES.items()}
    query = _QUERY.format(view=view, order=_ORDERS[order], **names)
    try:
        rows = session.execute(sa.text(query), {"limit": limit, "hidden": _HIDDEN}).mappings().all()
    except DBAPIError as error:
        if sqlstate(error) == _NOT_LOADED:
            raise _not_loaded(
                f"The extension {_NAME} is installed, but the server has not loaded its library."
            ) from error
        raise
    seen, hidden = (rows[0]["seen"], rows[0]["hidden"]) if rows else (0, 0)
    return Outliers(
        tuple(_outlier(dict(row)) for row in rows),
        seen,
        hidden,
        _since(session, schema),
        rights(session),
    )


def _schema(session: ReadSession) -> str:
    schema = session.scalar(
        sa.text(
            "SELECT nspname::text FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace"
            " WHERE extname = :name"
        ),
        {"name": _NAME},
    )
    if schema is None:
        raise _not_made(session)
    return sql_name(schema)


def _since(session: ReadSession, schema: str) -> Any:
    view = f"{schema}.{_NAME}_info"
    if "stats_reset" not in columns_of(session, view):
        return None
    return session.scalar(sa.text(f"SELECT stats_reset FROM {view}"))  # noqa: S608 - quoted


def _outlier(row: dict[str, Any]) -> Outlier:
    for key in ("total_ms", "mean_ms", "max_ms", "read_ms"):
        row[key] = round(row[key], 3)
    for key in ("share", "hit"):
        row[key] = None if row[key] is None else round(row[key], 4)
    query = None if row["query"] == _HIDDEN else masked(row["query"])
    kept = {key: row[key] for key in Outlier.__dataclass_fields__}
    return Outlier(**{**kept, "query": query, "rows": int(row["rows"])})


def _not_made(session: ReadSession) -> NotFoundError:
    missing = f"The extension {_NAME} is not installed in this database."
    loaded = session.scalar(
        sa.text("SELECT setting FROM pg_settings WHERE name = 'shared_preload_libraries'")
    )
    available = session.scalar(
        sa.text("SELECT true FROM pg_available_extensions WHERE name = :name"), {"name": _NAME}
    )
    if not available:
        return NotFoundError(
            f"The extension {_NAME} is not available on this server.",
            hint="Install PostgreSQL's contrib modules on the server.",
        )
    if loaded is not None and _NAME not in loaded:
        return _not_loaded(missing)
    unsure = "" if loaded is not None else " (if the server has loaded its library)"
    return NotFoundError(
        missing, hint=f"Ask an administrator to run{unsure}: CREATE EXTENSION {_NAME}"
    )


def _not_loaded(what: str) -> NotFoundError:
    return NotFoundError(
        what,
        hint=f"Add {_NAME} to shared_preload_libraries (on RDS in the parameter group), restart the"
        f" server, then run: CREATE EXTENSION IF NOT EXISTS {_NAME}",
    )
