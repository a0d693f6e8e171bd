"""Recorded executions by fingerprint, and transactions: most of them in compact columns.

A fingerprint is a statement's text without literals, comments, and lengths of lists. It is made of
tokens, not by a parser: it must accept whatever the server is sent, including incomplete statements
and those for later versions, and never fail.
"""

from __future__ import annotations

import re
import threading
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from itertools import islice
from time import perf_counter
from types import CodeType
from typing import Any, NamedTuple

from aspen.database.driver import tokens
from aspen.database.profiling.callers import Lazy, Site, line_of

LONG = 8_192
"""Length in characters; longer statements are cached for a short time only."""
_CAST = r"(?:::[\w.]+(?:\ [A-Z]+)*(?:\(\?(?:,\ \?)*\))?(?:\[\])*)?"
_ITEM = rf"(?:\?|NULL|DEFAULT|TRUE|FALSE){_CAST}"
_LIST = rf"\({_ITEM}(?:,\ {_ITEM})*\)"
_IN = re.compile(rf"\b(IN)\ {_LIST}", re.IGNORECASE)
_ARRAY = re.compile(rf"\b(ARRAY)\ ?\[{_ITEM}(?:,\ {_ITEM})*\]", re.IGNORECASE)
_VALUES = re.compile(rf"\b(VALUES)\ {_LIST}(?:,\ {_LIST})*", re.IGNORECASE)
_SAVEPOINT = re.compile(r"\bsa_savepoint_\d+\b")
_TIGHT_BEFORE = frozenset("),;.]/%")
_TIGHT_AFTER = frozenset("(.[/%")
_NESTING = {"(": 1, ")": -1}
_OPERATORS = frozenset("+-<>=~!@#^&|?`")  # PostgreSQL, "Operators" in "Lexical Structure"
_CHUNK = 8_192
_KINDS = 10_000
OTHERS = "(other statements: too many to distinguish)"
"""The fingerprint of statements beyond the maximum number of distinct kinds."""
_NOWHERE = ("", 0, "")


@dataclass(slots=True, eq=False)
class Query:
    """One execution.

    Attributes:
        statement: The SQL as passed to the driver.
        started: The start time (``time.perf_counter``).
        seconds: The execution time in the driver.
        rows: The number of rows reported by the server; -1 if it reported none.
        error: The class of the exception; "" for none.
        parameters: The parameters, kept only on request.
        running: Whether rows can still be fetched.
        fetching: The time spent fetching its rows, in seconds.
    """

    statement: str
    site: Site
    started: float
    seconds: float
    rows: int
    error: str
    parameters: Any
    running: bool
    fetching: float = 0.0
    fetched: int = 0


class StatementKey(NamedTuple):
    """The key of a group of executions: the same fingerprint from the same line."""

    fingerprint: str
    file: str
    line: int
    function: str
    lazy: Lazy | None


@dataclass
class Example:
    """The slowest execution of a group, and the group's errors."""

    statement: str
    seconds: float
    parameters: Any = None  # kept only on request
    errors: dict[str, int] = field(default_factory=dict)  # their number by class


class Moment(NamedTuple):
    """One execution as it is stored: the number of its group, and its figures."""

    group: int
    started: float
    seconds: float
    fetching: float
    rows: int
    fetched: int
    failed: bool


class Log:
    """Executions folded into columns: about 45 bytes each, plus one text per group."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._fresh: list[Query] = []
        self._numbers: dict[StatementKey, int] = {}
        self._sites: dict[tuple[Any, ...], tuple[StatementKey, CodeType | None]] = {}
        self.examples: list[Example] = []
        self._group, self._failed = array("L"), array("B")
        self._started, self._seconds, self._fetching = array("d"), array("d"), array("d")
        self._rows, self._fetched = array("q"), array("q")

    def add(self, query: Query) -> None:
        """Add an execution, which may still be updated as its rows are fetched.

        A long statement is folded immediately, because thousands of them would take gigabytes.
        """
        fresh = self._fresh
        fresh.append(query)
        if len(fresh) >= _CHUNK or len(query.statement) > LONG:
            self.fold()

    def fold(self, *, everything: bool = False) -> None:
        """Fold ended executions into columns; with `everything`, also those still running."""
        with self._lock:
            count = len(self._fresh)
            taken = self._fresh[:count]
            del self._fresh[:count]  # another thread may have appended more
            running = [] if everything else [query for query in taken if query.running]
            # Cursors that are never closed must not be checked forever.
            kept = set(map(id, running[-_CHUNK // 2 :]))
            for query in taken:
                if id(query) not in kept:
                    self._keep(query)
            self._fresh[:0] = running[-_CHUNK // 2 :] if kept else []

    def __len__(self) -> int:
        return len(self._started) + len(self._fresh)

    @property
    def keys(self) -> list[StatementKey]:
        """Return the groups, ordered by number."""
        return list(self._numbers)

    def moments(self) -> Iterator[Moment]:
        """Yield the folded executions in the order they ended; recording may continue meanwhile."""
        columns = (self._group, self._started, self._seconds, self._fetching)
        more = (self._rows, self._fetched, self._failed)
        count = len(self._failed)  # filled last, so the others have at least as many
        for group, started, seconds, fetching, rows, fetched, failed in islice(
            zip(*columns, *more, strict=False), count
        ):
            yield Moment(group, started, seconds, fetching, rows, fetched, bool(failed))

    def _keep(self, query: Query) -> None:
        key = self._key(query)
        number = self._numbers.setdefault(key, len(self._numbers))
        if number == len(self.examples):
            self.examples.append(Example(query.statement, -1.0))
        example = self.examples[number]
        if query.seconds > example.seconds:
            example.statement, example.seconds = query.statement, query.seconds
            example.parameters = query.parameters
        if query.error:
            example.errors[query.error] = example.errors.get(query.error, 0) + 1
        self._group.append(number)
        self._started.append(query.started)
        self._seconds.append(query.seconds)
        self._fetching.append(query.fetching)
        self._rows.append(max(query.rows, query.fetched))
        self._fetched.append(query.fetched)
        self._failed.append(bool(query.error))

    def _key(self, query: Query) -> StatementKey:
        code, instruction, lazy = query.site
        # By ID, because hashing code objects is slow; stored ones stay alive and keep their IDs.
        short = (query.statement, id(code), instruction, lazy)
        found = self._sites.get(short)
        if found is None:
            place = (code.co_filename, line_of(query.site), code.co_qualname) if code else _NOWHERE
            key = StatementKey(fingerprint(query.statement), *place, lazy)
            if key not in self._numbers and len(self._numbers) >= _KINDS:
                key = key._replace(fingerprint=OTHERS)
            found = key, code
            if len(self._sites) >= _CHUNK:  # literals make their number unbounded
                self._sites.clear()
            if len(query.statement) <= LONG:
                self._sites[short] = found
        return found[0]


def fingerprint(statement: str) -> str:
    """Return a statement with values as ``?``, lists as ``(...)``, and gaps as single spaces."""
    # Thousands of short texts are cached, but few long ones: a batch can be a megabyte.
    return _of_short(statement) if len(statement) <= LONG else _of_long(statement)


def _fingerprint(statement: str) -> str:
    text = "".join(_pieces(statement))
    text = _IN.sub(r"\1 (...)", text)
    text = _ARRAY.sub(r"\1[...]", text)
    text = _VALUES.sub(r"\1 (...)", text)
    return _SAVEPOINT.sub("sa_savepoint_N", text).rstrip("; ")


_of_short = lru_cache(maxsize=4_096)(_fingerprint)
_of_long = lru_cache(maxsize=16)(_fingerprint)


def _pieces(statement: str) -> Iterator[str]:
    """Yield the tokens of a statement, with a space where one belongs between them."""
    before, gap, follows = "", False, False
    for kind, text, _start in tokens(statement, placeholders=True):
        if kind == "gap":
            gap = True
            continue
        token = "?" if kind == "value" else text
        operates = kind == "sign" and text in _OPERATORS
        # Spaces around an operator are a matter of style; between two signs they separate them.
        apart = gap or operates is not follows
        is_spaced = apart and before and before not in _TIGHT_AFTER and token not in _TIGHT_BEFORE
        if before == "," or is_spaced:
            yield " "
        yield token
        before, gap, follows = token, False, operates


class Part(NamedTuple):
    """A statement of a script, without a semicolon, and the number of its first line."""

    line: int
    statement: str


def split_statements(text: str) -> list[Part]:
    """Return the statements of a script, without the semicolons between them."""
    found: list[tuple[int, int]] = []
    start = depth = 0
    for _kind, sign, position in tokens(text, placeholders=True):
        depth = max(0, depth + _NESTING.get(sign, 0))  # a rule may have several in parentheses
        if sign == ";" and not depth:
            found.append((start, position))
            start = position + 1
    found.append((start, len(text)))
    return [_part(text, *ends) for ends in found if fingerprint(text[slice(*ends)])]


def _part(text: str, start: int, end: int) -> Part:
    statement = text[start:end]
    begin = start + len(statement) - len(statement.lstrip())
    return Part(text.count("\n", 0, begin) + 1, statement.strip())


class TransactionOutcome(IntEnum):
    """The outcome of a transaction or a savepoint."""

    OPEN = 0  # when the recording ended
    COMMITTED = 1  # or released
    ROLLED_BACK = 2
    FAILED = 3  # the commit or rollback itself failed
    CLOSED = 4  # the connection was closed before it ended


class Span(NamedTuple):
    """A transaction, or a savepoint in one."""

    transaction: int
    depth: int
    started: float
    seconds: float
    outcome: TransactionOutcome


class Times:
    """The count and total duration of an event; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count, self.failed, self.total = 0, 0, 0.0

    def add(self, started: float, *, failed: bool = False) -> None:
        """Add one event, which ended now."""
        seconds = perf_counter() - started
        with self._lock:
            self.count += 1
            self.total += seconds
            self.failed += failed

    def __len__(self) -> int:
        return self.count


@dataclass
class _Opened:
    number: int
    began: list[float]
    names: list[str] = field(default_factory=list)


class Transactions:
    """The transactions of all connections, identified by connection ID; thread-safe.

    Ended ones are stored in columns, at about 27 bytes each.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, _Opened] = {}
        self.begun = 0
        self._number, self._depth, self._outcome = array("L"), array("H"), array("B")
        self._started, self._seconds = array("d"), array("d")

    def begin(self, connection: int) -> None:
        """Record the beginning of a transaction."""
        with self._lock:
            self._end(connection, TransactionOutcome.CLOSED)  # if the ID of a closed one is reused
            self._open[connection] = _Opened(self.begun, [perf_counter()])
            self.begun += 1

    def is_open(self, connection: int) -> bool:
        """Return True if the connection has a recorded transaction open."""
        return connection in self._open

    def end(self, connection: int, outcome: TransactionOutcome) -> None:
        """Record the end of a transaction and its savepoints; do nothing if there is none."""
        with self._lock:
            self._end(connection, outcome)

    def save(self, connection: int, name: str) -> None:
        """Record a new savepoint."""
        with self._lock:
            if opened := self._open.get(connection):
                opened.began.append(perf_counter())
                opened.names.append(name)

    def leave(self, connection: int, name: str, outcome: TransactionOutcome) -> None:
        """Record the release of, or rollback to, a savepoint, which also ends later ones."""
        with self._lock:
            opened = self._open.get(connection)
            if opened is None or name not in opened.names:
                return
            now, left = perf_counter(), ""
            while left != name:
                self._keep(opened, now, outcome)
                left = opened.names.pop()

    def stop(self) -> None:
        """Stop recording, and mark what is open as `TransactionOutcome.OPEN`."""
        with self._lock:
            for connection in list(self._open):
                self._end(connection, TransactionOutcome.OPEN)

    def __len__(self) -> int:
        return len(self._number)

    def spans(self) -> Iterator[Span]:
        """Yield what has ended, savepoints before their transactions; recording may continue."""
        columns = (self._number, self._depth, self._started, self._seconds, self._outcome)
        count = len(self._outcome)  # filled last, so the others have at least as many
        for number, depth, started, seconds, outcome in islice(zip(*columns, strict=False), count):
            yield Span(number, depth, started, seconds, TransactionOutcome(outcome))

    def _end(self, connection: int, outcome: TransactionOutcome) -> None:
        opened, now = self._open.pop(connection, None), perf_counter()
        while opened is not None and opened.began:
            self._keep(opened, now, outcome)

    def _keep(self, opened: _Opened, now: float, outcome: TransactionOutcome) -> None:
        """Store the innermost open span, which has ended."""
        started = opened.began.pop()
        self._number.append(opened.number)
        self._depth.append(len(opened.began))
        self._started.append(started)
        self._seconds.append(now - started)
        self._outcome.append(outcome)


@dataclass(eq=False)
class SqlRecording:
    """The recorded work of one engine, or of several, between two times of `perf_counter`."""

    log: Log = field(default_factory=Log)
    waits: Times = field(default_factory=Times)  # for connections
    commits: Times = field(default_factory=Times)
    rollbacks: Times = field(default_factory=Times)
    transactions: Transactions = field(default_factory=Transactions)
    began: float = field(default_factory=perf_counter)
    ended: float = 0.0  # it continues

    @property
    def seconds(self) -> float:
        """Return the duration of the recording so far."""
        return (self.ended or perf_counter()) - self.began
