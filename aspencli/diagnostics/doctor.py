"""All checks of a database in one run, each with a verdict and a next step.

Most checks use a diagnostic that is also a command; those of connections, vacuum, transaction IDs,
sequences, replication, and poolers have none.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from aspen.database.engine import Database, ReadSession
from aspen.database.errors import sqlstate
from aspencli.admin.schema import schema_state
from aspencli.diagnostics.activity import VisibleSession, activity
from aspencli.diagnostics.bloat import BLOATED_BYTES, Bloats, Kind, bloat
from aspencli.diagnostics.indexes import Finding, IndexFinding, indexes
from aspencli.diagnostics.locks import Node, locks
from aspencli.diagnostics.outliers import outliers
from aspencli.diagnostics.session import patient
from aspencli.diagnostics.settings import settings
from aspencli.diagnostics.tables import OURS, sizes
from aspencli.errors import AspenError, CredentialsError, NotFoundError
from aspencli.text import counted, sql_name

LONG_WAIT_S = 30.0
LONG_TRANSACTION_S, FORGOTTEN_S = 300.0, 3_600.0
SLOW_MS, HEAVY_SHARE = 1_000.0, 0.5
_NAMED = 5
_FULL, _NEARLY_FULL = 0.95, 0.8
# Anti-wraparound autovacuum starts at 200 million; writes are refused at about 2 billion.
_OLD_XIDS, _VERY_OLD_XIDS = 500_000_000, 1_500_000_000
_KEPT_WAL = 1 << 30
_DEAD_ROWS, _DEAD_SHARE = 10_000, 0.2
_FORBIDDEN = "42501"
_REASONS = {
    "55P03": "timed out waiting for a lock",
    "57014": "timed out",
    "42501": "permission denied",
}
_REPORT = "This is a bug. Please report it to the aspencli maintainers."
_COMMANDS = frozenset({"activity", "locks", "outliers", "sizes", "indexes", "bloat", "settings"})
_USED_UP = """
SELECT format('%I.%I', n.nspname, t.relname) || '.' || quote_ident(a.attname) AS name,
    CASE WHEN has_sequence_privilege(s.seqrelid, 'USAGE, SELECT')
        THEN pg_sequence_last_value(s.seqrelid) END::float8 / least(s.seqmax, CASE a.atttypid
        WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647
        ELSE 9223372036854775807 END) AS share,
    has_sequence_privilege(s.seqrelid, 'USAGE, SELECT') AS visible
FROM pg_sequence s
JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.seqrelid
    AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
JOIN pg_class t ON t.oid = d.refobjid
JOIN pg_namespace n ON n.oid = t.relnamespace
JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
WHERE s.seqincrement > 0 AND NOT s.seqcycle AND {ours}
    AND s.seqrelid NOT IN (SELECT relation FROM pg_locks
        WHERE relation IS NOT NULL AND mode = 'AccessExclusiveLock')
"""


class Verdict(enum.Enum):
    """The severity of a result, mildest first."""

    OK = "ok"
    NOTE = "note"
    UNKNOWN = "unknown"
    WARNING = "warning"
    PROBLEM = "problem"

    @property
    def weight(self) -> int:
        """Return the severity as a number; higher is worse."""
        return list(Verdict).index(self)


@dataclass(frozen=True)
class Examined:
    """The verdict of a check, and the next step.

    Attributes:
        check: The name of the check.
        verdict: The severity.
        message: A summary of what was found.
        step: What to do next; None if nothing is needed.
        details: The supporting details, worst first.
    """

    check: str
    verdict: Verdict
    message: str
    step: str | None = None
    details: tuple[str, ...] = ()


def several(count: int, noun: str, one: str, many: str) -> str:
    """Return a count with its noun and its verb: ``1 session waits``, ``2 sessions wait``."""
    return f"{counted(count, noun)} {one if count == 1 else many}"


def check_schema(database: Database) -> Examined:
    """Check that the schema matches this version of the program."""
    state = schema_state(database)
    if state.revision is None:
        return Examined(
            "schema", Verdict.PROBLEM, "The database has no schema.", "aspencli db setup"
        )
    if state.older is not None:
        message = f"Revision {state.revision} is older than any that aspencli can migrate from."
        return Examined("schema", Verdict.WARNING, message, state.older)
    if state.behind is None:
        message = f"This version of aspencli does not know revision {state.revision}."
        step = "Use the version of aspencli that migrated it."
        return Examined("schema", Verdict.WARNING, message, step)
    if state.behind:
        message = f"{counted(state.behind, 'revision')} behind."
        return Examined("schema", Verdict.WARNING, message, "aspencli db upgrade")
    return Examined("schema", Verdict.OK, f"Up to date: {state.revision}")


def check_locks(session: ReadSession) -> Examined:
    """Check for lock waits and how long they last."""
    found = locks(session)
    if not found.nodes:
        return Examined("locks", Verdict.OK, "No sessions are waiting for locks.")
    long = found.longest_s > LONG_WAIT_S
    pids = ", ".join(str(root.pid) for root in found.roots)
    waiting = several(found.waiting, "session", "is waiting", "are waiting")
    message = f"{waiting} for locks, blocked by PID {pids} ({found.longest_s:.0f} s)."
    details = tuple(_holding(root) for root in found.roots[:_NAMED])
    verdict = Verdict.PROBLEM if long else Verdict.WARNING
    return Examined("locks", verdict, message, "aspencli db locks", details)


def _holding(root: Node) -> str:
    who = f"PID {root.pid} ({root.session})" if root.session else f"PID {root.pid}"
    if root.pid == 0:
        who = "A prepared transaction"
    state = f"; {root.session.state}" if root.session and root.session.state else ""
    return f"{who} is blocking {counted(root.blocks, 'session')}{state}"


def check_activity(session: ReadSession) -> Examined:
    """Check for transactions that have been open for too long."""
    found = activity(session)
    old = [seen for seen in found.sessions if (seen.transaction_s or 0) > LONG_TRANSACTION_S]
    old.sort(key=lambda seen: -(seen.transaction_s or 0))
    details = tuple(_transaction(seen) for seen in old[:_NAMED])
    if old:
        forgotten = any((seen.transaction_s or 0) > FORGOTTEN_S for seen in old)
        verdict = Verdict.PROBLEM if forgotten else Verdict.WARNING
        opened = several(len(old), "transaction", "has", "have")
        message = f"{opened} been open for more than 5 minutes."
        step = f"Have it committed or rolled back, or: aspencli db terminate {old[0].pid}"
        return Examined("activity", verdict, message, step, details)
    if found.hidden:
        message = f"The activity of {counted(found.hidden, 'session')} of other users is hidden."
        return Examined("activity", Verdict.UNKNOWN, message, found.rights.cure)
    message = f"{counted(len(found.sessions), 'other session')} ({found.resting} idle)."
    if not found.sessions:
        message = "No other sessions."
    return Examined("activity", Verdict.OK, message)


def _transaction(seen: VisibleSession) -> str:
    return f"PID {seen.pid} ({seen}): {seen.state}, transaction open for {seen.transaction_s:.0f} s"


def check_outliers(session: ReadSession) -> Examined:
    """Check for slow statements, and for one that takes most of the time."""
    try:
        found = outliers(session, limit=20)
    except NotFoundError as error:
        return Examined("outliers", Verdict.NOTE, error.message, error.hint)
    slow = [item for item in found.statements if item.mean_ms > SLOW_MS]
    heavy = [item for item in found.statements if (item.share or 0) > HEAVY_SHARE]
    if slow:
        message = (
            f"{several(len(slow), 'statement', 'averages', 'average')} more than 1 s per call."
        )
        step = "aspencli db outliers --by mean"
        details = tuple(
            f"{item.mean_ms / 1_000:.1f} s x {counted(item.calls, 'call')}: {_short(item.query)}"
            for item in slow[:_NAMED]
        )
        return Examined("outliers", Verdict.WARNING, message, step, details)
    if heavy:
        message = f"One statement accounts for {heavy[0].share:.0%} of the time of all statements."
        details = (_short(heavy[0].query),)
        return Examined("outliers", Verdict.NOTE, message, "aspencli db outliers", details)
    return Examined(
        "outliers", Verdict.OK, f"{counted(found.seen, 'statement')} checked; none is slow."
    )


def _short(query: str | None) -> str:
    return " ".join((query or "(hidden)").split())[:100]


def check_sizes(session: ReadSession) -> Examined:
    """Report the size of the database and its largest tables."""
    found = sizes(session)
    message = f"{found.database / 1e6:,.1f} MB in {counted(len(found.tables), 'table')}."
    biggest = tuple(f"{t.table}: {t.total / 1e6:,.1f} MB" for t in found.tables[:3])
    return Examined("sizes", Verdict.OK, message, None, biggest)


def check_indexes(session: ReadSession) -> Examined:
    """Check for invalid, missing, redundant, and unused indexes."""
    found = indexes(session)
    relevant = [finding for finding in found.findings if finding.matters]
    counts = {kind: [f for f in relevant if f.finding is kind] for kind in Finding}
    told = ", ".join(f"{len(items)} {kind.value}" for kind, items in counts.items() if items)
    if not told:
        return Examined("indexes", Verdict.OK, f"{found.seen} indexes checked; no problems.")
    return Examined(
        "indexes",
        _index_verdict(counts),
        f"{told} ({found.seen} indexes checked).",
        "aspencli db indexes",
        tuple(f"{f.finding.value}: {f.table} {f.index}" for f in relevant[:_NAMED]),
    )


def _index_verdict(counts: dict[Finding, list[IndexFinding]]) -> Verdict:
    if counts[Finding.INVALID]:
        return Verdict.PROBLEM
    needed = counts[Finding.MISSING] or counts[Finding.DUPLICATE]
    return Verdict.WARNING if needed else Verdict.NOTE


def check_bloat(session: ReadSession) -> Examined:
    """Check for large amounts of wasted space."""
    found = bloat(session)
    bad = [item for item in found.items if item.is_bloated]
    if bad:
        wasted = sum(item.wasted or 0 for item in bad) / 1e6
        tables = sum(item.kind is Kind.TABLE for item in bad)
        ofs = [counted(tables, "table")] * (tables > 0)
        if len(bad) > tables:
            ofs.append("1 index" if len(bad) - tables == 1 else f"{len(bad) - tables} indexes")
        message = f"{wasted:,.1f} MB wasted in {' and '.join(ofs)}."
        details = tuple(f"{item.name}: {item.share:.0%} wasted" for item in bad[:_NAMED])
        return Examined("bloat", Verdict.WARNING, message, "aspencli db bloat", details)
    return _unseen(found) or Examined("bloat", Verdict.OK, "No significant bloat.")


def _unseen(found: Bloats) -> Examined | None:
    """Return an unknown verdict if a large table or index has no statistics.

    Anything below the minimum waste that matters does not need them.
    """
    big = [item for item in found.items if item.size > BLOATED_BYTES]
    unseen = [item for item in big if item.wasted is None]
    if not unseen:
        return None
    message = (
        f"This user can see no statistics of {len(unseen)} of {len(big)} large tables and indexes."
    )
    step = (
        "Run ANALYZE, or ask an administrator to run: GRANT pg_read_all_data TO "
        f"{sql_name(found.rights.user)} "
        "(before PostgreSQL 14: GRANT SELECT ON ALL TABLES IN SCHEMA aspen)"
    )
    biggest = sorted(unseen, key=lambda item: -item.size)[:_NAMED]
    return Examined("bloat", Verdict.UNKNOWN, message, step, tuple(item.name for item in biggest))


def check_settings(database: Database) -> Examined:
    """Check for settings that endanger data or are unusual."""
    found = settings(database)
    odd = [item for item in found.items if item.remark]
    odd.sort(key=lambda item: not item.severe)
    if not odd:
        seen = "" if found.rights.settings else " among those that this user can see"
        return Examined("settings", Verdict.OK, f"No unusual settings{seen}.")
    severe = odd[0].severe
    waiting = any(item.pending_restart for item in odd)
    verdict = Verdict.PROBLEM if severe else Verdict.WARNING if waiting else Verdict.NOTE
    details = tuple(f"{item.name} = {item.value}: {item.remark}" for item in odd[:_NAMED])
    return Examined("settings", verdict, details[0], "aspencli db settings", details)


@dataclass(frozen=True)
class _Level:
    verdict: Verdict
    least: float


def _level(value: float, levels: Sequence[_Level]) -> Verdict:
    return next((level.verdict for level in levels if value > level.least), Verdict.OK)


def check_connections(session: ReadSession) -> Examined:
    """Check how many of the server's connections are in use."""
    taken, most = session.execute(
        sa.text(
            "SELECT (SELECT sum(numbackends) FROM pg_stat_database),"
            " current_setting('max_connections')::int"
            " - current_setting('superuser_reserved_connections')::int"
        )
    ).one()
    message = f"{taken} of {most} connections in use (all databases on the server)."
    verdict = _level(
        taken / most, (_Level(Verdict.PROBLEM, _FULL), _Level(Verdict.WARNING, _NEARLY_FULL))
    )
    step = None if verdict is Verdict.OK else "See who is connected: aspencli db activity --all"
    return Examined("connections", verdict, message, step)


def check_dead_rows(session: ReadSession) -> Examined:
    """Check that dead rows are being vacuumed."""
    rows = session.execute(
        sa.text(
            "SELECT format('%I.%I', schemaname, relname) AS name, n_dead_tup AS dead,"
            " n_dead_tup::float8 / (n_live_tup + n_dead_tup) AS share FROM pg_stat_user_tables"
            " WHERE n_dead_tup > :least AND n_dead_tup > :share * (n_live_tup + n_dead_tup)"
            " ORDER BY n_dead_tup DESC"
        ),
        {"least": _DEAD_ROWS, "share": _DEAD_SHARE},
    ).all()
    if not rows and not session.scalar(sa.text("SELECT current_setting('track_counts')::bool")):
        message = "The server does not count dead rows (track_counts = off)."
        step = "Ask an administrator to set: track_counts = on"
        return Examined("vacuum", Verdict.UNKNOWN, message, step)
    if not rows:
        return Examined("vacuum", Verdict.OK, "Dead rows are being vacuumed.")
    return Examined(
        "vacuum",
        Verdict.WARNING,
        several(len(rows), "table", "has many dead rows.", "have many dead rows."),
        f"VACUUM (ANALYZE) {rows[0].name}",
        tuple(f"{row.name}: {row.dead:,} dead rows, {row.share:.0%}" for row in rows[:_NAMED]),
    )


def check_transaction_ids(session: ReadSession) -> Examined:
    """Check how close the server's oldest transaction ID is to wraparound."""
    row = session.execute(
        sa.text(
            "SELECT datname::text AS name, age(datfrozenxid) AS age FROM pg_database"
            " ORDER BY age(datfrozenxid) DESC LIMIT 1"
        )
    ).one()
    verdict = _level(
        row.age, (_Level(Verdict.PROBLEM, _VERY_OLD_XIDS), _Level(Verdict.WARNING, _OLD_XIDS))
    )
    message = f"Oldest transaction ID age: {row.age:,} (limit 2,000,000,000)."
    if verdict is Verdict.OK:
        return Examined("transaction ids", verdict, message)
    step = f"VACUUM (FREEZE) in database {row.name}; end any long transaction that blocks it."
    return Examined("transaction ids", verdict, f"{message[:-1]} in database {row.name}.", step)


def check_sequences(session: ReadSession) -> Examined:
    """Check that no sequence is close to the limit of its column's type."""
    rows: Sequence[Any] = session.execute(
        sa.text(_USED_UP.format(ours=OURS) + " ORDER BY share DESC NULLS LAST")
    ).all()
    near = [row for row in rows if (row.share or 0) > _NEARLY_FULL]
    hidden = [row.name for row in rows if not row.visible]
    if not near and hidden:
        user = session.scalar(sa.text("SELECT quote_ident(current_user)"))
        return Examined(
            "sequences",
            Verdict.UNKNOWN,
            f"{len(hidden)} of {len(rows)} sequences are hidden from this user.",
            f"Ask an administrator to run: GRANT SELECT ON ALL SEQUENCES IN SCHEMA aspen TO {user}",
            tuple(hidden[:_NAMED]),
        )
    if not near:
        message = f"{counted(len(rows), 'sequence')} checked; none near its limit."
        return Examined("sequences", Verdict.OK, message)
    return Examined(
        "sequences",
        Verdict.PROBLEM if near[0].share > _FULL else Verdict.WARNING,
        several(len(near), "sequence", "is near its limit", "are near their limits")
        + ", after which inserts fail.",
        f"Change the column to bigint: {near[0].name}",
        tuple(f"{row.name}: {row.share:.0%} used" for row in near[:_NAMED]),
    )


def check_replication(session: ReadSession) -> Examined:
    """Check for inactive replication slots that make the server retain WAL."""
    standby = session.scalar(sa.text("SELECT pg_is_in_recovery()"))
    now = "pg_last_wal_replay_lsn()" if standby else "pg_current_wal_lsn()"
    rows = session.execute(
        sa.text(
            f"SELECT slot_name::text AS name, pg_wal_lsn_diff({now}, restart_lsn) AS kept"  # noqa: S608 - ours
            " FROM pg_replication_slots WHERE NOT active AND restart_lsn IS NOT NULL"
            " ORDER BY kept DESC NULLS LAST"
        )
    ).all()
    part = "Standby" if standby else "Primary"
    if not rows:
        return Examined("replication", Verdict.OK, f"{part}; no inactive replication slots.")
    worst = int(rows[0].kept or 0)
    return Examined(
        "replication",
        Verdict.PROBLEM if worst > _KEPT_WAL else Verdict.NOTE,
        several(len(rows), "replication slot", "is inactive", "are inactive")
        + f"; up to {worst:,} bytes of WAL are retained.",
        f"Restart its consumer, or: SELECT pg_drop_replication_slot('{rows[0].name}')",
        tuple(f"{row.name}: {int(row.kept or 0):,} bytes" for row in rows[:_NAMED]),
    )


def check_pooler(session: ReadSession) -> Examined | None:
    """Return a note if the connection goes through a pooler."""
    driver: Any = session.connection().connection.driver_connection
    if not driver.pooled:
        return None
    message = "Connected via a connection pooler; settings apply per transaction."
    step = "For db psql, connect to the server directly (see the guide to read-only sessions)."
    return Examined("pooler", Verdict.NOTE, message, step)


_Look = Callable[[ReadSession], Examined]
_ON_SESSIONS: dict[str, _Look] = {
    "connections": check_connections,
    "activity": check_activity,
    "locks": check_locks,
    "outliers": check_outliers,
    "sizes": check_sizes,
    "indexes": check_indexes,
    "bloat": check_bloat,
    "vacuum": check_dead_rows,
    "transaction ids": check_transaction_ids,
    "sequences": check_sequences,
    "replication": check_replication,
}


def examine(database: Database) -> Iterator[Examined]:
    """Yield the verdict of each check; a failure in one does not stop the others.

    Raises:
        DBAPIError: The database cannot be reached at all.
    """
    limited = patient(database)
    user = database.url.username
    try:
        with limited.reading() as session:
            between = check_pooler(session)
        if between is not None:
            yield between
        yield _guarded("schema", partial(check_schema, limited), user)
        for name, look in _ON_SESSIONS.items():
            yield _guarded(name, partial(_look, limited, look), user)
        yield _guarded("settings", partial(check_settings, limited), user)
    finally:
        limited.dispose()


def _look(database: Database, look: _Look) -> Examined:
    with database.reading() as session:
        return look(session)


def _guarded(name: str, work: Callable[[], Examined], user: str | None) -> Examined:
    """Return the verdict of a check, or ``unknown`` and the reason if it fails."""
    try:
        return work()
    except AspenError as error:
        details = (error.message, *error.details)
        if isinstance(error, CredentialsError):
            return _unknown(name, f"Check failed: {_REASONS[_FORBIDDEN]}", error.hint, details)
        return _unknown(name, f"Check failed: {error.message}", error.hint, error.details)
    except DBAPIError as error:
        return _refused(name, error, user)
    except Exception as error:  # noqa: BLE001 - one failed check must not hide the others
        message = f"Check failed: {type(error).__name__}: {error}"
        return _unknown(name, message, _REPORT, ())


def _refused(name: str, error: DBAPIError, user: str | None) -> Examined:
    state = sqlstate(error)
    said = (str(error.orig).strip().splitlines() or [""])[0]
    reason = _REASONS.get(state or "", "the server rejected the query")
    if state is None:
        reason = "the connection failed"
    if state == _FORBIDDEN:
        grantee = sql_name(user) if user else "this user"
        step = f"Ask an administrator to run: GRANT pg_monitor TO {grantee}"
    elif name in _COMMANDS:
        step = f"Try again, or as another database user: aspencli db {name}"
    else:
        step = "Try again, or as another database user."
    return _unknown(name, f"Check failed: {reason}", step, (said,))


def _unknown(name: str, message: str, step: str | None, details: Sequence[str]) -> Examined:
    return Examined(name, Verdict.UNKNOWN, message, step, tuple(details))
