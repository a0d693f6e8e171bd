"""Engines and sessions: read-only unless writing is asked for, and never without a time limit."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError

from db.commits import make_interruptible
from db.connecting import DRIVER, InvalidDatabaseUrlError, Limits, cut_name, session_arguments
from db.hosts import first_text, joined_hosts, split_hosts, wanted_server
from db.libpq import clean_address
from db.refusals import report_refusals
from db.standbys import report_standby

if TYPE_CHECKING:  # the ORM takes its time to load, and much can be done without it
    from db.sessions import ReadSession, WriteSession

_BACKENDS = frozenset({"postgres", "postgresql"})
# Where a connection broke, the pool logs with a traceback that a cursor could not be closed, beside
# the error that tells so; where nobody listens, it would go to stderr.
logging.getLogger("sqlalchemy.pool").addHandler(logging.NullHandler())


def normalise_url(address: str | URL) -> URL:
    """The address with the driver of this program, whatever spelling it came in.

    Raises:
        InvalidDatabaseUrlError: It is not an address of a PostgreSQL database.
    """
    if isinstance(address, str):
        address = clean_address(address)
    try:
        url = make_url(address if isinstance(address, URL) else split_hosts(address))
    except (ArgumentError, ValueError) as error:
        # The parser's message could repeat a password.
        raise InvalidDatabaseUrlError(
            "not a database address; expected postgresql://user:password@host:port/name"
        ) from error
    if url.get_backend_name() not in _BACKENDS:
        raise InvalidDatabaseUrlError(
            f"a PostgreSQL address is needed, not one of {url.get_backend_name()}"
        )
    return url.set(drivername=DRIVER)


class Database:
    """One database of one target, opened when first used.

    The console knows it as ``engine``: ``engine.make_session()``.

    Args:
        address: Where it is; any spelling of a PostgreSQL address.
        application_name: What the server's activity views show (63 bytes are kept).
        writable: Whether ``make_session`` may write.
        limits: The time limits of each session.
        schema: The schema that unqualified names are looked up in, before ``public``.
    """

    def __init__(
        self,
        address: str | URL,
        *,
        application_name: str = "aspencli",
        writable: bool = False,
        limits: Limits | None = None,
        schema: str = "aspen",
    ):
        self._url = normalise_url(address)
        self.application_name = cut_name(application_name)
        self.writable = writable
        self.limits = limits or Limits()
        self.schema = schema

    def __repr__(self) -> str:
        mode = "writing" if self.writable else "read-only"
        return f"<Database {self.display_url} {mode}>"

    @property
    def url(self) -> URL:
        """The address; its ``str`` and ``repr`` hide the password."""
        return self._url

    @property
    def display_url(self) -> str:
        """The address as people write it, without the password."""
        url = self._url.set(drivername="postgresql")
        if url.host is None and "," in (hosts := first_text(url.query.get("host"))):
            places = joined_hosts(hosts, first_text(url.query.get("port")))
            shown = url.difference_update_query(["host", "port"]).set(host="<hosts>")
            return shown.render_as_string(hide_password=True).replace("<hosts>", places)
        return url.render_as_string(hide_password=True)

    @cached_property
    def engine(self) -> Engine:
        """The engine of this database's sessions."""
        return self._make_engine(writable=self.writable)

    @cached_property
    def _read_engine(self) -> Engine:
        return self._make_engine(writable=False) if self.writable else self.engine

    @cached_property
    def _write_engine(self) -> Engine:
        return self.engine if self.writable else self._make_engine(writable=True)

    def writing(self) -> Database:
        """The same database, with sessions that may write."""
        return Database(
            self._url,
            application_name=self.application_name,
            writable=True,
            limits=self.limits,
            schema=self.schema,
        )

    def with_limits(self, **changes: int) -> Database:
        """The same database with other time limits (see `Limits`)."""
        return Database(
            self._url,
            application_name=self.application_name,
            writable=self.writable,
            limits=replace(self.limits, **changes),
            schema=self.schema,
        )

    def make_session(self) -> ReadSession:
        """A new session; the caller closes it. It may write only where the database may."""
        from db.sessions import ReadSession, WriteSession

        kind = WriteSession if self.writable else ReadSession
        return kind(self.engine)

    @contextmanager
    def reading(self) -> Iterator[ReadSession]:
        """A read-only session that is rolled back at the end."""
        from db.sessions import ReadSession

        with ReadSession(self._read_engine) as session:
            yield session

    @contextmanager
    def begin(self) -> Iterator[WriteSession]:
        """A writing session: one transaction, committed at the end, rolled back on any error."""
        from db.sessions import WriteSession

        with WriteSession(self._write_engine) as session, session.begin():
            yield session

    def dispose(self) -> None:
        """Close every connection that is not in use."""
        for name in ("engine", "_read_engine", "_write_engine"):
            engine = self.__dict__.pop(name, None)
            if engine is not None:
                engine.dispose()

    def connect_args(self, *, writable: bool) -> dict[str, Any]:
        """What the driver is told for each new connection (libpq keywords)."""
        return {
            # libpq would take a missing one from PGHOSTADDR or a service file, and that address
            # would win over the host: another server than the one that the target names.
            "hostaddr": self._url.query.get("hostaddr", ""),
            "target_session_attrs": wanted_server(
                first_text(self._url.query.get("target_session_attrs")) or "any"
            ),
            **session_arguments(
                self.application_name, self.limits, schema=self.schema, writable=writable
            ),
        }

    def _make_engine(self, *, writable: bool) -> Engine:
        engine = sa.create_engine(
            self._url,
            connect_args=self.connect_args(writable=writable),
            pool_size=2,
            max_overflow=8,
            pool_pre_ping=True,
            pool_recycle=1_800,
            hide_parameters=True,
        )
        make_interruptible(engine)
        report_standby(engine)
        report_refusals(engine)
        return engine
