"""``aspencli history``: runs, their outcomes, their verification, and their removal."""

from __future__ import annotations

import datetime as dt
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspencli.cli import params
from aspencli.cli.app import AspenGroup, AspenTyper, examples
from aspencli.cli.context import current
from aspencli.cli.output.formats import OUTCOME, Column, Row, prints, titled
from aspencli.config import BUILT_IN
from aspencli.errors import AspenError, BadInputError, ConflictError, NotFoundError
from aspencli.text import counted, size_text

if TYPE_CHECKING:
    from pathlib import Path

    from aspencli.changes.journal import Journal, JournalEvents
    from aspencli.changes.reconcile import RunVerdict
    from aspencli.changes.retention import Pruning
    from aspencli.changes.runs import Run
    from aspencli.cli.changes.execute import ItemChange
    from aspencli.cli.context import AppContext
    from aspencli.cli.output.console import Output

_HELP = "Show runs made from this machine or by everyone, verify them, and remove old ones."
_NAMED = 10  # maximum number of runs to list in a message
_LARGE = 1 << 30  # bytes of stored records worth a hint
_STATEMENT_MS = 1_800_000  # the same limit as for a bulk run itself

_OF_CALLS = frozenset({"run", "target", "command", "outcome", "assistant"})
LIST_COLUMNS = (
    Column("run", "Run", whole=True, of=str),
    Column("started_at", "Started", secondary=True, whole=True, of=dt.datetime),
    Column("user", "User", secondary=True),
    *titled("target", of=str),
    *titled("command"),
    Column("group_id", "Group", right=True, secondary=True, of=int | None),
    Column("group", "Group name", secondary=True),
    Column("file", "File", secondary=True),
    Column("sha256", "SHA-256", secondary=True, whole=True),
    Column("rows", "Rows", right=True, secondary=True, of=int | None),
    Column("to_change", "Planned", right=True, secondary=True, of=int | None),
    Column("changed", "Changed", right=True, of=int | None),
    Column("outcome", "Outcome", whole=True, of=str),
    Column("undone_by", "Undone by", secondary=True, of=list[str]),
    Column("assistant", "Assistant", secondary=True),
)
# The same, with other columns preferred where a table has no room for all.
_CALL_COLUMNS = tuple(
    replace(column, secondary=column.key not in _OF_CALLS) for column in LIST_COLUMNS
)
SHOW_COLUMNS = (
    *titled("run", of=str),
    *titled("outcome", of=str),
    *titled("message"),
    Column("started_at", "Started", of=dt.datetime),
    Column("ended_at", "Ended", of=dt.datetime | None),
    *titled("seconds", of=float | None),
    *titled("user", "host"),
    Column("pid", "PID", of=int | None),
    Column("version", "aspencli version"),
    *titled("command"),
    *titled("target", of=str),
    *titled("database", of=str),
    Column("group_id", "Group", of=int | None),
    Column("group", "Group name"),
    *titled("file", "path"),
    Column("size", "Bytes", of=int | None),
    Column("sha256", "SHA-256"),
    Column("rows", "Rows", of=int | None),
    Column("to_change", "Planned changes", of=int | None),
    Column("already", "Unchanged", of=int | None),
    Column("left_out", "Skipped", of=int | None),
    *titled("problems", of=int | None),
    *titled("changed", of=int | None),
    *titled("transaction", of=int | None),
    *titled("undo_file", "undo_of"),
    *titled("undone_by", of=list[str]),
    Column("checked_at", "Checked", of=dt.datetime | None),
    Column("basis", "Evidence"),
    Column("via", "Backend"),
    Column("renames", "Resumes from"),
    Column("saved_file", "Deleted data"),
    Column("steps", "Steps"),
    Column("argv", "Command line"),
    Column("account", "API user"),
    Column("account_id", "API user ID"),
    Column("account_name", "Account"),
    Column("aws", "AWS identity"),
    Column("digest", "Plan (SHA-256)"),
    Column("reason", "Reason"),
    Column("audit", "Audit trail"),
    Column("statements", "Statements", of=list[str] | None),
    Column("assistant", "Assistant"),
)
_OPERATOR = {"user": Column("user", "User")}
EVERYONE_COLUMNS = (
    *(_OPERATOR.get(column.key, column) for column in LIST_COLUMNS if column.key != "assistant"),
    Column("host", "Host", secondary=True),
    Column("aws", "AWS identity", secondary=True),
    Column("account", "API user", secondary=True),
    Column("reason", "Reason", secondary=True),
)
VERIFY_COLUMNS = (
    Column("place", "In", whole=True, of=str),
    Column("entry", "Line or entry", right=True, of=int | None),
    Column("run", "Run", whole=True),
    Column("problem", "Problem", of=str),
)
SYNC_COLUMNS = (
    Column("run", "Run", whole=True, of=str),
    Column("event", "Event", of=str),
    Column("entry", "Entry", right=True, of=int),
)
PRUNE_COLUMNS = (
    Column("kind", "To remove", whole=True, of=str),
    *titled("number", of=int, right=True),
    *titled("bytes", of=int | None, right=True),
    OUTCOME,
)
CHECK_COLUMNS = (
    *titled("run", of=str),
    *titled("outcome", of=str),
    Column("basis", "Evidence"),
    Column("written", "Rows as written", of=int | None),
    Column("before", "Rows as before", of=int | None),
    Column("otherwise", "Rows with other values", of=int | None),
    Column("gone", "Rows deleted", of=int | None),
)

RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="The run ID, or a prefix of it.",
        callback=params.checked("the run"),
    ),
]


class _ListingGroup(AspenGroup):
    """A command group that runs ``list`` if no subcommand is given."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = {"-h", "--help", *self.commands}
        if not named.intersection(args) and (not args or args[0].startswith("-")):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app: typer.Typer = AspenTyper(cls=_ListingGroup, help=_HELP, add_completion=False)


@app.command(
    "list",
    epilog=examples(
        "aspencli history",
        "aspencli history --target prod --output json",
        "aspencli --env prod history list --everyone --limit 20",
    ),
)
@prints(LIST_COLUMNS, EVERYONE_COLUMNS)
def list_(
    ctx: typer.Context,
    target: Annotated[
        str | None,
        params.text_option(
            "Only runs on this target: prod, or rdev/STACK. Default: all.",
            metavar="NAME",
            what="the target",
        ),
    ] = None,
    everyone: Annotated[
        bool,
        typer.Option("--everyone", help="Runs of all operators on the target, see --env."),
    ] = False,
    assistants: Annotated[
        bool | None,
        typer.Option(
            "--assistants/--no-assistants",
            help="Only calls of assistants (aspencli mcp), or only other runs.",
        ),
    ] = None,
    limit: params.LimitOption = None,
) -> None:
    """List runs, newest first; `aspencli history` alone does the same.

    The outcome is *unknown* if the process ended without recording one: see `history check`. Dry
    runs are not recorded. With --everyone, the runs come from the target's audit trail, which has
    those that were confirmed.
    """
    context = current(ctx)
    out = context.out
    limit = params.chosen_limit(out, limit, everything=False)
    if everyone:
        if target:
            raise BadInputError(
                "--everyone and --target cannot be combined.", hint="Choose the target with --env."
            )
        return _list_everyones(context, limit)
    runs, total = _newest_runs(out, target, assistants, limit)
    columns = _CALL_COLUMNS if assistants else LIST_COLUMNS
    out.rows(columns, map(_row, runs), empty="No runs found.")
    if limit is not None and limit < total:
        out.info(f"{limit:,} of {total:,} runs shown")
        out.hint("Show all with --limit 0.")
    _show_size(out)
    _name_waiting(out)
    return None


def _list_everyones(context: AppContext, limit: int | None) -> None:
    from aspencli.changes.trail import newest_runs
    from aspencli.cli.changes.audit import TargetTrail

    out = context.out
    runs = newest_runs(TargetTrail(context).require(), out.warn)
    out.rows(EVERYONE_COLUMNS, map(_row, islice(runs, limit)), empty="No runs found.")
    if limit is not None and next(runs, None) is not None:
        out.info(f"Only the newest {counted(limit, 'run')} shown.")
        out.hint("Show all with --limit 0.")


def _show_size(out: Output) -> None:
    from aspencli.changes.retention import stored

    if size := sum(kind.size for kind in stored()):
        out.info(f"History and undo files: {size_text(size)}")
        if size > _LARGE:
            out.hint("Remove old ones: aspencli history prune")


def _name_waiting(out: Output) -> None:
    """Say what has not been sent to an audit trail yet."""
    from aspencli.changes.outbox import count_waiting
    from aspencli.config import command_for

    for label, number in count_waiting().items():
        entries = "1 entry waits" if number == 1 else f"{number:,} entries wait"
        out.info(f"{entries} for the audit trail of {label}.")
        out.hint(f"Send: {command_for(label, 'history', 'sync')}")


@app.command(
    epilog=examples("aspencli history prune --dry-run", "aspencli history prune --older-than 365")
)
@prints(PRUNE_COLUMNS)
def prune(
    ctx: typer.Context,
    older_than: Annotated[
        int,
        typer.Option(metavar="DAYS", min=0, help="Remove runs that started more days ago."),
    ] = 180,
    dry_run: params.DryRunOption = False,
) -> None:
    """Remove old runs and their files: undo files, deleted data, journals, and crash reports.

    Shows what would be removed, and which runs can no longer be undone afterward, and asks first.
    Runs that are not finished are kept.
    """
    from aspencli.changes.retention import plan_pruning
    from aspencli.cli.changes.execute import execute

    context = current(ctx)
    before = dt.datetime.now(dt.UTC) - dt.timedelta(days=older_than)
    plan = plan_pruning(_runs(context.out), before)
    _explain_pruning(context.out, plan)
    execute(_pruning(context, plan), dry_run=dry_run)


def _explain_pruning(out: Output, plan: Pruning) -> None:
    """Say what is kept, and what can no longer be undone."""
    if plan.kept:
        out.info(f"Kept because they are not finished: {counted(len(plan.kept), 'run')}")
    if plan.undoable:
        named = ", ".join(run.id for run in plan.undoable[:_NAMED])
        more = f", and {len(plan.undoable) - _NAMED:,} more" if len(plan.undoable) > _NAMED else ""
        out.warn(f"{counted(len(plan.undoable), 'run')} can no longer be undone: {named}{more}")


def _pruning(context: AppContext, plan: Pruning) -> ItemChange:
    from aspencli.cli.changes.execute import ItemChange

    kinds: list[dict[str, Any]] = [{"kind": "runs", "number": len(plan.runs), "bytes": None}]
    kinds += [
        {"kind": kind.kind, "number": len(kind.paths), "bytes": kind.size} for kind in plan.files
    ]
    for kind in kinds:
        kind["outcome"] = "delete" if kind["number"] else "unchanged"

    def carry_out() -> Iterator[Sequence[Row]]:
        _remove(context.out, plan)
        yield [{**kind, "outcome": "deleted" if kind["number"] else "unchanged"} for kind in kinds]

    return ItemChange(
        context,
        f"remove {counted(len(plan.runs), 'run')} and {size_text(plan.size)} of files",
        PRUNE_COLUMNS,
        [] if plan.is_empty else kinds,
        carry_out,
        done=f"Removed {counted(len(plan.runs), 'run')}, {size_text(plan.size)}",
        target=BUILT_IN["local"],  # it changes this machine, whatever the target
        keeps_record=False,
    )


def _remove(out: Output, plan: Pruning) -> None:
    """Remove what was planned; warn about files that cannot be removed.

    Raises:
        AspenError: The history cannot be rewritten; nothing was removed.
    """
    from aspencli.changes.journal import open_journal
    from aspencli.changes.retention import prune as remove

    journal = open_journal()
    try:
        left = remove(journal, plan)
    except OSError as error:
        raise AspenError(
            f"The history {journal.path} cannot be rewritten: {error.strerror}",
            hint="Nothing was removed. Free space or fix permissions there, then try again.",
        ) from error
    for path in left:
        out.warn(f"{path} could not be removed.")


@app.command(epilog=examples("aspencli history show 20261124-034012-3f9a"))
@prints(SHOW_COLUMNS)
def show(ctx: typer.Context, run_id: RunArgument) -> None:
    """Show everything recorded about a run, and how to undo it.

    A run of another operator is looked up in the audit trail of the target chosen with --env.
    """
    from aspencli.changes.runs import find

    context = current(ctx)
    out = context.out
    runs = _runs(out)
    try:
        run = find(runs, run_id)
    except NotFoundError:
        return _show_anothers(context, run_id)
    out.record(SHOW_COLUMNS, _row(run))
    if run.saved_file and run.noun == "samples":
        out.info("The deleted data includes the metadata of the samples, but not their sequences.")
    if run.steps:
        _tell_steps(out, run, run.steps)
    begun = next((each for each in runs if each.id == run.undo_begun), run)
    return _hint_next(out, run, begun)


def _hint_next(out: Output, run: Run, begun: Run) -> None:
    """Show the command to run next for a run, given the undo of it that was begun, if any."""
    from aspencli.changes.runs import Outcome

    if run.outcome is Outcome.UNKNOWN:
        check = run.command_line("history", "check", run.id)
        out.hint(f"Determine its outcome: {check}")
    elif begun.outcome is Outcome.UNFINISHED and not begun.single:
        _hint_resume(out, run)
    elif (
        run.outcome in {Outcome.WRITTEN, Outcome.UNFINISHED} and run.undo_file and not run.undone_by
    ):
        _hint_undo(out, run)


def _show_anothers(context: AppContext, run_id: str) -> None:
    """Show the run of another operator, or of this one on another machine.

    Raises:
        NotFoundError: The target's audit trail does not have it either.
    """
    from aspencli.changes.runs import NO_ID_HINT, find, looks_like_id, runs_of
    from aspencli.cli.changes.audit import TargetTrail

    place = TargetTrail(context)
    if place.is_local_only or not looks_like_id(run_id):
        raise NotFoundError(
            f"No such run on this machine: {run_id}",
            hint=f"{NO_ID_HINT}. For another operator's run, choose its target with --env.",
        )
    run = find(runs_of(place.require().find(run_id)), run_id)
    out = context.out
    out.record(SHOW_COLUMNS, {**_row(run), "audit": place.address})
    if run.undo_file:
        out.info(f"Its undo file is on {run.process.host}, in the account {run.user}.")


def _tell_steps(out: Output, run: Run, log: Path) -> None:
    """List the steps that were not finished, and say how to finish them."""
    from aspencli.changes.runs import Outcome
    from aspencli.changes.step_log import StepState, read

    ended = {StepState.DONE, StepState.REVERTED}
    found = [one for one in read(log) if one.state not in ended]
    words = {StepState.BEGIN: "begun", StepState.FAILED: "failed", StepState.KEPT: "not reverted"}
    for one in found[:_NAMED]:
        out.info(f"Step not done: {one.step}, {one.item} ({words[one.state]})")
    if len(found) > _NAMED:
        out.info(f"... and {len(found) - _NAMED:,} more")
    if run.outcome is Outcome.UNFINISHED:
        out.hint("To finish it, run the same command again: it adds only what is missing.")


@app.command(epilog=examples("aspencli --env prod history check 20261124-034012-3f9a"))
@prints(CHECK_COLUMNS)
def check(ctx: typer.Context, run_id: RunArgument) -> None:
    """Determine the outcome of a run that did not record one, and record it.

    Asks the database whether the run's transaction was committed. If the database no longer knows,
    compares the samples with the run's undo file. If that is inconclusive, the exit code is 7.
    """
    from aspen.database.settings import Limits
    from aspencli.changes.reconcile import RunVerdict, judge
    from aspencli.changes.runs import Outcome, find

    context = current(ctx)
    out = context.out
    run = find(_runs(out), run_id)
    if run.outcome not in {Outcome.UNKNOWN, Outcome.RUNNING}:
        out.info(f"The outcome of run {run.id} is already known; the database was not asked.")
        return _tell(out, run, RunVerdict(run.outcome, run.basis or "recorded by the run"))
    limits = Limits(statement_ms=_STATEMENT_MS)
    with out.progress("Asking the database"):
        verdict = judge(run, context.target.label, lambda: context.database(limits=limits))
    _keep(context, run, verdict)
    return _tell(out, run, verdict)


def _keep(context: AppContext, run: Run, verdict: RunVerdict) -> None:
    """Record the outcome of a run in the history, and in the audit trail if the run is there."""
    from aspencli.changes.journal import open_journal
    from aspencli.changes.reconcile import keep
    from aspencli.cli.changes.audit import TargetTrail

    journal = open_journal()
    try:
        event = keep(journal, run, verdict)
    except OSError as error:
        context.out.warn(f"The outcome could not be recorded in {journal.path}: {error.strerror}")
    else:
        if run.entries or run.waiting:
            TargetTrail(context).tell(event)


@app.command(epilog=examples("aspencli history verify", "aspencli --env prod history verify"))
@prints(VERIFY_COLUMNS)
def verify(ctx: typer.Context) -> None:
    """Check that the history and the target's audit trail are as they were written.

    Names each line of this machine's history that was edited, added, or removed by hand, and each
    object of the target's audit trail that is missing, was added, or was edited. The exit code is 0
    if all is well, and 7 if not.
    """
    from aspencli.cli.changes.verify import verify_records

    context = current(ctx)
    out = context.out
    found = verify_records(context)
    out.rows(VERIFY_COLUMNS, found.problems)
    if not found.problems:
        return out.done(f"{found.checked}: all as written")
    count = counted(len(found.problems), "problem")
    raise ConflictError(
        f"{found.checked}: {count} (listed above).",
        hint="Compare with the records of other operators, and with a backup of the files.",
    )


@app.command(epilog=examples("aspencli --env staging history sync"))
@prints(SYNC_COLUMNS)
def sync(ctx: typer.Context) -> None:
    """Send the entries that wait on this machine to the target's audit trail.

    They wait if the trail was out of reach when a run began or ended. The next write to the target
    sends them, too.
    """
    from aspencli.cli.changes.audit import TargetTrail

    context = current(ctx)
    place = TargetTrail(context)
    place.require()
    with context.out.progress("Sending"):
        sent = place.send()
    rows = [
        {"run": waiting.event["run"], "event": waiting.event["event"], "entry": entry.number}
        for waiting, entry in sent
    ]
    if not rows:
        return context.out.done(f"No entry waits for the audit trail of {place.label}.")
    context.out.rows(SYNC_COLUMNS, rows)
    entries = "1 entry" if len(rows) == 1 else f"{len(rows):,} entries"
    return context.out.done(f"Sent {entries} to the audit trail of {place.label}.")


def _tell(out: Output, run: Run, verdict: RunVerdict) -> None:
    from aspencli.changes.runs import Outcome

    names = ("written", "before", "otherwise", "gone")
    counts = asdict(verdict.rows) if verdict.rows else dict.fromkeys(names)
    row = {"run": run.id, "outcome": verdict.outcome.value, "basis": verdict.basis}
    out.record(CHECK_COLUMNS, row | counts)
    if verdict.outcome is Outcome.UNFINISHED:
        _hint_resume(out, run)
    if verdict.outcome is not Outcome.WRITTEN:
        return
    if verdict.rows and not verdict.rows.written:
        out.warn(
            f"None of its {run.noun} has the value that it wrote: the run was undone, the values "
            "were changed since, or the server lost them in a crash."
        )
    elif run.undo_file and not run.undone_by:
        _hint_undo(out, run)


def _hint_resume(out: Output, run: Run) -> None:
    """Show the command that resumes what was interrupted: the run, or its undo."""
    # A run without a request journal cannot be resumed, and neither can its undo. The journal of
    # any other run may have been deleted.
    if run.provider_before or run.provider_after:
        out.hint("To complete it, run the same command again.")
    if run.single or (run.renames is None and not run.undo_begun):
        if run.undo_file:
            _hint_undo(out, run)
        return
    resume = run.command_line("samples", "resume", run.undo_begun or run.id)
    out.hint(f"Resume it: {resume}")


def _hint_undo(out: Output, run: Run) -> None:
    out.hint(f"Undo it: {run.command_line(run.noun, 'undo', run.id)}")


def _runs(out: Output) -> list[Run]:
    """Return all runs, newest first; warn about unreadable lines of the journal."""
    from aspencli.changes.journal import open_journal

    journal = open_journal()
    return _folded(out, journal, journal.read())


def _folded(out: Output, journal: Journal, reading: JournalEvents) -> list[Run]:
    from aspencli.changes.runs import runs_of

    for number in reading.torn:
        out.warn(f"Skipped unreadable line {number} of {journal.path}.")
    return runs_of(reading.events)


def _newest_runs(
    out: Output, target: str | None, assistants: bool | None, limit: int | None
) -> tuple[list[Run], int]:
    """Return the newest runs, and how many there are; read no more of the history than needed."""
    from aspencli.changes.journal import open_journal
    from aspencli.changes.runs import Event

    def is_wanted(event: Event) -> bool:
        label = str(event.get("target"))
        if assistants is not None and assistants != bool(event.get("assistant")):
            return False
        return not target or target in {label, label.partition("/")[0]}

    journal = open_journal()
    # One more than is shown tells whether there are more, without reading them all.
    reading = journal.read_recent(limit + 1, is_wanted) if limit else journal.read()
    runs = [run for run in _folded(out, journal, reading) if is_wanted(vars(run))]
    total = len(runs)
    if limit and total > limit:
        is_filtered = target is not None or assistants is not None
        total = journal.count_runs(is_wanted if is_filtered else None)
    return runs[:limit] if limit else runs, total


def _row(run: Run) -> Row:
    place, file, counts = run.place, run.file, run.counts
    return {
        **vars(run),
        **asdict(counts),
        "run": run.id,
        "outcome": run.outcome.value,
        "started_at": run.started_at.isoformat(timespec="seconds"),
        "ended_at": run.ended_at and run.ended_at.isoformat(timespec="seconds"),
        "checked_at": run.checked_at and run.checked_at.isoformat(timespec="seconds"),
        "host": run.process.host,
        "pid": run.process.pid,
        "database": f"{place.host or ''}:{place.port or ''}/{place.name or ''}",
        "file": file.given,
        "path": file.path,
        "size": file.size,
        "sha256": file.sha256,
        "changed": run.changed,
        "argv": None if run.argv is None else shlex.join(["aspencli", *run.argv]),
        "audit": _audit_words(run),
        "statements": _statements(run),
    }


def _statements(run: Run) -> list[str] | None:
    """Return the statements of a console session, in its own words; None for other runs."""
    if run.reason is None:
        return None
    from aspencli.changes.statements import read_statements, statement_of

    texts = (run.statements or {}).get("texts")
    sent = map(statement_of, texts if isinstance(texts, list) else ())
    return [str(each) for each in filter(None, sent)] or list(map(str, read_statements(run.id)))


def _audit_words(run: Run) -> str | None:
    """Return where a run is in an audit trail."""
    numbers = ", ".join(f"{number:,}" for number in run.entries)
    parts = [f"{run.trail} (entries {numbers})" if numbers else ""]
    parts += [f"queued: {', '.join(sorted(run.waiting))}" if run.waiting else ""]
    return "; ".join(filter(None, parts)) or None
