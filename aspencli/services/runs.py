"""Bulk runs as the journal tells of them; `folding` makes them of its events."""

from __future__ import annotations

import datetime as dt
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from aspencli.errors import BadInputError, ConflictError, NotFoundError, RefusedError
from aspencli.services.machine import Process

_ID = re.compile(r"\d{8}(-\d{1,6}(-[0-9a-f]{0,4})?|-)?")
_NAMED = 10  # runs that a message names
NO_ID_HINT = "See: aspencli history"


class Outcome(StrEnum):
    """How a bulk run ended."""

    WRITTEN = "written"
    NOTHING = "nothing to do"
    REFUSED = "refused"
    DECLINED = "declined"
    ROLLED_BACK = "rolled back"
    UNFINISHED = "unfinished"
    UNKNOWN = "unknown"
    RUNNING = "running"


@dataclass(frozen=True)
class Place:
    """The database that a run was made on, as far as it could be told.

    Attributes:
        host: The server's name in the address.
        port: Its port.
        name: The database's name.
        system: The identifier of the server's data (``pg_control_system``).
        oid: The database's number within them.
        api: The address of the API, where the run went through it.
        beside: Where the other of the two was at that time: the address of the target's API for a
            run in the database, and of its database for a run through the API.
    """

    host: str | None = None
    port: int | None = None
    name: str | None = None
    system: str | None = None
    oid: int | None = None
    api: str | None = None
    beside: str | None = None

    @property
    def address(self) -> str:
        """Return the address of the database in one spelling."""
        from aspencli.addresses import Server, canonical_host

        return f"{Server(canonical_host(self.host or ''), self.port or 5432)}/{self.name}"

    def __str__(self) -> str:
        if self.api:
            return self.api
        where = f"{self.host or 'this machine'}{f':{self.port}' if self.port else ''}"
        name = f"{where}/{self.name}" if self.name else where
        return f"{name} (database {self.system or 'unknown'}/{self.oid})" if self.oid else name


def is_same_place(recorded: Place, here: Place, run: str) -> bool:
    """Return True if a run's database or API is the one at hand, False if that is not certain.

    Args:
        recorded: What the journal, or the undo file, tells of it.
        here: The one that is about to be changed.
        run: What messages call the run.

    Raises:
        RefusedError: It is another one.
    """
    if here.api:
        return _is_same_api(recorded, here, run)
    if recorded.api:  # it went through the API; the database is what the target had beside that
        known = recorded.beside
        if known and here.address not in known.split():
            raise _elsewhere(recorded, here, run)
        return bool(known)
    for then, now in ((recorded.oid, here.oid), (recorded.system, here.system)):
        if then is not None and now is not None and then != now:
            raise _elsewhere(recorded, here, run)
    if recorded.oid is None or here.oid is None:
        return False
    if recorded.system and here.system:
        return True
    # Oids are the same on many servers, and the address is all there is beside them.
    return recorded.address == here.address


def _is_same_api(recorded: Place, here: Place, run: str) -> bool:
    from aspencli.addresses import same_api

    known = recorded.api
    if not known and recorded.name is None and recorded.host:  # of an older version
        port = f":{recorded.port}" if recorded.port else ""
        host = f"[{recorded.host}]" if ":" in recorded.host else recorded.host
        known = f"https://{host}{port}"
    elif not known:
        known = recorded.beside
    if known and not same_api(known, here.api or ""):
        raise _elsewhere(recorded, here, run)
    return bool(known)


def _elsewhere(recorded: Place, here: Place, run: str) -> RefusedError:
    return RefusedError(
        f"{run} was made on {recorded}, and the target is now {here}; nothing was written",
        hint="Check --env, --api, and the target's addresses: aspencli config show",
    )


@dataclass(frozen=True)
class InputFile:
    """The file that a run read.

    Attributes:
        given: Its name as it was given; ``-`` for standard input.
        path: Its absolute path; None for standard input.
        size: How many bytes were read.
        sha256: The checksum of these bytes, in hexadecimal.
    """

    given: str | None = None
    path: str | None = None
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Counts:
    """What a run's plan was, in rows; None where the journal does not tell."""

    rows: int | None = None
    to_change: int | None = None
    already: int | None = None
    left_out: int | None = None
    problems: int | None = None


@dataclass(frozen=True)
class Run:
    """One bulk run.

    Attributes:
        id: Short, and sorted by time: ``20261124-034012-3f9a``.
        started_at: When its plan was made, UTC.
        ended_at: When it ended, if it told that.
        seconds: How long that took.
        user: The account on this machine.
        process: What ran it, or still does.
        transaction: Its transaction's id on the server, if it came that far.
        committing: Whether it was about to commit.
        undo_file: What takes it back, if it came that far.
        undo_of: The run that it takes back, if any.
        undone_by: The runs that took it back.
        undo_begun: The run that began to take it back and is not done, if there is one.
        outcome: How it ended.
        message: What was told at its end.
        checked_at: When `history check` asked the database, if it had to.
        basis: How that was found out.
        via: How it reached the target: ``db`` or ``api``; None where the journal does not tell.
        renames: The journal with which it can be gone on with, if it has one.
        api: The address that ``--api`` or ``ASPEN_API`` named for it, if any.
    """

    id: str
    started_at: dt.datetime
    user: str | None
    process: Process
    version: str | None
    command: str | None
    target: str
    place: Place
    group_id: int | None
    group: str | None
    file: InputFile
    counts: Counts
    undo_of: str | None
    ended_at: dt.datetime | None = None
    seconds: float | None = None
    transaction: int | None = None
    committing: bool = False
    undo_file: Path | None = None
    undone_by: tuple[str, ...] = ()
    undo_begun: str | None = None
    outcome: Outcome = Outcome.RUNNING
    message: str | None = None
    checked_at: dt.datetime | None = None
    basis: str | None = None
    via: str | None = None
    renames: Path | None = None
    api: str | None = None

    def command_line(self, *words: str) -> str:
        """Return the command line that does something where the run was made."""
        return command_for(self.target, *words, api=self.api)

    @property
    def noun(self) -> str:
        """Of what it changed rows, which is where the command is that takes it back."""
        return (self.command or "samples").partition(" ")[0]

    @property
    def changed(self) -> int | None:
        """How many rows it changed; None where that is not known."""
        if self.outcome is Outcome.WRITTEN:
            return self.counts.to_change
        unknown = {Outcome.UNKNOWN, Outcome.RUNNING, Outcome.UNFINISHED}
        return None if self.outcome in unknown else 0


def find(runs: Sequence[Run], wanted: str) -> Run:
    """The run of an id, or of the beginning of one.

    Raises:
        NotFoundError: There is none.
        BadInputError: There are several.
    """
    found = [run for run in runs if run.id.startswith(wanted)]
    exact = [run for run in found if run.id == wanted]
    if not found:
        raise NotFoundError(f"the history has no run {wanted}", hint=NO_ID_HINT)
    if len(found) > 1 and not exact:
        more = [f"and {len(found) - _NAMED:,} more"] if len(found) > _NAMED else []
        raise BadInputError(
            f"{len(found):,} runs begin with {wanted}",
            hint="Give more of the id.",
            details=[*(run.id for run in found[:_NAMED]), *more],
        )
    return (exact or found)[0]


def looks_like_id(text: str) -> bool:
    """Whether a text is an id, or the beginning of one with its day whole."""
    return _ID.fullmatch(text) is not None


def undo_source(what: str, runs: Sequence[Run]) -> tuple[str, str | None]:
    """The undo file that is meant, and the run that it takes back, where that is known.

    Args:
        what: A file, or the id of a run; a file that exists comes first.
        runs: The runs that are known.

    Raises:
        AspenError: It is a run that cannot be taken back; see `undo_file_of`.
    """
    path = Path(what)
    if path.is_file() or not looks_like_id(what):
        found = [run.id for run in runs if run.undo_file and _same(run.undo_file, path)]
        return what, found[0] if found else None
    run = find(runs, what)
    return str(undo_file_of(run)), run.id


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def undo_file_of(run: Run) -> Path:
    """The file that takes a run back.

    Raises:
        ConflictError: It is not known whether it wrote anything.
        BadInputError: It wrote nothing.
        NotFoundError: The file is gone.
    """
    if run.outcome is Outcome.RUNNING:
        raise ConflictError(f"run {run.id} has not ended", hint="Wait for it, or stop it.")
    if run.outcome is Outcome.UNKNOWN:
        raise ConflictError(
            f"it is not known whether run {run.id} was written",
            hint=f"Ask the database first: {run.command_line('history', 'check', run.id)}",
        )
    if run.outcome not in {Outcome.WRITTEN, Outcome.UNFINISHED} or run.undo_file is None:
        raise BadInputError(
            f"run {run.id} wrote nothing ({run.outcome}), so there is nothing to take back",
            hint=NO_ID_HINT,
        )
    if not run.undo_file.is_file():
        raise NotFoundError(
            f"the undo file of run {run.id} is gone: {run.undo_file}",
            hint=f"If there is a copy, name it: aspencli {run.noun} undo FILE",
        )
    return run.undo_file


def command_for(target: str, *words: str, api: str | None = None) -> str:
    """Return the command line that does something on a target.

    Args:
        target: The target's label.
        words: The command.
        api: The address that was given for its API, which the command line then names as well.
    """
    name, _, stack = target.partition("/")
    place = ["--env", name, *(["--stack", stack] if stack else [])]
    place += ["--api", api] if api else []
    return shlex.join(["aspencli", *place, *words])
