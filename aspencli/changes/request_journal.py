"""The journal of one rename run through the API: its plan, and each request as it is made.

It has one JSON value per line: a head, the rows, a line that ends the rows, and events. Each
request is on disk before it is sent. A process that has the journal open holds a lock on it, so
that two processes cannot resume the same run. The rows contain everything needed to resume: the
samples' current names show how far the run got.

`read_state` is the only place that determines the state of a run. The history, the lock on the
group, and the suggested commands all derive from it, so that they cannot contradict each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

from aspencli import files
from aspencli.errors import AspenError, BadInputError, ConflictError
from aspencli.files import write_failure

VERSION = 1
_TAIL = 4_096  # bytes, more than the last event takes
_READY = "ready"
_LOCK_TRIES, _LOCK_PAUSE_S = 10, 0.02  # Readers hold the lock only for a moment.


@dataclass(frozen=True)
class RunFacts:
    """The facts about a run that renames the samples of a group."""

    run: str  # its ID in the history
    command: str
    target: str  # its label
    group_id: int
    group: str
    slug: str  # of the pathogen in the request path, which need not be that of the samples
    file: str  # the input file's name in messages
    sha256: str  # of the input file
    undo_file: str
    undo_of: str | None = None  # the run that it undoes
    api: str | None = None  # its address; None in older journals


class RenameRow(NamedTuple):
    """One row of the file: a sample's original name and its new one."""

    line: int
    key: str
    id: int
    before: str
    after: str


@dataclass(frozen=True)
class RunState:
    """The state of a run according to its journal."""

    path: Path
    head: RunFacts
    begun: bool  # a request was sent, or was about to be
    ended: str | None  # its outcome
    basis: str | None  # how the outcome was determined, if another run decided it
    busy: bool  # a process is working on it

    @property
    def is_open(self) -> bool:
        """Return True if the run blocks other runs in its group."""
        return self.ended is None and (self.begun or self.busy)


def folder() -> Path:
    """Return the folder for this operator's journals."""
    return files.state_dir() / "renames"


class RunJournal:
    """An open, locked journal, for use in a ``with`` block.

    Its rows are all rows of the file, including those that need no change.
    """

    def __init__(self, path: Path, file: IO[bytes], head: RunFacts, rows: list[RenameRow]):
        self.path = path
        self.head = head
        self.rows = rows
        self.ended: str | None = None
        self.begun = False
        self.sent = 0
        self._file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()

    @property
    def to_change(self) -> int:
        """Return the number of rows that change something."""
        return sum(row.before != row.after for row in self.rows)

    def sending(self, ids: Iterable[int], **facts: object) -> None:
        """Record that a request for these samples is about to be sent.

        Raises:
            AspenError: It cannot be written; the request must not be sent.
        """
        before, self.begun = self.begun, True  # set before writing, in case of an interrupt
        try:
            self._append({"event": "sending", "ids": list(ids), **facts})
        except AspenError:
            self.begun = before
            raise

    def answered(self, seconds: float) -> None:
        """Record that the request succeeded.

        Raises:
            AspenError: It cannot be written.
        """
        self._append({"event": "sent", "seconds": round(seconds, 3)})
        self.sent += 1

    def resumed(self) -> None:
        """Record that another process resumes the run.

        Raises:
            AspenError: It cannot be written.
        """
        self._append({"event": "resumed", "pid": os.getpid()})

    def end(self, outcome: str, basis: str | None = None) -> None:
        """Record that the run has ended and cannot be resumed.

        The basis says how the outcome was determined, if another run decided it.

        Raises:
            AspenError: It cannot be written.
        """
        why = {} if basis is None else {"basis": basis}
        self._append({"event": "ended", "outcome": outcome, **why})
        self.ended = outcome

    def _append(self, event: dict[str, object]) -> None:
        try:
            self._file.write(_line(event))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise AspenError(
                f"Cannot write the journal {self.path}: {write_failure(self.path, error)}",
                hint=f"Free disk space, then resume: aspencli samples resume {self.path}",
            ) from error


def create(head: RunFacts, rows: list[RenameRow]) -> RunJournal:
    """Create a journal, and return once it is safely on disk.

    Raises:
        AspenError: It cannot be written.
    """
    path = path_of(head.run)
    try:
        files.make_folder(path.parent)
        descriptor = files.create(path, flags=os.O_RDWR | os.O_APPEND)
        file = os.fdopen(descriptor, "ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(_line({"v": VERSION, **asdict(head)}))
            file.writelines(_line(row) for row in rows)
            file.write(_line({"event": _READY, "rows": len(rows)}))
            file.flush()
            os.fsync(file.fileno())
            files.sync_folder(path.parent)
        except BaseException:
            file.close()
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise AspenError(
            f"Cannot write the journal {path}: {write_failure(path, error)}; nothing was changed.",
            hint="Free disk space or fix the permissions, or set ASPEN_HOME to another directory.",
        ) from error
    return RunJournal(path, file, head, rows)


def reopen(path: Path) -> RunJournal:
    """Open the journal of a run that is to be resumed.

    Raises:
        BadInputError: It is not a journal, is damaged, or is incomplete, so that nothing was sent.
        ConflictError: Another process is working on it.
    """
    try:
        file = path.open("r+b")
    except OSError as error:
        raise BadInputError(
            f"Cannot read {path}: {error.strerror}",
            hint="Give the journal of a rename run, or a run ID (see: aspencli history).",
        ) from error
    try:
        _lock(file, path)
        return _read(path, file)
    except BaseException:
        file.close()
        raise


def path_of(run: str) -> Path:
    """Return the path of a run's journal."""
    return folder() / f"{run}.jsonl"


def read_state(run: str) -> RunState | None:
    """Return the state of a run, or None if it has no complete journal."""
    return _read_state(path_of(run))


def read_rows(path: Path) -> list[RenameRow]:
    """Return the rows of a complete journal, without opening it for changes.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        file.readline()  # the head
        return list(_rows(file))


def unfinished(
    target: str, group_id: int, but: Iterable[str | None] = (), api: str | None = None
) -> RunState | None:
    """Return the newest run that blocks other runs in this group of a target, if any.

    The same group ID in another API is another group, if the addresses are known.
    """
    from aspencli.addresses import same_api

    passed_over = frozenset(but)
    for path in sorted(folder().glob("*.jsonl"), reverse=True):
        if path.stem in passed_over or _has_ended(path):
            continue
        found = _read_state(path)
        if (
            found is not None
            and found.is_open
            and (found.head.target, found.head.group_id) == (target, group_id)
            and (not (found.head.api and api) or same_api(found.head.api, api))
        ):
            return found
    return None


def _lock(file: IO[bytes], path: Path) -> None:
    for _ in range(_LOCK_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_LOCK_PAUSE_S)
    raise ConflictError(f"Another process is using {path}.", hint="Wait for it to finish.")


def _read(path: Path, file: IO[bytes]) -> RunJournal:
    lines = iter(file)
    try:
        head = _head(json.loads(next(lines)))
        rows = list(_rows(lines))
    except (ValueError, TypeError, KeyError, StopIteration, RuntimeError):
        raise BadInputError(
            f"{path} is not the journal of a rename run, or it is incomplete and nothing was sent.",
            hint="If nothing was sent, run the original command again.",
        ) from None
    journal = RunJournal(path, file, head, rows)
    torn = False
    for line in lines:
        torn = not line.endswith(b"\n")
        event = _event(line)
        journal.begun |= event.get("event") == "sending" and not torn
        journal.sent += event.get("event") == "sent"
        journal.ended = event.get("outcome", journal.ended)
    file.seek(0, os.SEEK_END)
    if torn:
        file.write(b"\n")  # Start a new line after one that a crash cut off.
    return journal


def _head(fields: Any) -> RunFacts:
    if fields.pop("v") != VERSION:
        raise ValueError
    return RunFacts(**fields)


def _rows(lines: Iterator[bytes]) -> Iterator[RenameRow]:
    for count, line in enumerate(lines):
        value = json.loads(line)
        if isinstance(value, dict):
            if value != {"event": _READY, "rows": count} or not line.endswith(b"\n"):
                raise ValueError
            return
        yield RenameRow(*value)
    raise ValueError


def _read_state(path: Path) -> RunState | None:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError), path.open("rb") as file:
        head = _head(json.loads(file.readline()))
        last = _last_event(file)
        if last.get("event") == "ended":  # True of most; saves reading all the rows.
            return RunState(path, head, True, last.get("outcome"), last.get("basis"), False)
        file.seek(0)
        # Rows start with a bracket. A line cut off by a crash has no line break, or is not JSON.
        events = [_event(line) for line in file if line[:1] == b"{" and line.endswith(b"\n")]
        names = [event.get("event") for event in events]
        if _READY in names:
            return RunState(path, head, "sending" in names, None, None, _is_locked(file))
    return None


def _is_locked(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _has_ended(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        return _last_event(file).get("event") == "ended"
    return True


def _last_event(file: IO[bytes]) -> dict[str, Any]:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL))
    return _event(file.read().rstrip(b"\n").rpartition(b"\n")[2])


def _event(line: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        event = json.loads(line)
        if isinstance(event, dict):
            return event
    return {}


def _line(value: object) -> bytes:
    return json.dumps(value).encode("ascii") + b"\n"
