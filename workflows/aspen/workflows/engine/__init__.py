"""Start jobs and know their state: the same interface on a laptop and in the cloud.

This module needs the standard library only, so that commands can use it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol


class State(StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Return True if nothing more happens."""
        return self in {State.DONE, State.FAILED, State.CANCELLED}


@dataclass(frozen=True)
class Job:
    """A job and how far it is.

    Attributes:
        id: The engine's ID, such as ``phylo-run-9``.
        kind: The kind, such as ``tree``.
        parameters: What it was given.
        step: The name of the current or last step; empty before the first.
        number: The number of that step, from 1.
        steps: How many steps there are; 0 if unknown.
        reason: Why it failed or was cancelled, in words for people; empty otherwise.
        attempts: How often it was started.
    """

    id: str
    kind: str
    state: State
    parameters: Mapping[str, Any] = field(default_factory=dict)
    created: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None
    step: str = ""
    number: int = 0
    steps: int = 0
    reason: str = ""
    attempts: int = 1


class EngineError(Exception):
    """A failure of the engine, with what to do next in ``hint``."""

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.hint = hint


class Engine(Protocol):
    """A service that runs jobs."""

    def start(self, kind: str, parameters: Mapping[str, Any], job_id: str) -> str:
        """Start a job, unless one with this ID exists; return its ID.

        Raises:
            EngineError: It was not started.
        """
        ...

    def jobs(self, *, kind: str | None = None, limit: int | None = None) -> Iterable[Job]:
        """Yield the jobs, the latest first."""
        ...

    def state(self, job_id: str) -> Job | None:
        """Return a job, or None if the engine does not know it."""
        ...

    def cancel(self, job_id: str, why: str) -> None:
        """Stop a job, and wait until its processes are gone."""
        ...

    def retry(self, job_id: str) -> str:
        """Start a job that ended again; return its ID, which may be the same."""
        ...

    def logs(self, job_id: str, *, step: str | None = None, follow: bool = False) -> Iterator[str]:
        """Yield the lines of a job's log."""
        ...


def tree_job_id(run_id: int) -> str:
    """Return the ID of the job that builds the tree of a run: a run is never enqueued twice."""
    return f"phylo-run-{run_id}"
