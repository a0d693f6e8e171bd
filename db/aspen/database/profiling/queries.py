"""Recorded executions by fingerprint: recent ones as objects, all others in compact columns.

A fingerprint is a statement's text without literals, comments, and lengths of lists. It is made by
a tokenizer for PostgreSQL's lexical rules, not a parser: it must accept whatever the server is
sent, including incomplete statements and those for later versions, and never fail.
"""

from __future__ import annotations

import re
import threading
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from types import CodeType
from typing import Any, NamedTuple

from aspen.database.profiling.callers import Lazy, Site, line_of

_TOKEN = re.compile(
    r"""
    (?P<gap>\s+|--[^\n]*)
  | (?P<comment>/\*)
  | (?P<value>
        [eE]'(?:[^'\\]++|\\.|'')*+'?           # '' stands for a quote, and so does \'
      | (?:[bBxXnN]|[uU]&)?'(?:[^']++|'')*+'?
      | \$(?P<tag>[A-Za-z_\x80-\uffff][\w\x80-\uffff]*|)\$.*?(?:\$(?P=tag)\$|\Z)
      | %\([^)]*\)s | %s | \$\d+              # placeholders of the drivers
      | (?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?
    )
  | (?P<name>"(?:[^"]++|"")*+"?|[^\W\d][\w$]*)
  | (?P<sign>::|[(),;]|.)
    """,
    re.VERBOSE | re.DOTALL,
)
LONG = 8_192
"""Length in characters; longer statements are cached for a short time only."""
_BOUNDARY = re.compile(r"/\*|\*/")
_CAST = r"(?:::[\w.]+(?:\ [A-Z]+)*(?:\(\?(?:,\ \?)*\))?(?:\[\])*)?"
_ITEM = rf"(?:\?|NULL|DEFAULT|TRUE|FALSE){_CAST}"
_LIST = rf"\({_ITEM}(?:,\ {_ITEM})*\)"
_IN = re.compile(rf"\b(IN)\ {_LIST}", re.IGNORECASE)
_ARRAY = re.compile(rf"\b(ARRAY)\ ?\[{_ITEM}(?:,\ {_ITEM})*\]", re.IGNORECASE)
_VALUES = re.compile(rf"\b(VALUES)\ {_LIST}(?:,\ {_LIST})*", re.IGNORECASE)
_SAVEPOINT = re.compile(r"\bsa_savepoint_\d+\b")
_TIGHT_BEFORE = frozenset("),;.]")
_TIGHT_AFTER = frozenset("(.[")
_CHUNK = 8_192
_KINDS = 10_000
OTHERS = "(other statements: too many to distinguish)"
"""The fingerprint of statements beyond the maximum number of distinct kinds."""
_NOWHERE = ("", 0, "")


class Query:
    """One execution.

    Attributes:
        statement: The SQL as passed to the driver.
        site: The code that caused it.
        started: The start time (``time.perf_counter``).
        seconds: The execution time in the driver.
        fetching: The time spent fetching its rows, in seconds.
        rows: The number of rows reported by the server; -1 if it reported none.
        fetched: The number of rows fetched.
        error: The class of the exception; "" for none.
        many: The number of parameter sets; 1 for a plain execution.
        parameters: The parameters, kept only on request.
        running: Whether rows can still be fetched.
    """

    __slots__ = (
        "error",
        "fetched",
        "fetching",
        "many",
        "parameters",
        "rows",
        "running",
        "seconds",
        "site",
        "started",
        "statement",
    )

    def __init__(
        self,
        statement: str,
        site: Site,
        started: float,
        seconds: float,
        rows: int,
        error: str,
        many: int,
        parameters: Any,
    ):
        self.statement = statement
        self.site = site
        self.started = started
        self.seconds = seconds
        self.fetching = 0.0
        self.rows = rows
        self.fetched = 0
        self.error = error
        self.many = many
        self.parameters = parameters
        self.running = not error


class Key(NamedTuple):
    """The key of a group of executions: the same fingerprint from the same line."""

    fingerprint: str
    file: str
    line: int
    function: str
    lazy: Lazy | None


@dataclass
class Example:
    """The slowest execution of a group.

    Attributes:
        statement: The SQL as passed to the driver.
        seconds: The execution time.
        parameters: The parameters, kept only on request.
        errors: The number of errors in the group, by class.
    """

    statement: str
    seconds: float
    parameters: Any = None
    errors: dict[str, int] = field(default_factory=dict)


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
        self._numbers: dict[Key, int] = {}
        self._sites: dict[tuple[Any, ...], tuple[Key, CodeType | None]] = {}
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
    def keys(self) -> list[Key]:
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

    def _key(self, query: Query) -> Key:
        code, instruction, lazy = query.site
        # By ID, because hashing code objects is slow; stored ones stay alive and keep their IDs.
        short = (query.statement, id(code), instruction, lazy)
        found = self._sites.get(short)
        if found is None:
            place = (code.co_filename, line_of(query.site), code.co_qualname) if code else _NOWHERE
            key = Key(fingerprint(query.statement), *place, lazy)
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
    text = _joined(_tokens(statement))
    text = _IN.sub(r"\1 (...)", text)
    text = _ARRAY.sub(r"\1[...]", text)
    text = _VALUES.sub(r"\1 (...)", text)
    return _SAVEPOINT.sub("sa_savepoint_N", text).rstrip("; ")


_of_short = lru_cache(maxsize=4_096)(_fingerprint)
_of_long = lru_cache(maxsize=16)(_fingerprint)


def _tokens(statement: str) -> list[tuple[str, bool]]:
    """Return each token, and whether there is a gap before it."""
    found: list[tuple[str, bool]] = []
    position, gap = 0, False
    while match := _TOKEN.match(statement, position):
        position = match.end()
        kind = match.lastgroup if match.lastgroup != "tag" else "value"
        if kind == "comment":
            position, gap = _end_of_comment(statement, position), True
        elif kind == "gap":
            gap = True
        else:
            found.append(("?" if kind == "value" else match[0], gap))
            gap = False
    return found


def _end_of_comment(statement: str, position: int) -> int:
    """Return the end of a comment that began before the position; comments nest."""
    depth = 1
    while depth and (mark := _BOUNDARY.search(statement, position)):
        depth += 1 if mark[0] == "/*" else -1
        position = mark.end()
    return len(statement) if depth else position


def _joined(tokens: list[tuple[str, bool]]) -> str:
    parts: list[str] = []
    before = ""
    for token, gap in tokens:
        if before == "," or (
            gap and before not in _TIGHT_AFTER and before and token not in _TIGHT_BEFORE
        ):
            parts.append(" ")
        parts.append(token)
        before = token
    return "".join(parts)


class Part(NamedTuple):
    """A statement of a script.

    Attributes:
        line: The number of its first line.
        statement: The text, without a semicolon.
    """

    line: int
    statement: str


def split_statements(text: str) -> list[Part]:
    """Return the statements of a script, without the semicolons between them."""
    found: list[tuple[int, int]] = []
    start = position = 0
    while match := _TOKEN.match(text, position):
        position = match.end()
        if match.lastgroup == "comment":
            position = _end_of_comment(text, position)
        elif match[0] == ";":
            found.append((start, match.start()))
            start = position
    found.append((start, len(text)))
    return [_part(text, *ends) for ends in found if fingerprint(text[slice(*ends)])]


def _part(text: str, start: int, end: int) -> Part:
    statement = text[start:end]
    begin = start + len(statement) - len(statement.lstrip())
    return Part(text.count("\n", 0, begin) + 1, statement.strip())
