"""Where a recorder stands: the engine below what is given, and the cursors of a connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy.engine import Engine

from db.database import Database

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

Recordable: TypeAlias = "Engine | AsyncEngine | Database"
Classes: TypeAlias = Callable[[type[Any]], type[Any]]
"""Makes a class of cursors of another one."""


def engine_of(engine: Recordable) -> Engine:
    """The engine whose dialect and pool do the work.

    Raises:
        TypeError: It is no engine.
    """
    if isinstance(engine, Database):
        return engine.engine
    # An AsyncEngine works with the engine below it; its class is not imported for that.
    below = getattr(engine, "sync_engine", engine)
    if isinstance(below, Engine):
        return below
    raise TypeError(f"an engine is needed, not a {type(engine).__name__}")


def watch_sync(connection: Any, class_of: Classes) -> Callable[[], None]:
    """Let psycopg2's connection make its cursors of other classes; returns what undoes it."""
    from psycopg2.extensions import cursor

    before = connection.cursor_factory
    connection.cursor_factory = class_of(before or cursor)

    def restore() -> None:
        connection.cursor_factory = before

    return restore


def watch_async(connection: Any, class_of: Classes) -> Callable[[], None]:
    """The same for asyncpg's, as SQLAlchemy adapts it."""
    plain = type(connection)
    # The adapter knows its class of cursors by a class attribute only, and has no __dict__.
    connection.__class__ = type(
        plain.__name__,
        (plain,),
        {
            "__slots__": (),
            "_cursor_cls": class_of(plain._cursor_cls),  # noqa: SLF001 - there is no other way in
            "_ss_cursor_cls": class_of(plain._ss_cursor_cls),  # noqa: SLF001 - same
        },
    )

    def restore() -> None:
        connection.__class__ = plain

    return restore
