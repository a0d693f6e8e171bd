"""The connection class of `aspen.database.engine.Database`, which enforces the session policy.

Code that uses it through a session, a pool, or the driver can do only what the policy allows. A
guarded transaction is read-only from its first query on, and PostgreSQL lets no statement change
that. But a statement could end the transaction, and the next one in the same string could begin
another. So statements that end or begin transactions are never sent.
"""

from __future__ import annotations

import ctypes
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, lru_cache
from typing import Any

import psycopg2
from psycopg2 import _psycopg
from psycopg2.extensions import (
    ISOLATION_LEVEL_AUTOCOMMIT,
    TRANSACTION_STATUS_IDLE,
    TRANSACTION_STATUS_INTRANS,
    parse_dsn,
)
from psycopg2.extensions import connection as PlainConnection  # noqa: N812 - a class
from psycopg2.extensions import cursor as PlainCursor  # noqa: N812 - a class
from psycopg2.sql import Composable

from aspen.database.errors import NotAllowedError, ServerReadOnlyError
from aspen.database.settings import (
    INVALID_URL,
    TIMEOUTS,
    Guard,
    InvalidDatabaseUrlError,
    ServerDefaults,
    SessionPolicy,
    clean_address,
    opening_statement,
    split_hosts,
    transaction_settings,
    wanted_server,
)

_AUTOCOMMIT: Any = PlainConnection.autocommit
_CURSOR_FACTORY: Any = PlainConnection.cursor_factory
_READONLY: Any = PlainConnection.readonly
_SAVEPOINT = "aspencli_rehearsal"
# The driver renders these as literals; it may render other types as arbitrary SQL.
_LITERALS = frozenset({str, int, float, bool, bytes, type(None)})

# PostgreSQL's lexical rules (scan.l), as far as they decide where a statement ends. There are no
# driver placeholders here, because the input is the text that is sent to the server.
_RULES = r"""
    (?P<gap>[ \t\n\r\f\v]+|--[^\n\r]*)
  | (?P<comment>/\*)
  | (?P<value>
        [eE]'(?:[^'\\]++|\\.|'')*+'?           # '' stands for a quote, and so does \'
      | (?:[bBxXnN]|[uU]&)?'(?:[^']++|'')*+'?
      | \$(?P<tag>[A-Za-z_\x80-\U0010ffff][A-Za-z_0-9\x80-\U0010ffff]*|)\$.*?(?:\$(?P=tag)\$|\Z)
    )
  | (?P<name>"(?:[^"]++|"")*+"?|[A-Za-z_\x80-\U0010ffff][A-Za-z_0-9$\x80-\U0010ffff]*)
  | (?P<number>[0-9]+)
  | (?P<sign>.)
"""
# Never for text that is sent: a placeholder could hide a quote, and versions of PostgreSQL differ
# in where a number such as 1_0 ends.
_LITERAL = r"""
    (?P<literal>
        %\([^)]*\)s | %s | \$[0-9]+
      | (?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9]+)?
    )
"""
_KINDS = {"comment": "gap", "literal": "value", "number": "value"}
_BOUNDARY = re.compile(r"/\*|\*/")
_SUSPECT = re.compile(r"\b(?:commit|end|rollback|abort|begin|start|prepare)\b", re.IGNORECASE)
_FRESH_S = 1.0
_SHORT = 8_192  # characters; longer statements are not cached
_SPELLING = re.compile(r"postgres(?:ql)?(?:\+\w+)?://")  # SQLAlchemy may name a driver here


@cache
def _libpq() -> Any:
    """Return the libpq that the driver is linked to, called without the global lock, or None."""
    try:
        library = ctypes.CDLL(_psycopg.__file__)
        library.PQgetCancel.restype = ctypes.c_void_p
        library.PQgetCancel.argtypes = [ctypes.c_void_p]
        library.PQfreeCancel.argtypes = [ctypes.c_void_p]
        library.PQcancel.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    except (OSError, AttributeError):  # the driver does not expose its libpq
        return None
    return library


def opener(policy: SessionPolicy) -> Callable[[str], DriverConnection]:
    """Return a psycopg2 ``connection_factory`` that opens connections under a policy."""

    def open_connection(dsn: str) -> DriverConnection:
        connection = DriverConnection(dsn)
        try:
            connection.take_up(policy)
        except BaseException:
            connection.close()
            raise
        return connection

    return open_connection


def libpq_parameters(address: str) -> dict[str, str]:
    """Parse an address into libpq parameters.

    (SQLAlchemy could parse it too, but takes as long to load as psql takes to start.)

    Raises:
        InvalidDatabaseUrlError: It is not a valid address.
    """
    try:
        address = clean_address(address)
        if not _SPELLING.match(address):
            raise ValueError(address)
        found = dict(parse_dsn(_SPELLING.sub("postgresql://", split_hosts(address), count=1)))
    except InvalidDatabaseUrlError:
        raise
    except (psycopg2.ProgrammingError, ValueError):
        # The parser's message could include the password.
        raise InvalidDatabaseUrlError(INVALID_URL) from None
    if wanted := found.get("target_session_attrs"):
        found["target_session_attrs"] = wanted_server(wanted)
    return found


class EarlyConnection:
    """A connection that opens in the background, while the program loads what it needs besides.

    Args:
        policy: The policy of its session.
        parameters: The libpq parameters to connect with.
    """

    def __init__(self, policy: SessionPolicy, parameters: Mapping[str, Any]):
        self._policy = policy
        self._parameters = {"target_session_attrs": "any", **parameters}
        self._opened: DriverConnection | BaseException | None = None
        self._is_unwanted = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._open, name="early connection", daemon=True)
        self._thread.start()

    def _open(self) -> None:
        try:
            opened = psycopg2.connect(**self._parameters, connection_factory=opener(self._policy))
        except Exception as error:  # noqa: BLE001 - raised where the connection is needed
            self._opened = error
            return
        with self._lock:
            self._opened = opened
            if self._is_unwanted:
                opened.close()

    def take(self, policy: SessionPolicy, parameters: Mapping[str, Any]) -> DriverConnection | None:
        """Return the connection, once; None if it was taken, or another one is needed.

        Raises:
            Exception: The error of connecting.
        """
        wanted = {name: value for name, value in parameters.items() if name != "connection_factory"}
        if policy != self._policy or _as_text(wanted) != _as_text(self._parameters):
            return None
        self._thread.join()
        opened, self._opened = self._opened, None
        if isinstance(opened, BaseException):
            raise opened
        if opened is not None:
            opened.count_as_new()
        return opened

    def close(self) -> None:
        """Close the connection if it was not taken, now or as soon as it is open."""
        with self._lock:
            self._is_unwanted = True
            if isinstance(self._opened, DriverConnection):
                self._opened.close()


def _as_text(parameters: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in parameters.items()}


class DriverConnection(PlainConnection):
    """A connection that enforces its policy in every transaction.

    Attributes:
        pooled: Whether a pooler is in between, so that settings last for one transaction only.
        defaults: The server's own session defaults.
        checks_client: Whether the server checks during statements that this client is connected.
        current_schema: The schema of new tables; None if there is none.
        isolation: The server's default isolation level, as SQLAlchemy names it.
    """

    defaults: ServerDefaults
    pooled = False
    checks_client = False
    current_schema: str | None = None
    isolation = ""
    _guarded = True  # until there is a policy
    _rehearsing = False
    _policy: SessionPolicy | None = None
    _fresh = False
    _saved = False
    _answered = 0.0

    def take_up(self, policy: SessionPolicy) -> None:
        """Apply a policy to the session, and check that it took effect.

        Raises:
            ServerReadOnlyError: The policy allows writes, but the server's own settings do not.
            NotAllowedError: It has a different policy already, or cannot be made read-only.
        """
        if self._policy not in {None, policy}:
            raise NotAllowedError(
                "The policy of an open connection cannot be changed. Nothing was written."
            )
        self._policy = policy
        # Needed for each statement, and so not computed each time.
        self._guarded, self._rehearsing = policy.guard.guards, policy.guard is Guard.REHEARSAL
        pid, read_only, *values = self.ask(opening_statement(policy, self.info.backend_pid))
        self.pooled = pid != self.info.backend_pid
        count = len(TIMEOUTS)
        self.defaults = ServerDefaults(
            read_only == "on", dict(zip(TIMEOUTS, values[:count], strict=True))
        )
        _search_path, became_read_only, *_others, checked, schema, isolation = values[count:]
        self.checks_client = checked is not None
        self.current_schema, self.isolation = schema, isolation
        if not policy.writable and became_read_only != "on":
            raise _not_read_only()
        if policy.writable and self.defaults.read_only and not policy.overrides.read_only:
            raise ServerReadOnlyError(
                "The database is read-only: default_transaction_read_only is on for this database, "
                "role, or server. Nothing was written.",
                hint="Ask its administrator why. To write anyway, for this run only, pass "
                "--override-read-only.",
            )
        if policy.guard is Guard.READING:
            _READONLY.__set__(self, True)

    @property
    def policy(self) -> SessionPolicy:
        """Return the policy of the connection."""
        if self._policy is None:
            raise RuntimeError("the connection has no policy yet")
        return self._policy

    @property
    def guarded(self) -> bool:
        """Return True if statements are restricted."""
        return self._guarded

    @property
    def rehearsing(self) -> bool:
        """Return True if nothing is ever committed."""
        return self._rehearsing

    @property
    def _kind(self) -> str:
        return "dry run" if self.rehearsing else "read-only session"

    def cancel(self) -> None:
        """Cancel the statement that is running.

        psycopg2 holds Python's global lock meanwhile, and a tunnel in this process could then not
        accept the connection that the request is sent over.
        """
        libpq = _libpq()
        if libpq is None:
            super().cancel()
            return
        request = libpq.PQgetCancel(self.pgconn_ptr)
        message = ctypes.create_string_buffer(256)
        try:
            if not libpq.PQcancel(request, message, len(message)):
                raise psycopg2.OperationalError(message.value.decode(errors="replace"))
        finally:
            libpq.PQfreeCancel(request)

    def count_as_new(self) -> None:
        """Spare a connection the next ping, which one that was just opened does not need either."""
        self._answered = time.monotonic()

    def ping(self) -> None:
        """Check that the server answers, in one round trip and outside any transaction.

        A connection that has just been opened or checked is not checked again.
        """
        if time.monotonic() - self._answered > _FRESH_S:
            self.ask("SELECT 1")

    def cursor(
        self, name: Any = None, cursor_factory: Any = None, *arguments: Any, **named: Any
    ) -> Any:
        """Return a cursor, which enforces the rules for transactions if there are any."""
        factory: Any = cursor_factory or _CURSOR_FACTORY.__get__(self) or PlainCursor
        if self.pooled or self.guarded:
            factory = _watched(factory)
        if not (arguments or named):  # the usual case, without the cost of passing them on
            return PlainConnection.cursor(self, name, factory)
        return super().cursor(name, factory, *arguments, **named)

    def commit(self) -> None:
        """Commit; in a rehearsal, only release the savepoint."""
        if not self.rehearsing:
            super().commit()
        elif self._saved:
            self._saved = False
            self._say(f"RELEASE SAVEPOINT {_SAVEPOINT}")

    def rollback(self) -> None:
        """Roll back; in a rehearsal, only to the last commit."""
        if not self.rehearsing:
            super().rollback()
        elif self._saved:
            self._saved = False
            self._say(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}; RELEASE SAVEPOINT {_SAVEPOINT}")

    def is_ready(self, query: Any, values: Any) -> bool:
        """Return True if `before` has nothing to do for a statement, which is the usual case.

        The transaction has begun under the policy, and the statement can neither end it nor contain
        anything else that could.
        """
        return (
            self.get_transaction_status() == TRANSACTION_STATUS_INTRANS
            and not self._fresh
            and (self._saved or not self._rehearsing)
            and type(query) is str
            and not may_matter(query)
            and _are_literals(values)
            and self.get_parameter_status("standard_conforming_strings") == "on"
        )

    def before(self, statement: str) -> None:
        """Begin the transaction that a statement runs in, under the policy; see `_watched`.

        Raises:
            NotAllowedError: It would end the transaction, or the transaction is not read-only.
        """
        if self._guarded:
            self._refuse_control(statement)
        if _AUTOCOMMIT.__get__(self):
            return
        if self.get_transaction_status() == TRANSACTION_STATUS_IDLE:
            self._fresh = True
        if self._fresh and not self.rehearsing:
            self._begin(statement)
        elif self._fresh:
            self._fresh = False
            self._begin_settings()
        if self.rehearsing and not self._saved:
            self._say(f"SAVEPOINT {_SAVEPOINT}")
            self._saved = True

    def _begin(self, statement: str) -> None:
        if not self.guarded and is_transaction_mode(statement):
            return  # our own code sets the mode; the other settings follow it
        in_mode = self.get_transaction_status() == TRANSACTION_STATUS_IDLE
        self._fresh = False
        if not in_mode or self.policy.writable:
            self._begin_settings()
        elif self._set_reading() != "on":
            raise _not_read_only()

    def _set_reading(self) -> str:
        """Begin a read-only transaction; after its first query, no statement can make it write."""
        query = "SELECT current_setting('transaction_read_only')"
        if self.pooled:
            query = transaction_settings(self.policy, self.defaults)
        with PlainCursor(self) as cursor:
            cursor.execute(f"SET TRANSACTION READ ONLY; {query}")
            row: Any = cursor.fetchone()
            return str(row[-1])

    def _begin_settings(self) -> None:
        if not self.pooled:
            return
        mode = ""
        overrides = self.policy.writable and self.policy.overrides.read_only
        if overrides and self.get_transaction_status() == TRANSACTION_STATUS_IDLE:
            mode = "SET TRANSACTION READ WRITE; "
        self._say(mode + transaction_settings(self.policy, self.defaults))

    def _refuse_control(self, statement: str) -> None:
        if self.get_parameter_status("standard_conforming_strings") != "on":
            raise NotAllowedError(
                "Statements are not sent while standard_conforming_strings is off, because they "
                "cannot be parsed reliably.",
                hint="Set it to on for this database and role.",
            )
        words = ends_transaction(statement)
        if words is not None:
            raise NotAllowedError(
                f"{words} is not allowed as SQL in a {self._kind}. Nothing was written.",
                hint="Use session.commit() or session.rollback() instead.",
            )

    def _say(self, words: str) -> None:
        """Run a statement of our own, bypassing cursors that record or guard."""
        with PlainCursor(self) as cursor:
            cursor.execute(words)

    def ask(self, query: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """Run a query of our own outside any transaction; return its first row.

        None may be open. It takes one round trip, where a transaction takes three.
        """
        before, mode = self.autocommit, self.readonly
        # If `readonly` were set, psycopg2 would change the session's mode when autocommit ends.
        _READONLY.__set__(self, None)
        _AUTOCOMMIT.__set__(self, True)
        try:
            with PlainCursor(self) as cursor:
                cursor.execute(query, parameters)
                self._answered = time.monotonic()
                return cursor.fetchone()
        finally:
            if not self.closed:
                _AUTOCOMMIT.__set__(self, before)
                _READONLY.__set__(self, mode)

    # Calls that would take the connection out of its transactions, or change their mode

    def _unguarded_only(self, what: str) -> None:
        if self.guarded:
            raise NotAllowedError(
                f"{what} is not allowed in a {self._kind}. Nothing was written.",
                hint="To write, use the option that allows writes (see --help).",
            )

    def _check_mode(self, read_only: Any) -> None:
        if not self.policy.writable and _is_off(read_only):
            self._unguarded_only("A writing transaction")

    @property
    def autocommit(self) -> bool:
        """Return True if each statement is committed separately."""
        return bool(_AUTOCOMMIT.__get__(self))

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        if value:
            self._unguarded_only("Autocommit")
        _AUTOCOMMIT.__set__(self, value)

    @property
    def readonly(self) -> Any:
        """Return the mode that its transactions begin with; None for the session's default."""
        return _READONLY.__get__(self)

    @readonly.setter
    def readonly(self, value: Any) -> None:
        self._check_mode(value)
        _READONLY.__set__(self, value)

    def set_session(
        self,
        isolation_level: Any = None,
        readonly: Any = None,
        deferrable: Any = None,
        autocommit: Any = None,
    ) -> None:
        """Set the characteristics of its transactions."""
        if autocommit:
            self._unguarded_only("Autocommit")
        self._check_mode(readonly)
        given = {"isolation_level": isolation_level, "readonly": readonly}
        given |= {"deferrable": deferrable, "autocommit": autocommit}
        super().set_session(**{name: value for name, value in given.items() if value is not None})

    def set_isolation_level(self, level: Any) -> None:
        """Set the isolation level of its transactions."""
        if level == ISOLATION_LEVEL_AUTOCOMMIT:
            self._unguarded_only("Autocommit")
        super().set_isolation_level(level)

    def reset(self) -> None:
        """Reset the session, and apply its policy again."""
        self._unguarded_only("Resetting the connection")
        super().reset()
        self.take_up(self.policy)

    def lobject(self, *arguments: Any, **named: Any) -> Any:
        """Open a large object, which PostgreSQL 15 and earlier write even when read-only."""
        self._unguarded_only("A large object")
        return super().lobject(*arguments, **named)

    def tpc_begin(self, xid: Any) -> None:
        """Begin a two-phase transaction."""
        self._unguarded_only("A two-phase transaction")
        super().tpc_begin(xid)

    def tpc_commit(self, *xid: Any) -> None:
        """Commit a two-phase transaction."""
        self._unguarded_only("A two-phase transaction")
        super().tpc_commit(*xid)


def _is_off(value: Any) -> bool:
    return value is False or (isinstance(value, str | bytes) and value != "default")


def _not_read_only() -> NotAllowedError:
    return NotAllowedError(
        "Could not make the session read-only: the server, or a connection pooler in front of it, "
        "did not keep the setting. Nothing was run.",
        hint="Connect to the server directly instead of through the pooler.",
    )


@cache
def _watched(base: type[Any]) -> type[Any]:
    """Return a cursor class that shows each statement to the connection before sending it."""
    if issubclass(base, _Watched):
        return base
    return type(f"Watched{base.__name__}", (_Watched, base), {"__slots__": ()})


class _Watched:
    """A mixin for cursor classes; see `_watched`."""

    __slots__ = ()
    connection: DriverConnection

    def execute(self, query: Any, vars: Any = None) -> Any:  # noqa: A002 - psycopg2's
        connection = self.connection
        if not connection.is_ready(query, vars):
            connection.before(_sent(self, query, vars))
        return super().execute(query, vars)  # type: ignore[misc] # defined by the cursor class

    def executemany(self, query: Any, vars_list: Iterable[Any]) -> Any:
        sets = list(vars_list)
        for values in sets:
            self.connection.before(_sent(self, query, values))
        return super().executemany(query, sets)  # type: ignore[misc] # same

    def callproc(self, procname: str, *parameters: Any) -> Any:
        self.connection.before(f"SELECT * FROM {procname}()")  # noqa: S608 - as psycopg2 sends it
        return super().callproc(procname, *parameters)  # type: ignore[misc] # same

    def copy_expert(self, sql: Any, file: Any, *arguments: Any, **named: Any) -> Any:
        self.connection.before(_sent(self, sql, None))
        return super().copy_expert(sql, file, *arguments, **named)  # type: ignore[misc] # same

    def copy_from(self, *arguments: Any, **named: Any) -> Any:
        self.connection.before("COPY")
        return super().copy_from(*arguments, **named)  # type: ignore[misc] # same

    def copy_to(self, *arguments: Any, **named: Any) -> Any:
        self.connection.before("COPY")
        return super().copy_to(*arguments, **named)  # type: ignore[misc] # same


def _sent(cursor: Any, query: Any, values: Any) -> str:
    """Return the SQL to be sent, accurate enough to find where its statements end."""
    if isinstance(query, Composable):
        query = query.as_string(cursor)
    text = query.decode(errors="replace") if isinstance(query, bytes) else str(query)
    if values is None or not cursor.connection.guarded:
        return text
    if may_matter(text) or not _are_literals(values):
        try:
            sent: bytes = cursor.mogrify(query, values)
        except (TypeError, IndexError, KeyError, psycopg2.Error):
            return text  # the driver will report the error, and send nothing
        return sent.decode(errors="replace")
    return text


def _are_literals(values: Any) -> bool:
    """Return True if all values are sent as literals."""
    if values is None:
        return True
    kind = type(values)  # other classes could return anything for a key
    if kind is dict:
        return _LITERALS.issuperset(map(type, values.values()))
    return kind in {tuple, list} and _LITERALS.issuperset(map(type, values))


def ends_transaction(statement: str) -> str | None:
    """Return the command that ends or begins a transaction in a text as it is sent, if any."""
    return _look_up(statement) if len(statement) <= _SHORT else _look(statement)


def is_transaction_mode(statement: str) -> bool:
    """Return True for ``SET TRANSACTION``, which must come before any query."""
    return _first_words(statement)[:2] == ["SET", "TRANSACTION"]


def may_matter(statement: str) -> bool:
    """Return False if the statement cannot possibly end a transaction."""
    return _search_short(statement) if len(statement) <= _SHORT else _search(statement)


@lru_cache(maxsize=1_024)
def _first_words(statement: str) -> list[str]:
    return next(iter(_openings(statement[:200], 2)), [])


def _search(statement: str) -> bool:
    return _SUSPECT.search(statement) is not None


def _look(statement: str) -> str | None:
    if not may_matter(statement):  # the usual case
        return None
    for words in _openings(statement, 3):
        if words and _is_control(words):
            return " ".join(words[:2] if words[0] == "PREPARE" else words[:1])
    return None


_search_short = lru_cache(maxsize=1_024)(_search)
_look_up = lru_cache(maxsize=1_024)(_look)


def _is_control(words: list[str]) -> bool:
    match words:
        case ["COMMIT" | "END" | "ABORT" | "BEGIN" | "START", *_]:
            return True
        case ["ROLLBACK", "TO", *_] | ["ROLLBACK", "WORK" | "TRANSACTION", "TO", *_]:
            return False
        case ["ROLLBACK", *_] | ["PREPARE", "TRANSACTION", *_]:
            return True
    return False


def _openings(text: str, count: int) -> list[list[str]]:
    """Return the leading words of each statement, up to the first other token."""
    found: list[list[str]] = [[]]
    open_ = True
    for kind, words, _start in tokens(text):
        if kind == "gap":
            continue
        if words == ";":
            found.append([])
            open_ = True
        elif open_ and kind == "name" and len(found[-1]) < count:
            found[-1].append(words.upper())
        else:
            open_ = False
    return found


def tokens(text: str, *, placeholders: bool = False) -> Iterator[tuple[str, str, int]]:
    """Yield the kind, text, and start of each token in any number of statements.

    The kinds are ``gap`` (also for comments), ``value``, ``name``, and ``sign``. Incomplete
    statements, and those for later versions, are tokenized, too.

    Args:
        text: The statements.
        placeholders: Whether they may contain placeholders of drivers, which count as values, as do
            whole numbers such as ``1.5e3``. Not for text as it is sent to the server.
    """
    rules = _token_rules(placeholders=placeholders)
    position = 0
    while match := rules.match(text, position):
        start, position, kind = position, match.end(), str(match.lastgroup)
        if kind == "comment":
            position = _end_of_comment(text, position)
        yield _KINDS.get(kind, kind), match[0], start


@cache
def _token_rules(*, placeholders: bool) -> re.Pattern[str]:
    """Return the rules for one token; compiling them takes 10 ms, and few commands need them."""
    rules = f"{_LITERAL}|{_RULES}" if placeholders else _RULES
    return re.compile(rules, re.VERBOSE | re.DOTALL)


def _end_of_comment(text: str, position: int) -> int:
    """Return the end of a comment that began before the position; comments nest."""
    depth = 1
    while depth and (mark := _BOUNDARY.search(text, position)):
        depth += 1 if mark[0] == "/*" else -1
        position = mark.end()
    return len(text) if depth else position
