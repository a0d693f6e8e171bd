"""Execution of a rename run through the API, from whatever point it has reached.

Each request is recorded in the journal before it is sent. The samples' current names show what
remains.

No name is requested while another sample still holds it: a row that takes another sample's name has
to wait for it, so that rows form chains and cycles. The live service writes the rows of one request
in ascending ID and checks each at once, so a row may share a request with the one it waits for only
if its ID is higher. A cycle is broken by giving one of its samples a temporary name, and so is a
chain that would take too many requests.

The cost of a request has a fixed part, a part per row, and, at the live service, a part that grows
with the square of the rows. None of these is known in advance, and they vary from day to day. So
the size is doubled as long as that pays off, and then stays near the best one.
"""

from __future__ import annotations

import csv
import io
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import IO, NamedTuple

from aspen.database.bulk.spec import Problem
from aspencli.changes.request_journal import RenameRow, RunJournal
from aspencli.errors import AspenError, ConflictError, NotFoundError, UnreachableError
from aspencli.remote.types import Sample
from aspencli.samples.remote import GroupSamples, ListedSample, Snapshot, Wanted
from aspencli.text import guard

_COLUMN = "public_identifier"
_HEADER = ("private_identifier", "new_public_identifier", "old_public_identifier", "id")
_LOOKS = 5  # comparisons of the run with the list before giving up
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 20.0
_NAMED = 200  # maximum number of rows to list in a message
_MOST_FAILURES = 40  # in a row; with the pauses, this takes a quarter of an hour
_ALL_DECIDE = 50  # names to look up to determine if a request took effect

DEEPEST = 8  # how often a chain may wait for another request before it is broken
_WAVE = 1_000  # rows that use temporary names before the next such wave begins
# The kinds of waves, in order; there may be many of the last kind.
_BEGUN, _ALONE, _CHAINED, _BROKEN = range(4)

_FIRST, SMALLEST, LARGEST = 100, 10, 5_000  # rows
_PAYS = 0.93  # A step pays off if a row costs at most this fraction of what it cost before.
_LONGEST_S = 20.0  # maximum expected time of a request
_STEP, _SIDESTEP = 2.0, 1.4
_REST = 6  # requests between two tries of a size near the best one
_CHANGED = 2.5  # times the known cost; above that, the server's performance has changed
_MOST_FALLS = 4  # failures at the wanted size, with no success in between
_MOST_DELAYS = 2  # the same for slow responses; a single one may be chance
_FORGETS = 1.01  # factor by which the maximum size after failures grows, with each sidestep
_WEIGHT = 0.5  # weight of a new measurement against the known cost of its size


def temporary_name(run: str, sample: int) -> str:
    """Return the temporary name of a sample in a run, used while names move between samples."""
    return f"aspencli-temporary-{run}-{sample}"


def wanted_by(rows: Iterable[RenameRow]) -> Wanted:
    """Return what a run needs from the list: its samples, and the holders of their names."""
    ids, names = set[int](), set[str]()
    for row in rows:
        ids.add(row.id)
        names.update((row.before, row.after))
    return Wanted(frozenset(ids), frozenset(names))


@dataclass
class Remaining:
    """The remaining work of a run.

    Attributes:
        renames: The renames that can be done.
        done: The number of changing rows that are done.
        aside: The problems of the rows that can no longer be done, ordered by line.
    """

    renames: list[Rename] = field(default_factory=list)
    done: int = 0
    aside: list[Problem] = field(default_factory=list)


def find_remaining(run: str, rows: Iterable[RenameRow], snapshot: Snapshot) -> Remaining:
    """Compare a run with the current list of samples.

    Samples that are gone or were renamed by another user are skipped, and so are those whose new
    name another sample keeps; a skipped sample with a temporary name gets its old name back.
    """
    found = Remaining()
    waiting: dict[int, tuple[RenameRow, ListedSample]] = {}
    for row in rows:
        if row.before == row.after:
            continue
        held = snapshot.samples.get(row.id)
        now = held.public_identifier if held else None
        is_temporary = now == temporary_name(run, row.id)
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
    found: Remaining, waiting: dict[int, tuple[RenameRow, ListedSample]], snapshot: Snapshot
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


def _problem(row: RenameRow, reason: str) -> Problem:
    return Problem(row.line, _COLUMN, reason)


class _NotMadeError(Exception):
    """A request whose response was lost did not take effect; resend it, in smaller parts."""


class RunStopped(Exception):  # noqa: N818 - not an error: the user asked for it
    """The run stopped on request: no sample has a temporary name, and the rest is not done."""


class Running:
    """The execution of a journal's run, from whatever point it has reached.

    Each request is recorded in the journal. ``tick`` is called with the number of rows done, and
    ``stops`` returns True if the user asked to stop.

    Attributes:
        done: The number of changing rows known to be done.
        total: The number of changing rows.
    """

    def __init__(
        self,
        place: GroupSamples,
        journal: RunJournal,
        tick: Callable[[int], None],
        stops: Callable[[], bool],
    ):
        self._place = place
        self._journal = journal
        self._tick = tick
        self._stops = stops
        self._steering = Steering()
        self._samples: dict[int, ListedSample] = {}
        self._others: frozenset[str] = frozenset()
        self._in_doubt = False
        self._failures = 0
        self.total = journal.to_change
        self.done = 0

    def run(self, snapshot: Snapshot, *, resumed: bool = False) -> Remaining:
        """Do all renames; a resumed run skips those that can no longer be done.

        A request of a resumed run's earlier process may still be in progress. Then, and after any
        lost response, everything is checked again at the end.

        Raises:
            ConflictError: Another user changed these samples, or took their names.
            Stopped: The user asked to stop.
            AspenError: The API refused, or does not respond.
        """
        self._in_doubt = resumed
        for _look in range(_LOOKS):
            left = self._measure(snapshot)
            schedule = self._schedule(left, resumed=resumed)
            done, refusal = left.done, self._work_unless_refused(schedule)
            if not self._in_doubt:
                return left
            snapshot, self._in_doubt = self._place.read(wanted_by(self._journal.rows)), False
            left = self._measure(snapshot)
            if refusal and left.done == done and not left.aside:
                raise refusal  # Nothing in the list explains it.
            if not left.renames and (resumed or not left.aside):
                return left
        raise _keep_changing()

    def _schedule(self, left: Remaining, *, resumed: bool) -> Schedule:
        """Return the moves to make: of a new run with a conflict, only those that have begun.

        Raises:
            ConflictError: There is a conflict, and none has begun.
        """
        schedule = Schedule(left.renames, partial(temporary_name, self._journal.head.run))
        if left.aside and not resumed:
            schedule.only_begun()
            if not schedule:
                raise _conflict(left, self.total)
        return schedule

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
            raise RunStopped

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
            time.sleep(min(_PAUSE_S * 2 ** min(self._failures - 2, 10), _LONGEST_PAUSE_S))


def _tired(failures: int) -> AspenError:
    return UnreachableError(
        f"The API did not respond to any of the last {failures:,} rename requests.",
        hint="Wait until it is available again, then resume the run.",
    )


def _keep_changing() -> AspenError:
    return ConflictError(
        "The samples keep changing while they are renamed: another user is updating them.",
        hint="Find out who it is, then resume the run.",
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


def write_rows(rows: Iterable[RenameRow], file: IO[bytes]) -> None:
    """Write the rows of an undo file, as `aspen.database.bulk.sql_apply.undo` does in SQL."""
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    for row in rows:
        if row.before != row.after:
            writer.writerow((guard(row.key), guard(row.after), guard(row.before), row.id))
    text.detach()  # Leave the file open.


class Rename(NamedTuple):
    """A sample's current name and its new one."""

    id: int
    before: str
    after: str


class Move(NamedTuple):
    """One step of a sample's rename; a rename through a temporary name takes two.

    Attributes:
        parks: True if the name after it is the temporary one.
        wave: The number of a set of moves that should be completed once begun.
    """

    id: int
    before: str
    after: str
    parks: bool = False
    wave: int = _ALONE


class Schedule:
    """The remaining moves, handed out request by request.

    Samples that already have their temporary name come first, with everything they wait for. Each
    rename has a unique sample and unique names; each new name is free or held by another of these
    samples. Nothing else has the temporary name of a sample.
    """

    def __init__(self, renames: Iterable[Rename], temporary: Callable[[int], str]):
        self._left = deque(_moves(list(renames), temporary))
        self._open = {_BEGUN}

    def __len__(self) -> int:
        return len(self._left)

    @property
    def parks(self) -> int:
        """Return the number of temporary names still to be given."""
        return sum(move.parks for move in self._left)

    def take(self, size: int) -> list[Move]:
        """Return the moves of the next request in ascending ID: at most ``size``, and at least one.

        The batch ends early before a move that has to wait for one in the same batch.
        """
        taken: dict[int, Move] = {}
        released: dict[str, int] = {}
        while self._left and len(taken) < max(size, 1):
            move = self._left[0]
            if move.id in taken or released.get(move.after, move.id) > move.id:
                break
            self._left.popleft()
            taken[move.id] = move
            released[move.before] = move.id
        self._open |= {move.wave for move in taken.values() if move.parks}
        return [taken[number] for number in sorted(taken)]

    def put_back(self, moves: Iterable[Move]) -> None:
        """Put moves that were not made back at the front of the queue."""
        self._left.extendleft(reversed(list(moves)))

    def only_begun(self) -> None:
        """Drop all moves except those needed to leave no sample with a temporary name."""
        self._left = deque(move for move in self._left if move.wave in self._open)


def _moves(renames: list[Rename], temporary: Callable[[int], str]) -> list[Move]:
    placed: list[tuple[int, int, Move]] = []  # wave, level within it, move
    wave, rows = _BROKEN, 0
    for chain, is_cycle in _components(renames):
        levels, parked = _levels(chain, is_cycle=is_cycle)
        if any(row.before == temporary(row.id) for row in chain):
            kind = _BEGUN
        elif not parked:
            kind = _ALONE if len(chain) == 1 else _CHAINED
        else:
            if rows >= _WAVE:
                wave, rows = wave + 1, 0
            rows += len(chain)
            kind = wave
        for row, level in zip(chain, levels, strict=True):
            now = row.before
            if row.id in parked:
                now = temporary(row.id)
                placed.append((kind, -1, Move(row.id, row.before, now, parks=True, wave=kind)))
            placed.append((kind, level, Move(row.id, now, row.after, wave=kind)))
    placed.sort(key=lambda place: (place[0], place[1], place[2].id))
    return [move for _wave, _level, move in placed]


def _components(renames: list[Rename]) -> Iterator[tuple[list[Rename], bool]]:
    """Yield the chains, each starting with the row whose new name is free, and the cycles.

    A cycle ends with its highest ID: once that sample has its temporary name, its row may follow
    the row it waits for in the same request.
    """
    holders = {row.before: row for row in renames}
    takers = {row.after: row for row in renames}
    seen: set[int] = set()
    for row in renames:
        if row.after not in holders:
            chain = list(_follow(row, takers))
            seen.update(each.id for each in chain)
            yield chain, False
    for row in renames:
        if row.id not in seen:
            cycle = list(_follow(row, takers))
            seen.update(each.id for each in cycle)
            last = max(range(len(cycle)), key=lambda place: cycle[place].id)
            yield cycle[last + 1 :] + cycle[: last + 1], True


def _follow(first: Rename, takers: dict[str, Rename]) -> Iterator[Rename]:
    row: Rename | None = first
    while row is not None:
        yield row
        row = takers.get(row.before)
        if row is first:
            return


def _levels(chain: list[Rename], *, is_cycle: bool) -> tuple[list[int], set[int]]:
    """Return the level of each row in a chain, and the samples to give temporary names first."""
    parked = {chain[-1].id} if is_cycle else set()
    levels, level = [0], 0
    for before, row in pairwise(chain):
        level += row.id < before.id
        if level > DEEPEST:
            parked.add(before.id)  # so that the row need not wait for it
            level = 0
        levels.append(level)
    return levels, parked


class Steering:
    """A controller for the size of the next request, steered by the response times so far."""

    def __init__(self) -> None:
        self._best = _FIRST
        self._costs: dict[int, float] = {}  # seconds per row, by size
        self._trying: int | None = None
        self._cap = LARGEST
        self._falls = self._delays = 0
        self._ceiling: float = LARGEST
        self._climbing = True
        self._rested = 0
        self._up = False

    @property
    def size(self) -> int:
        """Return the number of rows for the next request."""
        return min(self._wanted, self._cap)

    @property
    def _wanted(self) -> int:
        return self._trying or self._best

    def took(self, size: int, seconds: float) -> None:
        """Learn from the time of a successful request, unless its size is not the current one."""
        if size != self.size:
            return
        if size < self._wanted:  # still recovering from a failure
            self._cap = size * 2
            return
        self._cap, self._falls = LARGEST, 0
        known = self._costs.get(size)
        cost = seconds / size
        if seconds > _LONGEST_S or (known is not None and cost > _CHANGED * known):
            self._delays += 1
            if self._delays >= _MOST_DELAYS:
                self._begin_again(size)
                self._delays = _MOST_DELAYS - 1  # until one is fast again
            return
        self._delays = 0
        self._costs[size] = cost if known is None else known + _WEIGHT * (cost - known)
        if self._trying is not None:
            self._judge()
        else:
            self._rested += 1
        self._choose(seconds)

    def stumbled(self) -> None:
        """Learn that a request failed or its response was lost; smaller ones lose less."""
        if self.size == self._wanted:  # If smaller requests fail too, the size is not the cause.
            self._falls += 1
        self._cap = max(SMALLEST, self.size // 2)
        if self._falls >= _MOST_FALLS:  # The size is the cause.
            self._ceiling = max(SMALLEST, 0.9 * self._wanted)
            self._begin_again(self._wanted)
            self._falls = 0

    def _begin_again(self, size: int) -> None:
        """Forget the known costs, because the server's performance has changed."""
        self._costs.clear()
        self._best = max(SMALLEST, size // 2)
        self._trying, self._climbing, self._rested = None, True, 0

    def _judge(self) -> None:
        """Decide if the size just tried becomes the best one."""
        tried, self._trying = self._trying or self._best, None
        if self._costs[tried] <= self._costs.get(self._best, math.inf) * _PAYS:
            self._best = tried
        elif self._climbing:
            self._climbing = False
            if self._costs[tried] < self._costs.get(self._best, math.inf):
                self._best = tried
        self._rested = 0

    def _choose(self, seconds: float) -> None:
        """Decide if another size is tried next, and which one."""
        if self._climbing:
            factor = _STEP
        elif self._rested >= _REST:
            self._up = not self._up
            self._ceiling = min(self._ceiling * _FORGETS, LARGEST)
            factor = _SIDESTEP if self._up else 1 / _SIDESTEP
        else:
            return
        wanted = min(max(round(self._best * factor), SMALLEST), int(self._ceiling))
        # Assume the worst case, that the time grows with the square of the rows.
        expected = seconds * max(1.0, wanted / self._best) ** 2
        if wanted == self._best or expected > _LONGEST_S:
            self._climbing, self._rested = False, 0
            return
        self._trying = wanted
