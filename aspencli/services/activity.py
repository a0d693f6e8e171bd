"""What goes on in a database: who is connected, who waits for whom, who replicates it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from db.sessions import ReadSession


@dataclass(frozen=True)
class Activity:
    """What goes on in the database; what other users do is hidden from an ordinary one.

    Attributes:
        connections: The sessions in this database, ours left out.
        max_connections: How many the whole server takes.
        longest_s: The age of the oldest open transaction of others, in seconds; None: there is
            none.
        longest: Who that is, in words.
        waiting: How many sessions wait for a lock.
        blockers: The server processes that they wait for.
    """

    connections: int
    max_connections: int
    longest_s: float | None
    longest: str | None
    waiting: int
    blockers: tuple[int, ...]


@dataclass(frozen=True)
class Replication:
    """Whether the server is a standby, or who follows it.

    Attributes:
        standby: It replays another server, and refuses every write.
        lag_s: As a standby, how far it is behind, in seconds; else None.
        followers: As a primary, how many standbys follow it.
    """

    standby: bool
    lag_s: float | None
    followers: int

    def __str__(self) -> str:
        if self.standby:
            return f"standby, {self.lag_s or 0.0:.0f} s behind"
        return f"primary, {self.followers} standby(s)"


def activity(session: ReadSession) -> Activity:
    """Look at the other sessions of the session's database."""
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
    return f"pid {row.pid}: {row.usename}{name} ({row.state})"


def replication(session: ReadSession) -> Replication:
    """Ask the server for its part in a replication."""
    standby = bool(session.scalar(sa.text("SELECT pg_is_in_recovery()")))
    lag = (
        "SELECT extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8"
        if standby
        else "SELECT NULL::float8"
    )
    followers = session.scalar(sa.text("SELECT count(*) FROM pg_stat_replication"))
    return Replication(standby, session.scalar(sa.text(lag)), followers or 0)
