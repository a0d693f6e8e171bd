"""The environment of the operator's code: defined names, open session, and write mode."""

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
    """The database of one console, in the mode last requested.

    Args:
        request: Console request.
        how_to_write: Hint for a refused write.
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
        """Close every session and connection; uncommitted changes are lost."""
        with self._exits:
            self._transactions.close()
            for database in self._databases:
                database.dispose()

    @property
    def writing(self) -> bool:
        """Return True if new sessions may write."""
        return self._database.writable

    @property
    def session(self) -> Session:
        """Return the open session, the initial value of the name ``session``."""
        return self._session

    def connect(self) -> None:
        """Open a connection and keep it for the first statement.

        Raises:
            sqlalchemy.exc.OperationalError: If the database is unreachable or refuses access.
        """
        with self._database.engine.connect():
            """Keep the connection in the pool."""

    def names(self) -> dict[str, Any]:
        """Return the names defined for the operator's code."""
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
        """Return the names that change with the mode."""
        return {"engine": self._database, "db": self._database, "session": self._session}

    def profile(self, *, on: bool) -> None:
        """Start or stop printing each query with its time, and a summary of each cell."""
        if on:
            self.profiling.switch_on(self._transactions.connections())
        else:
            self.profiling.switch_off()

    def switch(self, *, writable: bool) -> None:
        """Reopen the database in the other mode; existing sessions keep theirs.

        Raises:
            ConflictError: If a session has uncommitted changes.
        """
        if unsaved := self.unsaved():
            raise ConflictError(
                f"{_sessions(unsaved)} uncommitted changes",
                hint="End them first: session.commit() or session.rollback()",
            )
        # Not closed: results already shown stay attached to it and can still load attributes.
        self._session.rollback()
        self._database = self._open(writable=writable)
        self._session = self._database.make_session()

    def roll_back_failed(self) -> int:
        """Roll back sessions that a failed statement left unusable, and return how many."""
        return self._transactions.roll_back_failed()

    def unsaved(self) -> int:
        """Return the number of sessions with uncommitted changes."""
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
