"""All checks of a database in one run, each with a verdict and a next step.

Most checks belong to a diagnostic that is also a command; those of connections, vacuum, transaction
IDs, sequences, replication, and poolers have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from aspencli.diagnostics import Examined, Severity, diagnostics
from aspencli.diagnostics.session import OURS, patient, query, scalar
from aspencli.errors import AspenError, CredentialsError
from aspencli.text import counted, sql_name

if TYPE_CHECKING:
    from sqlalchemy.exc import DBAPIError

    from aspen.database.engine import Database
    from aspen.database.sessions import ReadSession

    _Check = Callable[[ReadSession], Examined]

_DETAILS = 5
_FULL, _NEARLY_FULL = 0.95, 0.8
# Anti-wraparound autovacuum starts at 200 million; writes are refused at about 2 billion.
_OLD_XIDS, _VERY_OLD_XIDS = 500_000_000, 1_500_000_000
_KEPT_WAL = 1 << 30
_DEAD_ROWS, _DEAD_SHARE = 10_000, 0.2
_FORBIDDEN = "42501"
_REASONS = {
    "55P03": "timed out waiting for a lock",
    "57014": "timed out",
    _FORBIDDEN: "permission denied",
}
_REPORT = "This is a bug. Please report it to the aspencli maintainers."
_CONNECTIONS = """
SELECT (SELECT sum(numbackends) FROM pg_stat_database)::int AS taken,
    current_setting('max_connections')::int
    - current_setting('superuser_reserved_connections')::int AS most
"""
_DEAD = """
SELECT current_setting('track_counts')::bool AS counts,
    CASE WHEN relid IS NOT NULL THEN format('%I.%I', schemaname, relname) END AS name,
    n_dead_tup AS dead, n_dead_tup::float8 / (n_live_tup + n_dead_tup) AS share
FROM (SELECT) AS one LEFT JOIN pg_stat_user_tables
    ON n_dead_tup > :least AND n_dead_tup > :share * (n_live_tup + n_dead_tup)
ORDER BY n_dead_tup DESC
"""
_OLDEST = """
SELECT datname::text AS name, age(datfrozenxid) AS age FROM pg_database
ORDER BY age(datfrozenxid) DESC LIMIT 1
"""
_SLOTS = """
SELECT standby, slot_name::text AS name, pg_wal_lsn_diff(
    CASE WHEN standby THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn
) AS kept
FROM (SELECT pg_is_in_recovery() AS standby) AS server
LEFT JOIN pg_replication_slots ON NOT active AND restart_lsn IS NOT NULL
ORDER BY kept DESC NULLS LAST
"""
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
ORDER BY share DESC NULLS LAST
"""


def _several(count: int, noun: str, one: str, many: str) -> str:
    return f"{counted(count, noun)} {one if count == 1 else many}"


def _check_schema(database: Database) -> Examined:
    from aspencli.admin.databases import schema_state

    state = schema_state(database)
    if state.revision is None:
        return Examined(Severity.PROBLEM, "The database has no schema.", "aspencli db setup")
    if state.older is not None:
        message = f"Revision {state.revision} is older than any that aspencli can migrate from."
        return Examined(Severity.WARNING, message, state.older)
    if state.behind is None:
        message = f"This version of aspencli does not know revision {state.revision}."
        return Examined(Severity.WARNING, message, "Use the version of aspencli that migrated it.")
    if state.behind:
        message = f"{counted(state.behind, 'revision')} behind."
        return Examined(Severity.WARNING, message, "aspencli db upgrade")
    return Examined(Severity.OK, f"Up to date: {state.revision}")


def _level(value: float, problem: float, warning: float) -> Severity:
    if value > problem:
        return Severity.PROBLEM
    return Severity.WARNING if value > warning else Severity.OK


def _check_connections(session: ReadSession) -> Examined:
    (row,) = query(session, _CONNECTIONS)
    taken, most = row["taken"], row["most"]
    message = f"{taken} of {most} connections in use (all databases on the server)."
    verdict = _level(taken / most, _FULL, _NEARLY_FULL)
    step = None if verdict is Severity.OK else "See who is connected: aspencli db activity --all"
    return Examined(verdict, message, step)


def _check_dead_rows(session: ReadSession) -> Examined:
    rows = query(session, _DEAD, least=_DEAD_ROWS, share=_DEAD_SHARE)
    found = rows[0]["name"] is not None
    if not found and not rows[0]["counts"]:
        message = "The server does not count dead rows (track_counts = off)."
        step = "Ask an administrator to set: track_counts = on"
        return Examined(Severity.UNKNOWN, message, step)
    if not found:
        return Examined(Severity.OK, "Dead rows are being vacuumed.")
    return Examined(
        Severity.WARNING,
        _several(len(rows), "table", "has many dead rows.", "have many dead rows."),
        f"VACUUM (ANALYZE) {rows[0]['name']}",
        tuple(f"{r['name']}: {r['dead']:,} dead rows, {r['share']:.0%}" for r in rows),
    )


def _check_transaction_ids(session: ReadSession) -> Examined:
    (row,) = query(session, _OLDEST)
    name, age = row["name"], row["age"]
    verdict = _level(age, _VERY_OLD_XIDS, _OLD_XIDS)
    message = f"Oldest transaction ID age: {age:,} (limit 2,000,000,000)"
    if verdict is Severity.OK:
        return Examined(verdict, f"{message}.")
    step = f"VACUUM (FREEZE) in database {name}; end any long transaction that blocks it."
    return Examined(verdict, f"{message} in database {name}.", step)


def _check_sequences(session: ReadSession) -> Examined:
    rows = query(session, _USED_UP.format(ours=OURS))
    near = [row for row in rows if (row["share"] or 0) > _NEARLY_FULL]
    hidden = [row["name"] for row in rows if not row["visible"]]
    if not near and hidden:
        user = scalar(session, "SELECT quote_ident(current_user)")
        return Examined(
            Severity.UNKNOWN,
            f"{len(hidden)} of {len(rows)} sequences are hidden from this user.",
            f"Ask an administrator to run: GRANT SELECT ON ALL SEQUENCES IN SCHEMA aspen TO {user}",
            tuple(hidden),
        )
    if not near:
        message = f"{counted(len(rows), 'sequence')} checked; none near its limit."
        return Examined(Severity.OK, message)
    return Examined(
        Severity.PROBLEM if near[0]["share"] > _FULL else Severity.WARNING,
        _several(len(near), "sequence", "is near its limit", "are near their limits")
        + ", after which inserts fail.",
        f"Change the column to bigint: {near[0]['name']}",
        tuple(f"{row['name']}: {row['share']:.0%} used" for row in near),
    )


def _check_replication(session: ReadSession) -> Examined:
    rows = query(session, _SLOTS)
    part = "Standby" if rows[0]["standby"] else "Primary"
    if rows[0]["name"] is None:
        return Examined(Severity.OK, f"{part}; no inactive replication slots.")
    worst = int(rows[0]["kept"] or 0)
    return Examined(
        Severity.PROBLEM if worst > _KEPT_WAL else Severity.NOTE,
        _several(len(rows), "replication slot", "is inactive", "are inactive")
        + f"; up to {worst:,} bytes of WAL are retained.",
        f"Restart its consumer, or: SELECT pg_drop_replication_slot('{rows[0]['name']}')",
        tuple(f"{row['name']}: {int(row['kept'] or 0):,} bytes" for row in rows),
    )


def _check_pooler(session: ReadSession) -> Examined | None:
    """Return a note if the connection goes through a pooler."""
    driver: Any = session.connection().connection.driver_connection
    if not driver.pooled:
        return None
    message = "Connected via a connection pooler; settings apply per transaction."
    step = "For db psql, connect to the server directly (see the guide to read-only sessions)."
    return Examined(Severity.NOTE, message, step, check="pooler")


# Their places are among those of the diagnostics.
_CHECKS = (
    (0, "connections", _check_connections),
    (61, "vacuum", _check_dead_rows),
    (62, "transaction ids", _check_transaction_ids),
    (63, "sequences", _check_sequences),
    (64, "replication", _check_replication),
)


def examine(database: Database) -> Iterator[Examined]:
    """Yield the verdict of each check; a failure in one does not stop the others.

    Raises:
        DBAPIError: The database cannot be reached at all.
    """
    limited = patient(database)
    user = database.url.username
    try:
        with limited.observing() as session:
            between = _check_pooler(session)
        if between is not None:
            yield between
        yield _guarded("schema", partial(_check_schema, limited), user)
        with limited.observing() as session:
            for name, work in _checks(session):
                yield _guarded(name, work, user)
                if between is not None:  # its settings last only for a transaction
                    session.rollback()
    finally:
        limited.dispose()


def _checks(session: ReadSession) -> Iterator[tuple[str, Callable[[], Examined]]]:
    """Yield each check of a session with its name, in order."""
    found: list[tuple[int, str, _Check]] = list(_CHECKS)
    for name, one in diagnostics().items():
        if one.check is not None:
            found.append((one.place, name, one.check))
    for _place, name, check in sorted(found, key=itemgetter(0)):
        yield name, partial(_look, session, check)


def _look(session: ReadSession, check: _Check) -> Examined:
    try:
        return check(session)
    except Exception:
        session.rollback()  # the next check needs a session that works
        raise


def _guarded(name: str, work: Callable[[], Examined], user: str | None) -> Examined:
    """Return the verdict of a check, or ``unknown`` and the reason if it fails."""
    from sqlalchemy.exc import DBAPIError

    try:
        found = work()
        found = replace(found, details=found.details[:_DETAILS])
    except AspenError as error:
        details = (error.message, *error.details)
        if isinstance(error, CredentialsError):
            found = _unknown(f"Check failed: {_REASONS[_FORBIDDEN]}", error.hint, details)
        else:
            found = _unknown(f"Check failed: {error.message}", error.hint, error.details)
    except DBAPIError as error:
        found = _refused(name, error, user)
    except Exception as error:  # noqa: BLE001 - one failed check must not hide the others
        found = _unknown(f"Check failed: {type(error).__name__}: {error}", _REPORT, ())
    return replace(found, check=name)


def _refused(name: str, error: DBAPIError, user: str | None) -> Examined:
    from aspen.database.errors import sqlstate

    state = sqlstate(error)
    said = (str(error.orig).strip().splitlines() or [""])[0]
    reason = _REASONS.get(state or "", "the server rejected the query")
    if state is None:
        reason = "the connection failed"
    if state == _FORBIDDEN:
        grantee = sql_name(user) if user else "this user"
        step = f"Ask an administrator to run: GRANT pg_monitor TO {grantee}"
    elif name in diagnostics():
        step = f"Try again, or as another database user: aspencli db {name}"
    else:
        step = "Try again, or as another database user."
    return _unknown(f"Check failed: {reason}", step, (said,))


def _unknown(message: str, step: str | None, details: Sequence[str]) -> Examined:
    return Examined(Severity.UNKNOWN, message, step, tuple(details))
