"""Lock waits, as a forest whose roots block all other sessions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from aspencli.diagnostics import Diagnostic, Examined, Report, Severity, Shown
from aspencli.diagnostics.activity import VisibleSession, hidden_activity, visible_sessions
from aspencli.diagnostics.session import query, scalar
from aspencli.text import counted, duration_text

if TYPE_CHECKING:
    from aspen.database.sessions import ReadSession

# PostgreSQL does not show which row a session waits for, but it shows the table: the first session
# in the queue for a row holds a lock on the tuple.
_WAITS = """
WITH held AS MATERIALIZED (SELECT * FROM pg_locks)
SELECT w.pid, w.mode || ' on ' || w.locktype AS lock,
    -- PostgreSQL 14 introduced waitstart.
    round(greatest(extract(epoch FROM clock_timestamp()
        - (to_jsonb(w) ->> 'waitstart')::timestamptz), 0)::numeric, 1)::float8 AS waited_s,
    ARRAY(SELECT DISTINCT unnest(pg_blocking_pids(w.pid)) ORDER BY 1) AS blocked_by,
    (SELECT format('%I.%I', n.nspname, c.relname)
        FROM held t JOIN pg_class c ON c.oid = t.relation
            JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE t.pid = w.pid AND (t.locktype = 'tuple' OR NOT t.granted)
            AND t.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        LIMIT 1) AS relation
FROM held w WHERE NOT w.granted
"""


_COLUMNS = (
    ("pid", "PID", "number whole"),
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
_Wait = dict[str, Any]


class Node(NamedTuple):
    """A session in a tree of lock waits.

    Attributes:
        pid: The PID of its server process; 0 for a prepared transaction, which has none.
        depth: The depth in the tree; 0 at a root.
        blocks: The number of sessions that wait for it, directly or indirectly.
        session: The session; None if it is gone or has no process.
        wait: The ``lock`` it waits for, such as ``ShareLock on relation``, or ``on transactionid``
            for a changed row; its ``relation``, if known; the seconds ``waited_s`` so far; and the
            PIDs it is ``blocked_by``, which hold it or are ahead in the queue; None at a root.
    """

    pid: int
    depth: int
    blocks: int
    session: VisibleSession | None
    wait: _Wait | None

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
        state_s = self.session.state_s if self.session else None
        return self.wait["waited_s"] or state_s or 0.0


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
        return Examined(Severity.OK, _NONE)
    roots = [node for node in nodes if node.depth == 0]
    count, longest = sum(node.wait is not None for node in nodes), max(n.waited_s for n in nodes)
    waiting = f"{counted(count, 'session')} {'is' if count == 1 else 'are'} waiting"
    pids = ", ".join(str(root.pid) for root in roots)
    return Examined(
        Severity.PROBLEM if longest > _LONG_WAIT_S else Severity.WARNING,
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
        "blocked_by": wait["blocked_by"] if wait else [],
        "blocks": node.blocks,
        "user": seen and seen.user,
        "application": seen and seen.application,
        "state": seen.shown_state if seen else prepared,
        "transaction_s": seen and seen.transaction_s,
        **{key: wait and wait[key] for key in ("waited_s", "lock", "relation")},
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
    # Those that are missing were granted in the meantime.
    waits = {row["pid"]: row for row in query(session, _WAITS) if row["blocked_by"]}
    if not waits:
        return []
    involved = {*waits, *(pid for wait in waits.values() for pid in wait["blocked_by"])}
    seen = {found.pid: found for found in visible_sessions(session, involved)}
    here = scalar(session, "SELECT current_database()")
    ours = [pid for pid in waits if pid in seen and seen[pid].database == here]
    blockers = {pid: wait["blocked_by"] for pid, wait in waits.items()}
    reached = {*ours, *_reach(ours, blockers)}
    return list(_forest({pid: waits[pid] for pid in reached if pid in waits}, seen))


def _forest(waits: Mapping[int, _Wait], seen: Mapping[int, VisibleSession]) -> Iterator[Node]:
    below: dict[int, list[int]] = {}
    for pid in sorted(waits):
        for blocker in waits[pid]["blocked_by"]:
            below.setdefault(blocker, []).append(pid)
    blocks = {pid: len(_reach([pid], below) - {pid}) for pid in (*below, *waits)}
    roots = sorted((pid for pid in below if pid not in waits), key=lambda pid: -blocks[pid])
    shown: set[int] = set()
    # In a deadlock, which the server will soon break, all wait for each other; any can be the root.
    for root in (*roots, *sorted(waits)):
        todo = [(root, 0)]
        while todo:
            pid, depth = todo.pop()
            if pid in shown:  # already shown, with all its blockers
                continue
            shown.add(pid)
            yield Node(pid, depth, blocks[pid], seen.get(pid), waits.get(pid))
            todo.extend((child, depth + 1) for child in reversed(below.get(pid, [])))


def _reach(pids: Sequence[int], edges: Mapping[int, Sequence[int]]) -> set[int]:
    """Return the processes that can be reached from these."""
    found: set[int] = set()
    todo = list(pids)
    while todo:
        new = set(edges.get(todo.pop(), ())) - found
        found |= new
        todo += new
    return found


DIAGNOSTIC = Diagnostic(
    locks,
    _COLUMNS,
    ("aspencli db locks", "aspencli --env prod db locks"),
    place=20,
    check=check,
    panel="Sessions",
)
