"""Rehearsals: running work whose commits are all rolled back at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from sqlalchemy.pool import StaticPool

from aspen.database.profiling.recorder import Recordable, engine_of


@contextmanager
def rehearsed(engine: Recordable) -> Iterator[None]:
    """Roll back everything that an engine does during a ``with`` block.

    Meanwhile the engine has one connection in one transaction: beginning a transaction sets a
    savepoint, and committing releases it. So later statements see what earlier ones committed.
    Do not use it for work in several threads. Effects outside transactions, such as those on
    sequences, remain.
    """
    inner = engine_of(engine)
    dialect, pool = inner.dialect, inner.pool
    numbers, open_ = count(1), list[int]()

    def begin(proxied: Any) -> None:
        if not _rehearses(proxied):
            open_.append(next(numbers))
            _say(proxied, f"SAVEPOINT rehearsal_{open_[-1]}")

    def ending(words: str) -> Callable[[Any], None]:
        def end(proxied: Any) -> None:
            if _rehearses(proxied):
                proxied.commit() if words.startswith("RELEASE") else proxied.rollback()
            elif open_:  # otherwise it is the pool, making sure that no transaction is open
                _say(proxied, f"{words} rehearsal_{open_.pop()}")

        return end

    shadows = {
        "do_begin": begin,
        "do_commit": ending("RELEASE SAVEPOINT"),
        "do_rollback": ending("ROLLBACK TO SAVEPOINT"),
    }
    inner.pool = StaticPool(
        pool._creator,  # noqa: SLF001 - as Pool.recreate() does
        dialect=dialect,
        _dispatch=pool.dispatch,
    )
    before = {name: vars(dialect)[name] for name in shadows if name in vars(dialect)}
    vars(dialect).update(shadows)
    try:
        yield
    finally:
        for name in shadows:
            vars(dialect).pop(name, None)
        vars(dialect).update(before)
        # Closing the connection during its transaction makes the server roll it back.
        used, inner.pool = inner.pool, pool
        used.dispose()


def _rehearses(proxied: Any) -> bool:
    """Return True if the connection's own policy makes it rehearse."""
    return getattr(proxied.dbapi_connection, "rehearsing", False)


def _say(proxied: Any, words: str) -> None:
    """Run a statement, bypassing any recorder."""
    connection = proxied.dbapi_connection
    if hasattr(connection, "cursor_factory"):
        from psycopg2.extensions import cursor

        told: Any = cursor(connection)
    else:
        from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_cursor

        told = AsyncAdapt_asyncpg_cursor(connection)
    try:
        told.execute(words)
    finally:
        told.close()
