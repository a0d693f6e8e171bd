"""Transactions: their outcome, interruptible commits, and writes that reach a standby.

A server with ``synchronous_standby_names`` delays COMMIT until a standby has confirmed it, however
long that takes. Meanwhile the driver blocks in C, where no Python signal handler runs. So a commit
runs in a separate thread, and the log says what it is waiting for.

Errors are recognized by SQLSTATE, whatever language the server's messages are in.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg2
import sqlalchemy as sa
from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.exc import DBAPIError

from aspen.database.cancel import GLANCE_S, NotedInterrupts, Worker
from aspen.database.errors import StandbyError, sqlstate

CURRENT = "SELECT txid_current()"
STATUS = "SELECT txid_status(:transaction)"
_OID = "SELECT oid FROM pg_database WHERE datname = current_database()"
_SYSTEM = "SELECT system_identifier::text FROM pg_control_system()"
_NOT_ALLOWED, _IN_THE_FUTURE = "42501", "22023"
_CANCELED = "57014"
# read_only_sql_transaction; feature_not_supported (SET TRANSACTION READ WRITE); and
# object_not_in_prerequisite_state (LOCK TABLE). On a primary, each of them has other causes.
_REFUSALS = frozenset({"25006", "0A000", "55000"})
_PATIENCE_S = 3.0
_WAIT = """
SELECT wait_event, current_setting('synchronous_standby_names') FROM pg_stat_activity
 WHERE pid = %(pid)s AND state = 'active'
"""
_STAYS = "Press Ctrl-C to stop waiting; if the server has committed by then, it stays committed."
LOG = logging.getLogger(__name__)
"""The logger for slow commits: INFO while one waits, WARNING if its wait was cut short."""
LOG.setLevel(logging.INFO)


@dataclass(frozen=True)
class DatabaseIdentity:
    """The identity of a database, to distinguish it from others with the same name and address.

    Attributes:
        oid: Its OID on the server; a database that is recreated gets a new one.
        system: The system identifier of the server, which replicas and backups share; None if
            this user may not read it.
    """

    oid: int
    system: str | None


def identify(connection: Connection) -> DatabaseIdentity:
    """Return the identity of a connection's database; no transaction may be open on it."""
    with connection.begin():
        oid = int(connection.execute(sa.text(_OID)).scalar_one())
    try:
        with connection.begin():
            system = str(connection.execute(sa.text(_SYSTEM)).scalar_one())
    except DBAPIError as error:
        if sqlstate(error) != _NOT_ALLOWED:
            raise
        return DatabaseIdentity(oid, None)
    return DatabaseIdentity(oid, system)


def transaction_status(connection: Connection, transaction: int) -> str | None:
    """Return ``committed``, ``aborted`` or ``in progress``; None if the server does not know.

    The server forgets old transactions, and knows only those that it began itself. No transaction
    may be open on the connection.
    """
    try:
        with connection.begin():
            status = connection.execute(sa.text(STATUS), {"transaction": transaction}).scalar()
    except DBAPIError as error:
        if sqlstate(error) != _IN_THE_FUTURE:
            raise
        return None
    return None if status is None else str(status)


def make_interruptible(engine: Engine) -> None:
    """Make the commits of an engine interruptible.

    After an interrupt, the transaction is either rolled back, or committed on this server without
    a standby's confirmation; the result of COMMIT says which.
    """
    dialect = engine.dialect
    commit = dialect.do_commit

    def do_commit(proxied: Any) -> None:
        driver = proxied.driver_connection
        if (
            threading.current_thread() is not threading.main_thread()
            or driver.info.transaction_status == TRANSACTION_STATUS_IDLE
        ):
            commit(proxied)
        else:
            _commit(engine, driver, lambda: commit(proxied))

    vars(dialect)["do_commit"] = do_commit


def _commit(engine: Engine, driver: Any, work: Callable[[], None]) -> None:
    said = list(driver.notices)
    worker, probe = Worker(driver, work), _Probe(engine, driver.info.backend_pid)
    with NotedInterrupts() as interrupts:
        worker.start()
        overdue = time.monotonic() + _PATIENCE_S
        while not worker.ended_within(GLANCE_S):
            if interrupts.came:
                worker.cancel()
            if time.monotonic() > overdue:
                probe.report()
        error = worker.failure()
        if error is not None:
            if getattr(error, "pgcode", None) != _CANCELED:
                interrupts.forget()  # the error matters more: the outcome may be unknown
            raise error
        if driver.notices != said and (interrupts.came or probe.found_standby):
            LOG.warning(
                "The transaction is committed on this server, but no synchronous standby has "
                "confirmed it. If this server fails now, it may be lost. Server message: %s",
                " ".join(driver.notices[-1].split()),
            )
        # An interrupt that came too late still goes to its handler, if there is one.
        interrupts.pass_on()


class _Probe:
    """A query on another connection for what a commit is waiting for.

    It runs in a thread, because a pooler with a single server connection would block it.
    """

    def __init__(self, engine: Engine, pid: int):
        self._engine = engine
        self._pid = pid
        self._thread: threading.Thread | None = None
        self._found: list[str] = []
        self._is_reported = False
        self._deadline = 0.0
        self.found_standby = False

    def report(self) -> None:
        """Log what the commit is waiting for, once and as soon as it is known."""
        if self._thread is None:
            self._deadline = time.monotonic() + _PATIENCE_S
            self._thread = threading.Thread(target=self._ask, name="commit probe", daemon=True)
            self._thread.start()
        is_due = self._found or time.monotonic() > self._deadline
        if self._is_reported or not is_due:
            return
        self._is_reported = True
        what = self._found[0] if self._found else "Waiting for the server to confirm the commit."
        LOG.info("%s %s", what, _STAYS)

    def _ask(self) -> None:
        try:
            with self._engine.connect() as connection:
                row = connection.exec_driver_sql(_WAIT, {"pid": self._pid}).first()
        except (DBAPIError, psycopg2.Error) as error:
            LOG.debug("Could not look up what the commit is waiting for: %s", error)
            return
        if row is None:
            return
        event, standbys = row
        self.found_standby = event == "SyncRep"
        self._found.append(
            f"Waiting for a synchronous standby to confirm the commit (synchronous_standby_names: "
            f"{standbys})."
            if self.found_standby
            else f"Waiting for the server to confirm the commit (wait event: {event})."
        )


def report_standby(engine: Engine) -> None:
    """Make an engine raise `StandbyError` for statements refused because of a standby."""
    event.listen(engine, "handle_error", _examine)


def _examine(failure: ExceptionContext) -> None:
    error = failure.original_exception
    if getattr(error, "pgcode", None) not in _REFUSALS or failure.connection is None:
        return
    driver: Any = failure.connection.connection.driver_connection
    if _is_standby(driver, failure.engine):
        info = driver.info
        raise StandbyError(f"{info.host or 'local socket'}:{info.port}") from error


def _is_standby(driver: Any, engine: Engine | None) -> bool:
    reported = driver.get_parameter_status("in_hot_standby")
    if reported is not None or engine is None:
        return bool(reported == "on")
    # Before PostgreSQL 14 only a query can tell, and this transaction has failed.
    try:
        with engine.connect() as connection:
            return bool(connection.exec_driver_sql("SELECT pg_is_in_recovery()").scalar())
    except DBAPIError:
        return False  # the original error is the one to report
