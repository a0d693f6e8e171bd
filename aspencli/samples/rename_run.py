"""Execution of a rename run through the API, from whatever point it has reached.

Each request is recorded in the journal before it is sent. The samples' current names show what
remains.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import IO

from aspen.database.bulk.spec import Problem
from aspencli.changes.request_journal import Row, RunJournal
from aspencli.errors import AspenError, ConflictError, NotFoundError, UnreachableError
from aspencli.remote.api import Sample
from aspencli.samples.rename_plan import GroupSamples, ListedSample, Snapshot
from aspencli.samples.rename_schedule import Move, Rename, Schedule, Steering
from aspencli.text import guard

_COLUMN = "public_identifier"
_HEADER = ("private_identifier", "new_public_identifier", "old_public_identifier", "id")
_LOOKS = 5  # comparisons of the run with the list before giving up
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 20.0
_NAMED = 200  # maximum number of rows to list in a message
_MOST_FAILURES = 40  # in a row; with the pauses, this takes a quarter of an hour
_ALL_DECIDE = 50  # names to look up to determine if a request took effect


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


def find_remaining(run: str, rows: Iterable[Row], snapshot: Snapshot) -> Remaining:
    """Compare a run with the current list of samples.

    Samples that are gone or were renamed by another user are skipped, and so are those whose new
    name another sample keeps; a skipped sample with a temporary name gets its old name back.

    Args:
        run: The run's ID.
        rows: All rows of the run.
        snapshot: The current list.
    """
    found = Remaining()
    waiting: dict[int, tuple[Row, ListedSample]] = {}
    for row in rows:
        if row.before == row.after:
            continue
        held = snapshot.samples.get(row.id)
        now = held.public_identifier if held else None
        is_temporary = now == temporary_name(run, row.id)
        found.temporary += is_temporary
        if held is None:
            found.aside.append(_problem(row, f'sample "{row.key}" no longer exists'))
        elif now == row.after:
            found.done += 1
        elif now == row.before or is_temporary:
            waiting[row.id] = (row, held)
        else:
            reason = f'sample "{row.key}" is now named "{now}": another user renamed it'
            found.aside.append(_problem(row, reason))
    _leave_blocked(found, waiting, snapshot)
    found.renames += [Rename(row.id, h.public_identifier, row.after) for row, h in waiting.values()]
    found.aside.sort(key=lambda problem: problem.line)
    return found


def _leave_blocked(
    found: Remaining, waiting: dict[int, tuple[Row, ListedSample]], snapshot: Snapshot
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
        found.aside.append(_problem(row, f'"{row.after}" is already used by sample "{keeper}"'))
        if held.public_identifier != row.before and not (
            row.before in holders or row.before in takers
        ):
            found.renames.append(Rename(row.id, held.public_identifier, row.before))
        taker = takers.get(held.public_identifier)
        if taker in waiting:
            queue.append(taker)


def _problem(row: Row, reason: str) -> Problem:
    return Problem(row.line, _COLUMN, reason)


class _NotMadeError(Exception):
    """A request whose response was lost did not take effect; resend it, in smaller parts."""


class Stopped(Exception):  # noqa: N818 - not an error: the user asked for it
    """The run stopped on request: no sample has a temporary name, and the rest is not done."""


class Running:
    """The execution of a journal's run, from whatever point it has reached.

    Args:
        place: The group's samples.
        journal: The run; each request is recorded in it.
        tick: Called with the number of rows done.
        stops: Returns True if the user asked to stop.
        sleep: Waits for a number of seconds.

    Attributes:
        done: The number of changing rows known to be done.
        total: The number of changing rows.
    """

    def __init__(
        self,
        place: GroupSamples,
        journal: RunJournal,
        tick: Callable[[int], None] = lambda _done: None,
        stops: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._place = place
        self._journal = journal
        self._tick = tick
        self._stops = stops
        self._sleep = sleep
        self._steering = Steering()
        self._samples: dict[int, ListedSample] = {}
        self._others: frozenset[str] = frozenset()
        self._in_doubt = False
        self._failures = 0
        self.total = journal.to_change
        self.done = 0

    def run(self, snapshot: Snapshot, *, resumed: bool = False) -> Remaining:
        """Do all renames; a resumed run skips those that can no longer be done.

        Args:
            snapshot: The current list of samples.
            resumed: True if a request of an earlier process may still be in progress. Then, and
                after any lost response, everything is checked again at the end.

        Raises:
            ConflictError: Another user changed these samples, or took their names.
            Stopped: The user asked to stop.
            AspenError: The API refused, or does not respond.
        """
        self._in_doubt = resumed
        for _look in range(_LOOKS):
            left = self._measure(snapshot)
            schedule = self._schedule(left)
            if left.aside and not resumed:
                schedule.only_begun()
                if not schedule:
                    raise _conflict(left, self.total)
            done, refusal = left.done, self._work_unless_refused(schedule)
            if not self._in_doubt:
                return left
            snapshot, self._in_doubt = self._place.read(), False
            left = self._measure(snapshot)
            if refusal and left.done == done and not left.aside:
                raise refusal  # Nothing in the list explains it.
            if not left.renames and (resumed or not left.aside):
                return left
        raise ConflictError(
            "The samples keep changing while they are renamed: another user is updating them.",
            hint="Find out who it is, then resume the run.",
        )

    def _schedule(self, left: Remaining) -> Schedule:
        return Schedule(left.renames, partial(temporary_name, self._journal.head.run))

    def _work_unless_refused(self, schedule: Schedule) -> AspenError | None:
        """Make the moves; return the error if the service refuses one."""
        try:
            self._work(schedule)
        except (ConflictError, NotFoundError) as error:
            self._in_doubt = True  # A concurrent change will show in the list.
            self._failures += 1
            self._wait()
            return error
        return None

    def _measure(self, snapshot: Snapshot) -> Remaining:
        left = find_remaining(self._journal.head.run, self._journal.rows, snapshot)
        self._samples = snapshot.samples
        self._others = snapshot.elsewhere | {s.private_identifier for s in self._samples.values()}
        self.done = left.done
        return left

    def _work(self, schedule: Schedule) -> None:
        is_stopping = False
        while schedule:
            if self._stops() and not is_stopping:
                is_stopping = True
                schedule.only_begun()
                continue
            moves = schedule.take(self._steering.size)
            try:
                self._send(moves)
            except _NotMadeError:
                schedule.put_back(moves)
                if self._failures > _MOST_FAILURES:
                    raise _tired(self._failures) from None
                self._wait()
        if is_stopping:
            raise Stopped

    def _send(self, moves: Sequence[Move]) -> None:
        records = [self._samples[move.id].named(move.after) for move in moves]
        self._journal.sending((move.id for move in moves), parks=sum(m.parks for m in moves))
        began, was_in_doubt = time.monotonic(), self._in_doubt
        self._in_doubt = False
        place = self._place
        settle = partial(self._settle, moves)
        try:
            place.samples.replace(place.group_id, place.slug, records, settle)
        finally:
            lost, self._in_doubt = self._in_doubt, self._in_doubt or was_in_doubt
        seconds = time.monotonic() - began
        self._journal.answered(seconds)
        if lost:
            self._steering.stumbled()
        else:
            self._steering.took(len(moves), seconds)
        self._made(moves)

    def _made(self, moves: Sequence[Move]) -> None:
        self._failures = 0
        for move in moves:
            held = self._samples[move.id]
            self._samples[move.id] = held._replace(public_identifier=move.after)
            self.done += not move.parks
        self._tick(self.done)

    def _settle(self, moves: Sequence[Move]) -> list[Sample]:
        """Return an empty list if a request whose response was lost seems to have taken effect.

        The service finds names of several kinds, so this may be wrong; the final check decides.

        Raises:
            _NotMadeError: It did not, or not yet; sending it twice does no harm.
        """
        self._in_doubt = True
        before = {self._samples[move.id].public_identifier for move in moves}
        fresh = [m.after for m in moves if m.after not in before and m.after not in self._others]
        if fresh and self._place.has(fresh[:_ALL_DECIDE]):
            return []
        self._steering.stumbled()
        self._failures += 1
        raise _NotMadeError

    def _wait(self) -> None:
        if self._failures > 1:  # The client itself has waited once.
            self._sleep(min(_PAUSE_S * 2 ** min(self._failures - 2, 10), _LONGEST_PAUSE_S))


def _tired(failures: int) -> AspenError:
    return UnreachableError(
        f"The API did not respond to any of the last {failures:,} rename requests.",
        hint="Wait until it is available again, then resume the run.",
    )


def _conflict(left: Remaining, total: int) -> AspenError:
    more = len(left.aside) - _NAMED
    details = [f"line {problem.line}: {problem.reason}" for problem in left.aside[:_NAMED]]
    return ConflictError(
        f"Another user changed samples in this file in the meantime; {left.done:,} of {total:,} "
        "are renamed.",
        hint="If you resume the run, it skips these samples.",
        details=[*details, f"and {more:,} more"] if more > 0 else details,
    )


def write_rows(rows: Iterable[Row], file: IO[bytes]) -> None:
    """Write the rows of an undo file, as `aspen.database.bulk.sql_write.undo` does in SQL."""
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    for row in rows:
        if row.before != row.after:
            writer.writerow((guard(row.key), guard(row.after), guard(row.before), row.id))
    text.detach()  # Leave the file open.
