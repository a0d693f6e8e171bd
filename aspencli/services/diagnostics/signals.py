"""Signals that cancel another session's statement or terminate the session."""

from __future__ import annotations

import enum
import time

import sqlalchemy as sa

from aspencli.errors import NotFoundError
from aspencli.services.diagnostics.looking import looking
from aspencli.services.diagnostics.sessions import SeenSession, seen_sessions
from db.database import Database
from db.sessions import ReadSession

_STEP_S = 0.05


class Signal(enum.Enum):
    """A signal, with the name of the server function that sends it."""

    CANCEL = "pg_cancel_backend"
    TERMINATE = "pg_terminate_backend"


class Outcome(enum.Enum):
    """The outcome of a signal.

    Attributes:
        DONE: The statement or session has ended.
        GONE: It had already ended; nothing was sent.
        PENDING: The signal was sent, but it has not ended yet.
    """

    DONE = "done"
    GONE = "gone"
    PENDING = "pending"


def find_sessions(session: ReadSession, pids: list[int]) -> list[SeenSession]:
    """Return the sessions with these PIDs.

    Raises:
        NotFoundError: No session in this database has one of the PIDs.
    """
    known = {found.pid: found for found in seen_sessions(session)}
    missing = [pid for pid in pids if pid not in known]
    if missing:
        raise NotFoundError(
            f"no session in this database has pid {', '.join(map(str, missing))}; nothing was done",
            hint="See who there is: aspencli db activity --all",
        )
    return [known[pid] for pid in dict.fromkeys(pids)]


def send(
    database: Database, target: SeenSession, signal: Signal, *, patience: float = 5.0
) -> Outcome:
    """Send the signal to exactly this session, and wait for the outcome.

    A later server process with the same PID is not affected, and neither is a later statement of
    the session if the signal cancels a statement.

    Args:
        database: The database of the session.
        target: The session, as it was when the operator decided.
        signal: The signal to send.
        patience: The number of seconds to wait.
    """
    with looking(database) as session:
        sent = session.scalar(
            # The function name is one of two constants.
            sa.text(
                f"SELECT {signal.value}(pid) FROM pg_stat_activity WHERE pid = :pid"  # noqa: S608
                + _same(signal)
            ),
            _identity(target),
        )
        if not sent:  # None: it is gone; False: it ended at this very moment
            return Outcome.GONE
        deadline = time.monotonic() + patience
        while _is_there(session, target, signal):
            if time.monotonic() > deadline:
                return Outcome.PENDING
            time.sleep(_STEP_S)
    return Outcome.DONE


def _is_there(session: ReadSession, target: SeenSession, signal: Signal) -> bool:
    session.rollback()  # within a transaction the server keeps showing its first snapshot
    query = "SELECT 1 FROM pg_stat_activity WHERE pid = :pid" + _same(signal)  # noqa: S608 - ours
    return session.scalar(sa.text(query), _identity(target)) is not None


def _same(signal: Signal) -> str:
    condition = " AND backend_start IS NOT DISTINCT FROM CAST(:started AS timestamptz)"
    if signal is Signal.CANCEL:
        condition += (
            " AND query_start IS NOT DISTINCT FROM CAST(:statement AS timestamptz)"
            " AND (state IS NULL OR state IN ('active', 'fastpath function call'))"
        )
    return condition


def _identity(target: SeenSession) -> dict[str, object]:
    return {
        "pid": target.pid,
        "started": target.started,
        "statement": target.statement_started,
    }
