"""An engine in memory, which is told what happens to its jobs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from aspen.workflows.engine import EngineError, Job, State


@dataclass
class MemoryEngine:
    """An engine that runs nothing."""

    known: dict[str, Job] = field(default_factory=dict)
    lines: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def add(self, job_id: str, state: State, **values: Any) -> None:
        now = dt.datetime.now(dt.UTC)
        usual = {"kind": "tree", "created": now, "steps": 7, "number": 2, "step": "tree-align"}
        self.known[job_id] = Job(job_id, state=state, **{**usual, **values})

    def start(self, kind: str, parameters: Mapping[str, Any], job_id: str) -> str:
        if job_id not in self.known:
            self.add(job_id, State.QUEUED, kind=kind, parameters=dict(parameters), step="")
        return job_id

    def jobs(self, *, kind: str | None = None, limit: int | None = None) -> Iterator[Job]:
        found = [job for job in self.known.values() if kind in {None, job.kind}]
        yield from found[::-1][:limit]

    def state(self, job_id: str) -> Job | None:
        return self.known.get(job_id)

    def cancel(self, job_id: str, why: str) -> None:
        job = self.known[job_id]
        if not job.state.ended:
            now = dt.datetime.now(dt.UTC)
            self.known[job_id] = replace(job, state=State.CANCELLED, reason=why, ended=now)

    def retry(self, job_id: str) -> str:
        job = self.known[job_id]
        if not job.state.ended:
            raise EngineError(f"The job {job_id} has not ended.", "Wait.")
        self.known[job_id] = replace(
            job, state=State.QUEUED, reason="", ended=None, attempts=job.attempts + 1
        )
        return job_id

    def logs(self, job_id: str, *, step: str | None = None, follow: bool = False) -> Iterator[str]:
        yield from (line for name, line in self.lines.get(job_id, []) if step in {None, name})
