"""Engines and sessions: read-only unless writing is requested, and always with a time limit."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session

from aspen.database.commits import make_interruptible, report_standby
from aspen.database.driver import DriverConnection, opener
from aspen.database.errors import NotAllowedError
from aspen.database.libpq import clean_address, first_text, joined_hosts, split_hosts, wanted_server
from aspen.database.policy import (
    DRIVER,
    Guard,
    InvalidDatabaseUrlError,
    Limits,
    SessionPolicy,
    connection_arguments,
    cut_name,
)
from aspen.database.refusals import report_refusals

_BACKENDS = frozenset({"postgres", "postgresql"})
# When a connection breaks, the pool also logs a traceback about a cursor that could not be closed;
# without a handler, that would go to stderr.
logging.getLogger("sqlalchemy.pool").addHandler(logging.NullHandler())


def normalise_url(address: str | URL) -> URL:
    """Return the address with this program's driver, whatever form it was given in.

    Raises:
        InvalidDatabaseUrlError: It is not the address of a PostgreSQL database.
    """
    if isinstance(address, str):
        address = clean_address(address)
    try:
        url = make_url(address if isinstance(address, URL) else split_hosts(address))
    except (ArgumentError, ValueError) as error:
        # The parser's message could repeat a password.
        raise InvalidDatabaseUrlError(
            "Invalid database URL (expected postgresql://user:password@host:port/name)."
        ) from error
    if url.get_backend_name() not in _BACKENDS:
        raise InvalidDatabaseUrlError(f"Not a PostgreSQL database URL: {url.get_backend_name()}")
    return url.set(drivername=DRIVER)


class Database:
    """A target's database, opened on first use.

    In the console it is called ``engine``: ``engine.make_session()``.

    Args:
        address: The address of a PostgreSQL database, in any form.
        application_name: The name shown in the server's activity views (truncated to 63 bytes).
        writable: Whether ``make_session`` may write.
        limits: The time limits of each session.
        schema: The schema that unqualified names are looked up in, before ``public``.
        policy: The complete policy of its sessions, instead of the individual values.
    """

    def __init__(
        self,
        address: str | URL,
        *,
        application_name: str = "aspencli",
        writable: bool = False,
        limits: Limits | None = None,
        schema: str = "aspen",
        policy: SessionPolicy | None = None,
    ):
        self._url = normalise_url(address)
        self._policy = policy or SessionPolicy(
            application_name=cut_name(application_name),
            limits=limits or Limits(),
            schema=schema,
            writable=writable,
        )
        self._engines: dict[bool, Engine] = {}

    def __repr__(self) -> str:
        mode = "writing" if self.writable else "read-only"
        return f"<Database {self.display_url} {mode}>"

    @property
    def url(self) -> URL:
        """Return the address; its ``str`` and ``repr`` hide the password."""
        return self._url

    @property
    def display_url(self) -> str:
        """Return the address as people write it, without the password."""
        url = self._url.set(drivername="postgresql")
        if url.host is None and "," in (hosts := first_text(url.query.get("host"))):
            places = joined_hosts(hosts, first_text(url.query.get("port")))
            shown = url.difference_update_query(["host", "port"]).set(host="<hosts>")
            return shown.render_as_string(hide_password=True).replace("<hosts>", places)
        return url.render_as_string(hide_password=True)

    @property
    def policy(self) -> SessionPolicy:
        """Return the policy of its sessions."""
        return self._policy

    @property
    def application_name(self) -> str:
        """Return the name shown in the server's activity views."""
        return self._policy.application_name

    @property
    def writable(self) -> bool:
        """Return True if its sessions may write."""
        return self._policy.writable

    @property
    def limits(self) -> Limits:
        """Return the time limits of each session."""
        return self._policy.limits

    @property
    def schema(self) -> str:
        """Return the schema that unqualified names are looked up in, before ``public``."""
        return self._policy.schema

    @property
    def engine(self) -> Engine:
        """Return the engine of this database's sessions."""
        return self._engine(writable=self.writable)

    def writing(self) -> Self:
        """Return the same database, with sessions that may write.

        Raises:
            NotAllowedError: The database is guarded and read-only.
        """
        self._require_writing()
        return self.derived(writable=True)

    def with_limits(self, **changes: int) -> Self:
        """Return the same database with other time limits (see `Limits`)."""
        return self.derived(limits=replace(self.limits, **changes))

    def derived(self, **changes: Any) -> Self:
        """Return the same database with some attributes of the policy changed.

        A guard is kept: a derived database never allows more than the original.
        """
        guard = self._policy.guard
        if guard is not Guard.NONE:
            changes.update(guard=guard, writable=self.writable)
        other = copy(self)
        vars(other).update(_policy=replace(self._policy, **changes), _engines={})
        return other

    def make_session(self) -> ReadSession:
        """Return a new session, which the caller must close; it may write if the database may."""
        kind = WriteSession if self.writable else ReadSession
        return kind(self.engine)

    @contextmanager
    def reading(self) -> Iterator[ReadSession]:
        """Open a read-only session that is rolled back at the end."""
        with ReadSession(self._engine(writable=False)) as session:
            yield session

    @contextmanager
    def begin(self) -> Iterator[WriteSession]:
        """Open a writable session: one transaction, committed at the end, rolled back on any error.

        Raises:
            NotAllowedError: The database is guarded and read-only.
        """
        self._require_writing()
        with WriteSession(self._engine(writable=True)) as session, session.begin():
            yield session

    def arguments(self) -> dict[str, Any]:
        """Return libpq's arguments besides the address; they set no mode and no limits."""
        return {
            # Without it, libpq would take one from PGHOSTADDR or a service file. It would override
            # the host, and so connect to a different server than the target's.
            "hostaddr": self._url.query.get("hostaddr", ""),
            "target_session_attrs": wanted_server(
                first_text(self._url.query.get("target_session_attrs")) or "any"
            ),
            **connection_arguments(self._policy, first_text(self._url.query.get("options"))),
        }

    def dispose(self) -> None:
        """Close every connection that is not in use."""
        while self._engines:
            self._engines.popitem()[1].dispose()

    def _engine(self, *, writable: bool) -> Engine:
        if writable not in self._engines:
            self._engines[writable] = self._make_engine(writable=writable)
        return self._engines[writable]

    def _require_writing(self) -> None:
        if self._policy.guard is Guard.READING:
            raise NotAllowedError(
                "This session is read-only. Nothing was written.",
                hint="To write, use the option that allows writes (see --help).",
            )

    def _make_engine(self, *, writable: bool) -> Engine:
        """Create an engine; every connection to the database is opened by one of these."""
        if writable:
            self._require_writing()
        policy = replace(self._policy, writable=writable)
        engine = sa.create_engine(
            self._url,
            connect_args={**self.arguments(), "connection_factory": opener(policy)},
            pool_size=2,
            max_overflow=8,
            pool_pre_ping=True,
            pool_recycle=1_800,
            hide_parameters=True,
            # Looking for hstore, which no table uses, would cost three round trips.
            use_native_hstore=False,
        )
        make_interruptible(engine)
        report_standby(engine)
        report_refusals(engine)
        # SQLAlchemy's own ping switches to autocommit, which a guarded connection refuses.
        vars(engine.dialect)["do_ping"] = _ping
        event.listen(engine, "checkin", _give_back)
        return engine


def _ping(connection: DriverConnection) -> bool:
    connection.ping()
    return True


def _give_back(connection: DriverConnection | None, record: Any) -> None:
    """Close a connection to a pooler, which may have only a few for all of its clients."""
    if connection is not None and connection.pooled and not connection.rehearsing:
        record.invalidate()


class ReadSession(Session):
    """A session in which the server refuses to write."""


class WriteSession(ReadSession):
    """A session that may write; `aspen.database.engine.Database.begin` commits it at the end."""
