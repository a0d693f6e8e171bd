"""Verification of the records of runs: this machine's history, and the target's audit trail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aspencli.changes.journal import open_journal
from aspencli.changes.statements import digest_of_file
from aspencli.cli.changes.audit import TargetTrail
from aspencli.cli.output.formats import Row
from aspencli.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aspencli.changes.runs import Event
    from aspencli.changes.trail import Link, Verified
    from aspencli.cli.context import AppContext

_HISTORY, _TRAIL = "history", "audit trail"
_DAY = 8  # characters of a run ID with its date
_NEVER = ""


@dataclass(frozen=True)
class Verification:
    """The result of a verification."""

    checked: str  # what was read, for people
    problems: Sequence[Row]


def verify_records(context: AppContext) -> Verification:
    """Read this machine's history and the target's audit trail, and return what is wrong.

    Raises:
        AspenError: The audit trail cannot be read.
    """
    journal = open_journal()
    lines, faults = journal.verify()
    checked = [f"{counted(lines, 'line')} of the history"]
    problems = [_problem(_HISTORY, fault.line, fault.run, fault.reason) for fault in faults]
    events = journal.read().events
    problems += _edited_statements(events)
    place = TargetTrail(context)
    if (trail := place.trail) is None:
        checked.append(f"no audit trail of {place.label}")
    else:
        with context.out.progress(f"Reading the audit trail of {place.label}") as tick:
            found = trail.verify(_known(events, place.address), tick)
        entries = "1 entry" if len(found.links) == 1 else f"{len(found.links):,} entries"
        checked.append(f"{entries} of the audit trail of {place.label}")
        problems += [_problem(_TRAIL, each.number, each.run, each.reason) for each in found.faults]
        problems += _unknown_here(events, found, journal.id)
    return Verification(", ".join(checked), problems)


def _problem(place: str, number: int | None, run: str, reason: str) -> Row:
    return {"place": place, "entry": number, "run": run or None, "problem": reason}


def _edited_statements(events: Sequence[Event]) -> Iterator[Row]:
    """Yield the sessions whose statements are not as they were written."""
    for event in events:
        facts = event.get("statements")
        wanted = facts.get("sha256") if isinstance(facts, dict) else None
        if wanted is not None and digest_of_file(event["run"]) != wanted:
            yield _problem(_HISTORY, None, event["run"], "its statements were edited or removed")


def _known(events: Sequence[Event], address: str) -> dict[int, str]:
    """Return the SHA-256 of the entries that this machine wrote, by number."""
    return {
        event["number"]: event["sha256"]
        for event in events
        if event.get("trail") == address and isinstance(event.get("number"), int)
    }


def _unknown_here(events: Sequence[Event], found: Verified, log: str) -> Iterator[Row]:
    """Yield the runs that this machine made according to the trail, but not to its history."""
    known = {event["run"] for event in events}
    pruned = max((_day(event) for event in events if event["event"] == "pruned"), default=_NEVER)
    for number, link in _own(found.links, log).items():
        run = link.mention.run
        if run not in known and run[:_DAY] > pruned:
            reason = "this machine made it, but its history does not have it"
            yield _problem(_TRAIL, number, run, reason)


def _own(links: Mapping[int, Link], log: str) -> dict[int, Link]:
    return {number: link for number, link in links.items() if link.log == log}


def _day(event: Event) -> str:
    """Return the day up to which runs may have been removed, in the form of run IDs."""
    return str(event.get("before", ""))[:10].replace("-", "")
