"""The server's settings: which ones matter or were changed, and which values are unusual."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aspencli.diagnostics import Diagnostic, Examined, Option, Report, Severity
from aspencli.diagnostics.session import query, rights
from aspencli.errors import NotFoundError

if TYPE_CHECKING:
    from aspen.database.engine import Database
    from aspen.database.sessions import ReadSession

# The settings to look at first when a server is slow or unsafe.
_MATTERING = (
    *("shared_buffers", "effective_cache_size", "work_mem", "maintenance_work_mem"),
    *("max_connections", "superuser_reserved_connections", "random_page_cost"),
    *("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"),
    *("autovacuum", "autovacuum_vacuum_scale_factor", "autovacuum_max_workers", "track_counts"),
    *("fsync", "full_page_writes", "synchronous_commit", "data_checksums", "wal_level"),
    *("max_wal_size", "checkpoint_timeout", "default_transaction_read_only"),
    *("log_min_duration_statement", "log_lock_waits", "track_io_timing"),
    *("shared_preload_libraries", "password_encryption", "ssl", "TimeZone"),
)
_QUERY = """
SELECT name, reset_val AS value, boot_val AS default, unit, category, short_desc AS about,
    source, pending_restart, context
FROM pg_settings ORDER BY name
"""
# The sources of values that were not chosen for this server.
_UNTOUCHED = frozenset({"default", "client", "session", "override", "environment variable"})
_SIZES = {"B": 1, "kB": 1_024, "8kB": 8_192, "MB": 1_048_576, "16MB": 16_777_216}
_SIZE_STEPS = {"GB": 1 << 30, "MB": 1 << 20, "kB": 1 << 10, "B": 1}
_TIMES = {"ms": 1, "s": 1_000, "min": 60_000}
_TIME_STEPS = {"d": 86_400_000, "h": 3_600_000, "min": 60_000, "s": 1_000, "ms": 1}
_LITTLE_MEMORY = 64 * 1_048_576
_MUCH_WORK_MEM = 512 * 1_048_576


_COLUMNS = (
    ("name", "Setting", "whole"),
    ("value", "Value", ""),
    ("default", "Default", "secondary"),
    ("source", "Source", ""),
    ("pending_restart", "Pending restart", "flag secondary omit"),
    ("remark", "Remark", "omit"),  # it would truncate the more important columns
    ("about", "Description", "secondary omit"),
)


def settings(session: ReadSession, *, words: Sequence[str], everything: bool) -> Report:
    """Show the server settings that matter or were changed, with remarks on unusual values.

    Values are those of a new session of this user, without the settings that aspencli applies.
    """
    found = list(map(_setting, query(session, _QUERY)))
    chosen = [row for row in found if everything or _matters(row)]
    shown = _named(found, words) if words else chosen
    allowed, notes = rights(session), []
    if not allowed.settings:
        notes = [
            ("warn", f"User {allowed.user} cannot see administrator-only settings."),
            ("hint", f"Ask an administrator to run: {allowed.cure}"),
        ]
    return Report(shown, notes=notes, asides=[("warn", remark) for remark in _remarks(shown)])


def check(session: ReadSession) -> Examined:
    """Check for settings that endanger data or are unusual."""
    found = list(map(_setting, query(session, _QUERY)))
    remarks = _remarks(found)
    if not remarks:
        seen = "" if rights(session).settings else " among those that this user can see"
        return Examined(Severity.OK, f"No unusual settings{seen}.")
    odd = [row for row in found if row["remark"]]
    waiting = any(row["pending_restart"] for row in odd)
    verdict = Severity.WARNING if waiting else Severity.NOTE
    if any(row["severe"] for row in odd):
        verdict = Severity.PROBLEM
    return Examined(verdict, remarks[0], "aspencli db settings", tuple(remarks))


def _remarks(found: Sequence[dict[str, Any]]) -> list[str]:
    """Return the unusual settings, those that endanger data first."""
    odd = sorted((row for row in found if row["remark"]), key=lambda row: not row["severe"])
    return [f"{row['name']} = {row['value']}: {row['remark']}" for row in odd]


def _matters(row: dict[str, Any]) -> bool:
    changed = row["source"] not in _UNTOUCHED and row["value"] != row["default"]
    return row["name"] in _MATTERING or changed or row["remark"] is not None


def _named(found: list[dict[str, Any]], words: Sequence[str]) -> list[dict[str, Any]]:
    """Return the settings whose name contains one of the words.

    Raises:
        NotFoundError: A word matches no setting.
    """
    for word in words:
        if not any(word.lower() in row["name"].lower() for row in found):
            raise NotFoundError(
                f"No setting has {word!r} in its name.",
                hint="List all settings: aspencli db settings --all",
            )
    return [row for row in found if any(word.lower() in row["name"].lower() for word in words)]


@contextmanager
def _untouched(database: Database) -> Iterator[ReadSession]:
    """Yield a session with the server's own settings."""
    import sqlalchemy as sa
    from sqlalchemy.pool import NullPool

    from aspen.database.engine import know_server
    from aspen.database.sessions import ReadSession

    engine = sa.create_engine(
        database.url,
        connect_args=database.arguments(),
        poolclass=NullPool,
        hide_parameters=True,
        use_native_hstore=False,
        isolation_level="AUTOCOMMIT",  # only our own query runs in it
    )
    know_server(engine)
    try:
        with ReadSession(engine) as session:
            yield session
    finally:
        engine.dispose()


def _setting(row: dict[str, Any]) -> dict[str, Any]:
    """Return a setting with units, a remark if its value is unusual, and if that endangers data."""
    remark, severe = _judged(row)
    default = None if row["default"] is None else _with_unit(row["default"], row["unit"])
    value = _with_unit(row["value"], row["unit"])
    return {**row, "value": value, "default": default, "remark": remark, "severe": severe}


def _with_unit(value: str | None, unit: str | None) -> str:
    """Return the value in readable units: 16384 pages of 8kB are ``128MB``."""
    if not unit or value in {None, "", "-1", "0"}:
        return value or ""
    for sizes, steps in ((_SIZES, _SIZE_STEPS), (_TIMES, _TIME_STEPS)):
        if unit in sizes and float(value or 0).is_integer():
            amount = int(float(value or 0)) * sizes[unit]
            name, step = next((n, s) for n, s in steps.items() if amount % s == 0)
            return f"{amount // step}{name}"
    return f"{value}{unit}"


def _bytes(row: dict[str, Any]) -> int:
    return int(row["value"]) * _SIZES[row["unit"]]


# Each with the unusual value or a test for it, a remark, and whether it endangers data.
_CHECKS: dict[str, tuple[str | Callable[[dict[str, Any]], bool], str, bool]] = {
    "fsync": ("off", "A crash can corrupt the database", True),
    "full_page_writes": ("off", "A crash can corrupt data pages", True),
    "autovacuum": (
        "off",
        "Dead rows are never removed: tables grow, and eventually the server rejects writes",
        True,
    ),
    "track_counts": ("off", "Autovacuum does not work without these statistics", True),
    "zero_damaged_pages": ("on", "Damaged data is silently discarded", True),
    "synchronous_commit": ("off", "A crash can lose the most recent commits", False),
    "shared_buffers": (
        lambda row: _bytes(row) < _LITTLE_MEMORY,
        "Low; 25% of the machine's memory is typical",
        False,
    ),
    "work_mem": (
        lambda row: _bytes(row) > _MUCH_WORK_MEM,
        "High: it applies to each sort of each session, so the machine can run out of memory",
        False,
    ),
    "idle_in_transaction_session_timeout": (
        "0",
        "Sessions left idle in a transaction keep their locks; no timeout is set.",
        False,
    ),
    "password_encryption": (
        lambda row: row["value"] != "scram-sha-256",
        "New passwords are stored as MD5 hashes, which are insecure",
        False,
    ),
    "default_transaction_read_only": ("on", "New sessions are read-only by default", False),
}


def _judged(row: dict[str, Any]) -> tuple[str | None, bool]:
    if row["pending_restart"]:
        return "A new value is configured, and takes effect after a restart", False
    if row["name"] not in _CHECKS or row["value"] is None:
        return None, False
    unusual, remark, severe = _CHECKS[row["name"]]
    found = unusual(row) if callable(unusual) else row["value"] == unusual
    return (remark, severe) if found else (None, False)


DIAGNOSTIC = Diagnostic(
    settings,
    _COLUMNS,
    ("aspencli db settings", "aspencli db settings timeout work_mem"),
    place=70,
    check=check,
    options=(
        Option(
            "words",
            "[WORD]...",
            "Only settings whose names contain one of these words.",
            several=True,
        ),
        Option("everything", "--all", "Show every setting."),
    ),
    opens=_untouched,
)
