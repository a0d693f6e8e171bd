"""Runs, built from the events of the journal; unknown events and fields are ignored."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from aspencli.changes import step_log
from aspencli.changes.request_journal import RunState, read_state
from aspencli.config import command_for
from aspencli.errors import BadInputError, ConflictError, NotFoundError, RefusedError
from aspencli.machine import Process

Event = Mapping[str, Any]
"""One line of the journal."""
_ID = re.compile(r"\d{8}(-\d{1,6}(-[0-9a-f]{0,4})?|-)?")
_NEEDED = ("event", "run", "at")
_NAMED = 10  # maximum number of runs to list in a message
NO_ID_HINT = "See: aspencli history"
_API = "api"
_FILES = ("undo_file", "renames", "saved_file", "steps")
_UNDONE_WITH = {"identity": "users"}  # command groups whose undo files are of another one
_KINDS: dict[Any, type] = {"str | None": str, "int | None": int}


def is_event(found: object) -> TypeGuard[dict[str, Any]]:
    """Return True if a value read from a file can be an event."""
    if not isinstance(found, dict):
        return False
    if not all(isinstance(found.get(key), str) for key in _NEEDED):
        return False
    try:
        return dt.datetime.fromisoformat(found["at"]).tzinfo is not None
    except ValueError:
        return False


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
    READ = "read"  # a call of an assistant, which cannot write
    FAILED = "failed"  # same


@dataclass(frozen=True)
class Place:
    """The database or API that a run was made on, as far as known."""

    host: str | None = None
    port: int | None = None
    name: str | None = None
    system: str | None = None  # system identifier of the server (``pg_control_system``)
    oid: int | None = None  # the database's, on that server
    api: str | None = None  # address of the API, if the run went through it
    # Address of the other backend at that time: the target's API for a run in the database, its
    # database for a run through the API.
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

    ``run`` is its name in messages.

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
        f"{run[:1].upper()}{run[1:]} was made on {recorded}, but the target is now {here}; "
        "nothing was written.",
        hint="Check --env, --api, and the target's addresses: aspencli config show",
    )


@dataclass(frozen=True)
class InputFile:
    """The file that a run read."""

    given: str | None = None  # as given; ``-`` for standard input
    path: str | None = None  # absolute; None for standard input
    size: int | None = None  # the number of bytes read
    sha256: str | None = None  # of these bytes, in hexadecimal


@dataclass(frozen=True)
class Counts:
    """The row counts of a run's plan; None if the journal has no value."""

    rows: int | None = None
    to_change: int | None = None
    already: int | None = None
    left_out: int | None = None
    problems: int | None = None


T = TypeVar("T", Place, InputFile, Counts)


@dataclass(frozen=True)
class Subject:
    """The facts about a run that are recorded when it begins."""

    command: str | None  # without its options
    target: str  # the target's label
    place: Place
    group_id: int | None  # of the group whose rows are changed; None if not limited to one
    group: str | None
    file: InputFile
    counts: Counts  # the plan, in rows
    undo_of: str | None = None  # the run that it undoes
    via: str | None = "db"  # or ``api``; None if the journal has no value
    api: str | None = None  # the address given with ``--api`` or ``ASPEN_API``
    single: bool = False  # there is no request journal: the history is the only record
    argv: tuple[str, ...] | None = None  # the command line, with secrets masked
    digest: str | None = None  # of the plan, in hexadecimal
    account: str | None = None  # the user of the API, as signed in
    account_id: str | None = None  # the ID of that user at the identity provider
    account_name: str | None = None  # the name of the stored account with that sign-in
    reason: str | None = None  # for a console session that may write
    assistant: str | None = None  # the assistant's program, for a call that only read


@dataclass(frozen=True, kw_only=True)
class Run(Subject):
    """One bulk run."""

    id: str  # sorts by time: ``20261124-034012-3f9a``
    started_at: dt.datetime  # when it was planned, UTC
    user: str | None  # the account on this machine
    process: Process  # that ran it, or still does
    version: str | None
    ended_at: dt.datetime | None = None
    seconds: float | None = None
    transaction: int | None = None  # the ID of its server transaction
    committing: bool = False  # it was about to commit
    undo_file: Path | None = None
    undone_by: tuple[str, ...] = ()
    undo_begun: str | None = None  # the run that began to undo it and has not finished
    outcome: Outcome = Outcome.RUNNING
    message: str | None = None  # at its end
    checked_at: dt.datetime | None = None  # when `history check` queried the database, if it had to
    basis: str | None = None  # how that check determined the outcome
    renames: Path | None = None  # the journal from which it can be resumed
    saved_file: Path | None = None  # the data of what it deleted
    aws: str | None = None  # the identity in the target's AWS account (ARN)
    trail: str | None = None  # the audit trail that it is in, or will be
    entries: tuple[int, ...] = ()  # its entries there
    waiting: frozenset[str] = frozenset()  # its events that are not there yet
    statements: Mapping[str, Any] | None = None  # about those of a console session
    # It was about to change the identity provider before the commit, or after it.
    provider_before: bool = False
    provider_after: bool = False
    steps: Path | None = None  # the log of its steps, if no transaction joins them

    def command_line(self, *words: str) -> str:
        """Return an aspencli command line for the target and the API of this run."""
        return command_for(self.target, *words, api=self.api)

    @property
    def noun(self) -> str:
        """Return the kind of rows it changed, which is also the command group to undo it with."""
        noun = (self.command or "samples").partition(" ")[0]
        return _UNDONE_WITH.get(noun, noun)

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
        raise NotFoundError(f"No such run: {wanted}", hint=NO_ID_HINT)
    if len(found) > 1 and not exact:
        more = [f"and {len(found) - _NAMED:,} more"] if len(found) > _NAMED else []
        raise BadInputError(
            f"{len(found):,} run IDs begin with {wanted}",
            hint="Give more characters of the ID.",
            details=[*(run.id for run in found[:_NAMED]), *more],
        )
    return (exact or found)[0]


def looks_like_id(text: str) -> bool:
    """Return True if a text is a run ID, or a prefix of one that includes the full date."""
    return _ID.fullmatch(text) is not None


def undo_source(what: str, runs: Sequence[Run]) -> tuple[str, str | None]:
    """Return the undo file to use, and the ID of the run that it undoes, if known.

    An existing file takes precedence over a run ID.

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
        raise ConflictError(
            f"Run {run.id} is still in progress.", hint="Wait for it to finish, or stop it."
        )
    if run.outcome is Outcome.UNKNOWN:
        hint = f"Check that first: {run.command_line('history', 'check', run.id)}"
        if run.single and run.undo_file:
            undo = run.command_line(run.noun, "undo", str(run.undo_file))
            hint += f". Without a database, see what is left to undo: {undo} --dry-run"
        raise ConflictError(f"It is unknown whether run {run.id} was written.", hint=hint)
    if run.outcome in {Outcome.WRITTEN, Outcome.UNFINISHED} and run.undo_file is None:
        raise BadInputError(
            f"run {run.id} ({run.command}) has no undo file",
            hint=f"See what it did: aspencli history show {run.id}",
        )
    if run.outcome not in {Outcome.WRITTEN, Outcome.UNFINISHED} or run.undo_file is None:
        raise BadInputError(
            f"Run {run.id} wrote nothing ({run.outcome}); there is nothing to undo.",
            hint=NO_ID_HINT,
        )
    if not run.undo_file.is_file():
        raise NotFoundError(
            f"The undo file of run {run.id} is missing: {run.undo_file}",
            hint=f"If you have a copy: aspencli {run.noun} undo FILE",
        )
    return run.undo_file


def runs_of(events: Iterable[Event]) -> list[Run]:
    """Return one run for each ID, the newest first.

    A run without an end event is *running* while its process is alive, and *unknown* afterwards.
    For a run through the API, its own journal takes precedence over the history.
    """
    runs: dict[str, Run] = {}
    for event in events:
        key, advance = event["run"], _ADVANCES.get(event["event"])
        if event["event"] == "started":
            runs[key] = _started(event)
        elif advance and key in runs:
            runs[key] = advance(runs[key], event)
    runs = {key: _settled(run) for key, run in runs.items()}
    for run in list(runs.values()):
        if run.undo_of not in runs:
            continue
        undone = runs[run.undo_of]
        if run.outcome is Outcome.WRITTEN:
            runs[undone.id] = replace(undone, undone_by=(*undone.undone_by, run.id))
        elif run.outcome is Outcome.UNFINISHED:
            runs[undone.id] = replace(undone, undo_begun=run.id)
    return sorted(runs.values(), key=lambda run: (run.started_at, run.id), reverse=True)


def _started(event: Event) -> Run:
    group = event.get("group")
    group = group if isinstance(group, dict) else {}
    return Run(
        id=event["run"],
        started_at=_time(event),
        user=_text(event, "user"),
        process=_process(event),
        version=_text(event, "version"),
        command=_text(event, "command"),
        target=_text(event, "target") or "",
        place=_part(Place, event.get("database")),
        group_id=_number(group, "id"),
        group=_text(group, "name"),
        file=_part(InputFile, event.get("file")),
        counts=_part(Counts, event.get("counts")),
        undo_of=_text(event, "undo_of"),
        via=_text(event, "via"),
        api=_text(event, "api"),
        single=event.get("single") is True,
        argv=_texts(event, "argv"),
        digest=_text(event, "digest"),
        account=_text(event, "account"),
        account_id=_text(event, "account_id"),
        account_name=_text(event, "account_name"),
        reason=_text(event, "reason"),
        assistant=_text(event, "assistant"),
        aws=_text(event, "aws"),
    )


def _process(event: Event) -> Process:
    return Process(
        _text(event, "host") or "",
        _number(event, "pid") or 0,
        _text(event, "process_started") or "",
    )


def _confirmed(run: Run, event: Event) -> Run:
    return _audited(replace(run, aws=_text(event, "aws")), event)


def _audited(run: Run, event: Event) -> Run:
    kind, number = _text(event, "of"), _number(event, "number")
    if not kind:
        return run
    if number is None:
        return replace(run, trail=_text(event, "trail"), waiting=run.waiting | {kind})
    entries = tuple(sorted({*run.entries, number}))
    waiting = run.waiting - {kind}
    return replace(run, trail=_text(event, "trail"), entries=entries, waiting=waiting)


def _writing(run: Run, event: Event) -> Run:
    return replace(run, transaction=_number(event, "transaction"))


def _committing(run: Run, event: Event) -> Run:
    return replace(
        run,
        committing=True,
        transaction=_number(event, "transaction"),
        counts=_part(Counts, event.get("counts")),
        undo_file=_path(event, "undo_file"),
        saved_file=_path(event, "saved_file"),
    )


def _sending(run: Run, event: Event) -> Run:
    found = {name: _path(event, name) for name in _FILES}
    return replace(run, **found)  # type: ignore[arg-type]


def _at_provider(run: Run, event: Event) -> Run:
    return replace(
        run,
        undo_file=_path(event, "undo_file"),
        saved_file=_path(event, "saved_file"),
        provider_before=event.get("before_commit") is True,
        provider_after=event.get("after_commit") is True,
    )


def _resumed(run: Run, event: Event) -> Run:
    return replace(run, outcome=Outcome.RUNNING, message=None, process=_process(event))


def _ended(run: Run, event: Event) -> Run:
    seconds = event.get("seconds")
    # In an audit trail, this event also has what others tell in the journal.
    facts = {name: found for name in _FILES if (found := _path(event, name)) is not None}
    if (transaction := _number(event, "transaction")) is not None:
        run = replace(run, transaction=transaction)
    if isinstance(statements := event.get("statements"), dict):
        run = replace(run, statements=statements)
    return replace(
        replace(run, **facts),  # type: ignore[arg-type]
        outcome=_outcome(event),
        ended_at=_time(event),
        seconds=float(seconds) if isinstance(seconds, (int, float)) else None,
        message=_text(event, "message"),
    )


def _checked(run: Run, event: Event) -> Run:
    return replace(
        run, outcome=_outcome(event), checked_at=_time(event), basis=_text(event, "basis")
    )


_ADVANCES: dict[str, Callable[[Run, Event], Run]] = {
    "confirmed": _confirmed,
    "audited": _audited,
    "writing": _writing,
    "committing": _committing,
    "provider": _at_provider,
    "sending": _sending,
    "resumed": _resumed,
    "ended": _ended,
    "checked": _checked,
}


def _settled(run: Run) -> Run:
    if run.via == _API and not run.single:
        standing = read_state(run.id)
        return _without_journal(run) if standing is None else _by_journal(run, standing)
    if run.outcome is not Outcome.RUNNING or run.process.is_alive:
        return run
    if run.assistant is not None:
        return replace(run, outcome=Outcome.FAILED, message=f"process {run.process.pid} died")
    if run.steps and run.process.is_here:
        return _by_steps(run, run.steps)
    stage = "during the commit" if run.committing else "before the commit"
    if run.provider_before and not run.committing:
        stage = "while it was changing the identity provider"
    if run.single:
        sent = run.undo_file or run.saved_file or run.steps
        stage = "while it was sending requests" if sent else "before it recorded an outcome"
    message = f"process {run.process.pid} died {stage}"
    if not run.process.is_here:
        message = _other_host(run)
    return replace(run, outcome=Outcome.UNKNOWN, message=message)


def _by_steps(run: Run, log: Path) -> Run:
    """Return a run whose process died, in the state shown by the log of its steps."""
    died = f"process {run.process.pid} died"
    if not step_log.read(log):
        message = f"{died} before its first step"
        return replace(run, outcome=Outcome.ROLLED_BACK, message=message)
    message = f"{died} between its steps; the same command completes them"
    return replace(run, outcome=Outcome.UNFINISHED, message=message)


def _other_host(run: Run) -> str:
    return f"it ran on {run.process.host}, and its process cannot be checked from this machine"


def _by_journal(run: Run, found: RunState) -> Run:
    """Return a run through the API in the state shown by its journal."""
    if found.ended is not None:
        outcome = _outcome({"outcome": found.ended})
        settled = replace(run, renames=found.path, basis=found.basis or run.basis)
        if outcome is run.outcome:
            return settled
        return replace(settled, outcome=outcome, message=None)
    if found.busy:
        return replace(run, outcome=Outcome.RUNNING, message=None, renames=found.path)
    if not found.begun:
        return _unsent(run)
    message = f"process {run.process.pid} died after it had sent some of its requests"
    return replace(
        run,
        outcome=Outcome.UNFINISHED,
        message=run.message or message,
        renames=found.path,
        undo_file=run.undo_file or Path(found.head.undo_file),
    )


def _without_journal(run: Run) -> Run:
    """Return the state of a run through the API that has no journal, or whose journal is gone."""
    is_open = run.outcome in {Outcome.RUNNING, Outcome.UNFINISHED}
    if not is_open or (run.outcome is Outcome.RUNNING and run.process.is_alive):
        return run
    if run.renames is not None:  # recorded after the journal was complete
        message = f"its journal is missing: {run.renames}"
        return replace(run, outcome=Outcome.UNFINISHED, message=message, renames=None)
    if not run.process.is_here:
        return replace(run, outcome=Outcome.UNKNOWN, message=_other_host(run))
    return _unsent(run)


def _unsent(run: Run) -> Run:
    """Return the state of a run through the API that sent no requests and changed nothing."""
    if run.outcome not in {Outcome.RUNNING, Outcome.UNFINISHED}:
        return run
    message = run.message or f"process {run.process.pid} died before it sent any request"
    return replace(run, outcome=Outcome.ROLLED_BACK, message=message)


def _part(kind: type[T], values: Any) -> T:
    found = values if isinstance(values, dict) else {}
    known = {
        field.name: found[field.name]
        for field in fields(kind)
        if isinstance(found.get(field.name), _KINDS[field.type])
    }
    return kind(**known)


def _outcome(event: Event) -> Outcome:
    try:
        return Outcome(event.get("outcome", ""))
    except ValueError:  # written by a newer version
        return Outcome.UNKNOWN


def _time(event: Event) -> dt.datetime:
    return dt.datetime.fromisoformat(event["at"])


def _text(event: Event, key: str) -> str | None:
    value = event.get(key)
    return value if isinstance(value, str) else None


def _texts(event: Event, key: str) -> tuple[str, ...] | None:
    value = event.get(key)
    return tuple(map(str, value)) if isinstance(value, list) else None


def _path(event: Event, key: str) -> Path | None:
    found = _text(event, key)
    return Path(found) if found else None


def _number(event: Event, key: str) -> int | None:
    value = event.get(key)
    return value if isinstance(value, int) else None
