"""Determine the remaining work of a run from the samples' current names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from aspencli.services.api_renames.journal import Row
from aspencli.services.api_renames.listing import Held, Snapshot
from aspencli.services.api_renames.ordering import Rename
from db.bulk.rows import Problem

_COLUMN = "public_identifier"


def temporary_name(run: str, sample: int) -> str:
    """Return the temporary name of a sample in a run, used while names move between samples."""
    return f"aspencli-temporary-{run}-{sample}"


@dataclass
class Remaining:
    """The remaining work of a run.

    Attributes:
        renames: The renames that can be done.
        done: The number of changing rows that are done.
        aside: The problems of the rows that can no longer be done, ordered by line.
        temporary: The number of samples with a temporary name.
    """

    renames: list[Rename] = field(default_factory=list)
    done: int = 0
    aside: list[Problem] = field(default_factory=list)
    temporary: int = 0


def what_remains(run: str, rows: Iterable[Row], snapshot: Snapshot) -> Remaining:
    """Compare a run with the current list of samples.

    Samples that are gone or were renamed by another user are skipped, and so are those whose new
    name another sample keeps; a skipped sample with a temporary name gets its old name back.

    Args:
        run: The run's ID.
        rows: All rows of the run.
        snapshot: The current list.
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
    """Skip rows whose new name another sample keeps, and those that wait for them, and so on."""
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
