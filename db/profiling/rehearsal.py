"""Work whose commits are undone at the end, whatever it does with its engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from sqlalchemy.pool import StaticPool

from db.profiling.connections import Recordable, engine_of


@contextmanager
def rehearsed(engine: Recordable) -> Iterator[None]:
    """Let everything that an engine does for the length of a ``with`` block be rolled back.

    The engine has one connection meanwhile, in one transaction: what would begin one sets a
    savepoint, what would commit releases it. So later statements see what earlier ones committed.
    Whoever hands work to several threads must not use it. Effects outside transactions, such as
    those of sequences, stay.
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
            elif open_:  # else it is the pool, which makes sure that there is no transaction
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
        # The connection is closed in the middle of its transaction: the server rolls it back.
        used, inner.pool = inner.pool, pool
        used.dispose()


def _rehearses(proxied: Any) -> bool:
    """Return True for a connection that rehearses by its own policy."""
    return getattr(proxied.dbapi_connection, "rehearsing", False)


def _say(proxied: Any, words: str) -> None:
    """Tell the server, past a recorder."""
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
