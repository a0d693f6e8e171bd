"""Engines and sessions: read-only unless writing is requested, and always with a time limit.

A refused connection is reported with its SQLSTATE, whatever language the server's messages are in.
libpq gives the SQLSTATE of a failed connection only as text, and by default not at all. So the
connection is tried a second time with libpq's verbosity ``PQERRORS_SQLSTATE``, which reduces the
message to the code. psycopg2 exposes the pointer that this requires (``pgconn_ptr``).
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import re
import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Self

import psycopg2
import sqlalchemy as sa
from psycopg2 import _psycopg
from psycopg2.errors import InsufficientPrivilege
from psycopg2.extensions import (
    POLL_OK,
    POLL_READ,
    TRANSACTION_STATUS_IDLE,
    TRANSACTION_STATUS_INTRANS,
)
from sqlalchemy import Connection, event
from sqlalchemy.engine import URL, Engine, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from aspen.database.cancel import GLANCE_S, NotedInterrupts, StatementThread, driver_of
from aspen.database.driver import DriverConnection, EarlyConnection, opener
from aspen.database.errors import (
    NotAllowedError,
    OutcomeUnknownError,
    StandbyError,
    mark_lost_commit,
    sqlstate,
)
from aspen.database.settings import (
    DRIVER,
    INVALID_URL,
    Guard,
    InvalidDatabaseUrlError,
    Limits,
    Route,
    SessionPolicy,
    check_address,
    clean_address,
    connection_arguments,
    cut_name,
    first_text,
    joined_hosts,
    split_hosts,
    wanted_server,
)

if TYPE_CHECKING:
    from aspen.database.sessions import ReadSession, WriteSession

_BACKENDS = frozenset({"postgres", "postgresql"})

CURRENT = "SELECT txid_current()"
STATUS = "SELECT txid_status(:transaction)"
_OID = "SELECT oid FROM pg_database WHERE datname = current_database()"
_IDENTITY = f"SELECT ({_OID}), system_identifier::text FROM pg_control_system()"  # noqa: S608 - ours
_IN_THE_FUTURE = "22023"
# read_only_sql_transaction; feature_not_supported (SET TRANSACTION READ WRITE); and
# object_not_in_prerequisite_state (LOCK TABLE). On a primary, each of them has other causes.
_REFUSALS = frozenset({"25006", "0A000", "55000"})

_CANCELED = "57014"
_SLOW_S = 3.0  # until a commit is looked into, and for that look
_WAITS_FOR = """
SELECT wait_event, current_setting('synchronous_standby_names') FROM pg_stat_activity
 WHERE pid = %(pid)s AND state = 'active'
"""
_STAYS = "Press Ctrl-C to stop waiting; if the server has committed by then, it stays committed."
_LOOK_UP_S = (0.1, 0.5, 1, 2, 5, 10)  # the pauses before each attempt to ask for an outcome
LOG = logging.getLogger(__name__)
"""The logger for slow commits: INFO while one waits, WARNING if its wait was cut short."""
LOG.setLevel(logging.INFO)

_SQLSTATE_ONLY = 3  # PQERRORS_SQLSTATE of libpq-fe.h
_CODE = re.compile(r": +([0-9A-Z]{5})$", re.MULTILINE)
_PATIENCE_S = 10.0
# libpq's own messages for a server that could not be reached, and so did not refuse. They are never
# translated, because the driver's libpq is built without language support.
_NOT_REACHED = re.compile(
    r"Connection refused|could not translate host name|timeout expired|No such file or directory"
    r"|No route to host|Network is unreachable|invalid |could not parse|service file|SSL error"
)
_PROTOCOL_VIOLATION = "08P01"
# PgBouncer 1.18 uses this code for every refusal. Its own messages are never translated; those it
# relays are in the server's language, and keep this code unless they are in English.
_POOLER_STATES = (
    (
        re.compile(r"SASL authentication failed|password authentication failed|no such user"),
        "28P01",
    ),
    (re.compile(r'no such database|database "[^"]*" does not exist'), "3D000"),
    (re.compile(r"no more connections allowed"), "53300"),
)
_ATTRIBUTE = "refusal_state"
# When a connection breaks, the pool also logs a traceback about a cursor that could not be closed;
# without a handler, that would go to stderr.
logging.getLogger("sqlalchemy.pool").addHandler(logging.NullHandler())


def normalize_url(address: str | URL) -> URL:
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
        raise InvalidDatabaseUrlError(INVALID_URL) from error
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
        policy: The complete policy of its sessions, instead of the individual values.
        route: The way to its server; None for the usual one.
        early: The first connection, if it was begun before.
    """

    def __init__(
        self,
        address: str | URL,
        *,
        application_name: str = "aspencli",
        writable: bool = False,
        limits: Limits | None = None,
        policy: SessionPolicy | None = None,
        route: Route | None = None,
        early: EarlyConnection | None = None,
    ):
        self._early = early
        self._url = normalize_url(address)
        self._route = route
        self._policy = policy or SessionPolicy(
            application_name=cut_name(application_name),
            limits=limits or Limits(),
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
    def route(self) -> Route | None:
        """Return the way to its server; None for the usual one."""
        return self._route

    @property
    def policy(self) -> SessionPolicy:
        """Return the policy of its sessions."""
        return self._policy

    @property
    def writable(self) -> bool:
        """Return True if its sessions may write."""
        return self._policy.writable

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
        return self.derived(limits=replace(self.policy.limits, **changes))

    def derived(self, **changes: Any) -> Self:
        """Return the same database with some attributes of the policy changed.

        A guard is kept: a derived database never allows more than the original.
        """
        guard = self._policy.guard
        if guard.guards:
            changes.update(guard=guard, writable=self.writable)
        other = copy(self)
        vars(other).update(_policy=replace(self._policy, **changes), _engines={})
        return other

    def neighbor(self, name: str) -> Database:
        """Return another database on the same server, with writable sessions."""
        policy = replace(self._policy, writable=True)
        return Database(self._url.set(database=name), policy=policy, route=self._route)

    def make_session(self) -> ReadSession:
        """Return a new session, which the caller must close; it may write if the database may."""
        from aspen.database.sessions import ReadSession, WriteSession

        kind = WriteSession if self.writable else ReadSession
        return kind(self.engine)

    @contextmanager
    def connected(self, *, transaction: bool = False) -> Iterator[Connection]:
        """Open a read-only connection that is rolled back at the end.

        It is the same as `observing`, or with a transaction as `reading`, for queries that do
        without the models.
        """
        engine = self._engine(writable=False) if transaction else self._observer()
        with engine.connect() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[ReadSession]:
        """Open a read-only session that is rolled back at the end."""
        from aspen.database.sessions import ReadSession

        with ReadSession(self._engine(writable=False)) as session:
            yield session

    @contextmanager
    def observing(self) -> Iterator[ReadSession]:
        """Open a read-only session without a transaction, which saves two round trips.

        Each statement sees the newest data. Behind a pooler, where settings last only for a
        transaction, it is the same as `reading`.
        """
        from aspen.database.sessions import ReadSession

        with ReadSession(self._observer()) as session:
            yield session

    def _observer(self) -> Engine:
        engine = self._engine(writable=False)
        with engine.connect() as connection:
            pooled = driver_of(connection).pooled
        if pooled or self._policy.guard.guards:
            return engine
        return engine.execution_options(isolation_level="AUTOCOMMIT")

    def identity(self) -> DatabaseIdentity:
        """Return the identity of the database."""
        with self.engine.connect() as connection:
            return identify(connection)

    @contextmanager
    def begin(self) -> Iterator[WriteSession]:
        """Open a writable session: one transaction, committed at the end, rolled back on any error.

        Raises:
            NotAllowedError: The database is guarded and read-only.
        """
        from aspen.database.sessions import WriteSession

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
            **(self._route.libpq if self._route else {}),
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
        check_address(policy, first_text(self._url.query.get("options")))
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
        event.listen(engine, "do_connect", partial(_connect, self._route, policy, self._early))
        know_server(engine)
        # SQLAlchemy's own ping switches to autocommit, which a guarded connection refuses.
        vars(engine.dialect)["do_ping"] = _ping
        event.listen(engine, "checkin", _give_back)
        return engine


def _server_version(connection: Connection) -> tuple[int, ...]:
    major, minor = divmod(int(driver_of(connection).info.server_version), 10_000)
    return major, minor


# What SQLAlchemy asks each new server in six round trips, the connection knows already. Its hooks
# for this are not public; if one is renamed, its query is sent again, and a test counts them.
_KNOWN: dict[str, Callable[[Any], Any]] = {
    "_get_server_version_info": _server_version,
    "_get_default_schema_name": lambda connection: getattr(
        driver_of(connection), "current_schema", None
    ),
    "get_default_isolation_level": lambda driver: getattr(driver, "isolation", None),
    # Back to the server's default, which takes no round trip; a level by name would.
    "reset_isolation_level": lambda driver: driver.set_isolation_level(None),
    "_set_backslash_escapes": lambda connection: vars(connection.dialect).update(
        _backslash_escapes=driver_of(connection).get_parameter_status("standard_conforming_strings")
        == "off"
    ),
}


def know_server(engine: Engine) -> None:
    """Spare an engine the queries with which SQLAlchemy gets to know a server."""
    vars(engine.dialect).update(_KNOWN)


def _ping(connection: DriverConnection) -> bool:
    connection.ping()
    return True


def _give_back(connection: DriverConnection | None, record: Any) -> None:
    """Close a connection to a pooler, which may have only a few for all of its clients."""
    if connection is not None and connection.pooled and not connection.rehearsing:
        record.invalidate()


# Commits
#
# A server with ``synchronous_standby_names`` delays COMMIT until a standby has confirmed it,
# however long that takes. So commits run in a thread, and the log says what a slow one waits for.


def make_interruptible(engine: Engine) -> None:
    """Make the commits of an engine interruptible, and mark errors that leave them unknown.

    After an interrupt, the transaction is either rolled back, or committed on this server without
    a standby's confirmation; the result of COMMIT says which.
    """
    dialect = engine.dialect
    commit = dialect.do_commit

    def do_commit(proxied: Any) -> None:
        driver = proxied.driver_connection
        status = driver.info.transaction_status
        is_main = threading.current_thread() is threading.main_thread()
        try:
            if is_main and status != TRANSACTION_STATUS_IDLE:
                _commit(engine, driver, lambda: commit(proxied))
            else:
                commit(proxied)
        except psycopg2.Error as error:
            # A server that gives an SQLSTATE says that it did not commit.
            if status == TRANSACTION_STATUS_INTRANS and driver.closed and error.pgcode is None:
                mark_lost_commit(error)
            raise

    vars(dialect)["do_commit"] = do_commit


def _commit(engine: Engine, driver: Any, work: Callable[[], None]) -> None:
    said = list(driver.notices)
    worker, probe = StatementThread(driver, work), _Probe(engine, driver.info.backend_pid)
    with NotedInterrupts() as interrupts:
        worker.start()
        overdue = time.monotonic() + _SLOW_S
        while not worker.done.wait(GLANCE_S):
            if interrupts.came:
                worker.cancel()
            if time.monotonic() > overdue:
                probe.report()
        if (error := worker.failure) is not None:
            if getattr(error, "pgcode", None) != _CANCELED:
                interrupts.came.clear()  # the error matters more: the outcome may be unknown
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
            self._deadline = time.monotonic() + _SLOW_S
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
                row = connection.exec_driver_sql(_WAITS_FOR, {"pid": self._pid}).first()
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


def commit_surely(connection: Connection, database: Database, transaction: int) -> None:
    """Commit; if the connection is lost meanwhile, ask the server for the outcome.

    Raises:
        DBAPIError: It was not committed.
        OutcomeUnknownError: The server could not be reached.
    """
    try:
        connection.commit()
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        if _look_up_outcome(database, transaction) != "committed":
            raise


def _look_up_outcome(database: Database, transaction: int) -> str:
    """Return ``committed`` or ``aborted``."""
    for pause in _LOOK_UP_S:
        time.sleep(pause)
        try:
            with database.reading() as session:
                status = session.scalar(sa.text(STATUS), {"transaction": transaction})
        except OperationalError:
            continue
        # The server may take a moment to notice that the client is gone.
        if status in {"committed", "aborted"}:
            return str(status)
    raise OutcomeUnknownError(transaction)


# Databases, their transactions, and standbys


@dataclass(frozen=True)
class DatabaseIdentity:
    """The identity of a database, to distinguish it from others with the same name and address."""

    oid: int  # on the server; a database that is recreated gets a new one
    # The system identifier of the server, which replicas and backups share; None if this user may
    # not read it.
    system: str | None


def identify(connection: Connection) -> DatabaseIdentity:
    """Return the identity of a connection's database; no transaction may be open on it.

    It is asked for outside any transaction, in one round trip.
    """
    driver: DriverConnection = driver_of(connection)
    try:
        oid, system = driver.ask(_IDENTITY)
    except InsufficientPrivilege:
        return DatabaseIdentity(int(driver.ask(_OID)[0]), None)
    return DatabaseIdentity(int(oid), system)


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


# Refused connections


def refusal_state(error: BaseException | None) -> str | None:
    """Return the SQLSTATE with which the server refused a connection; None if it did not."""
    found = getattr(error, _ATTRIBUTE, None)
    return found if isinstance(found, str) else None


def _connect(
    route: Route | None,
    policy: SessionPolicy,
    early: EarlyConnection | None,
    dialect: Any,
    _record: Any,
    arguments: Any,
    parameters: dict[str, Any],
) -> Any:
    """Connect, and add the SQLSTATE to the error if that fails; see `refusal_state`."""
    try:
        if early is not None and (opened := early.take(policy, parameters)) is not None:
            return opened
        if route is not None and (password := route.password(parameters.get("user", ""))):
            parameters["password"] = password
        return dialect.connect(*arguments, **parameters)
    except psycopg2.OperationalError as error:
        if route is not None and (reason := route.explain(str(error))):
            raise reason from error
        if error.pgcode is None and not arguments and not _NOT_REACHED.search(str(error)):
            setattr(error, _ATTRIBUTE, _meant_state(_find_state(parameters), str(error)))
        raise


def _meant_state(state: str | None, words: str) -> str | None:
    """Return the code that the server would have given, if a pooler refused the connection."""
    if state != _PROTOCOL_VIOLATION:
        return state
    return next((meant for text, meant in _POOLER_STATES if text.search(words)), state)


def _find_state(parameters: Mapping[str, Any]) -> str | None:
    """Connect again, only to get the SQLSTATE of the refusal."""
    set_verbosity = _set_verbosity()
    if set_verbosity is None:
        return None
    plain = {key: value for key, value in parameters.items() if "factory" not in key}
    try:
        connection = psycopg2.connect(**plain, async_=True)
    except psycopg2.Error:
        return None
    with contextlib.closing(connection):
        set_verbosity(connection.pgconn_ptr, _SQLSTATE_ONLY)
        try:
            _finish(connection, float(plain.get("connect_timeout") or _PATIENCE_S))
        except psycopg2.Error as error:
            found = _CODE.findall(str(error))
            return found[-1] if found else None
    return None


def _finish(connection: Any, seconds: float) -> None:
    """Wait until the connection is open or the time is up."""
    deadline = time.monotonic() + seconds
    while (state := connection.poll()) != POLL_OK:
        rest = deadline - time.monotonic()
        reading, writing = ([connection], []) if state == POLL_READ else ([], [connection])
        if rest <= 0 or not any(select.select(reading, writing, [], rest)):
            return


@cache
def _set_verbosity() -> Callable[[int, int], int] | None:
    """Return libpq's function, from the libpq that the driver itself is linked to."""
    try:
        function = ctypes.PyDLL(_psycopg.__file__).PQsetErrorVerbosity
    except (OSError, AttributeError):  # the driver does not expose its libpq
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_int]
    function.restype = ctypes.c_int
    found: Callable[[int, int], int] = function
    return found
