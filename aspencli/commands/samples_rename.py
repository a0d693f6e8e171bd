"""A bulk rename as the operator sees it: plan, preview, consent, write, result."""

from __future__ import annotations

import datetime as dt
import shlex
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aspencli import homes
from aspencli.commands.rename_findings import Findings
from aspencli.commands.rename_rows import (
    PLAN_COLUMNS,
    RESULT_COLUMNS,
    nothing_to_do,
    plan_row,
    samples,
)
from aspencli.context import AppContext
from aspencli.errors import ConflictError, RefusedError
from aspencli.interrupts import Shield
from aspencli.output.console import Tick
from aspencli.services import renaming
from aspencli.services.job_files import JobFiles
from aspencli.services.journal import open_journal
from aspencli.services.recording import Recording, Subject, counts_of, place_of
from aspencli.services.renaming import Assessment, Faults
from aspencli.services.runs import Outcome, command_for
from aspencli.services.undofile import Origin, write_undo

if TYPE_CHECKING:
    from db.bulk.rename_types import Plan, Request

_STATEMENT_MS, _LOCK_MS = 1_800_000, 10_000
_TICK = 1_000  # rows between two looks at the progress bar


@dataclass(frozen=True)
class Purpose:
    """What a bulk rename is for.

    Attributes:
        command: What the history calls it.
        dry_run: Whether to stop at the plan.
        force: Whether to rename samples, too, that do not hold what is expected of them.
        undo_of: The run that it takes back, if any.
    """

    command: str
    dry_run: bool
    force: bool = False
    undo_of: str | None = None


class Job:
    """One bulk rename.

    Args:
        context: The run.
        stack: What closes what the job opens.
        group_id: The group whose samples are renamed.
        files: What it reads and writes.
        purpose: What it is for.

    Raises:
        NotFoundError: There is no such group.
    """

    def __init__(
        self,
        context: AppContext,
        stack: ExitStack,
        group_id: int,
        files: JobFiles,
        purpose: Purpose,
    ):
        from db.bulk.renames import RenameRun
        from db.database import Limits

        self.out = context.out
        self.faults = Faults()
        stack.callback(self.faults.close)
        self._context = context
        self._files = files
        self._purpose = purpose
        self._group_id = group_id
        limits = Limits(statement_ms=_STATEMENT_MS, lock_ms=_LOCK_MS)
        self._database = context.database(writable=not purpose.dry_run, limits=limits)
        self._store = stack.enter_context(RenameRun(self._database, group_id))
        self._group = renaming.require_group(self._store.group_name(), group_id)
        self._findings = Findings(self.out, self._store, files, self.faults)

    def assess(self, requests: Iterator[Request], *, skip_moved: bool = False) -> Assessment:
        """Hold the mapping against the database."""
        force = self._purpose.force
        with self.out.progress("Reading and planning") as tick:
            rows = _counted(requests, tick)
            return renaming.assess(
                self._store, rows, self.faults, skip_moved=skip_moved, force=force
            )

    def go(self, assessment: Assessment, name: str, remedy: str | None = None) -> None:
        """Refuse, show, or write; the history keeps all but dry runs.

        Args:
            assessment: What was found.
            name: What messages call the file that was read.
            remedy: What to do when it is refused, if that is more than mending lines.
        """
        plan = assessment.plan
        if self._purpose.dry_run:
            self._say(assessment, name, remedy)
            self.out.rows(PLAN_COLUMNS, map(plan_row, self._store.rows()))
            self._findings.report("would change")
            self.out.hint("Nothing was written (--dry-run).")
        else:
            subject = self._subject(assessment)
            with Recording(open_journal(), subject, self.out.warn) as recording:
                self._say(assessment, name, remedy)
                self._change(plan, recording)
        if plan.left_out:
            force = "" if self._purpose.force else "; --force takes those changed since, too"
            raise ConflictError(
                f"left alone, as named above: {samples(plan.left_out)} of {plan.rows:,}",
                hint=f"Look at each: aspencli samples show PRIVATE_IDENTIFIER{force}",
            )

    def _say(self, assessment: Assessment, name: str, remedy: str | None) -> None:
        """Say what will happen, or why it cannot."""
        if assessment.problems:
            self._findings.name_problems(assessment.problems)
            self._findings.put_aside_rejects()
            raise renaming.refuse(assessment, name, remedy)
        self._findings.put_aside_rejects()
        plan = assessment.plan
        self._findings.name_left_out(plan.left_out)
        self._findings.show_forced(plan.forced)
        self._say_plan(plan)

    def _change(self, plan: Plan, recording: Recording) -> None:
        if plan.to_change:
            self._consent(plan)
            self._apply(plan, recording)
            return
        recording.ended(Outcome.NOTHING)
        self.out.done(nothing_to_do(plan))
        self._findings.report("changed")
        self._show_result(plan, recording, None)

    def _subject(self, assessment: Assessment) -> Subject:
        return Subject(
            command=self._purpose.command,
            target=self._context.target.label,
            place=place_of(self._database.url, self._store.identity()),
            group_id=self._group_id,
            group=self._group,
            file=self._files.fingerprint.file,
            counts=counts_of(assessment),
            undo_of=self._purpose.undo_of,
        )

    def _consent(self, plan: Plan) -> None:
        first = list(self._store.rows(limit=10, changed_only=True))
        self.out.preview(PLAN_COLUMNS, map(plan_row, first))
        what = f"rename {samples(plan.to_change)} of group {self._group_id} ({self._group})"
        if plan.forced:
            what += f", {plan.forced:,} of them changed since,"
        target, given = self._context.target, self._context.options
        if (
            self._files.from_stdin
            and given["confirm"] is None
            and (target.is_production or not given["yes"])
        ):
            flag = f"--confirm {shlex.quote(target.label)}" if target.is_production else "--yes"
            raise RefusedError(
                f"standard input is the mapping, so nobody can be asked there whether to {what} "
                f"on {target.label}; nothing was written",
                hint=f"Look at the plan with --dry-run, then add {flag}.",
            )
        self._context.authorise(what)

    def _apply(self, plan: Plan, recording: Recording) -> None:
        label, now = self._context.target.label, dt.datetime.now(dt.UTC).isoformat()
        origin = Origin(label, self._group_id, now, plan.to_change)
        self._findings.prepare_report("changed")
        ask = command_for(label, "history", "check", recording.id)
        with Shield() as shield:
            undo: list[Path] = []

            def write(rows: renaming.WriteRows) -> Path:
                folder = homes.state_dir() / "undo"
                path = write_undo(folder, origin, rows, self._files.undo, shield.raise_shield)
                undo.append(path)
                return path

            def before_commit() -> None:
                shield.check()
                recording.committing(undo[0])

            try:
                with self.out.progress("Writing"):
                    path = renaming.apply(self._store, write, before_commit, recording.writing, ask)
            except ConflictError:
                self._findings.report("not written")
                raise
            recording.ended(Outcome.WRITTEN)
            self._findings.publish_report()
            self.out.done(f"{samples(plan.to_change)} renamed.")
            self._show_result(plan, recording, path)
            if shield.late:
                self.out.warn("the interrupt came after the commit: the change is written.")

    def _show_result(self, plan: Plan, recording: Recording, undo_file: Path | None) -> None:
        self.out.record(
            RESULT_COLUMNS,
            {
                "group_id": self._group_id,
                "group": self._group,
                "rows": plan.rows,
                "changed": plan.to_change,
                "already": plan.already,
                "left_out": plan.left_out,
                "undo_file": undo_file,
                "run": recording.id,
            },
        )
        if undo_file:
            words = ("samples", "undo", str(undo_file.absolute()))
            self.out.hint(f"To take it back: {command_for(self._context.target.label, *words)}")

    def _say_plan(self, plan: Plan) -> None:
        parts = [f"{plan.to_change:,} to change", f"{plan.already:,} already so"]
        if plan.detours:
            parts.append(f"{plan.detours:,} identifiers passed on within the file")
        group = f"group {self._group_id} ({self._group}) on {self._context.target.label}"
        self.out.info(f"{plan.rows:,} rows for {group}: {', '.join(parts)}.")


def _counted(requests: Iterator[Request], tick: Tick) -> Iterator[Request]:
    for count, request in enumerate(requests, start=1):
        if count % _TICK == 0:
            tick(count)
        yield request
