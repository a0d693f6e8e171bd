"""The state of a database at a glance, with the recommended next step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from aspen.database.engine import Database
from aspen.database.errors import sqlstate
from aspen.database.sessions import ReadSession
from aspen.database.settings import SCHEMA
from aspencli.admin.databases import SchemaState, visible_schema_state
from aspencli.text import counted, sql_name

TABLES = ("samples", "users", "groups", "phylo_runs", "phylo_trees")
"""The tables whose rows are counted."""
# Counting reads the whole table; below this size it takes less than a tenth of a second.
_EXACT_BYTES = 64 * 1024 * 1024
_LONG_TRANSACTION_S = 300.0
# A table locked by a migration must not block the status command.
_LOCK_MS = 500
_STATEMENT_MS = 10_000
# lock_not_available, query_canceled, insufficient_privilege
_GAVE_UP = frozenset({"55P03", "57014", "42501"})
_SESSIONS = """
SELECT pid, usename, application_name, state,
    extract(epoch FROM clock_timestamp() - xact_start)::float8 AS age,
    CASE WHEN wait_event_type = 'Lock' THEN pg_blocking_pids(pid) END AS blocked_by
FROM pg_stat_activity WHERE datname = current_database()
    AND pid <> pg_backend_pid() AND backend_type = 'client backend'
ORDER BY xact_start NULLS LAST
"""
# One query, because each takes a round trip.
_FACTS = """
SELECT current_database()::text AS database, current_user::text AS user,
    current_setting('server_version') AS server_version,
    current_setting('max_connections')::int AS max_connections,
    pg_database_size(current_database()) AS size, pg_is_in_recovery() AS standby,
    extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8 AS lag,
    (SELECT count(*) FROM pg_stat_replication) AS followers
"""


@dataclass(frozen=True)
class Count:
    """The number of rows in a table, estimated from planner statistics if the table is large."""

    rows: int
    estimated: bool = False

    def __str__(self) -> str:
        return f"about {self.rows:,}" if self.estimated else f"{self.rows:,}"


class StatusVerdict(NamedTuple):
    """The most important finding, and the next step, if one is needed."""

    word: str  # ready, empty, behind, unknown, read-only, blocked, or busy
    message: str
    step: str | None = None


@dataclass(frozen=True)
class Status:
    """The state of a database.

    Attributes:
        host: The server's host, or its socket folder if it is on this machine.
        port: Its port; None for the default.
        size: Bytes on the server's disk.
        counts: The row counts of the main tables, by name. Omits tables that are missing, and
            tables never analyzed that are locked or not readable by this user.
        connections: The number of other sessions in this database.
        max_connections: The connection limit of the whole server.
        longest_transaction: The session with the oldest open transaction; other users' details
            may be hidden.
        blockers: The PIDs of the server processes that block the waiting sessions.
        read_only: True if the server rejects writes, as a standby or because of its settings.
        limits: The time limits of a session in milliseconds, 0 for none, by setting name: the
            server's, the one that this program requests, and the one in use.
    """

    server_version: str
    host: str
    port: int | None
    database: str
    user: str
    size: int
    state: SchemaState
    counts: dict[str, Count]
    connections: int
    max_connections: int
    longest_transaction_s: float | None
    longest_transaction: str | None
    waiting: int
    blockers: list[int]
    replication: str
    standby: bool
    read_only: bool
    pooler: bool
    limits: dict[str, dict[str, int]]

    @property
    def verdict(self) -> StatusVerdict:
        """Return the most important finding."""
        return _schema_verdict(self.state) or _server_verdict(self) or _ready(self)


def status(database: Database) -> Status:
    """Query the complete status in read-only sessions."""
    patient = database.with_limits(lock_ms=_LOCK_MS, statement_ms=_STATEMENT_MS)
    try:
        schema = visible_schema_state(patient)
        with patient.reading() as session:
            return _status(session, database, schema)
    finally:
        patient.dispose()


def _status(session: ReadSession, database: Database, schema: SchemaState) -> Status:
    driver: Any = session.connection().connection.driver_connection
    used, ours = driver.defaults.stricter(database.policy), database.policy.timeouts()
    facts = session.execute(sa.text(_FACTS)).one()
    standby, url = facts.standby, database.url
    return Status(
        server_version=facts.server_version.split(" ")[0],
        # The address may have several hosts.
        host=driver.info.host or "local socket",
        port=driver.info.port if "port" in url.query else url.port,
        database=facts.database,
        user=facts.user,
        size=facts.size,
        max_connections=facts.max_connections,
        state=schema,
        **_activity(session),
        replication=_replication(facts),
        counts=_counts(session, SCHEMA),
        standby=standby,
        read_only=standby or driver.defaults.read_only,
        pooler=driver.pooled,
        limits={
            name: {"server": value, "ours": ours[name], "used": used[name]}
            for name, value in driver.defaults.timeouts.items()
        },
    )


def _counts(session: ReadSession, schema: str) -> dict[str, Count]:
    # Use the statistics instead of the file sizes, because reading a file's size locks the table.
    found = session.execute(
        sa.text(
            "SELECT relname, reltuples, relpages::bigint * current_setting('block_size')::int"
            " FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
            " WHERE nspname = :schema AND relname = ANY(:tables) AND relkind IN ('r', 'p')"
        ),
        {"schema": schema, "tables": list(TABLES)},
    )
    known = {name: (tuples, size) for name, tuples, size in found}
    estimates = {  # -1: never analyzed
        name: Count(int(tuples), estimated=True)
        for name, (tuples, _) in known.items()
        if tuples >= 0
    }
    exact = [
        name for name, (_, size) in known.items() if name not in estimates or size <= _EXACT_BYTES
    ]
    counts = {**estimates, **_exact_counts(session, schema, exact)}
    return {name: counts[name] for name in TABLES if name in counts}


def _exact_counts(session: ReadSession, schema: str, names: Sequence[str]) -> dict[str, Count]:
    """Count rows in one query; if that fails, table by table, without those that cannot be read.

    It ends the session's transaction if the query fails.
    """
    if not names:
        return {}
    tables = [sa.table(name, schema=schema) for name in names]
    counts = [sa.select(sa.func.count()).select_from(table).scalar_subquery() for table in tables]
    try:
        found = session.execute(sa.select(*counts)).one()
    except DBAPIError as error:
        if sqlstate(error) not in _GAVE_UP:
            raise
        session.rollback()
        if len(names) == 1:
            return {}
        each = (_exact_counts(session, schema, [name]) for name in names)
        return {name: count for one in each for name, count in one.items()}
    return {name: Count(count) for name, count in zip(names, found, strict=True)}


def _schema_verdict(schema: SchemaState) -> StatusVerdict | None:
    if schema.hidden:
        return None
    if schema.revision is None:
        return StatusVerdict("empty", "The database has no schema yet.", "aspencli db setup")
    if schema.older is not None:
        found = (
            f"Schema revision {schema.revision} is older than any revision that aspencli can "
            "migrate from."
        )
        return StatusVerdict("behind", found, schema.older)
    if schema.behind is None:
        return StatusVerdict(
            "unknown",
            f"This version of aspencli does not know schema revision {schema.revision}.",
            "Use the version of aspencli that migrated it, or a newer one.",
        )
    if schema.behind:
        return StatusVerdict(
            "behind",
            f"The schema is {counted(schema.behind, 'revision')} behind.",
            "aspencli db upgrade",
        )
    return None


def _server_verdict(status: Status) -> StatusVerdict | None:
    if status.waiting:
        pids = ", ".join(map(str, status.blockers))
        return StatusVerdict(
            "blocked",
            f"{counted(status.waiting, 'session')} waiting for a lock, blocked by PID {pids}.",
            "See what is blocking: aspencli db locks",
        )
    if status.read_only:
        step = "Ask the server's administrator why"
        if not status.standby:
            step += ", or override it for one run: --override-read-only"
        return StatusVerdict("read-only", "The server is read-only.", f"{step}.")
    longest_s = status.longest_transaction_s
    if longest_s is not None and longest_s > _LONG_TRANSACTION_S:
        return StatusVerdict(
            "busy",
            f"A transaction has been open for {longest_s:.0f} s ({status.longest_transaction}).",
            "Have it committed or rolled back: it holds locks and can block migrations.",
        )
    return None


def _ready(status: Status) -> StatusVerdict:
    if status.state.hidden:
        return StatusVerdict(
            "unknown",
            f"Could not read the schema revision: {status.state.hidden}",
            "Ask an administrator to run: GRANT SELECT ON public.alembic_version TO "
            f"{sql_name(status.user)}",
        )
    return StatusVerdict(
        "ready", "Ready. The schema is up to date.", "Open a console: aspencli db interact"
    )


def _activity(session: ReadSession) -> dict[str, Any]:
    rows = session.execute(sa.text(_SESSIONS)).all()
    oldest = next((row for row in rows if row.age is not None), None)
    blocked = [row.blocked_by for row in rows if row.blocked_by]
    return {
        "connections": len(rows),
        "longest_transaction_s": round(oldest.age, 1) if oldest else None,
        "longest_transaction": _who(oldest) if oldest else None,
        "waiting": len(blocked),
        "blockers": sorted({pid for pids in blocked for pid in pids}),
    }


def _who(row: Any) -> str:
    name = f", {row.application_name}" if row.application_name else ""
    return f"PID {row.pid}: {row.usename}{name} ({row.state})"


def _replication(facts: Any) -> str:
    if facts.standby:
        return f"standby, {facts.lag or 0.0:.0f} s behind"
    return f"primary, {counted(facts.followers, 'standby')}"
