"""``aspencli samples update-public-ids`` and ``undo``: bulk changes, all or nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aspencli import homes
from aspencli.context import AppContext, current
from aspencli.errors import BadInputError
from aspencli.interrupts import Shield
from aspencli.output.rendering import Column, Row

if TYPE_CHECKING:
    from aspencli.output.console import Output, Tick
    from aspencli.services.renaming import Assessment, Faults
    from aspencli.services.tables import Source
    from db.bulk.renames import Plan, PlannedRow, Problem, RenameRun, Request

SHOWN = 200  # problems on the screen; the rest goes to a file
_STATEMENT_MS = 1_800_000
_LOCK_MS = 10_000
_TICK = 1_000  # rows between two looks at the progress bar

PLAN_COLUMNS = (
    Column("line", "Line", right=True, whole=True),
    Column("private_identifier", "Private identifier", whole=True),
    Column("public_identifier_before", "Public identifier now", whole=True),
    Column("public_identifier_after", "Public identifier then", whole=True),
    Column("action", "Action"),
)
RESULT_COLUMNS = (
    Column("group_id", "Group"),
    Column("group", "Name"),
    Column("rows", "Rows", right=True),
    Column("changed", "Changed", right=True),
    Column("already", "Already so", right=True),
    Column("left_out", "Left alone", right=True),
    Column("undo_file", "Undo file", whole=True),
)


def register(app: typer.Typer) -> None:
    """Add the commands to the group ``samples``."""
    app.command("update-public-ids", epilog=_UPDATE_EXAMPLE)(update_public_ids)
    app.command("undo", epilog=_UNDO_EXAMPLE)(undo)


_UPDATE_EXAMPLE = (
    "Example: aspencli --env staging samples update-public-ids --group-id 1 "
    "--private-to-public-id-mapping ids.csv --dry-run"
)
_UNDO_EXAMPLE = "Example: aspencli samples undo UNDO.csv --dry-run"

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show the whole plan on stdout and write nothing.")
]
Report = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE", help="Write each row and its outcome to a CSV file."),
]
UndoFile = Annotated[
    Path | None,
    typer.Option("--undo-file", metavar="FILE", help="Where the undo file goes; a new file."),
]


def update_public_ids(
    ctx: typer.Context,
    mapping: Annotated[
        str,
        typer.Option(
            "--private-to-public-id-mapping",
            "-f",
            metavar="FILE",
            help="CSV with the columns private_identifier and public_identifier; - for stdin.",
        ),
    ],
    group_id: Annotated[
        int | None,
        typer.Option("--group-id", metavar="ID", help="The submitting group (or --org)."),
    ] = None,
    dry_run: DryRun = False,
    report: Report = None,
    undo_file: UndoFile = None,
    encoding: Annotated[
        str | None, typer.Option("--encoding", help="The file's encoding, if it is not UTF-8.")
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option("--delimiter", help="What separates its cells, if not found out.")
    ] = None,
) -> None:
    """Give samples of one group new public identifiers, as a file says: all rows or none.

    Every bad line is named, and nothing is written as long as there is one. Swaps and cycles of
    identifiers within the file are fine. An undo file is on disk before anything is committed.
    """
    from aspencli.services.mapping import read_mapping
    from aspencli.services.tables import open_table

    context = current(ctx)
    group = _group_id(context, group_id)
    with ExitStack() as stack:
        job = _Job(context, stack, group, report, undo_file, dry_run=dry_run)
        source = stack.enter_context(
            open_table(mapping, encoding=encoding, delimiter=_delimiter(delimiter))
        )
        requests = read_mapping(source, job.faults.add)
        assessment = job.assess(requests)
        _say_notes(context.out, source)
        job.go(assessment, source.name)


def undo(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(help="The undo file of a bulk update.", metavar="FILE")],
    dry_run: DryRun = False,
    report: Report = None,
    undo_file: UndoFile = None,
) -> None:
    """Put back what a bulk update changed, where it still holds what that update wrote.

    Samples that were changed since are named and left alone; so are those whose old identifier
    another sample holds by now. The undo can itself be undone.
    """
    from aspencli.services.undofile import read_origin, read_undo

    context = current(ctx)
    origin = read_origin(file)
    if origin.target != context.target.label:
        raise BadInputError(
            f"{file} was written on {origin.target}, and the target is {context.target.label}",
            hint="Give the --env (and --stack) that the update was made on.",
        )
    with ExitStack() as stack:
        job = _Job(context, stack, origin.group_id, report, undo_file, dry_run=dry_run)
        assessment = job.assess(read_undo(file, job.faults.add), skip_moved=True)
        job.go(assessment, file)


class _Job:
    """One bulk rename as the operator sees it: plan, preview, consent, write, result."""

    def __init__(
        self,
        context: AppContext,
        stack: ExitStack,
        group_id: int,
        report: Path | None,
        undo_file: Path | None,
        *,
        dry_run: bool,
    ):
        from aspencli.services.renaming import Faults, require_group
        from aspencli.services.report import ReportFile
        from db.bulk.renames import RenameRun
        from db.database import Limits

        self.out = context.out
        self._context = context
        self._dry_run = dry_run
        self._group_id = group_id
        self._undo_file = undo_file
        limits = Limits(statement_ms=_STATEMENT_MS, lock_ms=_LOCK_MS)
        database = context.database(writable=not dry_run, limits=limits)
        self._store: RenameRun = stack.enter_context(RenameRun(database, group_id))
        self._group = require_group(self._store.group_name(), group_id)
        self._report = stack.enter_context(ReportFile(report)) if report else None
        self.faults: Faults = Faults()
        stack.callback(self.faults.close)

    def assess(self, requests: Iterator[Request], *, skip_moved: bool = False) -> Assessment:
        from aspencli.services.renaming import assess

        with self.out.progress("Reading and planning") as tick:
            return assess(self._store, _counted(requests, tick), self.faults, skip_moved=skip_moved)

    def go(self, assessment: Assessment, name: str) -> None:
        """Refuse, show, or write."""
        if assessment.problems:
            self._refuse(assessment, name)
        plan = assessment.plan
        left_out = self._say_left_out()
        self._say_plan(plan)
        if self._dry_run:
            self._show_plan()
            self._write_report("would change")
            return
        if not plan.to_change:
            self.out.done("Nothing to change: it is so already.")
            self._finish(plan, None, left_out)
            return
        self.out.preview(
            PLAN_COLUMNS, map(_plan_row, self._store.rows(limit=10, changed_only=True))
        )
        self._context.authorise(
            f"rename {_samples(plan.to_change)} of group {self._group_id} ({self._group})"
        )
        self._apply(plan, left_out)

    def _apply(self, plan: Plan, left_out: int) -> None:
        from aspencli.services.renaming import apply
        from aspencli.services.undofile import Origin, write_undo

        origin = Origin(
            self._context.target.label, self._group_id, dt.datetime.now(dt.UTC).isoformat()
        )
        with Shield() as shield:
            with self.out.progress("Writing"):
                path = apply(
                    self._store,
                    lambda rows: write_undo(
                        homes.state_dir() / "undo", origin, rows, self._undo_file
                    ),
                    shield.raise_shield,
                )
            self.out.done(f"{_samples(plan.to_change)} renamed.")
            self._finish(plan, path, left_out)
            if shield.late:
                self.out.warn("the interrupt came after the commit: the change is written.")

    def _finish(self, plan: Plan, undo_file: Path | None, left_out: int) -> None:
        self._write_report("changed")
        self.out.record(
            RESULT_COLUMNS,
            {
                "group_id": self._group_id,
                "group": self._group,
                "rows": plan.rows,
                "changed": plan.to_change,
                "already": plan.already,
                "left_out": left_out,
                "undo_file": undo_file,
            },
        )
        if undo_file:
            self.out.hint(f"To take it back: aspencli{self._where()} samples undo {undo_file}")

    def _where(self) -> str:
        target = self._context.target
        if target.name == "local":
            return ""
        return f" --env {target.name}" + (f" --stack {target.stack}" if target.stack else "")

    def _say_plan(self, plan: Plan) -> None:
        parts = [f"{plan.to_change:,} to change", f"{plan.already:,} already so"]
        if plan.detours:
            parts.append(f"{plan.detours:,} identifiers passed on within the file")
        group = f"group {self._group_id} ({self._group}) on {self._context.target.label}"
        self.out.info(f"{plan.rows:,} rows for {group}: {', '.join(parts)}.")

    def _say_left_out(self) -> int:
        count = 0
        for count, problem in enumerate(self._store.left_out(), start=1):
            if count <= SHOWN:
                self.out.warn(f"left alone: line {problem.line}: {problem.reason}")
        if count > SHOWN:
            self.out.warn(f"{count - SHOWN:,} more are left alone; --report FILE names them all.")
        return count

    def _show_plan(self) -> None:
        self.out.rows(PLAN_COLUMNS, map(_plan_row, self._store.rows()))
        self.out.hint("Nothing was written (--dry-run).")

    def _write_report(self, changed: str) -> None:
        if self._report:
            self._report.write(self._store.rows(), self._store.left_out(), changed)

    def _refuse(self, assessment: Assessment, name: str) -> None:
        from aspencli.services.renaming import all_problems, refuse
        from aspencli.services.report import ReportFile

        for count, problem in enumerate(all_problems(self._store, self.faults), start=1):
            if count > SHOWN:
                break
            self.out.info(_problem_text(problem))
        if assessment.problems > SHOWN and self._report is None:
            stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S%fZ")
            self._report = ReportFile(homes.state_dir() / "refused" / f"{stamp}.csv")
        if self._report:
            path = self._report.refuse(all_problems(self._store, self.faults))
            self.out.info(f"All {assessment.problems:,} problems are in {path}")
        raise refuse(assessment, name)


def _counted(requests: Iterator[Request], tick: Tick) -> Iterator[Request]:
    for count, request in enumerate(requests, start=1):
        if count % _TICK == 0:
            tick(count)
        yield request


def _group_id(context: AppContext, given: int | None) -> int:
    if given is not None:
        return given
    found = context.config.setting("org")
    if found.value is None:
        raise BadInputError(
            "no group was named", hint="Add --group-id ID; see: aspencli groups list"
        )
    try:
        return int(found.value)
    except ValueError:
        raise BadInputError(
            f"{found.value!r} is no group id (from {found.source})",
            hint="Give a number; see: aspencli groups list",
        ) from None


def _delimiter(word: str | None) -> str | None:
    named = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
    found = named.get(word, word) if word else None
    if found is not None and len(found) != 1:
        raise BadInputError(
            f"--delimiter {word!r} is no single character", hint="Give one, or tab or semicolon."
        )
    return found


def _say_notes(out: Output, source: Source) -> None:
    for note in source.notes:
        out.info(f"Note: {note}.")
    if source.blank_lines:
        out.info(f"Note: blank lines skipped: {source.blank_lines:,}.")


def _plan_row(row: PlannedRow) -> Row:
    return {
        "line": row.line,
        "private_identifier": row.private_identifier,
        "public_identifier_before": row.before,
        "public_identifier_after": row.after,
        "action": row.action,
    }


def _problem_text(problem: Problem) -> str:
    column = f"{problem.column}: " if problem.column else ""
    return f"line {problem.line}: {column}{problem.reason}"


def _samples(count: int) -> str:
    return f"{count:,} sample" + ("" if count == 1 else "s")
