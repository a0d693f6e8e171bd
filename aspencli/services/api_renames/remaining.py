"""What is left to do of a run: told by what the samples are named now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from aspencli.services.api_renames.journal import Row
from aspencli.services.api_renames.listing import Held, Snapshot
from aspencli.services.api_renames.ordering import Rename
from db.bulk.rows import Problem

_COLUMN = "public_identifier"


def temporary_name(run: str, sample: int) -> str:
    """What a sample is named for a moment by a run, while others pass names on."""
    return f"aspencli-temporary-{run}-{sample}"


@dataclass
class Remaining:
    """What is left of a run.

    Attributes:
        renames: What can be done.
        done: How many rows that changed something are as they are to be.
        aside: The rows that cannot be done any more, and why, by line.
        temporary: How many samples have a temporary name.
    """

    renames: list[Rename] = field(default_factory=list)
    done: int = 0
    aside: list[Problem] = field(default_factory=list)
    temporary: int = 0


def what_remains(run: str, rows: Iterable[Row], snapshot: Snapshot) -> Remaining:
    """Hold a run against the list.

    A sample that is gone, or that somebody else named otherwise, is left alone, and so is one that
    is to have a name which another keeps; from a temporary name it goes back to its old one.

    Args:
        run: The run's id.
        rows: All that it is to do.
        snapshot: How things are.
    """
    found = Remaining()
    waiting: dict[int, tuple[Row, Held]] = {}
    for row in rows:
        if row.before == row.after:
            continue
        held = snapshot.samples.get(row.id)
        now = held.public_identifier if held else None
        is_temporary = now == temporary_name(run, row.id)
        found.temporary += is_temporary
        if held is None:
            found.aside.append(_problem(row, f'sample "{row.key}" is gone'))
        elif now == row.after:
            found.done += 1
        elif now == row.before or is_temporary:
            waiting[row.id] = (row, held)
        else:
            reason = f'sample "{row.key}" is named "{now}" now, which somebody else did'
            found.aside.append(_problem(row, reason))
    _leave_blocked(found, waiting, snapshot)
    found.renames += [Rename(row.id, h.public_identifier, row.after) for row, h in waiting.values()]
    found.aside.sort(key=lambda problem: problem.line)
    return found


def _leave_blocked(
    found: Remaining, waiting: dict[int, tuple[Row, Held]], snapshot: Snapshot
) -> None:
    """Leave out what wants a name that another keeps, and what waits for that, and so on."""
    holders = snapshot.holders()
    takers = {row.after: row.id for row, _held in waiting.values()}
    queue = [
        row.id
        for row, _held in waiting.values()
        if row.after in holders and holders[row.after].id not in waiting
    ]
    while queue:
        row, held = waiting.pop(queue.pop())
        keeper = holders[row.after].private_identifier
        found.aside.append(_problem(row, f'"{row.after}" is held by sample "{keeper}"'))
        if held.public_identifier != row.before and not (
            row.before in holders or row.before in takers
        ):
            found.renames.append(Rename(row.id, held.public_identifier, row.before))
        taker = takers.get(held.public_identifier)
        if taker in waiting:
            queue.append(taker)


def _problem(row: Row, reason: str) -> Problem:
    return Problem(row.line, _COLUMN, reason)
