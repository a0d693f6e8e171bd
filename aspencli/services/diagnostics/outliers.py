"""The statements that cost the server most: ``pg_stat_statements``, whichever version it is."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from aspencli.errors import NotFoundError
from aspencli.services.diagnostics.looking import Rights, columns_of, masked, quoted, rights
from db.sessions import ReadSession

_NAME = "pg_stat_statements"
_NOT_LOADED = "55000"  # object_not_in_prerequisite_state
_FORBIDDEN = "42501"
_HIDDEN = "<insufficient privilege>"


class Order(enum.Enum):
    """What the statements are ordered by."""

    TOTAL = "total"
    MEAN = "mean"
    CALLS = "calls"
    READ = "read"
    TEMP = "temp"


# What each column is called, the newest name first (extension 1.11, 1.8, and before).
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
    """A statement with its constants folded, and what it has cost since the counts began.

    Attributes:
        query_id: The server's number for it; None when it is hidden.
        user: Who ran it.
        calls: How often.
        total_ms: Its time altogether, in milliseconds.
        mean_ms: Of one call.
        max_ms: Of the slowest call.
        rows: The rows that it gave or changed, altogether.
        share: Of the time of all statements in this database, from 0 to 1.
        hit: Which part of the pages was in the server's memory, from 0 to 1.
        read_bytes: What was not, and was asked of the operating system.
        read_ms: The time for that; 0 where the server does not measure it (track_io_timing).
        temp_bytes: What it wrote to temporary files, for want of work_mem.
        query: Its text; None when it is hidden.
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
    """The costliest statements.

    Attributes:
        statements: The costliest first.
        seen: How many the server knows of in this database.
        hidden: Of how many it does not show the text to this user.
        since: When it began to count; None before PostgreSQL 14.
        rights: What this user may see.
    """

    statements: tuple[Outlier, ...]
    seen: int
    hidden: int
    since: Any
    rights: Rights


def outliers(session: ReadSession, *, order: Order = Order.TOTAL, limit: int | None) -> Outliers:
    """The statements that cost most.

    Args:
        session: Where to look.
        order: What cost means.
        limit: How many at most; None for all.

    Raises:
        NotFoundError: The extension is not there; the hint says how it gets there.
    """
    schema = _schema(session)
    view = f"{schema}.{_NAME}"
    columns = columns_of(session, view)
    names = {key: next(n for n in known if n in columns) for key, known in _NAMES.items()}
    query = _QUERY.format(view=view, order=_ORDERS[order], **names)
    try:
        rows = session.execute(sa.text(query), {"limit": limit, "hidden": _HIDDEN}).mappings().all()
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) == _NOT_LOADED:
            raise _not_loaded(
                f"the extension {_NAME} is there, but the server did not load its library"
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
    return quoted(schema)


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
    missing = f"this database does not have the extension {_NAME}"
    loaded = session.scalar(
        sa.text("SELECT setting FROM pg_settings WHERE name = 'shared_preload_libraries'")
    )
    available = session.scalar(
        sa.text("SELECT true FROM pg_available_extensions WHERE name = :name"), {"name": _NAME}
    )
    if not available:
        return NotFoundError(
            f"{missing}, and the server does not offer it",
            hint="Install PostgreSQL's contrib modules on the server's machine.",
        )
    if loaded is not None and _NAME not in loaded:
        return _not_loaded(missing)
    unsure = "" if loaded is not None else " (if the server loads its library)"
    return NotFoundError(
        missing, hint=f"Have an administrator run{unsure}: CREATE EXTENSION {_NAME}"
    )


def _not_loaded(what: str) -> NotFoundError:
    return NotFoundError(
        what,
        hint=f"Add {_NAME} to shared_preload_libraries (on RDS in the parameter group), restart the"
        f" server, then run: CREATE EXTENSION IF NOT EXISTS {_NAME}",
    )
