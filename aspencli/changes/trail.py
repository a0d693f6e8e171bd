"""The audit trail of a target: a chain of entries in a bucket, to which operators only append.

Each entry is an object with one event of a run. It names the SHA-256 of the entry before it, so
none can be changed, removed, or inserted unnoticed. The key of an entry follows from its number,
and an object is created only if its key is free: of several operators who append at once, one gets
the number, and the others try the next one. Keys count down, because S3 lists keys in ascending
order, and the newest entries are wanted first.

An entry also names the runs of the entries right before it, so that the entries of a run are found
without reading all of them.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple, Protocol

from aspencli.changes.runs import Event, Outcome, Run, is_event, runs_of
from aspencli.errors import AspenError, UnreachableError

VERSION = 1
RECENT = 64  # entries that each entry names
_MOST = 999_999_999_999  # entries
_NAME = re.compile(r"(?P<left>\d{12})\.json")
_AT_ONCE = 16  # objects to read at the same time
_PART = 64  # objects to keep in memory
_TRIES = 100  # to append; each failure is the success of another operator
_DAY = dt.timedelta(days=1)  # by which the clocks of operators may differ
_PAGE = 1_000


class Objects(Protocol):
    """Objects that are created once: `aspencli.deployments.bucket.Bucket`."""

    def create(self, key: str, body: bytes) -> bool:
        """Create an object, and return False if the key exists."""

    def read(self, key: str) -> bytes | None:
        """Return the content of an object, or None if it does not exist."""

    def keys(self, prefix: str, *, after: str = "", most: int = _PAGE) -> list[str]:
        """Return keys that begin with a prefix, in order, from the first one after a key."""


class Mention(NamedTuple):
    """The run and the kind of event of an entry."""

    run: str
    event: str


@dataclass(frozen=True)
class Entry:
    """One object of the trail, readable or not."""

    number: int  # by its key; the first one is 1
    body: bytes = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        """Return the SHA-256 of the object."""
        return hashlib.sha256(self.body).hexdigest()

    @cached_property
    def _content(self) -> Mapping[str, Any]:
        try:
            found = json.loads(self.body)
        except ValueError:
            found = None
        return found if isinstance(found, dict) else {}

    @property
    def stated_number(self) -> object:
        """Return the number that the content states."""
        return self._content.get("number")

    @property
    def previous(self) -> object:
        """Return the SHA-256 of the entry before it, as the content states it."""
        return self._content.get("previous")

    @property
    def event(self) -> Event | None:
        """Return the event, or None if it cannot be read."""
        event = self._content.get("event")
        return event if is_event(event) else None

    @property
    def written(self) -> dt.datetime | None:
        """Return when it was written, by the clock of its operator."""
        try:
            found = dt.datetime.fromisoformat(self._content["written"])
        except (KeyError, TypeError, ValueError):
            return None
        return found if found.tzinfo else None

    @cached_property
    def recent(self) -> tuple[Mention, ...]:
        """Return the mentions of the entries before it, the last one last."""
        found = self._content.get("recent")
        try:
            return tuple(Mention(str(run), str(event)) for run, event in found or ())
        except (TypeError, ValueError):
            return ()

    @property
    def mention(self) -> Mention:
        """Return its run and the kind of its event."""
        event = self.event
        return Mention(event["run"], event["event"]) if event else Mention("", "")

    @property
    def mentioned(self) -> list[tuple[int, Mention]]:
        """Return mentions of itself and of entries before it, by number, the newest first."""
        found = [*self.recent, self.mention]
        return [(self.number - back, each) for back, each in enumerate(reversed(found))]


def entry_after(last: Entry | None, event: Event) -> Entry:
    """Return the entry for an event that follows another entry."""
    number = last.number + 1 if last else 1
    content = {
        "v": VERSION,
        "number": number,
        "previous": last.sha256 if last else None,
        "written": dt.datetime.now(dt.UTC).isoformat(),
        "event": event,
        "recent": [*last.recent, last.mention][-RECENT:] if last else [],
    }
    return Entry(number, json.dumps(content).encode("ascii"))


class Trail:
    """The entries of a target.

    Args:
        objects: The bucket.
        prefix: What the keys begin with.
    """

    def __init__(self, objects: Objects, prefix: str):
        self._objects = objects
        self.prefix = prefix

    def key(self, number: int) -> str:
        """Return the key of an entry."""
        return f"{self.prefix}{_MOST - number:012d}.json"

    def number_of(self, key: str) -> int | None:
        """Return the number of the entry with a key, or None if it is not a key of an entry."""
        found = _NAME.fullmatch(key.removeprefix(self.prefix))
        return _MOST - int(found["left"]) if found and int(found["left"]) < _MOST else None

    def read(self, number: int) -> Entry | None:
        """Return an entry, or None if it does not exist.

        Raises:
            AspenError: The bucket cannot be read.
        """
        body = self._objects.read(self.key(number))
        return None if body is None else Entry(number, body)

    def head(self) -> Entry | None:
        """Return the newest entry, or None if there is none.

        Raises:
            AspenError: The bucket cannot be read.
        """
        number = next(self._numbers(most=1), None)
        return None if number is None else self.read(number)

    def append(self, event: Event, last: Entry | None) -> Entry:
        """Append an event, and return its entry.

        Args:
            event: The event.
            last: The newest entry, as far as known.

        Raises:
            AspenError: It cannot be written.
        """
        for _ in range(_TRIES):
            entry = entry_after(last, event)
            if self._create(entry):
                return entry
            last = self.head()
        raise UnreachableError(
            "Too many operators are writing to the audit trail at once.", hint="Try again."
        )

    def _create(self, entry: Entry) -> bool:
        """Create an entry, and return False if its number is taken by another one."""
        try:
            if self._objects.create(self.key(entry.number), entry.body):
                return True
        except UnreachableError:
            # Perhaps only the answer was lost.
            with suppress(AspenError):
                if self._holds(entry):
                    return True
            raise
        return self._holds(entry)  # the client may have repeated a request that had succeeded

    def _holds(self, entry: Entry) -> bool:
        found = self.read(entry.number)
        return found is not None and found.body == entry.body

    def sent_before(self, event: Event, last: Entry | None) -> Entry | None:
        """Return the entry with an event if it is one of the newest, or None.

        Args:
            event: The event.
            last: The newest entry.

        Raises:
            AspenError: The bucket cannot be read.
        """
        wanted = Mention(event["run"], event["event"])
        numbers = [number for number, each in last.mentioned if each == wanted] if last else []
        return next((entry for entry in self._read_all(numbers) if entry.event == event), None)

    def newest(self) -> Iterator[Entry]:
        """Yield all entries, the newest first, reading little more than is used.

        Raises:
            AspenError: The bucket cannot be read.
        """
        size = 4
        numbers = self._numbers()
        while some := list(islice(numbers, size)):
            yield from self._read_all(some)
            size = min(_AT_ONCE, size * 2)

    def find(self, wanted: str) -> list[Event]:
        """Return the events of the runs whose IDs begin with a text, the oldest first.

        Raises:
            AspenError: The bucket cannot be read.
        """
        since = _start_of(wanted)
        numbers: list[int] = []
        page = self.head()
        while page is not None:
            numbers += [at for at, each in page.mentioned if each.run.startswith(wanted)]
            below = page.number - 1 - len(page.recent)
            is_before = since and page.written and page.written < since - _DAY
            page = None if below < 1 or is_before else self._read_below(below)
        found = [entry.event for entry in self._read_all(sorted(set(numbers)))]
        return [event for event in found if event]

    def _read_below(self, number: int) -> Entry | None:
        """Return an entry, or the next older one if it is missing."""
        if (found := self.read(number)) is not None:
            return found
        older = next(self._numbers(most=1, below=number), None)
        return None if older is None else self.read(older)

    def _numbers(self, *, most: int = _PAGE, below: int | None = None) -> Iterator[int]:
        """Yield the numbers of all entries, the newest first."""
        for key in self._keys(most=most, below=below):
            if (number := self.number_of(key)) is not None:
                yield number

    def _keys(self, *, most: int = _PAGE, below: int | None = None) -> Iterator[str]:
        after = "" if below is None else self.key(below)
        while keys := self._objects.keys(self.prefix, after=after, most=most):
            yield from keys
            if len(keys) < most:
                return
            after = keys[-1]

    def _read_all(self, numbers: Iterable[int]) -> Iterator[Entry]:
        """Yield entries that exist, several of which are read at the same time."""
        wanted = list(numbers)
        if len(wanted) <= 1:
            found: Iterable[Entry | None] = map(self.read, wanted)
            yield from filter(None, found)
            return
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for start in range(0, len(wanted), _PART):
                yield from filter(None, pool.map(self.read, wanted[start : start + _PART]))

    # Verification

    def verify(
        self, known: Mapping[int, str], tick: Callable[[int], None] = lambda _done: None
    ) -> Verified:
        """Read all entries, and return what is wrong with the chain.

        Args:
            known: The SHA-256 of entries that are known from elsewhere, by number.
            tick: Called with the number of entries read so far.

        Raises:
            AspenError: The bucket cannot be read.
        """
        numbers: list[int] = []
        faults: list[Fault] = []
        for key in self._keys():
            if (number := self.number_of(key)) is None:
                name = key.removeprefix(self.prefix)
                faults.append(Fault(None, "", f"added: {name} is not the name of an entry"))
            else:
                numbers.append(number)
        numbers.reverse()
        faults += _missing(numbers, max([*numbers[-1:], *known], default=0))
        links: dict[int, Link] = {}
        for count, entry in enumerate(self._read_all(numbers), start=1):
            links[entry.number] = _link(entry)
            if (reason := _own_fault(entry, known)) is not None:
                faults.append(Fault(entry.number, entry.mention.run, reason))
            tick(count)
        reported = {fault.number for fault in faults}
        for fault in _broken(links, known):
            if fault.number not in reported:
                faults.append(fault)
                reported.add(fault.number)
        faults.sort(key=lambda fault: (fault.number or 0, fault.reason))
        return Verified(links, faults)


class Link(NamedTuple):
    """One entry of the chain, without its content."""

    sha256: str
    previous: object
    mention: Mention
    log: str | None  # the journal of the operator's machine, if the entry begins a run


class Fault(NamedTuple):
    """Something that is wrong with the chain."""

    number: int | None  # of the entry; None for another object
    run: str
    reason: str


@dataclass(frozen=True)
class Verified:
    """The result of reading the whole chain."""

    links: Mapping[int, Link]  # the entries, by number
    faults: list[Fault]


def _missing(numbers: list[int], highest: int) -> Iterator[Fault]:
    """Yield the gaps between the numbers, each of several entries as one."""
    expected = 1
    for number in [*numbers, highest + 1]:
        if number > expected:
            more = f" (to {number - 1:,})" if number - 1 > expected else ""
            yield Fault(expected, "", f"missing{more}")
        expected = max(expected, number + 1)


def _link(entry: Entry) -> Link:
    log = (entry.event or {}).get("log")
    log = log if isinstance(log, str) else None
    return Link(entry.sha256, entry.previous, entry.mention, log)


def _own_fault(entry: Entry, known: Mapping[int, str]) -> str | None:
    """Return what is wrong with an entry, whatever comes before and after it."""
    if known.get(entry.number, entry.sha256) != entry.sha256:
        return "edited: this machine wrote another one"
    if entry.event is None or entry.stated_number != entry.number:
        return "edited, or added by hand: its content is not that of this entry"
    return None


def _broken(links: Mapping[int, Link], known: Mapping[int, str]) -> Iterator[Fault]:
    """Yield the entries that do not fit together."""
    fits = {
        number: links[number + 1].previous == link.sha256
        for number, link in links.items()
        if number + 1 in links
    }
    if 1 in links and links[1].previous is not None:
        yield Fault(1, links[1].mention.run, "edited: no entry comes before it")
    for number in sorted(number for number, is_fit in fits.items() if not is_fit):
        here, following = links[number], links[number + 1]
        if known.get(number) == here.sha256:
            reason = f"edited, or added by hand: it does not follow entry {number:,}"
            yield Fault(number + 1, following.mention.run, reason)
        elif fits.get(number + 1) or known.get(number + 1) == following.sha256:
            reason = f"edited: entry {number + 1:,} follows another one"
            yield Fault(number, here.mention.run, reason)
        else:
            reason = f"edited, or entry {number + 1:,} was edited or added by hand"
            yield Fault(number, here.mention.run, reason)


def _start_of(wanted: str) -> dt.datetime | None:
    """Return the day of a run ID, or None if its beginning does not say."""
    try:
        return dt.datetime.strptime(wanted[:8], "%Y%m%d").replace(tzinfo=dt.UTC)
    except ValueError:
        return None


def newest_runs(trail: Trail, warn: Callable[[str], None]) -> Iterator[Run]:
    """Yield the runs of all operators, the newest first, reading little more than is used.

    Args:
        trail: The trail.
        warn: Called with a message about each entry that cannot be read.

    Raises:
        AspenError: The bucket cannot be read.
    """
    later: dict[str, list[Event]] = {}  # of runs whose first entry comes next
    undone: dict[str, list[str]] = {}
    for entry in trail.newest():
        if (event := entry.event) is None:
            warn(f"Skipped entry {entry.number:,} of the audit trail, which cannot be read.")
            continue
        key = event["run"]
        later.setdefault(key, []).append(event)
        if event["event"] != "started":
            continue
        for run in runs_of(reversed(later.pop(key))):
            if run.undo_of and run.outcome is Outcome.WRITTEN:
                undone.setdefault(run.undo_of, []).append(key)
            yield replace(run, undone_by=tuple(undone.pop(key, ())))
