"""Jobs as commands see them: a row of the database, what runs it, or both."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from aspen.workflows.engine import Job, State, tree_job_id
from aspen.workflows.engine.executions import Description, Execution
from aspencli.text import as_id

STARTED, COMPLETED, FAILED = "STARTED", "COMPLETED", "FAILED"
"""The statuses of a row."""
GRACE = dt.timedelta(minutes=10)
"""The time in which a new row may have no job yet: the row is written before the job starts."""
LIMIT = dt.timedelta(hours=72)
"""The longest time that a job can run."""
_RUN = re.compile(r"phylo-run-(\d{1,18})", re.ASCII)


class JobKind(StrEnum):
    """The kinds of jobs that can be started, as in `aspen.workflows.jobs`, without pydantic."""

    TREE = "tree"
    QC = "qc"
    LINEAGES = "lineages"
    IMPORT_REPOSITORY = "import-repository"
    IMPORT_LINEAGES = "import-lineages"
    IMPORT_LOCATIONS = "import-locations"


class JobState(StrEnum):
    """The states of a job; the engine's, and one for a row that nothing will ever change."""

    QUEUED = "queued"
    RUNNING = "running"
    STUCK = "stuck"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class RunRow:
    """A row of the table of workflows. Times are in UTC."""

    id: int
    kind: str
    status: str
    started: dt.datetime | None = None
    ended: dt.datetime | None = None
    name: str | None = None
    tree_type: str | None = None
    group_id: int | None = None
    group: str | None = None
    prefix: str | None = None
    location: str | None = None
    division: str | None = None
    pathogen: str | None = None
    user: str | None = None
    tree: int | None = None

    @property
    def filestem(self) -> str:
        """Return the folder of the run's files in the bucket."""
        return f"{self.location or self.division or self.prefix}/{self.tree_type}"


@dataclass(frozen=True)
class JobView:
    """One job: its row, its execution or local job, or both.

    Attributes:
        row: The row of the database; jobs for samples have none.
        execution: The execution on a cloud target.
        job: The job of the engine on this machine.
        state: The state that follows from all of them.
        step: The step it is in.
    """

    state: JobState
    row: RunRow | None = None
    execution: Execution | None = None
    job: Job | None = None
    step: str = ""
    kind: str = ""
    group: str | None = None
    pathogen: str | None = None

    @property
    def key(self) -> str:
        """Return what commands call the job: the ID of its row, or else the engine's."""
        if self.row is not None:
            return str(self.row.id)
        if self.execution is not None:
            return self.execution.name
        return self.job.id if self.job is not None else ""

    @property
    def started(self) -> dt.datetime | None:
        """Return the time of its start."""
        if self.row is not None and self.row.started:
            return self.row.started
        if self.execution is not None:
            return self.execution.started
        return (self.job.started or self.job.created) if self.job is not None else None

    @property
    def ended(self) -> dt.datetime | None:
        """Return the time of its end, if it ended."""
        row = self.row.ended if self.row is not None else None
        if row is not None:
            return row
        found = self.execution or self.job
        return found.ended if found is not None else None

    @property
    def engine_id(self) -> str | None:
        """Return the engine's ID, if the engine knows the job."""
        if self.execution is not None:
            return self.execution.name
        return self.job.id if self.job is not None else None

    @property
    def reason(self) -> str | None:
        """Return the reason for its end, as far as it is known without looking for it."""
        if self.job is not None and self.job.reason:
            return self.job.reason
        if isinstance(self.execution, Description):
            return self.execution.error or None
        return None

    def columns(self) -> dict[str, Any]:
        """Return the job as a row of a result."""
        row = self.row
        return {
            "id": self.key,
            "kind": self.kind or (row.kind if row else ""),
            "state": self.state.value,
            "step": self.step or None,
            "group": row.group if row else self.group,
            "pathogen": row.pathogen if row else self.pathogen,
            "name": row.name if row else None,
            "started": _whole(self.started),
            "ended": _whole(self.ended),
            "status": row.status if row else None,
            "user": row.user if row else None,
            "job": self.engine_id,
        }


@dataclass(frozen=True)
class JobFilter:
    """The jobs that a list shows.

    Attributes:
        group: The ID, name, and prefix of the group.
        limit: The most jobs to show.
        names: The names of groups, by their prefixes in names of executions.
    """

    kind: str | None = None
    state: JobState | None = None
    group: tuple[int, str, str] | None = None
    since: dt.datetime | None = None
    limit: int | None = None
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_selective(self) -> bool:
        """Return True if the filter leaves out jobs for another reason than their age."""
        return bool(self.kind or self.state or self.group)

    def accepts(self, view: JobView) -> bool:
        """Return True if the list shows a job."""
        if self.kind and view.columns()["kind"] != self.kind:
            return False
        if self.state and view.state is not self.state:
            return False
        if self.group and (view.row.group if view.row else view.group) != self.group[1]:
            return False
        return not (self.since and view.started and view.started < self.since)


@dataclass(frozen=True)
class JobListing:
    """A list of jobs, and what to know about it."""

    views: list[JobView]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Reason:
    """The cause of a job's end.

    Attributes:
        name: A short name for programs.
        text: What happened.
        next: What to do next.
        facts: More about it, by name.
        lines: The end of the log; None if there is none.
        notes: What could not be read.
    """

    name: str
    text: str
    next: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    lines: list[str] | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Settlement:
    """A row that is stuck, and the values that settle it."""

    row: RunRow
    status: str
    ended: dt.datetime
    reason: str


def run_id_of(key: str) -> int | None:
    """Return the ID of a row that a key names: ``9`` or ``phylo-run-9``; None for other keys."""
    found = _RUN.fullmatch(key)
    return int(found[1]) if found else as_id(key)


def state_of(
    row: RunRow | None,
    engine: State | None,
    now: dt.datetime,
    *,
    is_known: bool = True,
    waits: bool = False,
) -> JobState:
    """Return the state of a job.

    Args:
        row: Its row, if it has one.
        engine: The state in the engine; None if the engine does not have it.
        now: The time.
        is_known: False if the engine could not be asked, so that nothing follows from ``engine``.
        waits: True if it waits for a machine.
    """
    if engine is not None and not engine.ended:
        # A run that was started again has its old status until the first step begins.
        return JobState.QUEUED if waits else JobState(engine.value)
    if row is None:
        return JobState((engine or State.RUNNING).value)
    if row.status == COMPLETED:
        return JobState.DONE
    if row.status == FAILED:
        return JobState.CANCELLED if engine is State.CANCELLED else JobState.FAILED
    if not is_known:
        return JobState.RUNNING
    is_new = engine is None and row.started is not None and now - row.started < GRACE
    return JobState.QUEUED if is_new else JobState.STUCK


def job_id_of(row: RunRow) -> str:
    """Return the ID that the local engine gives the job of a row."""
    return tree_job_id(row.id)


def _whole(moment: dt.datetime | None) -> dt.datetime | None:
    return None if moment is None else moment.replace(microsecond=0)
