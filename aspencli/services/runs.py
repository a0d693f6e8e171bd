"""Bulk runs as recorded in the journal; `folding` builds them from its events."""

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
_NAMED = 10  # maximum number of runs to list in a message
NO_ID_HINT = "See: aspencli history"


class Outcome(StrEnum):
    """The outcome of a bulk run."""

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
    """The database or API that a run was made on, as far as known.

    Attributes:
        host: The server's host name in the address.
        port: Its port.
        name: The database's name.
        system: The server's system identifier (``pg_control_system``).
        oid: The database's OID on that server.
        api: The address of the API, if the run went through it.
        beside: The address of the other backend at that time: the target's API for a run in the
            database, its database for a run through the API.
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
        """Return the address of the database in canonical form."""
        from aspencli.addresses import Server, canonical_host

        return f"{Server(canonical_host(self.host or ''), self.port or 5432)}/{self.name}"

    def __str__(self) -> str:
        if self.api:
            return self.api
        where = f"{self.host or 'this machine'}{f':{self.port}' if self.port else ''}"
        name = f"{where}/{self.name}" if self.name else where
        return f"{name} (database {self.system or 'unknown'}/{self.oid})" if self.oid else name


def is_same_place(recorded: Place, here: Place, run: str) -> bool:
    """Return True if a run's database or API is the current one, False if that is not certain.

    Args:
        recorded: The place recorded in the journal or the undo file.
        here: The place that is about to be changed.
        run: The run's name in messages.

    Raises:
        RefusedError: It is a different one.
    """
    if here.api:
        return _is_same_api(recorded, here, run)
    if recorded.api:  # It went through the API, so compare the database recorded beside it.
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
    # OIDs are the same on many servers, so only the address is left to compare.
    return recorded.address == here.address


def _is_same_api(recorded: Place, here: Place, run: str) -> bool:
    from aspencli.addresses import same_api

    known = recorded.api
    if not known and recorded.name is None and recorded.host:  # written by an older version
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
        given: Its name as given; ``-`` for standard input.
        path: Its absolute path; None for standard input.
        size: The number of bytes read.
        sha256: The SHA-256 checksum of these bytes, in hexadecimal.
    """

    given: str | None = None
    path: str | None = None
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Counts:
    """The row counts of a run's plan; None if the journal has no value."""

    rows: int | None = None
    to_change: int | None = None
    already: int | None = None
    left_out: int | None = None
    problems: int | None = None


@dataclass(frozen=True)
class Run:
    """One bulk run.

    Attributes:
        id: A short ID that sorts by time: ``20261124-034012-3f9a``.
        started_at: When it was planned, UTC.
        ended_at: When it ended, if recorded.
        seconds: How long it took.
        user: The account on this machine.
        process: The process that ran it, or still does.
        transaction: The ID of its server transaction, if it got that far.
        committing: True if it was about to commit.
        undo_file: Its undo file, if it got that far.
        undo_of: The run that it undoes, if any.
        undone_by: The runs that undid it.
        undo_begun: The run that began to undo it and has not finished, if any.
        outcome: Its outcome.
        message: The message at its end.
        checked_at: When `history check` queried the database, if it had to.
        basis: How that check determined the outcome.
        via: The backend: ``db`` or ``api``; None if the journal has no value.
        renames: The journal from which it can be resumed, if any.
        api: The address given with ``--api`` or ``ASPEN_API``, if any.
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
        """Return an aspencli command line for the target and the API of this run."""
        return command_for(self.target, *words, api=self.api)

    @property
    def noun(self) -> str:
        """Return the kind of rows it changed, which is also the command group to undo it with."""
        return (self.command or "samples").partition(" ")[0]

    @property
    def changed(self) -> int | None:
        """Return the number of rows it changed, or None if unknown."""
        if self.outcome is Outcome.WRITTEN:
            return self.counts.to_change
        unknown = {Outcome.UNKNOWN, Outcome.RUNNING, Outcome.UNFINISHED}
        return None if self.outcome in unknown else 0


def find(runs: Sequence[Run], wanted: str) -> Run:
    """Return the run with this ID or unique ID prefix.

    Raises:
        NotFoundError: No run matches.
        BadInputError: Several runs match.
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
    """Return True if a text is a run ID, or a prefix of one that includes the full date."""
    return _ID.fullmatch(text) is not None


def undo_source(what: str, runs: Sequence[Run]) -> tuple[str, str | None]:
    """Return the undo file to use, and the ID of the run that it undoes, if known.

    Args:
        what: A file or a run ID; an existing file takes precedence.
        runs: The known runs.

    Raises:
        AspenError: The run cannot be undone; see `undo_file_of`.
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
    """Return the undo file of a run.

    Raises:
        ConflictError: The run is in progress, or its outcome is unknown.
        BadInputError: It wrote nothing.
        NotFoundError: The file no longer exists.
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
    """Return an aspencli command line for a target.

    Args:
        target: The target's label.
        words: The command.
        api: The API address that was given explicitly, to be included in the command line.
    """
    name, _, stack = target.partition("/")
    place = ["--env", name, *(["--stack", stack] if stack else [])]
    place += ["--api", api] if api else []
    return shlex.join(["aspencli", *place, *words])
