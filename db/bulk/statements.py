"""Running the statements of a bulk run on its single connection."""

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
_BATCH = 2_000  # rows per fetch

Values = dict[str, object]


@contextmanager
def temporary_tables(connection: Connection) -> Iterator[None]:
    """Create temporary tables in the block; on refusal, raise an error that names the GRANT.

    Raises:
        TemporaryTablesDeniedError: The role may not create temporary tables.
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
    """A connection, and the values that its statements are bound to.

    Args:
        connection: The connection to run them on.
        values: The values that they may refer to, such as the scope.
    """

    def __init__(self, connection: Connection, values: Mapping[str, object]):
        self.connection = connection
        self._values = values
        self._carrier = Carrier(connection)

    @property
    def is_pooled(self) -> bool:
        """Return True if a pooler is in between."""
        return self._carrier.is_needed

    def close(self) -> None:
        """Discard what is kept between transactions."""
        self._carrier.close()

    @contextmanager
    def staging(
        self, *, of_one_moment: bool = False, durable: bool = False, keep: bool = True
    ) -> Iterator[None]:
        """Run the block in a transaction that creates temporary tables.

        Args:
            of_one_moment: Whether all statements see the same snapshot of the database.
            durable: Whether it writes anything that outlives the session. If not, its commit waits
                for neither the disk nor a standby.
            keep: Whether the contents of the tables are needed later.
        """
        with self.connection.begin():
            self.run(ONE_MOMENT if of_one_moment else READ_WRITE)
            self.run(f"{DURABLE if durable else FLEETING_NOW}; {RESOURCES}")
            self._carrier.unpack()
            yield
            if keep:
                self._carrier.pack()

    def run(self, statement: str, **values: object) -> sa.CursorResult[Any]:
        """Run a statement in the open transaction.

        Raises:
            KeyboardInterrupt: It was interrupted.
        """
        clause, bound = self._bind(statement, values)
        return cancellable(self.connection, lambda: self.connection.execute(clause, bound))

    def stream(self, statement: str, **values: object) -> Iterator[Any]:
        """Yield rows as they arrive, in a separate transaction."""
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
