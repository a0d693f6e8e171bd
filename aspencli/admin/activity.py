"""The activity in a database: connections, lock waits, and replication."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from aspen.database.engine import ReadSession
from aspencli.text import counted


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
