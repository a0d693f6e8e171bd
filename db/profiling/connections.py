"""Attachment points of a recorder: the underlying engine, and a connection's cursors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy.engine import Engine

from db.database import Database

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

Recordable: TypeAlias = "Engine | AsyncEngine | Database"
Classes: TypeAlias = Callable[[type[Any]], type[Any]]
"""A function that makes one cursor class from another."""


def engine_of(engine: Recordable) -> Engine:
    """Return the engine whose dialect and pool do the work.

    Raises:
        TypeError: It is not an engine.
    """
    if isinstance(engine, Database):
        return engine.engine
    # An AsyncEngine wraps an engine; this avoids importing its class.
    below = getattr(engine, "sync_engine", engine)
    if isinstance(below, Engine):
        return below
    raise TypeError(f"an engine is needed, not a {type(engine).__name__}")


def watch_sync(connection: Any, class_of: Classes) -> Callable[[], None]:
    """Make a psycopg2 connection use other cursor classes; return a function that undoes it."""
    from psycopg2.extensions import cursor

    before = connection.cursor_factory
    connection.cursor_factory = class_of(before or cursor)

    def restore() -> None:
        connection.cursor_factory = before

    return restore


def watch_async(connection: Any, class_of: Classes) -> Callable[[], None]:
    """Do the same for an asyncpg connection, as adapted by SQLAlchemy."""
    plain = type(connection)
    # The adapter takes its cursor class from a class attribute, and has no __dict__.
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
