"""A bulk run as the operator sees it: plan, preview, consent, write, result."""

from __future__ import annotations

import datetime as dt
import shlex
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from aspencli import homes
from aspencli.commands.bulk_findings import Findings
from aspencli.commands.bulk_rows import RESULT_COLUMNS, nothing_to_do
from aspencli.commands.bulk_views import View
from aspencli.context import AppContext
from aspencli.errors import ConflictError, RefusedError
from aspencli.interrupts import Shield
from aspencli.output.console import Tick
from aspencli.services import bulk
from aspencli.services.bulk import Assessment, Faults
from aspencli.services.job_files import JobFiles
from aspencli.services.journal import open_journal
from aspencli.services.recording import Recording, Subject, counts_of, place_of
from aspencli.services.runs import Outcome, command_for
from aspencli.services.undofile import origin_of, write_undo

if TYPE_CHECKING:
    from aspencli.output.rendering import Row
    from db.bulk.rows import Plan, PlannedRow, Request
    from db.bulk.spec import Spec

_STATEMENT_MS, _LOCK_MS = 1_800_000, 10_000
_TICK = 1_000  # rows between two looks at the progress bar


@dataclass(frozen=True)
class Purpose:
    """What a bulk run is for.

    Attributes:
        command: What the history calls it.
        spec: What it changes.
        view: How it is shown.
        dry_run: Whether to stop at the plan.
        force: Whether to change rows, too, that do not hold what is expected of them.
        undo_of: The run that it takes back, if any.
    """

    command: str
    spec: Spec
    view: View
    dry_run: bool
    force: bool = False
    undo_of: str | None = None


class Job:
    """One bulk run.

    Args:
        context: The run.
        stack: What closes what the job opens.
        group_id: The group whose rows are changed; None where the table has no groups.
        files: What it reads and writes.
        purpose: What it is for.

    Raises:
        NotFoundError: There is no such group.
    """

    def __init__(
        self,
        context: AppContext,
        stack: ExitStack,
        group_id: int | None,
        files: JobFiles,
        purpose: Purpose,
    ):
        from db.bulk.run import BulkRun
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
        self._view = purpose.view
        self._store = stack.enter_context(BulkRun(self._database, purpose.spec, group_id))
        self._group: str | None = None
        if group_id is not None:
            self._group = bulk.require_group(self._store.scope_name(), group_id)
        self._findings = Findings(self.out, self._store, files, self._view, self.faults)

    def assess(self, requests: Iterator[Request], *, skip_moved: bool = False) -> Assessment:
        """Hold the file against the database."""
        force = self._purpose.force
        with self.out.progress("Reading and planning") as tick:
            rows = _counted(requests, tick)
            return bulk.assess(self._store, rows, self.faults, skip_moved=skip_moved, force=force)

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
            self.out.rows(self._view.plan_columns, self._shown(self._store.rows()))
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
                f"left alone, as named above: {self._view.count(plan.left_out)} of {plan.rows:,}",
                hint=f"Look at each: aspencli samples show PRIVATE_IDENTIFIER{force}",
            )

    def _say(self, assessment: Assessment, name: str, remedy: str | None) -> None:
        """Say what will happen, or why it cannot."""
        if assessment.problems:
            self._findings.name_problems(assessment.problems)
            self._findings.put_aside_rejects()
            raise bulk.refuse(assessment, name, remedy)
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
        self.out.preview(self._view.plan_columns, self._shown(first))
        what = f"{self._view.verb} {self._view.count(plan.to_change)}{self._of_group}"
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
                f"standard input is the {self._view.file}, so nobody can be asked there whether "
                f"to {what} on {target.label}; nothing was written",
                hint=f"Look at the plan with --dry-run, then add {flag}.",
            )
        self._context.authorise(what)

    def _apply(self, plan: Plan, recording: Recording) -> None:
        label, now = self._context.target.label, dt.datetime.now(dt.UTC).isoformat()
        origin = origin_of(self._purpose.spec, label, self._group_id, now, plan.to_change)
        self._findings.prepare_report("changed")
        ask = command_for(label, "history", "check", recording.id)
        with Shield() as shield:
            undo: list[Path] = []

            def write(rows: bulk.WriteRows) -> Path:
                folder = homes.state_dir() / "undo"
                path = write_undo(folder, origin, rows, self._files.undo, shield.raise_shield)
                undo.append(path)
                return path

            def before_commit() -> None:
                shield.check()
                recording.committing(undo[0])

            try:
                with self.out.progress("Writing"):
                    path = bulk.apply(
                        self._store,
                        write,
                        before_commit,
                        recording.writing,
                        ask=ask,
                        noun=self._view.noun,
                    )
            except ConflictError:
                self._findings.report("not written")
                raise
            recording.ended(Outcome.WRITTEN)
            self._findings.publish_report()
            self.out.done(f"{self._view.count(plan.to_change)} {self._view.done}.")
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
            words = (*self._view.undo, str(undo_file.absolute()))
            self.out.hint(f"To take it back: {command_for(self._context.target.label, *words)}")

    def _say_plan(self, plan: Plan) -> None:
        parts = [f"{plan.to_change:,} to change", f"{plan.already:,} already so"]
        if plan.detours:
            parts.append(f"{plan.detours:,} identifiers passed on within the file")
        group = "" if self._group is None else f"group {self._group_id} ({self._group}) on "
        where = f"{group}{self._context.target.label}"
        self.out.info(f"{plan.rows:,} rows for {where}: {', '.join(parts)}.")

    def _shown(self, rows: Iterable[PlannedRow]) -> Iterator[Row]:
        return chain.from_iterable(map(self._view.plan_rows, rows))

    @property
    def _of_group(self) -> str:
        return "" if self._group is None else f" of group {self._group_id} ({self._group})"


def _counted(requests: Iterator[Request], tick: Tick) -> Iterator[Request]:
    for count, request in enumerate(requests, start=1):
        if count % _TICK == 0:
            tick(count)
        yield request
