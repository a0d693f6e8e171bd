"""Bulk runs: open a table as its options say, plan it, and then reject it, show it, or write it.

Other commands that read a table open it here as well.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from heapq import merge
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from aspencli import files
from aspencli.changes import apply as bulk
from aspencli.changes.apply import (
    Assessment,
    BulkStore,
    Faults,
    PlanStore,
    WriteRows,
    written_before,
)
from aspencli.changes.journal import Recording, open_journal, place_of
from aspencli.changes.report import JobFiles
from aspencli.changes.runs import Outcome, Place, Run, Subject, runs_of
from aspencli.changes.undo import origin_of, write_undo
from aspencli.cli.changes.execute import Change, digest_of, execute, is_made_here
from aspencli.cli.changes.views import (
    RESULT_COLUMNS,
    TALLY_COLUMNS,
    Findings,
    View,
    nothing_to_do,
    result_row,
)
from aspencli.cli.context import AppContext, Backend
from aspencli.cli.output.console import Output, Tick
from aspencli.errors import BadInputError, ConflictError
from aspencli.signals import Shield
from aspencli.text import counted

if TYPE_CHECKING:
    from aspen.database.bulk.spec import AssessedRow, Plan, RowRequest, Spec
    from aspencli.cli.changes.options import ReadingOptions
    from aspencli.tabular.source import Observer
    from aspencli.tabular.table import Table

_DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
StoreT = TypeVar("StoreT", bound=PlanStore)
_STATEMENT_MS, _LOCK_MS = 1_800_000, 10_000
_TICK = 1_000  # rows between updates of the progress bar


@dataclass(frozen=True)
class Purpose:
    """The purpose of a bulk run."""

    command: str  # its name in the history
    spec: Spec
    view: View
    dry_run: bool
    force: bool = False  # to also change rows that do not hold the expected values
    undo_of: str | None = None  # the run to undo
    place: Place | None = None  # where that run was made, as far as known


class BulkJob(Change, Generic[StoreT]):
    """A bulk run, independent of how its rows are reached.

    The stack closes what it opens. A group is given where the run is limited to one. ``place``
    returns the identity of the database or API, as recorded in the history.
    """

    before: Run | None  # that already wrote this file, if it must not be written again
    _via = "db"

    def __init__(
        self,
        context: AppContext,
        stack: ExitStack,
        group_id: int | None,
        group: str | None,
        files: JobFiles,
        purpose: Purpose,
        store: StoreT,
        place: Callable[[], Place],
    ):
        self.context = context
        self.faults = Faults()
        stack.callback(self.faults.close)
        self.files = files
        self.stdin = purpose.view.file if files.from_stdin else ""
        self._group_id, self._group = group_id, group
        self._purpose = purpose
        self._view = purpose.view
        self._store = store
        self._look_at_place = place
        self._findings = Findings(context.out, store, files, purpose.view, self.faults)

    def run(self, source: Table, requests: Iterator[RowRequest], said: int) -> None:
        """Read the rows of a file to its end and apply them; some notes were already printed."""
        assessment, out = self.assess(requests), self.context.out
        print_notes(out, source, said)
        if source.blank_lines:
            out.info(f"Note: skipped {counted(source.blank_lines, 'blank line')}.")
        self.go(assessment, source.name, source.remedy)

    def assess(self, requests: Iterator[RowRequest], *, skip_moved: bool = False) -> Assessment:
        """Compare the file with the database."""
        force = self._purpose.force
        with self.context.out.progress("Reading and planning") as tick:
            rows = _ticking(requests, tick)
            return bulk.assess(self._store, rows, self.faults, skip_moved=skip_moved, force=force)

    def go(self, assessment: Assessment, name: str, remedy: str | None = None) -> None:
        """Reject, show, or write the plan; all but dry runs are recorded in the history.

        The name is that of the file in messages. The remedy is the advice if the file is rejected,
        where fixing its lines is not enough.
        """
        self._plan = plan = assessment.plan
        self._assessment, self._name, self._remedy = assessment, name, remedy
        self._place = self._look_at_place()
        if self._purpose.place:
            self.by_name = not self._is_there(self._purpose.place)
        self.before = self._written_before()
        self.what = f"{self._view.deed(plan)}{self._in_group}"
        if plan.forced:
            self.what += f" ({plan.forced:,} changed since that run)"
        self.reason = nothing_to_do(plan)
        execute(self, dry_run=self._purpose.dry_run)
        if plan.left_out and not self.before:
            force = "" if self._purpose.force else "; or add --force to include those changed since"
            raise ConflictError(
                f"{plan.left_out:,} of {self._view.lines(plan, plan.rows)} skipped (listed above).",
                hint=f"Check each one: {self._view.look}{force}",
            )

    @property
    def _in_group(self) -> str:
        """Return the group as the end of a phrase, or an empty string."""
        return "" if self._group is None else f" in group {self._group_id} ({self._group})"

    @property
    def is_empty(self) -> bool:
        """Return True if there is nothing to change, or the file was already written."""
        return not self._plan.to_change or bool(self.before and not self._purpose.dry_run)

    def subject(self) -> Subject:
        """Return the facts to record in the history."""
        return Subject(
            command=self._purpose.command,
            target=self.context.target.label,
            place=self._place,
            group_id=self._group_id,
            group=self._group,
            file=self.files.fingerprint.file,
            counts=self._assessment.counts,
            undo_of=self._purpose.undo_of,
            via=self._via,
            api=self.context.given_api if self._via == "api" else None,
        )

    def digest(self) -> str:
        """Return the digest of the rows that change, and of what the plan was made from.

        The rows of a plan that is rejected, or changes nothing, are not hashed.
        """
        spec, purpose = self._purpose.spec, self._purpose
        is_idle = self.is_empty or self._assessment.problems
        return digest_of(
            {
                "command": purpose.command,
                "target": self.context.target.label,
                "group": self._group_id,
                "file": self.files.fingerprint.file.sha256,
                "key": spec.key.name,
                "columns": [column.name for column in spec.columns],
                "force": purpose.force,
                "counts": asdict(self._assessment.counts),
                "rows": None if is_idle else self._store.digest(),
            }
        )

    def explain(self) -> None:
        """Print the totals of the plan, or the reasons why the file is rejected."""
        if self.before and not self._purpose.dry_run:
            return
        if self.before:
            self.context.out.warn(
                f"Run {self.before.id} already wrote this file, so it would not be written again."
            )
        if problems := self._assessment.problems:
            self._findings.name_problems(problems)
            self._findings.put_aside_rejects()
            raise bulk.refuse(self._assessment, self._name, self._remedy)
        self._findings.put_aside_rejects()
        self._findings.name_left_out(self._plan.left_out)
        self._findings.show_forced(self._plan.forced)
        parts = self._view.prospect(self._plan)
        if detours := self._plan.detours:
            moves = f"{counted(detours, 'identifier')} move{'s' * (detours == 1)}"
            parts.append(f"{moves} between {self._view.noun}s in this file")
        rows, where = counted(self._plan.rows, "row"), self.context.target.label
        if self._group is not None:
            where = f"group {self._group_id} ({self._group}) on {where}"
        self.context.out.info(f"{rows} for {where}: {', '.join(parts)}.")

    def show(self) -> None:
        """Print the whole plan as a result."""
        skipped = self._skipped() if self._plan.left_out else []
        rows = merge(self._store.rows(), skipped, key=lambda row: row.line)
        self.context.out.rows(self._view.plan_columns, self._view.shown(rows))
        self._findings.report("update")

    def preview(self) -> None:
        """Show the first rows that change."""
        first = list(self._store.rows(limit=10, changed_only=True))
        self.context.out.preview(self._view.plan_columns, self._view.shown(first))

    def leave(self, recording: Recording) -> None:
        """Report that nothing was changed."""
        recording.ended(Outcome.NOTHING)
        if self.before is None:
            self.context.out.nothing(self.reason)
            self._findings.report("updated")
            return self._show_result(self._plan, None, recording)
        self.context.out.nothing(f"run {self.before.id} already wrote this file")
        undo = self.before.command_line(*self._view.undo, self.before.id)
        self.context.out.hint(f"To write it again, undo that run first: {undo}")
        self._findings.report("unchanged")
        plan = self._plan
        tally = plan.tally and replace(plan.tally, created=0, deleted=0, changed=0)
        same = replace(plan, to_change=0, already=plan.rows, tally=tally)
        return self._show_result(same, None, recording)

    def _skipped(self) -> list[AssessedRow]:
        """Return the rows that the plan leaves out, in the form of planned rows."""
        with closing(self._store.outcomes()) as rows:
            return [row._replace(becomes="skip") for row in rows if row.left_out]

    def _written_before(self) -> Run | None:
        """Return the run that already wrote this file, if a repeat would not be a no-op."""
        is_other, spec = self._assessment.problems or self._plan.passed_on, self._purpose.spec
        if not (spec.changes_key and is_other) or spec.keeps_key:
            return None
        return written_before(runs_of(open_journal().read().events), self.subject())

    def _is_there(self, recorded: Place) -> bool:
        """Return True if the run being undone is known to have been made here."""
        undone = self._purpose.undo_of
        run = f"run {undone}" if undone else "the run"
        return is_made_here(self.context.out, recorded, self._place, run)

    def _save_undo(
        self,
        recording: Recording,
        rows: WriteRows,
        before_naming: Callable[[], None] = lambda: None,
    ) -> Path:
        """Write the undo file, which is on disk when this returns."""
        origin = origin_of(
            self._purpose.spec,
            self.context.target.label,
            self._group_id,
            dt.datetime.now(dt.UTC).isoformat(),
            self._plan.to_change,
            recording.id,
            self._place,
        )
        folder = files.state_dir() / "undo"
        return write_undo(folder, origin, rows, self.files.undo, before_naming)

    def _report_written(self, undo_file: Path, recording: Recording) -> None:
        try:
            self._findings.publish_report()
        finally:  # the change is written, so the operator must learn how to undo it
            self.context.out.done(f"{self._view.result(self._plan)}.")
            self._show_result(self._plan, undo_file, recording)

    def _show_result(self, plan: Plan, undo_file: Path | None, recording: Recording) -> None:
        result = result_row(plan, self._group_id, self._group, undo_file, recording.id)
        if plan.tally:
            self.context.out.record(TALLY_COLUMNS, {**result, **vars(plan.tally)})
        else:
            self.context.out.record(RESULT_COLUMNS, result)
        if undo_file:
            self._hint_undo(undo_file)

    def _hint_undo(self, undo_file: Path) -> None:
        words = (*self._view.undo, str(undo_file.absolute()))
        self.context.out.hint(f"Undo it: {self.context.command(*words)}")


def _ticking(requests: Iterator[RowRequest], tick: Tick) -> Iterator[RowRequest]:
    for count, request in enumerate(requests, start=1):
        if count % _TICK == 0:
            tick(count)
        yield request


class DatabaseJob(BulkJob[BulkStore]):
    """A bulk run directly in the database: all rows in one transaction.

    Raises:
        NotFoundError: If the group does not exist.
    """

    def __init__(
        self,
        context: AppContext,
        stack: ExitStack,
        group_id: int | None,
        files: JobFiles,
        purpose: Purpose,
    ):
        from aspen.database.bulk.run import BulkRun
        from aspen.database.settings import Limits

        limits = Limits(statement_ms=_STATEMENT_MS, lock_ms=_LOCK_MS)
        database = context.database(writable=not purpose.dry_run, limits=limits)
        store = stack.enter_context(BulkRun(database, purpose.spec, group_id))
        group = None
        if group_id is not None:
            group = bulk.require_group(store.scope_name(), group_id)

        def place() -> Place:
            return place_of(database.url, store.identity(), context.api_address)

        super().__init__(context, stack, group_id, group, files, purpose, store, place)

    def check(self) -> None:
        """Check the rights; see `Change.check`."""
        bulk.require_rights(self._store.lacking_rights())

    def apply(self, recording: Recording) -> None:
        """Write the plan, and report the result.

        Raises:
            ConflictError: If rows were changed in the meantime; nothing was written.
            AspenError: See `aspencli.changes.apply.apply`.
        """
        self._findings.prepare_report("updated")
        ask, out = self.context.command("history", "check", recording.id), self.context.out
        with Shield() as shield:
            undo: list[Path] = []

            def write(rows: WriteRows) -> Path:
                undo.append(self._save_undo(recording, rows, shield.raise_shield))
                return undo[0]

            def before_commit() -> None:
                shield.check()
                recording.committing(undo[0])

            try:
                with out.progress("Writing"):
                    path = bulk.apply(
                        self._store,
                        write,
                        before_commit,
                        recording.writing,
                        ask=ask,
                        noun=self._view.noun,
                    )
            except ConflictError:
                self._findings.report("skipped")
                raise
            recording.ended(Outcome.WRITTEN)
            self._report_written(path, recording)
            if shield.late:
                out.warn("The interrupt came after the commit: all updates were written.")


# Opening a run as its options say


def open_job(
    context: AppContext,
    stack: ExitStack,
    group_id: int | None,
    files: JobFiles,
    purpose: Purpose,
    backend: Backend,
) -> BulkJob[Any]:
    """Return the job for a backend; see `BulkJob`.

    Raises:
        BadInputError: The API does not support the change.
    """
    context.announce(backend)
    if backend is Backend.API and group_id is not None:
        from aspencli.cli.changes.remote import ApiJob, RestoreJob

        if purpose.spec.is_plain:
            return ApiJob(context, stack, group_id, files, purpose)
        if purpose.spec.expects:
            return RestoreJob(context, stack, group_id, files, purpose)
        raise BadInputError(
            "The API only supports bulk updates of public identifiers.",
            hint="Use the database instead: add --via db",
        )
    return DatabaseJob(context, stack, group_id, files, purpose)


@contextmanager
def opened_table(
    context: AppContext,
    path: str,
    given: ReadingOptions,
    template: str,
    observe: Observer | None = None,
) -> Iterator[tuple[Table, int]]:
    """Provide a table read as the options say, and the number of notes printed about it."""
    from aspencli.tabular.reading import open_table

    with open_table(
        path,
        observe,
        encoding=given.encoding,
        delimiter=chosen_delimiter(given.delimiter),
        sheet=given.sheet,
        skip_lines=given.skip_lines,
        template=template,
    ) as source:
        yield source, print_notes(context.out, source)


def chosen_names(context: AppContext, given: list[str] | None) -> list[str]:
    """Return the values of ``--map``, with saved maps expanded.

    Raises:
        BadInputError: The config file has no map with that name.
    """
    from aspencli.tabular.table import SavedName

    names: list[str] = []
    for words in given or ():
        if words.startswith("@") and "=" not in words:
            saved = context.config.column_map(words[1:])
            names += [SavedName(f"{header}={column}") for header, column in saved.items()]
        else:
            names.append(words)
    return names


def chosen_group_id(context: AppContext, given: int | None) -> int:
    """Return the group of a run: from its own option, else from the global ``--org``.

    Raises:
        BadInputError: If neither is given, or it is not a number.
    """
    if given is not None:
        return given
    found = context.config.setting("org")
    if found.value is None:
        raise BadInputError(
            "No group was given.", hint="Pass --group-id ID; see: aspencli groups list"
        )
    try:
        return int(found.value)
    except ValueError:
        raise BadInputError(
            f"Invalid group id: {found.value!r} (from {found.source})",
            hint="Use a number; see: aspencli groups list",
        ) from None


def chosen_delimiter(word: str | None) -> str | None:
    """Return the delimiter, given as a character or by name; None to detect it.

    Raises:
        BadInputError: If it cannot be a delimiter.
    """
    found = _DELIMITERS.get(word, word) if word else None
    if found is not None and (len(found) != 1 or found in '"\r\n '):
        raise BadInputError(
            f"Invalid value for --delimiter: {word!r}",
            hint="Use comma, semicolon, tab, pipe, or any other single character.",
        )
    return found


def print_notes(out: Output, source: Table, said: int = 0) -> int:
    """Print the notes about the file not printed so far, and return the number of all notes."""
    for note in source.notes[said:]:
        out.info(f"Note: {note}.")
    return len(source.notes)
