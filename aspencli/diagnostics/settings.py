"""The server's settings: which ones matter or were changed, and which values are unusual."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from aspen.database.engine import Database, ReadSession
from aspencli.diagnostics.session import Rights, rights
from aspencli.errors import NotFoundError

MATTERING = (
    *("shared_buffers", "effective_cache_size", "work_mem", "maintenance_work_mem"),
    *("max_connections", "superuser_reserved_connections", "random_page_cost"),
    *("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"),
    *("autovacuum", "autovacuum_vacuum_scale_factor", "autovacuum_max_workers", "track_counts"),
    *("fsync", "full_page_writes", "synchronous_commit", "data_checksums", "wal_level"),
    *("max_wal_size", "checkpoint_timeout", "default_transaction_read_only"),
    *("log_min_duration_statement", "log_lock_waits", "track_io_timing"),
    *("shared_preload_libraries", "password_encryption", "ssl", "TimeZone"),
)
"""The settings to look at first when a server is slow or unsafe."""
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


@dataclass(frozen=True)
class Setting:
    """A server setting, as it applies to a new session of this user.

    Attributes:
        name: The name.
        value: The value, with its unit.
        default: PostgreSQL's built-in default.
        source: The source of the value: ``default``, ``configuration file``, ``database``, ...
        pending_restart: True if a new value is configured and requires a restart.
        about: A short description.
        remark: What is unusual about the value; None if nothing is.
        severe: True if that endangers data.
    """

    name: str
    value: str
    default: str | None
    source: str
    pending_restart: bool
    about: str
    remark: str | None
    severe: bool

    @property
    def matters(self) -> bool:
        """Return True if the setting is in `MATTERING`, was changed, or has a remark."""
        return self.name in MATTERING or self.changed or self.remark is not None

    @property
    def changed(self) -> bool:
        """Return True if the value was changed from the default."""
        return self.source not in _UNTOUCHED and self.value != self.default


@dataclass(frozen=True)
class Settings:
    """All settings that this user may see."""

    items: tuple[Setting, ...]
    rights: Rights

    def named(self, words: Sequence[str]) -> list[Setting]:
        """Return the settings whose name contains one of the words.

        Raises:
            NotFoundError: A word matches no setting.
        """
        for word in words:
            if not any(word.lower() in item.name.lower() for item in self.items):
                raise NotFoundError(
                    f"No setting has {word!r} in its name.",
                    hint="List all settings: aspencli db settings --all",
                )
        return [item for item in self.items if any(w.lower() in item.name.lower() for w in words)]


def settings(database: Database) -> Settings:
    """Return the settings, unaffected by those that this program sets for its own sessions."""
    with _untouched(database) as session:
        rows = session.execute(sa.text(_QUERY)).all()
        return Settings(tuple(map(_setting, rows)), rights(session))


@contextmanager
def _untouched(database: Database) -> Iterator[ReadSession]:
    """Yield a session with the server's own settings, in a read-only transaction."""
    engine = sa.create_engine(
        database.url,
        connect_args=database.arguments(),
        poolclass=NullPool,
        hide_parameters=True,
    )
    try:
        with ReadSession(engine) as session:
            session.execute(sa.text("SET TRANSACTION READ ONLY"))
            yield session
    finally:
        engine.dispose()


def _setting(row: Any) -> Setting:
    remark, severe = _judged(row)
    return Setting(
        row.name,
        _with_unit(row.value, row.unit),
        None if row.default is None else _with_unit(row.default, row.unit),
        row.source,
        row.pending_restart,
        row.about,
        remark,
        severe,
    )


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


def _bytes(row: Any) -> int:
    return int(row.value) * _SIZES[row.unit]


_Check = tuple[Callable[[Any], bool], str, bool]
_CHECKS: dict[str, _Check] = {
    "fsync": (lambda r: r.value == "off", "A crash can corrupt the database", True),
    "full_page_writes": (
        lambda r: r.value == "off",
        "A crash can corrupt data pages",
        True,
    ),
    "autovacuum": (
        lambda r: r.value == "off",
        "Dead rows are never removed: tables grow, and eventually the server rejects writes",
        True,
    ),
    "track_counts": (
        lambda r: r.value == "off",
        "Autovacuum does not work without these statistics",
        True,
    ),
    "zero_damaged_pages": (lambda r: r.value == "on", "Damaged data is silently discarded", True),
    "synchronous_commit": (
        lambda r: r.value == "off",
        "A crash can lose the most recent commits",
        False,
    ),
    "shared_buffers": (
        lambda r: _bytes(r) < _LITTLE_MEMORY,
        "Low; 25% of the machine's memory is typical",
        False,
    ),
    "work_mem": (
        lambda r: _bytes(r) > _MUCH_WORK_MEM,
        "High: it applies to each sort of each session, so the machine can run out of memory",
        False,
    ),
    "idle_in_transaction_session_timeout": (
        lambda r: r.value == "0",
        "Sessions left idle in a transaction keep their locks; no timeout is set.",
        False,
    ),
    "password_encryption": (
        lambda r: r.value not in {"scram-sha-256"},
        "New passwords are stored as MD5 hashes, which are insecure",
        False,
    ),
    "default_transaction_read_only": (
        lambda r: r.value == "on",
        "New sessions are read-only by default",
        False,
    ),
}


def _judged(row: Any) -> tuple[str | None, bool]:
    if row.pending_restart:
        return "A new value is configured, and takes effect after a restart", False
    check = _CHECKS.get(row.name)
    if check is not None and row.value is not None and check[0](row):
        return check[1], check[2]
    return None, False
