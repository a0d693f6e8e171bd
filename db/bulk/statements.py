"""Running the statements of a bulk run on its one connection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from db.bulk.carrying import Carrier
from db.bulk.plan_sql import DURABLE, FLEETING_NOW, ONE_MOMENT, READ_WRITE, RESOURCES
from db.errors import TemporaryTablesDeniedError
from db.interrupts import cancellable

_FORBIDDEN = "42501"
_BATCH = 2_000  # rows fetched at once

Values = dict[str, object]


@contextmanager
def temporary_tables(connection: Connection) -> Iterator[None]:
    """Create temporary tables; where the role may not, the error names the GRANT it needs.

    Raises:
        TemporaryTablesDeniedError: The role may not.
    """
    try:
        yield
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) != _FORBIDDEN:
            raise
        url, quote = connection.engine.url, connection.dialect.identifier_preparer.quote
        raise TemporaryTablesDeniedError(
            quote(url.database or ""), quote(url.username or "")
        ) from error


class Statements:
    """A connection, and what its statements are bound to.

    Args:
        connection: Where they run.
        values: What they may name, such as the scope.
    """

    def __init__(self, connection: Connection, values: Mapping[str, object]):
        self.connection = connection
        self._values = values
        self._carrier = Carrier(connection)

    @property
    def is_pooled(self) -> bool:
        """Whether a pooler is in between."""
        return self._carrier.is_needed

    def close(self) -> None:
        """Let go of what is kept between transactions."""
        self._carrier.close()

    @contextmanager
    def staging(
        self, *, of_one_moment: bool = False, durable: bool = False, keep: bool = True
    ) -> Iterator[None]:
        """A transaction that makes temporary tables.

        Args:
            of_one_moment: Whether all its statements see the database as it is at the first one.
            durable: Whether it writes what outlives the session. Otherwise its commit waits for
                neither the disk nor a standby.
            keep: Whether what they hold at its end is needed later.
        """
        with self.connection.begin():
            self.run(ONE_MOMENT if of_one_moment else READ_WRITE)
            self.run(f"{DURABLE if durable else FLEETING_NOW}; {RESOURCES}")
            self._carrier.unpack()
            yield
            if keep:
                self._carrier.pack()

    def run(self, statement: str, **values: object) -> sa.CursorResult[Any]:
        """Run one, in the transaction that is open.

        Raises:
            KeyboardInterrupt: It was interrupted.
        """
        clause, bound = self._bind(statement, values)
        return cancellable(self.connection, lambda: self.connection.execute(clause, bound))

    def stream(self, statement: str, **values: object) -> Iterator[Any]:
        """Rows as they come, in a transaction of their own."""
        clause, bound = self._bind(statement, values)
        with self.connection.begin():
            if self._carrier.is_needed:
                self.run(READ_WRITE)
                self.run(FLEETING_NOW)
                self._carrier.unpack()
            yield from self.connection.execute(clause.execution_options(yield_per=_BATCH), bound)

    def _bind(self, statement: str, values: Values) -> tuple[sa.TextClause, Values]:
        clause = sa.text(self._carrier.suited(statement))
        known = {**self._values, **values}
        return clause, {name: known[name] for name in clause.compile().params}
