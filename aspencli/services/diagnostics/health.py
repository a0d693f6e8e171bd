"""Checks that have no command: connections, vacuum, ID and sequence limits, replication."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from aspencli.services.diagnostics.findings import Examined, Verdict, several
from aspencli.services.diagnostics.tables import OURS
from db.sessions import ReadSession

_FULL, _NEARLY_FULL = 0.95, 0.8
# Anti-wraparound autovacuum starts at 200 million; writes are refused at about 2 billion.
_OLD_XIDS, _VERY_OLD_XIDS = 500_000_000, 1_500_000_000
_KEPT_WAL = 1 << 30
_DEAD_ROWS, _DEAD_SHARE = 10_000, 0.2
_NAMED = 5
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


@dataclass(frozen=True)
class _Level:
    verdict: Verdict
    least: float


def connections(session: ReadSession) -> Examined:
    """Check how many of the server's connections are in use."""
    taken, most = session.execute(
        sa.text(
            "SELECT (SELECT sum(numbackends) FROM pg_stat_database),"
            " current_setting('max_connections')::int"
            " - current_setting('superuser_reserved_connections')::int"
        )
    ).one()
    message = f"{taken} of {most} connections are taken, all databases of the server together"
    verdict = _level(
        taken / most, (_Level(Verdict.PROBLEM, _FULL), _Level(Verdict.WARNING, _NEARLY_FULL))
    )
    step = None if verdict is Verdict.OK else "See whose they are: aspencli db activity --all"
    return Examined("connections", verdict, message, step)


def dead_rows(session: ReadSession) -> Examined:
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
        message = "the server does not count dead rows (track_counts = off)"
        return Examined("vacuum", Verdict.UNKNOWN, message, "Ask for: track_counts = on")
    if not rows:
        return Examined("vacuum", Verdict.OK, "dead rows are cleared away")
    return Examined(
        "vacuum",
        Verdict.WARNING,
        several(len(rows), "table", "holds many dead rows", "hold many dead rows"),
        f"VACUUM (ANALYZE) {rows[0].name}",
        tuple(f"{row.name}: {row.dead:,} dead rows, {row.share:.0%}" for row in rows[:_NAMED]),
    )


def transaction_ids(session: ReadSession) -> Examined:
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
    message = f"the oldest transaction is {row.age:,} transactions ago, of 2,000,000,000"
    if verdict is Verdict.OK:
        return Examined("transaction ids", verdict, message)
    step = f"VACUUM (FREEZE) in the database {row.name}; see that no old transaction hinders it"
    return Examined("transaction ids", verdict, f"{message} (in {row.name})", step)


def sequences(session: ReadSession) -> Examined:
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
            f"{len(hidden)} of {len(rows)} sequences are hidden from this user",
            f"Ask for: GRANT SELECT ON ALL SEQUENCES IN SCHEMA aspen TO {user}",
            tuple(hidden[:_NAMED]),
        )
    if not near:
        most = max((row.share or 0 for row in rows), default=0)
        return Examined(
            "sequences", Verdict.OK, f"of {len(rows)} counters none is used by more than {most:.1%}"
        )
    return Examined(
        "sequences",
        Verdict.PROBLEM if near[0].share > _FULL else Verdict.WARNING,
        several(len(near), "counter", "comes", "come") + " to an end; then every insert fails",
        f"Make the column bigger (bigint): {near[0].name}",
        tuple(f"{row.name}: {row.share:.0%} used" for row in near[:_NAMED]),
    )


def replication(session: ReadSession) -> Examined:
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
    part = "a standby" if standby else "no standby"
    if not rows:
        return Examined("replication", Verdict.OK, f"{part}; no slot is left behind")
    worst = int(rows[0].kept or 0)
    return Examined(
        "replication",
        Verdict.PROBLEM if worst > _KEPT_WAL else Verdict.NOTE,
        several(len(rows), "replication slot", "has", "have")
        + f" no reader; up to {worst:,} bytes of log are kept",
        f"Start its reader, or: SELECT pg_drop_replication_slot('{rows[0].name}')",
        tuple(f"{row.name}: {int(row.kept or 0):,} bytes" for row in rows[:_NAMED]),
    )


def _level(value: float, levels: Sequence[_Level]) -> Verdict:
    return next((level.verdict for level in levels if value > level.least), Verdict.OK)


def pooler(session: ReadSession) -> Examined | None:
    """Return a note if the connection goes through a pooler."""
    driver: Any = session.connection().connection.driver_connection
    if not driver.pooled:
        return None
    message = "a connection pooler is in between: settings hold for one transaction at a time"
    step = "For db psql, connect to the server directly (see the guide to read-only sessions)."
    return Examined("pooler", Verdict.NOTE, message, step)
