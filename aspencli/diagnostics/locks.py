"""Lock waits, as a forest whose roots block all other sessions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from aspen.database.engine import ReadSession
from aspencli.diagnostics.activity import (
    VisibleSession,
    visible_sessions,
)
from aspencli.diagnostics.session import Rights, columns_of, rights

# PostgreSQL does not show which row a session waits for, but it shows the table: the first session
# in the queue for a row holds a lock on the tuple.
_WAITS = """
WITH held AS MATERIALIZED (SELECT * FROM pg_locks)
SELECT w.pid, w.mode, w.locktype AS kind, {waited} AS waited_s,
    pg_blocking_pids(w.pid) AS blocked_by,
    (SELECT format('%I.%I', n.nspname, c.relname)
        FROM held t JOIN pg_class c ON c.oid = t.relation
            JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE t.pid = w.pid AND (t.locktype = 'tuple' OR NOT t.granted)
            AND t.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        LIMIT 1) AS relation
FROM held w WHERE NOT w.granted
"""
_WAITED = "extract(epoch FROM clock_timestamp() - w.waitstart)::float8"  # PostgreSQL 14


@dataclass(frozen=True)
class Wait:
    """A session's wait for a lock.

    Attributes:
        blocked_by: The PIDs of processes that hold the lock or are ahead in the queue for it; 0
            is a prepared transaction.
        mode: The lock mode, such as ``ShareLock``.
        kind: The lock type, such as ``relation``, or ``transactionid`` for a changed row.
        relation: The table, if it is known.
        waited_s: The seconds waited so far; None before PostgreSQL 14.
    """

    blocked_by: tuple[int, ...]
    mode: str
    kind: str
    relation: str | None
    waited_s: float | None


@dataclass(frozen=True)
class Node:
    """A session in a tree of lock waits.

    Attributes:
        pid: The PID of its server process; 0 for a prepared transaction, which has none.
        depth: The depth in the tree; 0 at a root.
        blocks: The number of sessions that wait for it, directly or indirectly.
        session: The session; None if it is gone or has no process.
        wait: The lock it waits for; None at a root.
    """

    pid: int
    depth: int
    blocks: int
    session: VisibleSession | None
    wait: Wait | None


@dataclass(frozen=True)
class Locks:
    """The trees of lock waits in depth-first order, and the user's visibility rights."""

    nodes: tuple[Node, ...]
    rights: Rights

    @property
    def roots(self) -> list[Node]:
        """Return the roots of the trees."""
        return [node for node in self.nodes if node.depth == 0]

    @property
    def waiting(self) -> int:
        """Return the number of sessions waiting."""
        return sum(node.wait is not None for node in self.nodes)

    @property
    def longest_s(self) -> float:
        """Return the longest wait in seconds, as far as it is known."""
        waits = [node.wait.waited_s or _state_s(node) for node in self.nodes if node.wait]
        return max(waits, default=0.0)


def _state_s(node: Node) -> float:
    return (node.session.state_s if node.session else None) or 0.0


def locks(session: ReadSession) -> Locks:
    """Return the lock waits in the session's database, with blockers from any database."""
    waits = _waits(session)
    involved = {*waits, *(pid for wait in waits.values() for pid in wait.blocked_by)}
    seen = {found.pid: found for found in visible_sessions(session, involved)}
    here = session.scalar(sa.text("SELECT current_database()"))
    ours = [pid for pid in waits if pid in seen and seen[pid].database == here]
    return Locks(tuple(_forest(_reach(ours, waits), seen)), rights(session))


def _waits(session: ReadSession) -> dict[int, Wait]:
    waited = _WAITED if "waitstart" in columns_of(session, "pg_locks") else "NULL::float8"
    rows = session.execute(sa.text(_WAITS.format(waited=waited))).all()
    return {
        row.pid: Wait(
            tuple(sorted(set(row.blocked_by))),
            row.mode,
            row.kind,
            row.relation,
            None if row.waited_s is None else round(max(row.waited_s, 0.0), 1),
        )
        for row in rows
        if row.blocked_by  # otherwise it was granted in the meantime
    }


def _reach(pids: list[int], waits: Mapping[int, Wait]) -> dict[int, Wait]:
    """Return the waits of these processes and of all that block them."""
    reached: dict[int, Wait] = {}
    todo = list(pids)
    while todo:
        pid = todo.pop()
        if pid in waits and pid not in reached:
            reached[pid] = waits[pid]
            todo.extend(waits[pid].blocked_by)
    return reached


def _forest(waits: Mapping[int, Wait], seen: Mapping[int, VisibleSession]) -> Iterator[Node]:
    below: dict[int, list[int]] = {}
    for pid in sorted(waits):
        for blocker in waits[pid].blocked_by:
            below.setdefault(blocker, []).append(pid)
    roots = sorted((pid for pid in below if pid not in waits), key=lambda pid: -_all(pid, below))
    shown: set[int] = set()
    # In a deadlock, which the server will soon break, all wait for each other; any can be the root.
    for root in (*roots, *sorted(waits)):
        todo = [(root, 0)]
        while todo:
            pid, depth = todo.pop()
            if pid in shown:  # already shown, with all its blockers
                continue
            shown.add(pid)
            yield Node(pid, depth, _all(pid, below), seen.get(pid), waits.get(pid))
            todo.extend((child, depth + 1) for child in reversed(below.get(pid, [])))


def _all(pid: int, below: Mapping[int, list[int]]) -> int:
    """Return the number of sessions that wait for a process, directly or indirectly."""
    found: set[int] = set()
    todo = list(below.get(pid, []))
    while todo:
        child = todo.pop()
        if child not in found and child != pid:
            found.add(child)
            todo.extend(below.get(child, []))
    return len(found)
