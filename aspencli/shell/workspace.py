"""What the operator's code works with: the names, the open session, the mode."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.orm import Session

from aspencli.errors import ConflictError
from aspencli.shell.console import ConsoleRequest
from aspencli.shell.guarded import GuardedDatabase
from aspencli.shell.interrupts import interruptible
from aspencli.shell.profiling import ConsoleProfiling
from aspencli.shell.transactions import Transactions
from db import models
from db.profiling import disable_profiling, enable_profiling, enable_profiling_ctx


class Workspace:
    """The database of one console, in the mode that was last asked for.

    Args:
        request: What the console is to do.
        how_to_write: What to do when a write is refused.
    """

    def __init__(self, request: ConsoleRequest, how_to_write: str):
        self.request = request
        self._how_to_write = how_to_write
        self._transactions = Transactions()
        self.profiling = ConsoleProfiling(request.messages)
        with ExitStack() as opened:
            opened.enter_context(self._transactions)
            opened.enter_context(interruptible())
            opened.callback(self.profiling.switch_off)
            if request.profile:
                self.profile(on=True)
            self._source = request.open_database()
            self._exits = opened.pop_all()
        self._databases: list[GuardedDatabase] = []
        self._database = self._open(writable=self._source.writable)
        if request.around is not None:
            self._exits.enter_context(request.around(self._database.engine))
        self._session: Session = self._database.make_session()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every session and connection; what was not committed is gone."""
        with self._exits:
            self._transactions.close()
            for database in self._databases:
                database.dispose()

    @property
    def writing(self) -> bool:
        """Whether new sessions may write."""
        return self._database.writable

    @property
    def session(self) -> Session:
        """The open session, that the names ``session`` began with."""
        return self._session

    def connect(self) -> None:
        """Open a connection and keep it for the first statement.

        Raises:
            sqlalchemy.exc.OperationalError: The database cannot be reached, or refuses us.
        """
        with self._database.engine.connect():
            """The pool keeps it."""

    def names(self) -> dict[str, Any]:
        """What the operator's code finds defined."""
        return {
            **{name: getattr(models, name) for name in models.__all__},
            "sa": sa,
            "select": sa.select,
            "enable_profiling": enable_profiling,
            "disable_profiling": disable_profiling,
            "enable_profiling_ctx": enable_profiling_ctx,
            **self.database_names(),
        }

    def database_names(self) -> dict[str, Any]:
        """Those of the names that change with the mode."""
        return {"engine": self._database, "db": self._database, "session": self._session}

    def profile(self, *, on: bool) -> None:
        """Print each query and its time, and what each cell cost, or no longer."""
        if on:
            self.profiling.switch_on(self._transactions.connections())
        else:
            self.profiling.switch_off()

    def switch(self, *, writable: bool) -> None:
        """Open the database again in the other mode; sessions made before keep theirs.

        Raises:
            ConflictError: A session holds uncommitted changes.
        """
        if unsaved := self.unsaved():
            raise ConflictError(
                f"{_sessions(unsaved)} uncommitted changes",
                hint="End them first: session.commit() or session.rollback()",
            )
        # Not closed: results that were shown stay attached to it, and can go on loading.
        self._session.rollback()
        self._database = self._open(writable=writable)
        self._session = self._database.make_session()

    def roll_back_failed(self) -> int:
        """Roll back the sessions that a failed statement left unusable; returns how many."""
        return self._transactions.roll_back_failed()

    def unsaved(self) -> int:
        """How many sessions hold changes which nobody committed."""
        return len(self._transactions.unsaved())

    def _open(self, *, writable: bool) -> GuardedDatabase:
        database = GuardedDatabase(
            self._source,
            writable=writable,
            on_session=self._transactions.watch,
            how_to_write=self._how_to_write,
        )
        self._databases.append(database)
        return database


def _sessions(count: int) -> str:
    return "a session holds" if count == 1 else f"{count} sessions hold"
