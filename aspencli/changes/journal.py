"""The history of runs: the journal that all processes append to, and the record of one run.

The journal has one event per line, appended and flushed to disk, never changed. A line is a JSON
object with ``v`` (the format version), ``event``, ``run``, and ``at``. Readers ignore anything they
do not know, so that both older and newer journals stay readable.

Checksums show if a line was edited, added, or removed. The last keys of a line are ``after``, the
checksum of the line before it, and ``seal``, the checksum of the line itself up to there. Lines
that older versions wrote have neither.
"""

from __future__ import annotations

import datetime as dt
import errno
import fcntl
import hashlib
import io
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, Self

from aspen.database.errors import OutcomeUnknownError
from aspen.database.settings import first_text
from aspencli import __version__, files
from aspencli.changes.runs import Event, Outcome, Place, Subject, is_event
from aspencli.errors import AspenError, BadInputError, RefusedError
from aspencli.machine import this_process, this_user

if TYPE_CHECKING:
    from sqlalchemy.engine import URL
    from sqlalchemy.exc import DBAPIError

    from aspen.database.engine import DatabaseIdentity

VERSION = 1
_NAME = "journal.jsonl"
_IF_KNOWN = ("argv", "digest", "account", "account_id", "account_name", "reason", "assistant")
_RECENT = 1 << 16  # bytes to search for a run ID
_BLOCK = 1 << 16  # bytes to read at once from the end
_FIRST = "started"
_BEGINNINGS = (_FIRST, "resumed")
_PRUNED = "pruned"
_FIRST_LINE = json.dumps({"v": VERSION, "event": _FIRST}).rstrip("}").encode()
_SEALS = ("after", "seal")  # the keys at the end of a line
_SEAL_LENGTH = 32  # hexadecimal digits of SHA-256
_SEAL = re.compile(
    rb'(?s)(?P<body>.*, "after": "(?P<after>[0-9a-f]*)"), "seal": "(?P<seal>[0-9a-f]+)"\}\n?'
)


@dataclass(frozen=True)
class LineFault:
    """A line of the journal that is not as it was written, or not where it was written."""

    line: int
    run: str  # empty if the line does not say
    reason: str


@dataclass(frozen=True)
class JournalEvents:
    """The contents of a journal."""

    events: tuple[Event, ...]  # oldest first
    # the numbers of lines that cannot be parsed, such as one cut short by a crash
    torn: tuple[int, ...]


class Journal:
    """The file to which all processes of this machine's operator append."""

    def __init__(self, folder: Path):
        self.path = folder / _NAME

    def append(self, event: Event, *, begins: bool = False) -> bool:
        """Append an event, and return once it is safely on disk.

        Return False, and write nothing, if it begins a run whose ID is already taken.

        Raises:
            OSError: The event cannot be written; the journal is unchanged.
        """
        # In ASCII, neither a line separator nor a name that is not UTF-8 can break the line.
        text = json.dumps({"v": VERSION, **event}).encode("ascii")
        self._make_folder()
        descriptor = self._open_locked()
        try:
            size = os.fstat(descriptor).st_size
            if begins and _is_taken(descriptor, size, event["run"]):
                return False
            line = _sealed(text, _last_seal(descriptor, size)) + b"\n"
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # keep a line cut short by a crash separate
            self._write(descriptor, line, size)
            if not size:
                files.sync_folder(self.path.parent)
        finally:
            os.close(descriptor)
        return True

    @cached_property
    def id(self) -> str:
        """Return an ID that tells this journal from those of other machines and accounts.

        Raises:
            OSError: It cannot be read or written.
        """
        path = self.path.with_name("id")
        with suppress(FileNotFoundError):
            return path.read_text().strip()
        self._make_folder()
        descriptor = self._open_locked()  # against a process that creates it at the same moment
        try:
            if not path.exists():
                files.write_whole(path, secrets.token_hex(8))
            return path.read_text().strip()
        finally:
            os.close(descriptor)

    def read(self) -> JournalEvents:
        """Return all events, or none if there is no journal yet.

        Raises:
            OSError: The journal cannot be read.
        """
        events: list[Event] = []
        torn: list[int] = []
        with self._open() as file:
            for number, line in enumerate(file, start=1):
                event = _parse(line)
                if event is None:
                    torn.append(number)
                else:
                    events.append(event)
        return JournalEvents(tuple(events), tuple(torn))

    def read_recent(
        self, runs: int, wanted: Callable[[Event], bool] = lambda _: True
    ) -> JournalEvents:
        """Return the events of the newest runs, without reading the rest of the file.

        A run counts if ``wanted`` returns True for its first event.

        Raises:
            OSError: The journal cannot be read.
        """
        events: list[Event] = []
        torn: list[int] = []
        with self._open() as file:
            for number, line in enumerate(_lines_from_end(file)):
                event = _parse(line)
                if event is None:
                    torn.append(number)
                    continue
                events.append(event)
                if event["event"] == _FIRST and wanted(event):
                    runs -= 1
                    if not runs:
                        break
            if torn:  # rare enough to count all lines for their numbers
                file.seek(0)
                last = sum(1 for _ in file)
                torn = [last - number for number in reversed(torn)]
        return JournalEvents(tuple(reversed(events)), tuple(torn))

    def count_runs(self, wanted: Callable[[Event], bool] | None = None) -> int:
        """Return the number of runs whose first event is ``wanted``.

        All of them, without parsing a line, if that is None.

        Raises:
            OSError: The journal cannot be read.
        """
        with self._open() as file:
            first = (line for line in file if line.startswith(_FIRST_LINE))
            if wanted is None:
                return sum(1 for _ in first)
            return sum(1 for line in first if (event := _parse(line)) and wanted(event))

    def verify(self) -> tuple[int, list[LineFault]]:
        """Return the number of lines, and what is wrong with any of them.

        Raises:
            OSError: The journal cannot be read.
        """
        with self._open() as file:
            events = [(line, _parse(line)) for line in file]
        runs = ((line, None if event is None else event["run"]) for line, event in events)
        return len(events), list(_line_faults(runs))

    def rewrite(self, keep: Callable[[Event], bool], before: dt.datetime) -> None:
        """Replace the journal by the events to keep; lines that cannot be parsed are dropped.

        The first line then says that runs from before that time may be missing. Lines that were
        edited by hand keep their wrong checksums. Other processes that append at the same moment
        wait, and then append to the new file.

        Raises:
            OSError: The new journal cannot be written; the old one is unchanged.
        """
        descriptor = self._open_locked()
        try:
            with open(descriptor, "rb", closefd=False) as old:
                found = [(line, event) for line in old if (event := _parse(line))]
            marks = [str(event.get("before")) for _, event in found if event["event"] == _PRUNED]
            kept = [line for line, event in found if event["event"] != _PRUNED and keep(event)]
            at = dt.datetime.now(dt.UTC).isoformat()
            mark = {"v": VERSION, "event": _PRUNED, "run": "", "at": at}
            since = max([before.astimezone(dt.UTC).isoformat(), *marks])
            first = json.dumps({**mark, "before": since}).encode("ascii")
            files.write_whole(self.path, b"".join(_resealed(first, kept)))
        finally:
            os.close(descriptor)

    def _open(self) -> IO[bytes]:
        """Open the journal to read it, or an empty file if there is none yet."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return io.BytesIO()
        fcntl.flock(file, fcntl.LOCK_SH)  # wait until no line is half written
        return file

    def _open_locked(self) -> int:
        """Return a descriptor of the journal, locked against other writers."""
        while True:
            descriptor = files.open_own(self.path, flags=os.O_RDWR | os.O_APPEND)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), self.path.stat()):
                    return descriptor
            os.close(descriptor)  # `rewrite` replaced the file while this waited for the lock

    def _make_folder(self) -> None:
        folder = self.path.parent
        if not folder.is_dir():
            files.make_folder(folder)
            files.sync_folder(folder.parent)

    def _write(self, descriptor: int, line: bytes, size: int) -> None:
        # A single call, so that other writers append before or after the line but never inside it.
        if os.write(descriptor, line) != len(line):
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        os.fsync(descriptor)


def open_journal() -> Journal:
    """Return the journal of this machine's operator."""
    return Journal(files.state_dir() / "history")


def _lines_from_end(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file, the last one first."""
    end = file.seek(0, os.SEEK_END)
    rest = b""
    while end:
        start = max(0, end - _BLOCK)
        file.seek(start)
        first, *lines = (file.read(end - start) + rest).split(b"\n")
        yield from (line for line in reversed(lines) if line)
        rest, end = first, start
    if rest:
        yield rest


def _last_seal(descriptor: int, size: int) -> str:
    """Return the checksum in the last line that has one, or an empty text."""
    length = _RECENT
    while True:
        start = max(0, size - length)
        # The first line may be incomplete unless it is the first of all.
        lines = os.pread(descriptor, length, start).split(b"\n")[0 if start == 0 else 1 :]
        found = next(filter(None, map(_seal_of, reversed(lines))), None)
        if found is not None or not start:
            return found or ""
        length *= 8  # older versions wrote all of these lines


def _resealed(first: bytes, lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines in a new sequence; those that were edited stay recognizable as such."""
    line = _sealed(first, "") + b"\n"
    yield line
    last, is_old = _seal_of(line), True  # older versions wrote the lines without checksums
    for kept in lines:
        line, stated = kept, _seal_of(kept)
        if (stated is None and is_old) or _is_intact(kept):
            line = _sealed(_unsealed(kept).rstrip(b"\n"), last or "") + b"\n"
        is_old = is_old and stated is None
        last = _seal_of(line) or last
        yield line


def _is_taken(descriptor: int, size: int, run: str) -> bool:
    """Return True if the run ID is taken; IDs are timestamps, so recent events are enough."""
    end = os.pread(descriptor, _RECENT, max(0, size - _RECENT))
    return json.dumps({"run": run}).strip("{}").encode() in end


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:  # invalid JSON or encoding
        return None
    if not is_event(event):
        return None
    for key in _SEALS:
        event.pop(key, None)
    return event


# Checksums of lines


def _sealed(text: bytes, after: str) -> bytes:
    """Return a line of the journal, without a line break, for the text of a JSON object."""
    body = text.removesuffix(b"}") + f', "after": "{after}"'.encode()
    return body + f', "seal": "{_checksum(body)}"}}'.encode()


def _unsealed(line: bytes) -> bytes:
    """Return the text that a line was made from."""
    found = _SEAL.fullmatch(line)
    return line if found is None else found["body"].rpartition(b', "after": ')[0] + b"}"


def _seal_of(line: bytes) -> str | None:
    """Return the checksum that a line states, or None if it has none."""
    found = _SEAL.fullmatch(line)
    return found["seal"].decode() if found else None


def _is_intact(line: bytes) -> bool:
    """Return True if a line is as it was written."""
    found = _SEAL.fullmatch(line)
    return found is not None and found["seal"].decode() == _checksum(found["body"])


def _line_faults(lines: Iterable[tuple[bytes, str | None]]) -> Iterator[LineFault]:
    """Yield what is wrong with lines, given each with its run, or None if it cannot be read.

    An edited line still states its checksum, so only that line is reported.
    """
    last: str | None = None
    for number, (line, run) in enumerate(lines, start=1):
        found = _SEAL.fullmatch(line)
        reason = _fault(line, found, last, is_readable=run is not None)
        if reason is not None:
            yield LineFault(number, run or "", reason)
        if found is not None:
            last = found["seal"].decode()


def _fault(
    line: bytes, found: re.Match[bytes] | None, last: str | None, *, is_readable: bool
) -> str | None:
    if not is_readable:
        return "edited, or cut short by a crash: it cannot be read"
    if found is None:
        added = "added by hand, or by an older aspencli: it has no checksum"
        return None if last is None else added
    if not _is_intact(line):
        return "edited: its checksum is that of another content"
    if found["after"].decode() != (last or ""):
        return "lines before it were removed or added"
    return None


def _checksum(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:_SEAL_LENGTH]


# Runs


def place_of(url: URL, identity: DatabaseIdentity | None, api: str | None = None) -> Place:
    """Return a database's identifying facts as recorded in the history.

    They include the address of the target's API, if known.
    """
    host = url.host or first_text(url.query.get("host")) or None
    place = Place(host, url.port, url.database, beside=api)
    return replace(place, system=identity.system, oid=identity.oid) if identity else place


class Witness(Protocol):
    """The audit trail of a run's target, as far as the run is concerned."""

    def prepare(self) -> None:
        """Check that the trail can be written, if it has to be.

        Raises:
            AspenError: It cannot, so the run must not begin.
        """

    def begin(self, event: Event) -> Mapping[str, object]:
        """Record that a run begins, and return what its own record should say about that.

        Raises:
            AspenError: It cannot be recorded, so the run must not begin.
        """

    def end(self, event: Event) -> Callable[[], Mapping[str, object]]:
        """Save the end of a run, and return a function that records it; neither may fail."""


class Recording:
    """One run in the journal, recorded by a ``with`` block from start to end.

    An error that leaves the block decides the outcome, unless `ended` was called before. A run may
    resume the one with a given ID; otherwise it has the ID that is proposed, unless that is taken.
    If the end cannot be recorded, which leaves the run itself unaffected, ``warn`` is called with a
    message.

    Raises:
        AspenError: The journal cannot be written; nothing was changed.
    """

    def __init__(
        self,
        journal: Journal,
        subject: Subject,
        warn: Callable[[str], None],
        resumes: str | None = None,
        proposed: str | None = None,
        witness: Witness | None = None,
    ):
        self.id = resumes or proposed or new_id()
        self._resumes = resumes is not None
        self._journal = journal
        self._subject = subject
        self._warn = warn
        self._began = time.monotonic()
        self._stage = "planned"
        self._begun: Callable[[], bool] = lambda: True  # for a resumed run
        self._witness = witness
        self._first: Event = {}  # the event that began the run
        self._facts: dict[str, object] = {}  # what became known later
        self._kept: dict[str, object] = {}

    def __enter__(self) -> Self:
        if self._resumes:
            self._tell("resumed", {**self._process(), **self._known()})
            self._stage = "sending"
            return self
        # Another run may have started at the same moment and taken the ID.
        while not self._tell("started", self._start(), begins=True):
            self.id = new_id()
        return self

    def _start(self) -> dict[str, object]:
        subject = self._subject
        return {
            **self._process(),
            "command": subject.command,
            "target": subject.target,
            "database": asdict(subject.place),
            "group": {"id": subject.group_id, "name": subject.group},
            "file": asdict(subject.file),
            "counts": asdict(subject.counts),
            "undo_of": subject.undo_of,
            "via": subject.via,
            "api": subject.api,
            **({"single": True} if subject.single else {}),
            **self._known(),
        }

    def _known(self) -> dict[str, object]:
        found = {name: getattr(self._subject, name) for name in _IF_KNOWN}
        return {name: value for name, value in found.items() if value is not None}

    @staticmethod
    def _process() -> dict[str, object]:
        process = this_process()
        return {
            "user": this_user(),
            "host": process.host,
            "pid": process.pid,
            "process_started": process.started,
            "version": __version__,
        }

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is not None:
            self.ended(self._outcome_of(error), _words(error))

    @property
    def place(self) -> Place:
        """Return the database or API that the run changes."""
        return self._subject.place

    def prepare(self) -> None:
        """Check that the target's audit trail can be written, if it has to be.

        Raises:
            AspenError: It cannot; nothing was changed.
        """
        if self._witness is not None:
            with self._refused():
                self._witness.prepare()

    def confirmed(self) -> None:
        """Record in the target's audit trail that the run was confirmed and begins now.

        Raises:
            AspenError: It cannot be recorded; nothing was changed.
        """
        if self._witness is None:
            return
        with self._refused():
            facts = self._witness.begin(self._first)
        if facts:
            self._tell("confirmed", facts)

    @contextmanager
    def _refused(self) -> Iterator[None]:
        try:
            yield
        except AspenError as error:
            if not self._resumes:
                self.ended(Outcome.REFUSED, error.message)
            raise

    def add(self, kept: Mapping[str, object], sent: Mapping[str, object]) -> None:
        """Add facts to the record of the end: here, and to that in the audit trail."""
        self._kept |= kept
        self._facts |= sent

    def writing(self, transaction: int) -> None:
        """Record which transaction is about to write.

        Raises:
            AspenError: The journal cannot be written; nothing was changed.
        """
        self._tell("writing", {"transaction": transaction})
        self._stage, self._transaction = "writing", transaction

    def committing(self, undo_file: Path | None, saved_file: Path | None = None) -> None:
        """Record that everything but the commit is done.

        ``saved_file`` has old values that the undo file cannot hold.

        Raises:
            AspenError: The journal cannot be written; nothing was changed.
        """
        counts = asdict(self._subject.counts)
        undo = str(undo_file.absolute()) if undo_file else None
        self._facts |= {"transaction": self._transaction, "undo_file": undo}
        if saved_file:
            self._facts["saved_file"] = str(saved_file.absolute())
        self._tell("committing", {"counts": counts, **self._facts})
        self._stage = "committing"

    def at_provider(
        self, undo_file: Path | None, saved_file: Path | None, *, before: bool, after: bool
    ) -> None:
        """Record that the identity provider is about to change, and whether before the commit.

        Raises:
            AspenError: The journal cannot be written; nothing was changed.
        """
        undo = str(undo_file.absolute()) if undo_file else None
        saved = str(saved_file.absolute()) if saved_file else None
        self._facts |= {"undo_file": undo, "saved_file": saved}
        self._tell("provider", {**self._facts, "before_commit": before, "after_commit": after})

    def sending(
        self,
        undo_file: Path | None,
        renames: Path | None,
        begun: Callable[[], bool],
        saved_file: Path | None = None,
    ) -> None:
        """Record that requests are about to be sent, each of which takes effect on its own.

        ``begun`` returns True once a request was sent, or was about to be. ``renames`` is the
        journal of the requests, and ``saved_file`` has the data of what is deleted.

        Raises:
            AspenError: The journal cannot be written; nothing was changed.
        """
        undo = str(undo_file.absolute()) if undo_file else None
        saved = str(saved_file.absolute()) if saved_file else None
        journal = str(renames) if renames else None
        self._facts |= {"undo_file": undo, "saved_file": saved}
        self._tell("sending", {"renames": journal, **self._facts})
        self._stage, self._begun = "sending", begun

    def stepping(self, steps: Path, begun: Callable[[], bool]) -> None:
        """Record that steps are about to be taken, each of which takes effect on its own.

        ``steps`` is their log (`aspencli.changes.step_log`), and ``begun`` returns True once a step
        was taken, or was about to be.

        Raises:
            AspenError: The journal cannot be written; nothing was changed.
        """
        self._tell("sending", {"steps": str(steps)})
        self._stage, self._begun = "sending", begun

    @contextmanager
    def keeping(
        self, path: Path, done: Sized, tell: Callable[[], None], *, undoes: bool = True
    ) -> Iterator[None]:
        """Record a file with the old values before the requests of the block are sent.

        If the API rejects the first request, nothing was changed, and the file is removed. If the
        block fails after it may have changed something, ``tell`` tells the operator about the file.
        The block adds the changed items to ``done``.

        Raises:
            AspenError: The journal cannot be written; nothing was sent.
        """
        is_rejected = False
        undo, saved = (path, None) if undoes else (None, path)
        try:
            self.sending(undo, None, lambda: not is_rejected, saved)
        except BaseException:
            path.unlink(missing_ok=True)  # there is nothing to undo
            raise
        try:
            yield
        except BaseException as error:
            if not done and isinstance(error, AspenError) and error.is_rejection:
                is_rejected = True
                path.unlink(missing_ok=True)
            else:
                tell()
            raise

    def changing(self) -> None:
        """Note that the change begins now, and that only this record tells of it.

        An error is then taken to mean that an unknown part of it was done.
        """
        self._stage = "changing"

    def ended(self, outcome: Outcome, message: str | None = None) -> None:
        """Record the outcome, unless it is already recorded; only warn if that fails."""
        if self._stage == "ended":
            return
        self._stage = "ended"
        seconds = round(time.monotonic() - self._began, 3)
        facts = {"outcome": outcome.value, "seconds": seconds, "message": message}
        event = self._event("ended", facts)
        send = self._witness.end({**event, **self._facts}) if self._witness else dict
        try:
            self._journal.append({**event, **self._kept})
            if found := send():
                self._append("audited", found)
        except OSError as error:
            self._warn(
                f"Cannot write the journal {self._journal.path}: {error.strerror}. "
                f"It does not show the outcome of run {self.id}: {outcome.value}."
            )

    def _outcome_of(self, error: BaseException) -> Outcome:
        if self._stage == "changing":
            return Outcome.UNFINISHED
        if self._stage == "sending":
            return Outcome.UNFINISHED if self._begun() else Outcome.ROLLED_BACK
        if isinstance(error.__cause__, OutcomeUnknownError):
            return Outcome.UNKNOWN
        if self._stage == "planned" and isinstance(error, BadInputError):
            return Outcome.REFUSED
        if self._stage == "planned" and isinstance(error, RefusedError):
            return Outcome.DECLINED
        known = (
            isinstance(error, (AspenError, KeyboardInterrupt)) or _of_statement(error) is not None
        )
        # Once the commit may have been sent, an unexpected error says nothing about its outcome.
        return Outcome.ROLLED_BACK if known or self._stage != "committing" else Outcome.UNKNOWN

    def _tell(self, name: str, facts: Mapping[str, object], *, begins: bool = False) -> bool:
        try:
            return self._append(name, facts, begins=begins)
        except OSError as error:
            raise AspenError(
                f"Cannot write the journal {self._journal.path}: {error.strerror}; "
                "nothing was changed.",
                hint="Free disk space or fix the permissions, or set ASPEN_HOME to another "
                "directory.",
            ) from error

    def _append(self, name: str, facts: Mapping[str, object], *, begins: bool = False) -> bool:
        event = self._event(name, facts)
        if name in _BEGINNINGS:
            self._first = event
        return self._journal.append(event, begins=begins)

    def _event(self, name: str, facts: Mapping[str, object]) -> Event:
        at = dt.datetime.now(dt.UTC).isoformat()
        return {"event": name, "run": self.id, "at": at, **facts}


class Unrecorded(Recording):
    """A run that the history does not record."""

    def __init__(self) -> None:
        self._stage = "ended"

    def __enter__(self) -> Self:
        return self

    def prepare(self) -> None:
        """Do nothing."""

    def confirmed(self) -> None:
        """Do nothing."""

    def changing(self) -> None:
        """Do nothing."""


def new_id() -> str:
    """Return an ID for a run that starts now."""
    now = dt.datetime.now(dt.UTC)
    # The fraction is in steps of 15 microseconds, so that IDs sort by time down to the last digit.
    return f"{now:%Y%m%d-%H%M%S}-{now.microsecond * 0x10000 // 1_000_000:04x}"


def _words(error: BaseException) -> str:
    """Describe an error in one line, without SQL or row data."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if (failed := _of_statement(error)) is not None:
        return str(failed.orig).strip().partition("\n")[0]
    return error.message if isinstance(error, AspenError) else type(error).__name__


def _of_statement(error: BaseException) -> DBAPIError | None:
    """Return the error if a statement caused it, otherwise None."""
    if "sqlalchemy" not in sys.modules:  # as in commands that only use the API
        return None
    from sqlalchemy.exc import DBAPIError

    return error if isinstance(error, DBAPIError) else None
