"""The most expensive statements, from any version of ``pg_stat_statements``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aspencli.diagnostics import LIMIT, Diagnostic, Examined, Option, Report, Severity
from aspencli.diagnostics.session import (
    HIDDEN,
    columns_of,
    hidden_notes,
    masked,
    moment,
    query,
    rights,
    scalar,
)
from aspencli.errors import NotFoundError
from aspencli.text import counted, sql_name

if TYPE_CHECKING:
    from aspen.database.sessions import ReadSession

_NAME = "pg_stat_statements"
_NOT_LOADED = "55000"  # object_not_in_prerequisite_state
# The names of each column, newest first (extension 1.11, 1.8, and before).
_NAMES = {
    "total_ms": ("total_exec_time", "total_time"),
    "mean_ms": ("mean_exec_time", "mean_time"),
    "max_ms": ("max_exec_time", "max_time"),
    "read_ms": ("shared_blk_read_time", "blk_read_time"),
}
_ORDERS = {
    "total": "total_ms",
    "mean": "mean_ms",
    "calls": "calls",
    "read": "read_bytes",
    "temp": "temp_bytes",
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
_EXTENSION = """
SELECT (SELECT nspname::text FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace
        WHERE extname = :name) AS schema,
    EXISTS (SELECT FROM pg_available_extensions WHERE name = :name) AS available,
    (SELECT setting FROM pg_settings WHERE name = 'shared_preload_libraries') AS loaded
"""
# Page reads take 0 ms if the server does not measure them (track_io_timing).
_COLUMNS = (
    ("total_ms", "Total", "millis"),
    ("share", "Share", "share"),
    ("calls", "Calls", "right"),
    ("mean_ms", "Mean", "millis"),
    ("max_ms", "Slowest", "millis secondary"),
    ("rows", "Rows", "right secondary"),
    ("hit", "Cache hit", "share secondary"),
    ("read_bytes", "Read", "bytes secondary"),
    ("read_ms", "Read time", "millis secondary"),
    ("temp_bytes", "Temp", "bytes secondary"),
    ("user", "User", "secondary"),
    ("query_id", "Query ID", "number secondary"),
    ("query", "Statement", "sql"),
)
_SLOW_MS, _HEAVY_SHARE = 1_000.0, 0.5
_EXAMINED = 20  # statements that the doctor examines


def outliers(session: ReadSession, *, by: str, limit: int | None) -> Report:
    """Show the most expensive statements, as counted by pg_stat_statements.

    Statements that differ only in constants are combined; times are server time, across all
    clients. If the extension is missing, the exit code is 6, and a hint shows how to install it.
    Table output shows the first 20.
    """
    schema = _schema(session)
    rows = _statements(session, schema, by, limit)
    seen, hidden = (rows[0]["seen"], rows[0]["hidden"]) if rows else (0, 0)
    reset = _since(session, schema)
    since = f", counted since {reset}" if reset else ""
    return Report(
        rows,
        empty="No statements have been recorded yet.",
        notes=[
            ("info", f"{len(rows)} of {seen} statements shown{since}"),
            *hidden_notes(rights(session), hidden, "statement", "the text of"),
        ],
    )


def check(session: ReadSession) -> Examined:
    """Check for slow statements, and for one that takes most of the time."""
    try:
        found = _statements(session, _schema(session), "total", _EXAMINED)
    except NotFoundError as error:
        return Examined(Severity.NOTE, error.message, error.hint)
    slow = [row for row in found if row["mean_ms"] > _SLOW_MS]
    heavy = [row for row in found if (row["share"] or 0) > _HEAVY_SHARE]
    if slow:
        averaging = (
            f"{counted(len(slow), 'statement')} {'averages' if len(slow) == 1 else 'average'}"
        )
        details = tuple(
            f"{row['mean_ms'] / 1_000:.1f} s x {counted(row['calls'], 'call')}: "
            f"{_short(row['query'])}"
            for row in slow
        )
        message = f"{averaging} more than 1 s per call."
        return Examined(Severity.WARNING, message, "aspencli db outliers --by mean", details)
    if heavy:
        share = f"{heavy[0]['share']:.0%}"
        message = f"One statement accounts for {share} of the time of all statements."
        step = "aspencli db outliers"
        return Examined(Severity.NOTE, message, step, (_short(heavy[0]["query"]),))
    seen = counted(found[0]["seen"] if found else 0, "statement")
    return Examined(Severity.OK, f"{seen} checked; none is slow.")


def _short(statement: str | None) -> str:
    return " ".join((statement or "(hidden)").split())[:100]


def _statements(
    session: ReadSession, schema: str, by: str, limit: int | None
) -> list[dict[str, Any]]:
    """Return the most expensive statements.

    Raises:
        NotFoundError: The extension is not available; the hint explains how to install it.
    """
    from sqlalchemy.exc import DBAPIError

    from aspen.database.errors import sqlstate

    view = f"{schema}.{_NAME}"
    columns = columns_of(session, view)
    names = {key: next(n for n in known if n in columns) for key, known in _NAMES.items()}
    sql = _QUERY.format(view=view, order=_ORDERS[by], **names)
    try:
        return list(map(_row, query(session, sql, limit=limit, hidden=HIDDEN)))
    except DBAPIError as error:
        if sqlstate(error) == _NOT_LOADED:
            raise _not_loaded(
                f"The extension {_NAME} is installed, but the server has not loaded its library."
            ) from error
        raise


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **row,
        **{key: round(row[key], 3) for key in _NAMES},
        **{key: None if row[key] is None else round(row[key], 4) for key in ("share", "hit")},
        "query": masked(row["query"]),
    }


def _schema(session: ReadSession) -> str:
    """Return the schema of the extension.

    Raises:
        NotFoundError: It is not installed; the hint explains how to install it.
    """
    (found,) = query(session, _EXTENSION, name=_NAME)
    if found["schema"] is None:
        raise _not_made(available=found["available"], loaded=found["loaded"])
    return sql_name(found["schema"])


def _since(session: ReadSession, schema: str) -> str | None:
    """Return when statistics were last reset; None before PostgreSQL 14."""
    view = f"{schema}.{_NAME}_info"
    if "stats_reset" not in columns_of(session, view):
        return None
    return moment(scalar(session, f"SELECT stats_reset FROM {view}"))  # noqa: S608 - quoted


def _not_made(*, available: bool, loaded: str | None) -> NotFoundError:
    missing = f"The extension {_NAME} is not installed in this database."
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


DIAGNOSTIC = Diagnostic(
    outliers,
    _COLUMNS,
    ("aspencli db outliers", "aspencli --env prod db outliers --by mean -o json"),
    place=30,
    check=check,
    options=(Option("by", "--by", "Sort order.", tuple(_ORDERS)), LIMIT),
)
