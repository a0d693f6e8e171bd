"""Who waits for whose locks, as a forest whose roots hold everybody else up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from aspencli.services.diagnostics.looking import Rights, columns_of, rights
from aspencli.services.diagnostics.sessions import SeenSession, seen_sessions
from db.sessions import ReadSession

# Which row's lock a session waits for is told by nobody, but the row's table is: the one who is
# first in the queue for a row holds a lock on the tuple meanwhile.
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
    """What a session waits for.

    Attributes:
        blocked_by: The processes that hold it, or stand before it in the queue for it; 0 is a
            prepared transaction.
        mode: The lock's mode, such as ``ShareLock``.
        kind: What is locked: ``relation``, or ``transactionid`` for a row that somebody changed.
        relation: The table, where it is known.
        waited_s: For how many seconds; None before PostgreSQL 14.
    """

    blocked_by: tuple[int, ...]
    mode: str
    kind: str
    relation: str | None
    waited_s: float | None


@dataclass(frozen=True)
class Node:
    """A session in the tree of those who wait.

    Attributes:
        pid: Its server process; 0 for a prepared transaction, which has none.
        depth: How many stand between it and nobody: 0 for one that waits for nobody.
        blocks: How many wait for it, through others as well.
        session: What it does; None when it is gone, or has no process.
        wait: What it waits for; None at a root.
    """

    pid: int
    depth: int
    blocks: int
    session: SeenSession | None
    wait: Wait | None


@dataclass(frozen=True)
class Locks:
    """Who waits for whom, a root followed by those below it, and what may be seen of them."""

    nodes: tuple[Node, ...]
    rights: Rights

    @property
    def roots(self) -> list[Node]:
        """Those who hold others up and wait for nobody."""
        return [node for node in self.nodes if node.depth == 0]

    @property
    def waiting(self) -> int:
        """How many sessions wait."""
        return sum(node.wait is not None for node in self.nodes)

    @property
    def longest_s(self) -> float:
        """For how many seconds somebody has waited at most, as far as it is known."""
        waits = [node.wait.waited_s or _state_s(node) for node in self.nodes if node.wait]
        return max(waits, default=0.0)


def _state_s(node: Node) -> float:
    return (node.session.state_s if node.session else None) or 0.0


def locks(session: ReadSession) -> Locks:
    """Look at who waits in the session's database, and for whom, wherever that one is."""
    waits = _waits(session)
    involved = {*waits, *(pid for wait in waits.values() for pid in wait.blocked_by)}
    seen = {found.pid: found for found in seen_sessions(session, involved)}
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
        if row.blocked_by  # else it was granted in between
    }


def _reach(pids: list[int], waits: Mapping[int, Wait]) -> dict[int, Wait]:
    """The waits of these processes, and of all that hold them up."""
    reached: dict[int, Wait] = {}
    todo = list(pids)
    while todo:
        pid = todo.pop()
        if pid in waits and pid not in reached:
            reached[pid] = waits[pid]
            todo.extend(waits[pid].blocked_by)
    return reached


def _forest(waits: Mapping[int, Wait], seen: Mapping[int, SeenSession]) -> Iterator[Node]:
    below: dict[int, list[int]] = {}
    for pid in sorted(waits):
        for blocker in waits[pid].blocked_by:
            below.setdefault(blocker, []).append(pid)
    roots = sorted((pid for pid in below if pid not in waits), key=lambda pid: -_all(pid, below))
    shown: set[int] = set()
    # Where all wait for each other, a deadlock about to be broken, any of them stands for a root.
    for root in (*roots, *sorted(waits)):
        todo = [(root, 0)]
        while todo:
            pid, depth = todo.pop()
            if pid in shown:  # told where it came first; its blockers are all named there
                continue
            shown.add(pid)
            yield Node(pid, depth, _all(pid, below), seen.get(pid), waits.get(pid))
            todo.extend((child, depth + 1) for child in reversed(below.get(pid, [])))


def _all(pid: int, below: Mapping[int, list[int]]) -> int:
    """How many wait for a process, through others as well."""
    found: set[int] = set()
    todo = list(below.get(pid, []))
    while todo:
        child = todo.pop()
        if child not in found and child != pid:
            found.add(child)
            todo.extend(below.get(child, []))
    return len(found)
