"""The sessions of a database, from ``pg_stat_activity``, and signals to cancel or end them."""

from __future__ import annotations

import enum
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aspencli.diagnostics import Diagnostic, Examined, Option, Report, Severity, Shown
from aspencli.diagnostics.session import hidden_notes, looking, masked, query, rights, scalar
from aspencli.errors import NotFoundError
from aspencli.text import counted

if TYPE_CHECKING:
    from aspen.database.engine import Database
    from aspen.database.sessions import ReadSession

# Parallel workers and the like are covered by their leaders, which are client backends.
_KINDS = ("client backend", "autovacuum worker", "walsender")
_QUERY = """
SELECT a.pid, a.datname AS database, a.usename AS "user",
    nullif(a.application_name, '') AS application,
    host(a.client_addr) AS client, a.backend_type AS kind, a.state,
    a.wait_event_type || ': ' || a.wait_event AS wait,
    round(greatest(extract(epoch FROM clock_timestamp() - a.state_change), 0)::numeric, 1)::float8
        AS state_s,
    round(greatest(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::numeric, 1)::float8
        AS transaction_s,
    -- A blocker is listed twice if it blocks a statement and that statement's parallel workers.
    CASE WHEN a.pid IN (SELECT l.pid FROM pg_locks l WHERE NOT l.granted)
        THEN ARRAY(SELECT DISTINCT unnest(pg_blocking_pids(a.pid)) ORDER BY 1)
        ELSE '{}' END AS blocked_by,
    a.query, a.backend_start AS started, a.query_start AS statement_started
FROM pg_stat_activity a
WHERE a.pid <> pg_backend_pid()
    AND (a.backend_type IS NULL OR a.backend_type = ANY(:kinds))
    AND (a.datname = current_database() OR a.pid = ANY(:pids))
ORDER BY a.xact_start NULLS LAST, a.state_change NULLS LAST, a.pid
"""
_COLUMNS = (
    ("pid", "PID", "right whole"),
    ("user", "User", ""),
    ("application", "Application", "secondary"),
    ("client", "Client", "secondary"),
    ("kind", "Kind", "secondary"),
    ("state", "State", ""),
    ("state_s", "In state", "seconds secondary"),
    ("transaction_s", "Transaction", "seconds"),
    ("wait", "Waiting for", "secondary"),
    ("blocked_by", "Blocked by", "list"),
    ("query", "Statement", "sql"),
)
_LONG_TRANSACTION_S, _FORGOTTEN_S = 300.0, 3_600.0
_STEP_S, _PATIENCE_S = 0.05, 5.0


@dataclass(frozen=True)
class VisibleSession:
    """A session as the server shows it; None stands for a value that is hidden or missing.

    Attributes:
        client: The client's address; also None for a socket.
        kind: ``client backend``, ``autovacuum worker`` or ``walsender``.
        state: ``active``, ``idle``, ``idle in transaction`` and so on.
        wait: The type and name of the event it waits for.
        blocked_by: The PIDs of the processes that block it; 0 is a prepared transaction.
        query: The current statement, or the last one if the session is idle.
    """

    pid: int
    database: str | None
    user: str | None
    application: str | None
    client: str | None
    kind: str | None
    state: str | None
    wait: str | None
    state_s: float | None
    transaction_s: float | None
    blocked_by: list[int]
    query: str | None
    started: Any
    statement_started: Any

    @property
    def hidden(self) -> bool:
        """Return True if the server hides the session's activity."""
        return self.kind is None

    @property
    def shown_state(self) -> Shown:
        """Return the state, and the text for it in tables."""
        return Shown(self.state, "(hidden)" if self.hidden else self.state or "")

    @property
    def resting(self) -> bool:
        """Return True if the session is idle and not in a transaction."""
        return self.state == "idle"

    @property
    def may_run(self) -> bool:
        """Return True if it is running a statement, or might be because its state is hidden."""
        return self.state in {None, "active", "fastpath function call"}

    def __str__(self) -> str:
        name = f", {self.application}" if self.application else ""
        where = f" from {self.client}" if self.client else ""
        return f"{self.user or self.kind}{name}{where}"


def activity(session: ReadSession, *, everything: bool) -> Report:
    """Show the sessions of the database and their activity, oldest transaction first.

    Only members of pg_monitor can see what other users' sessions are doing. For anyone else those
    cells are empty, and a warning says so.
    """
    found = visible_sessions(session)
    resting = sum(seen.resting for seen in found)
    shown = [seen for seen in found if everything or not seen.resting]
    notes = []
    if shown and not everything and resting:
        notes.append(("info", f"{counted(resting, 'idle session')} not shown; use --all"))
    return Report(
        [{**vars(seen), "state": seen.shown_state} for seen in shown],
        empty=f"No active sessions ({resting} idle)." if resting else "No other sessions.",
        notes=[*notes, *hidden_activity(session, found)],
    )


def check(session: ReadSession) -> Examined:
    """Check for transactions that have been open for too long."""
    found = visible_sessions(session)
    old = [seen for seen in found if (seen.transaction_s or 0) > _LONG_TRANSACTION_S]
    old.sort(key=lambda seen: -(seen.transaction_s or 0))
    if old:
        forgotten = any((seen.transaction_s or 0) > _FORGOTTEN_S for seen in old)
        opened = f"{counted(len(old), 'transaction')} {'has' if len(old) == 1 else 'have'}"
        return Examined(
            Severity.PROBLEM if forgotten else Severity.WARNING,
            f"{opened} been open for more than 5 minutes.",
            f"Have it committed or rolled back, or: aspencli db terminate {old[0].pid}",
            tuple(
                f"PID {seen.pid} ({seen}): {seen.state}, transaction open for "
                f"{seen.transaction_s:.0f} s"
                for seen in old
            ),
        )
    if hidden := sum(seen.hidden for seen in found):
        message = f"The activity of {counted(hidden, 'session')} of other users is hidden."
        return Examined(Severity.UNKNOWN, message, rights(session).cure)
    if not found:
        return Examined(Severity.OK, "No other sessions.")
    resting = sum(seen.resting for seen in found)
    return Examined(Severity.OK, f"{counted(len(found), 'other session')} ({resting} idle).")


def hidden_activity(
    session: ReadSession, seen: Iterable[VisibleSession | None]
) -> list[tuple[str, str]]:
    """Return notes on the sessions whose activity the server hides."""
    hidden = sum(one is not None and one.hidden for one in seen)
    return hidden_notes(rights(session), hidden, "session", "the activity of")


def visible_sessions(session: ReadSession, pids: Iterable[int] = ()) -> tuple[VisibleSession, ...]:
    """Return the other sessions of the database, and those with these PIDs in any database."""
    rows = query(session, _QUERY, kinds=list(_KINDS), pids=list(pids))
    return tuple(VisibleSession(**{**row, "query": masked(row["query"] or None)}) for row in rows)


class Signal(enum.Enum):
    """A signal, with the name of the server function that sends it."""

    CANCEL = "pg_cancel_backend"
    TERMINATE = "pg_terminate_backend"


class SignalOutcome(enum.Enum):
    """The outcome of a signal."""

    DONE = "done"
    GONE = "gone"  # it had already ended; nothing was sent
    PENDING = "pending"  # sent, but it has not ended yet


def find_sessions(session: ReadSession, pids: list[int]) -> list[VisibleSession]:
    """Return the sessions with these PIDs.

    Raises:
        NotFoundError: No session in this database has one of the PIDs.
    """
    known = {found.pid: found for found in visible_sessions(session)}
    missing = [pid for pid in pids if pid not in known]
    if missing:
        named = ", ".join(map(str, missing))
        raise NotFoundError(
            f"No session in this database has PID {named}. Nothing was done.",
            hint="List all sessions: aspencli db activity --all",
        )
    return [known[pid] for pid in dict.fromkeys(pids)]


def send(database: Database, target: VisibleSession, signal: Signal) -> SignalOutcome:
    """Send the signal to exactly this session, and wait for the outcome.

    A later server process with the same PID is not affected, and neither is a later statement of
    the session if the signal cancels a statement.
    """
    with looking(database) as session:
        # The function name is one of two constants.
        sending = f"SELECT {signal.value}(pid) FROM pg_stat_activity WHERE pid = :pid"  # noqa: S608
        sent = scalar(session, sending + _same(signal), **_identity(target))
        if not sent:  # None: it is gone; False: it ended at this very moment
            return SignalOutcome.GONE
        deadline = time.monotonic() + _PATIENCE_S
        while _is_there(session, target, signal):
            if time.monotonic() > deadline:
                return SignalOutcome.PENDING
            time.sleep(_STEP_S)
    return SignalOutcome.DONE


def _is_there(session: ReadSession, target: VisibleSession, signal: Signal) -> bool:
    session.rollback()  # within a transaction the server keeps showing its first snapshot
    looked = "SELECT 1 FROM pg_stat_activity WHERE pid = :pid" + _same(signal)  # noqa: S608 - ours
    return scalar(session, looked, **_identity(target)) is not None


def _same(signal: Signal) -> str:
    condition = " AND backend_start IS NOT DISTINCT FROM CAST(:started AS timestamptz)"
    if signal is Signal.CANCEL:
        condition += (
            " AND query_start IS NOT DISTINCT FROM CAST(:statement AS timestamptz)"
            " AND (state IS NULL OR state IN ('active', 'fastpath function call'))"
        )
    return condition


def _identity(target: VisibleSession) -> dict[str, object]:
    return {
        "pid": target.pid,
        "started": target.started,
        "statement": target.statement_started,
    }


DIAGNOSTIC = Diagnostic(
    activity,
    _COLUMNS,
    ("aspencli db activity", "aspencli --env prod db activity --all -o json"),
    place=10,
    check=check,
    panel="Sessions",
    options=(Option("everything", "--all", "Include idle sessions."),),
)
