"""What was recorded: each execution while it is fresh, and all of them in little memory."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from types import CodeType
from typing import Any, NamedTuple

from db.profiling.callers import Lazy, Site, line_of
from db.profiling.fingerprints import LONG, fingerprint

_CHUNK = 8_192
_KINDS = 10_000
OTHERS = "(statements of more kinds than are told apart)"
"""The fingerprint of what came after so many kinds that no person reads them."""
_NOWHERE = ("", 0, "")


class Query:
    """One execution.

    Attributes:
        statement: The SQL as the driver got it.
        site: What caused it.
        started: When (``time.perf_counter``).
        seconds: How long the driver took to execute it.
        fetching: How long fetching its rows took, in seconds.
        rows: How many rows the server told of; -1 where it told of none.
        fetched: How many rows were fetched.
        error: The class of what was raised; "" for none.
        many: How many sets of parameters it ran with; 1 for a plain one.
        parameters: Kept only where they were asked for.
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
    """What makes executions one group: the same fingerprint from the same line."""

    fingerprint: str
    file: str
    line: int
    function: str
    lazy: Lazy | None


@dataclass
class Example:
    """The slowest execution of a group.

    Attributes:
        statement: The SQL as the driver got it.
        seconds: What it took.
        parameters: Its parameters, where they were asked for.
        errors: The classes of the errors of the group, counted.
    """

    statement: str
    seconds: float
    parameters: Any = None
    errors: dict[str, int] = field(default_factory=dict)


class Moment(NamedTuple):
    """One execution, as it is kept: the number of its group, and what it took."""

    group: int
    started: float
    seconds: float
    fetching: float
    rows: int
    fetched: int
    failed: bool


class Log:
    """Executions folded into columns: some 45 bytes each, and a text a group."""

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
        """Keep one execution; its fetches may still be told to it.

        A long statement does not wait for others, for thousands of them would be gigabytes.
        """
        fresh = self._fresh
        fresh.append(query)
        if len(fresh) >= _CHUNK or len(query.statement) > LONG:
            self.fold()

    def fold(self, *, everything: bool = False) -> None:
        """Put into columns what has ended; also what has not, when everything is wanted."""
        with self._lock:
            count = len(self._fresh)
            taken = self._fresh[:count]
            del self._fresh[:count]  # another thread may have added some behind them
            running = [] if everything else [query for query in taken if query.running]
            # Cursors that nobody closes must not be looked at for ever.
            kept = set(map(id, running[-_CHUNK // 2 :]))
            for query in taken:
                if id(query) not in kept:
                    self._keep(query)
            self._fresh[:0] = running[-_CHUNK // 2 :] if kept else []

    def __len__(self) -> int:
        return len(self._started) + len(self._fresh)

    @property
    def keys(self) -> list[Key]:
        """The groups, by their numbers."""
        return list(self._numbers)

    def moments(self) -> Iterator[Moment]:
        """Everything that is folded, in the order in which it ended; others may go on recording."""
        columns = (self._group, self._started, self._seconds, self._fetching)
        more = (self._rows, self._fetched, self._failed)
        count = len(self._failed)  # filled last, so the others have as many
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
        # By its id, for hashing code is slow; what is kept stays alive, and so keeps its id.
        short = (query.statement, id(code), instruction, lazy)
        found = self._sites.get(short)
        if found is None:
            place = (code.co_filename, line_of(query.site), code.co_qualname) if code else _NOWHERE
            key = Key(fingerprint(query.statement), *place, lazy)
            if key not in self._numbers and len(self._numbers) >= _KINDS:
                key = key._replace(fingerprint=OTHERS)
            found = key, code
            if len(self._sites) >= _CHUNK:  # statements with literals in them never end
                self._sites.clear()
            if len(query.statement) <= LONG:
                self._sites[short] = found
        return found[0]
