"""Lock waits, as a forest whose roots block all other sessions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from aspencli.diagnostics import Diagnostic, Examined, Report, Shown, Verdict
from aspencli.diagnostics.activity import VisibleSession, hidden_activity, visible_sessions
from aspencli.diagnostics.session import columns_of, query, scalar
from aspencli.text import counted, duration_text

if TYPE_CHECKING:
    from aspen.database.engine import ReadSession

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


_COLUMNS = (
    ("pid", "PID", "whole"),
    ("depth", "Depth", "right secondary omit"),  # tables show it as a tree
    ("blocked_by", "Blocked by", "list secondary"),
    ("blocks", "Blocking", "right secondary"),
    ("user", "User", "secondary"),
    ("application", "Application", "secondary"),
    ("state", "State", ""),
    ("transaction_s", "Transaction", "seconds secondary"),
    ("waited_s", "Wait", "seconds"),
    ("lock", "Lock", "secondary"),
    ("relation", "Relation", ""),
    ("query", "Statement", "sql"),
)
_NONE = "No sessions are waiting for locks."
_LONG_WAIT_S = 30.0


class Wait(NamedTuple):
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


class Node(NamedTuple):
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

    @property
    def name(self) -> str:
        """Return a description of the session."""
        if self.session is None:
            return f"PID {self.pid}" if self.pid else "A prepared transaction"
        return f"PID {self.pid} ({self.session})"

    @property
    def waited_s(self) -> float:
        """Return the seconds it has waited, as far as they are known."""
        if self.wait is None:
            return 0.0
        return self.wait.waited_s or (self.session.state_s if self.session else None) or 0.0


def locks(session: ReadSession) -> Report:
    """Show sessions that are waiting for locks, as a tree below the session that blocks them.

    Tables show the tree in the first column; other formats, in depth and blocked_by. A session that
    waits for several others is listed once, below the first of them. The exit code is 0 whether or
    not any session is waiting.
    """
    nodes = lock_waits(session)
    notes = [
        note
        for root in nodes
        if root.depth == 0
        for note in (("warn", _blocking(root)), ("hint", _way_out(root)))
    ]
    return Report(
        list(map(_row, nodes)),
        empty=_NONE,
        notes=[*notes, *hidden_activity(session, (node.session for node in nodes))],
    )


def check(session: ReadSession) -> Examined:
    """Check for lock waits and how long they last."""
    nodes = lock_waits(session)
    if not nodes:
        return Examined(Verdict.OK, _NONE)
    roots = [node for node in nodes if node.depth == 0]
    count, longest = sum(node.wait is not None for node in nodes), max(n.waited_s for n in nodes)
    waiting = f"{counted(count, 'session')} {'is' if count == 1 else 'are'} waiting"
    pids = ", ".join(str(root.pid) for root in roots)
    return Examined(
        Verdict.PROBLEM if longest > _LONG_WAIT_S else Verdict.WARNING,
        f"{waiting} for locks, blocked by PID {pids} ({longest:.0f} s).",
        "aspencli db locks",
        tuple(
            f"{root.name} is blocking {counted(root.blocks, 'session')}"
            + (f"; {root.session.state}" if root.session and root.session.state else "")
            for root in roots
        ),
    )


def _row(node: Node) -> dict[str, Any]:
    seen, wait = node.session, node.wait
    prepared = "prepared transaction" if node.pid == 0 else None
    tree = "  " * (node.depth - 1) + "└ " * (node.depth > 0) + str(node.pid)
    return {
        "pid": Shown(node.pid, tree),
        "depth": node.depth,
        "blocked_by": wait.blocked_by if wait else (),
        "blocks": node.blocks,
        "user": seen and seen.user,
        "application": seen and seen.application,
        "state": seen.shown_state if seen else prepared,
        "transaction_s": seen and seen.transaction_s,
        "waited_s": wait and wait.waited_s,
        "lock": f"{wait.mode} on {wait.kind}" if wait else None,
        "relation": wait and wait.relation,
        "query": seen and seen.query,
    }


def _blocking(root: Node) -> str:
    doing = ""
    seen = root.session
    if seen is not None and seen.state is not None:
        doing = f"; {seen.state}"
        if seen.state_s is not None:
            doing += f" for {duration_text(seen.state_s)}"
    return f"{root.name} is blocking {counted(root.blocks, 'session')}{doing}"


def _way_out(root: Node) -> str:
    if root.pid == 0:
        return "Find it in pg_prepared_xacts, then run COMMIT PREPARED or ROLLBACK PREPARED on it."
    if root.session is not None and root.session.state == "active":
        return f"Cancel its statement: aspencli db cancel {root.pid}"
    return (
        f"Ask its owner to end the transaction, or terminate it: aspencli db terminate {root.pid}"
    )


def lock_waits(session: ReadSession) -> list[Node]:
    """Return the lock waits in the session's database, with blockers from any database."""
    waits = _waits(session)
    involved = {*waits, *(pid for wait in waits.values() for pid in wait.blocked_by)}
    seen = {found.pid: found for found in visible_sessions(session, involved)}
    here = scalar(session, "SELECT current_database()")
    ours = [pid for pid in waits if pid in seen and seen[pid].database == here]
    return list(_forest(_reach(ours, waits), seen))


def _waits(session: ReadSession) -> dict[int, Wait]:
    waited = _WAITED if "waitstart" in columns_of(session, "pg_locks") else "NULL::float8"
    return {
        row["pid"]: Wait(
            tuple(sorted(set(row["blocked_by"]))),
            row["mode"],
            row["kind"],
            row["relation"],
            None if row["waited_s"] is None else round(max(row["waited_s"], 0.0), 1),
        )
        for row in query(session, _WAITS.format(waited=waited))
        if row["blocked_by"]  # otherwise it was granted in the meantime
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


DIAGNOSTIC = Diagnostic(
    locks,
    _COLUMNS,
    ("aspencli db locks", "aspencli --env prod db locks"),
    place=20,
    check=check,
    panel="Sessions",
)
