"""The state of a database at a glance, with the recommended next step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from aspen.database.engine import Database, ReadSession
from aspen.database.errors import sqlstate
from aspencli.admin.schema import SchemaState, visible_schema_state
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


@dataclass(frozen=True)
class Activity:
    """The activity in a database; other users' details are hidden from an ordinary user.

    Attributes:
        connections: Number of other sessions in this database.
        max_connections: Connection limit of the whole server.
        longest_s: Age of the oldest open transaction of another session, in seconds, if any.
        longest: Description of that session.
        waiting: Number of sessions waiting for a lock.
        blockers: PIDs of the server processes that block them.
    """

    connections: int
    max_connections: int
    longest_s: float | None
    longest: str | None
    waiting: int
    blockers: tuple[int, ...]


@dataclass(frozen=True)
class Replication:
    """The server's role in replication.

    Attributes:
        standby: True if the server replays another one and rejects every write.
        lag_s: Replication lag of a standby, in seconds; None on a primary.
        followers: Number of standbys that replicate from this server.
    """

    standby: bool
    lag_s: float | None
    followers: int

    def __str__(self) -> str:
        if self.standby:
            return f"standby, {self.lag_s or 0.0:.0f} s behind"
        return f"primary, {counted(self.followers, 'standby')}"


@dataclass(frozen=True)
class Count:
    """The number of rows in a table, estimated from planner statistics if the table is large."""

    rows: int
    estimated: bool = False

    def __str__(self) -> str:
        return f"about {self.rows:,}" if self.estimated else f"{self.rows:,}"


@dataclass(frozen=True)
class Verdict:
    """The most important finding, and the next step.

    Attributes:
        word: ``ready``, ``empty``, ``behind``, ``unknown``, ``read-only``, ``blocked`` or ``busy``.
        message: A description of the finding.
        step: The next step, or None if nothing is needed.
    """

    word: str
    message: str
    step: str | None = None


@dataclass(frozen=True)
class TimeLimit:
    """A session's time limit, in milliseconds; 0 for none.

    Attributes:
        server: The limit set by the server, the database, or the role.
        ours: The limit that this program requests.
        used: The shorter of the two, unless overridden.
    """

    server: int
    ours: int
    used: int


@dataclass(frozen=True)
class Status:
    """The state of a database.

    Attributes:
        version: The server's version, such as ``15.4``.
        host: The server's host, or its socket folder if it is on this machine.
        port: Its port; None for the default.
        database: The database's name.
        user: The role we are connected as.
        size: Bytes on the server's disk.
        schema: Its current revision and the newest one.
        counts: The row counts of the main tables, by name. Omits tables that are missing, and
            tables never analyzed that are locked or not readable by this user.
        activity: The current sessions and locks.
        replication: The replication state: standby or primary.
        read_only: True if the server rejects writes, as a standby or because of its settings.
        pooler: True if there is a connection pooler in between.
        limits: The time limits of a session, by setting name.
    """

    version: str
    host: str
    port: int | None
    database: str
    user: str
    size: int
    schema: SchemaState
    counts: dict[str, Count]
    activity: Activity
    replication: Replication
    read_only: bool
    pooler: bool
    limits: dict[str, TimeLimit]

    @property
    def verdict(self) -> Verdict:
        """Return the most important finding."""
        return _schema_verdict(self.schema) or _server_verdict(self) or _ready(self)


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
    standing = replication(session)
    host, port = _place(session, database)
    driver: Any = session.connection().connection.driver_connection
    used, ours = driver.defaults.stricter(database.policy), database.policy.timeouts()
    return Status(
        version=_scalar(session, "SHOW server_version").split(" ")[0],
        host=host,
        port=port,
        database=_scalar(session, "SELECT current_database()"),
        user=_scalar(session, "SELECT current_user"),
        size=_scalar(session, "SELECT pg_database_size(current_database())"),
        schema=schema,
        counts=_counts(session, database.schema),
        activity=activity(session),
        replication=standing,
        read_only=standing.standby or driver.defaults.read_only,
        pooler=driver.pooled,
        limits={
            name: TimeLimit(value, ours[name], used[name])
            for name, value in driver.defaults.timeouts.items()
        },
    )


def _scalar(session: ReadSession, query: str) -> Any:
    return session.scalar(sa.text(query))


def _place(session: ReadSession, database: Database) -> tuple[str, int | None]:
    """Return the host and port of the session, which may be one of several in the address."""
    driver: Any = session.connection().connection.driver_connection
    url = database.url
    port = driver.info.port if "port" in url.query else url.port
    return driver.info.host or "local socket", port


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
    counts = {
        name: _count(session, sa.table(name, schema=schema), *known[name])
        for name in TABLES
        if name in known
    }
    return {name: count for name, count in counts.items() if count is not None}


def _count(session: ReadSession, table: sa.TableClause, tuples: float, size: int) -> Count | None:
    estimate = None if tuples < 0 else Count(int(tuples), estimated=True)  # -1: never analyzed
    if estimate and size > _EXACT_BYTES:
        return estimate
    try:
        with session.begin_nested():
            return Count(session.scalar(sa.select(sa.func.count()).select_from(table)) or 0)
    except DBAPIError as error:
        if sqlstate(error) in _GAVE_UP:
            return estimate
        raise


def _schema_verdict(schema: SchemaState) -> Verdict | None:
    if schema.hidden:
        return None
    if schema.revision is None:
        return Verdict("empty", "The database has no schema yet.", "aspencli db setup")
    if schema.older is not None:
        found = (
            f"Schema revision {schema.revision} is older than any revision that aspencli can "
            "migrate from."
        )
        return Verdict("behind", found, schema.older)
    if schema.behind is None:
        return Verdict(
            "unknown",
            f"This version of aspencli does not know schema revision {schema.revision}.",
            "Use the version of aspencli that migrated it, or a newer one.",
        )
    if schema.behind:
        return Verdict(
            "behind",
            f"The schema is {counted(schema.behind, 'revision')} behind.",
            "aspencli db upgrade",
        )
    return None


def _server_verdict(status: Status) -> Verdict | None:
    seen = status.activity
    if seen.waiting:
        pids = ", ".join(map(str, seen.blockers))
        return Verdict(
            "blocked",
            f"{counted(seen.waiting, 'session')} waiting for a lock, blocked by PID {pids}.",
            "See what is blocking: aspencli db locks",
        )
    if status.read_only:
        step = "Ask the server's administrator why"
        if not status.replication.standby:
            step += ", or override it for one run: --override-read-only"
        return Verdict("read-only", "The server is read-only.", f"{step}.")
    if seen.longest_s is not None and seen.longest_s > _LONG_TRANSACTION_S:
        return Verdict(
            "busy",
            f"A transaction has been open for {seen.longest_s:.0f} s ({seen.longest}).",
            "Have it committed or rolled back: it holds locks and can block migrations.",
        )
    return None


def _ready(status: Status) -> Verdict:
    if status.schema.hidden:
        return Verdict(
            "unknown",
            f"Could not read the schema revision: {status.schema.hidden}",
            "Ask an administrator to run: GRANT SELECT ON public.alembic_version TO "
            f"{sql_name(status.user)}",
        )
    return Verdict(
        "ready", "Ready. The schema is up to date.", "Open a console: aspencli db interact"
    )


def activity(session: ReadSession) -> Activity:
    """Return the activity of the other sessions in the session's database."""
    rows = session.execute(
        sa.text(
            "SELECT pid, usename, application_name, state,"
            " extract(epoch FROM clock_timestamp() - xact_start)::float8 AS age,"
            " CASE WHEN wait_event_type = 'Lock' THEN pg_blocking_pids(pid) END AS blocked_by"
            " FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            " ORDER BY xact_start NULLS LAST"
        )
    ).all()
    oldest = next((row for row in rows if row.age is not None), None)
    blocked = [row.blocked_by for row in rows if row.blocked_by]
    return Activity(
        connections=len(rows),
        max_connections=int(session.scalar(sa.text("SHOW max_connections")) or 0),
        longest_s=round(oldest.age, 1) if oldest else None,
        longest=_who(oldest) if oldest else None,
        waiting=len(blocked),
        blockers=tuple(sorted({pid for pids in blocked for pid in pids})),
    )


def _who(row: Any) -> str:
    name = f", {row.application_name}" if row.application_name else ""
    return f"PID {row.pid}: {row.usename}{name} ({row.state})"


def replication(session: ReadSession) -> Replication:
    """Return the server's role in replication."""
    standby = bool(session.scalar(sa.text("SELECT pg_is_in_recovery()")))
    lag = (
        "SELECT extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8"
        if standby
        else "SELECT NULL::float8"
    )
    followers = session.scalar(sa.text("SELECT count(*) FROM pg_stat_replication"))
    return Replication(standby, session.scalar(sa.text(lag)), followers or 0)
