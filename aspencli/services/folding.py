"""Runs as reconstructed from journal events; unknown events and fields are ignored."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from aspencli.services.api_renames.journal import Standing, look_up
from aspencli.services.journal import Event
from aspencli.services.machine import Process
from aspencli.services.runs import Counts, InputFile, Outcome, Place, Run

T = TypeVar("T", Place, InputFile, Counts)

_API = "api"
_KINDS: dict[Any, type] = {"str | None": str, "int | None": int}


def fold(events: Iterable[Event]) -> list[Run]:
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
    )


def _process(event: Event) -> Process:
    return Process(
        _text(event, "host") or "",
        _number(event, "pid") or 0,
        _text(event, "process_started") or "",
    )


def _writing(run: Run, event: Event) -> Run:
    return replace(run, transaction=_number(event, "transaction"))


def _committing(run: Run, event: Event) -> Run:
    undo = _text(event, "undo_file")
    return replace(
        run,
        committing=True,
        transaction=_number(event, "transaction"),
        counts=_part(Counts, event.get("counts")),
        undo_file=Path(undo) if undo else None,
    )


def _sending(run: Run, event: Event) -> Run:
    undo, renames = _text(event, "undo_file"), _text(event, "renames")
    return replace(
        run, undo_file=Path(undo) if undo else None, renames=Path(renames) if renames else None
    )


def _resumed(run: Run, event: Event) -> Run:
    return replace(run, outcome=Outcome.RUNNING, message=None, process=_process(event))


def _ended(run: Run, event: Event) -> Run:
    seconds = event.get("seconds")
    return replace(
        run,
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
    "writing": _writing,
    "committing": _committing,
    "sending": _sending,
    "resumed": _resumed,
    "ended": _ended,
    "checked": _checked,
}


def _settled(run: Run) -> Run:
    if run.via == _API:
        standing = look_up(run.id)
        return _without_journal(run) if standing is None else _by_journal(run, standing)
    if run.outcome is not Outcome.RUNNING or run.process.is_alive:
        return run
    stage = "at the commit" if run.committing else "before the commit"
    message = f"process {run.process.pid} died {stage}"
    if not run.process.is_here:
        message = _elsewhere(run)
    return replace(run, outcome=Outcome.UNKNOWN, message=message)


def _elsewhere(run: Run) -> str:
    return f"it ran on {run.process.host}, whose processes cannot be seen from here"


def _by_journal(run: Run, found: Standing) -> Run:
    """Return a run through the API in the state shown by its journal."""
    if found.ended is not None:
        outcome = _outcome({"outcome": found.ended})
        told = replace(run, renames=found.path, basis=found.basis or run.basis)
        return told if outcome is run.outcome else replace(told, outcome=outcome, message=None)
    if found.busy:
        return replace(run, outcome=Outcome.RUNNING, message=None, renames=found.path)
    if not found.begun:
        return _unsent(run)
    message = f"process {run.process.pid} died with some of its requests sent"
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
        message = f"its journal is gone: {run.renames}"
        return replace(run, outcome=Outcome.UNFINISHED, message=message, renames=None)
    if not run.process.is_here:
        return replace(run, outcome=Outcome.UNKNOWN, message=_elsewhere(run))
    return _unsent(run)


def _unsent(run: Run) -> Run:
    """Return the state of a run through the API that sent no requests and changed nothing."""
    if run.outcome not in {Outcome.RUNNING, Outcome.UNFINISHED}:
        return run
    message = run.message or f"process {run.process.pid} died before it sent anything"
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


def _number(event: Event, key: str) -> int | None:
    value = event.get(key)
    return value if isinstance(value, int) else None
