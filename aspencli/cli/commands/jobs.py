"""``aspencli jobs``: compute jobs, in the database and in what runs them.

Jobs of ``local`` run on this machine; those of other targets run in AWS.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspencli.cli import params
from aspencli.cli.app import examples
from aspencli.cli.app import group as command_group
from aspencli.cli.commands import jobs_changes
from aspencli.cli.context import AppContext, Backend, current
from aspencli.cli.job_access import (
    engine_errors,
    find_job,
    is_local,
    local_objects,
    now,
    open_jobs,
    read_rows,
    row_finder,
)
from aspencli.cli.output.formats import Column, prints, titled
from aspencli.cli.watching import WatchOption, shown
from aspencli.errors import BadInputError
from aspencli.jobs.models import JobFilter, JobKind, JobState
from aspencli.text import size_text, visible

if TYPE_CHECKING:
    from aspen.database.engine import Database
    from aspencli.cli.output.console import Output
    from aspencli.jobs.models import JobView, Reason

app = command_group("Follow compute jobs, find out why they failed, and start or stop them.")
schedule_app = command_group("List the jobs that start by schedule.")
app.add_typer(schedule_app, name="schedule", rich_help_panel="Look")

COLUMNS = (
    Column("id", "Id", whole=True, of=str),
    Column("kind", "Kind", whole=True, of=str),
    Column("state", "State", whole=True, of=JobState),
    Column("step", "Step", secondary=True),
    Column("group", "Group"),
    Column("pathogen", "Pathogen", secondary=True),
    Column("name", "Name"),
    Column("started", "Started", whole=True, of=dt.datetime | None),
    Column("ended", "Ended", secondary=True, of=dt.datetime | None),
    Column("status", "Status in database", secondary=True),
    Column("user", "Started by", secondary=True),
    Column("job", "Job", secondary=True),
)
SHOW_COLUMNS = (
    *COLUMNS,
    *titled("reason"),
    *titled("tree", of=int | None),
    *titled("tree_type"),
    *titled("execution_status", "execution_error"),
    *titled("output", of=Any),
    *titled("workflow"),
    *titled("input", of=dict[str, Any] | None),
    *titled("attempts", of=int | None),
)
WHY_COLUMNS = (
    Column("id", "Id", of=str),
    Column("state", "State", of=JobState),
    Column("cause", "Cause", of=str),
    Column("reason", "Reason", of=str),
    Column("next", "Next step"),
    *titled("job", "execution", "execution_status", "error", "failed_state", "step"),
    *titled("attempt", of=Any),
    *titled("attempts", of=int | None),
    *titled("batch_job", "batch_reason", "container_reason"),
    *titled("exit_code", of=int | None),
    *titled("log_stream", "log"),
)
OUTPUT_COLUMNS = (
    Column("bucket", "Bucket", secondary=True, of=str),
    Column("key", "Key", whole=True, of=str),
    Column("size", "Size", right=True, whole=True, of=str),
    Column("bytes", "Bytes", right=True, secondary=True, of=int),
    Column("modified", "Modified", whole=True, of=dt.datetime | None),
)
SCHEDULE_COLUMNS = (
    Column("name", "Job", whole=True, of=str),
    Column("schedule", "Schedule", whole=True, of=str),
    Column("enabled", "Enabled", whole=True, of=bool),
    Column("group", "Group"),
    Column("note", "Note"),
    Column("rule", "Rule", secondary=True),
)
KINDS = (*JobKind, "nextstrain-autorun", "lineage-qc-autorun")
"""The kinds that a list can have; the last two start other jobs by schedule."""


def known_kind(value: str | None) -> str | None:
    """Return a kind.

    Raises:
        BadInputError: There is no such kind.
    """
    if value is not None and value not in KINDS:
        raise BadInputError(f"Invalid kind: {value!r}", hint=f"Choose from {', '.join(KINDS)}.")
    return value


Job = Annotated[
    str,
    typer.Argument(
        metavar="JOB",
        help="Id of a run, or of a job; see: aspencli jobs list.",
        callback=params.checked("the job"),
    ),
]

StepOption = Annotated[
    str | None,
    params.text_option(
        "Only this step, such as tree-align; in AWS, the attempt: RunSPOT or RunEC2.",
        metavar="STEP",
        what="the step",
    ),
]


@app.command(
    "list",
    rich_help_panel="Look",
    epilog=examples(
        "aspencli jobs list --state failed --since yesterday",
        "aspencli --env staging jobs list --kind tree --group CZI -o json",
    ),
)
@prints(COLUMNS)
def list_(
    ctx: typer.Context,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help=f"Only this kind: {', '.join(KINDS)}.",
            callback=known_kind,
        ),
    ] = None,
    state: Annotated[
        JobState | None,
        typer.Option(
            case_sensitive=False,
            help="Only jobs in this state. Stuck: STARTED in the database, but no job will end it.",
        ),
    ] = None,
    group: params.GroupOption = None,
    since: Annotated[
        str | None,
        params.text_option(
            "Only jobs started on or after this day (UTC), such as 7d.", metavar="DATE"
        ),
    ] = None,
    limit: params.LimitOption = None,
    watch: WatchOption = None,
) -> None:
    """List jobs, the latest first: runs in the database together with what runs them.

    One line is one job, whether the database, Step Functions, or Batch knows it, or all of them.
    """
    context = current(ctx)
    day = params.parse_typed_day(since, dt.UTC) if since is not None else None
    start = dt.datetime.combine(day, dt.time(), dt.UTC) if day is not None else None
    most = params.chosen_limit(context.out, limit, everything=False)
    group = params.chosen_group(context, group)
    if watch is None:
        context.announce(Backend.DB)
    jobs = open_jobs(context)
    query = _Query(context, JobFilter(kind, state, None, start, most), group)

    def listed(out: Output) -> None:
        rows = read_rows(context, query.rows, required=group is not None, out=out)
        with engine_errors():
            listing = jobs.listing(rows, query.wanted, now())
        for note in listing.notes:
            (out.info if is_local(context) else out.warn)(note)
        found = [view.columns() for view in listing.views]
        seen = found if watch is not None else context.remember(found, kinds=("jobs",))
        out.rows(COLUMNS, seen, empty="No jobs found.")

    shown(context.out, watch, listed, title=f"Jobs of {context.target.title}")


@dataclass
class _Query:
    """The query for the rows of jobs, which is run again for each refresh.

    Attributes:
        context: The context of the run.
        wanted: The filter; its group and names are known once the database was read.
        group: The group to filter by, as given.
    """

    context: AppContext
    wanted: JobFilter
    group: str | None

    @cached_property  # the same one for each refresh
    def _database(self) -> Database:
        return self.context.database(early=True)

    def rows(self) -> list[Any]:
        """Return the rows."""
        database, wanted = self._database, self.wanted
        from aspencli.jobs.database import group_names, list_runs
        from aspencli.reference.database import find_group

        with database.connected() as reader:
            chosen = wanted.group
            if self.group is not None and chosen is None:
                chosen = tuple(find_group(reader, self.group)[:3])
            names = {**wanted.names, **group_names(reader)}
            self.wanted = replace(wanted, group=chosen, names=names)
            is_plain = not (wanted.kind or wanted.state or self.group)
            return list_runs(reader, since=wanted.since, limit=wanted.limit if is_plain else None)


@app.command(rich_help_panel="Look", epilog=examples("aspencli --env prod jobs show 61"))
@prints(SHOW_COLUMNS)
def show(ctx: typer.Context, job: Job, watch: WatchOption = None) -> None:
    """Show everything that is known about a job."""
    context = current(ctx)
    if watch is None:
        context.announce(Backend.DB)
    jobs, finder = open_jobs(context), row_finder(context)

    def describe(out: Output) -> None:
        with engine_errors():
            view = jobs.find(job, finder, now())
        out.record(SHOW_COLUMNS, _description(view))

    shown(context.out, watch, describe, title=f"Job {job} of {context.target.title}")


def _description(view: JobView) -> dict[str, Any]:
    from aspen.workflows.engine.executions import Description

    execution = view.execution
    found: dict[str, Any] = {**dict.fromkeys(column.key for column in SHOW_COLUMNS)}
    found |= view.columns()
    found["reason"] = view.reason
    if view.row is not None:
        found |= {"tree": view.row.tree, "tree_type": view.row.tree_type}
    if isinstance(execution, Description):
        found |= {
            "execution_status": execution.status,
            "execution_error": execution.error or None,
            "output": execution.output or None,
            "workflow": execution.workflow or None,
            "input": dict(execution.run),
        }
    elif view.job is not None:
        found |= {"input": dict(view.job.parameters), "attempts": view.job.attempts}
    return found


@app.command(
    rich_help_panel="Look",
    epilog=examples("aspencli --env prod jobs why 61", "aspencli jobs why 7 -o json"),
)
@prints(WHY_COLUMNS)
def why(ctx: typer.Context, job: Job) -> None:
    """Find out why a job failed, or what it waits for.

    The error of an execution is often that of its error handler. So the reason comes from the state
    that failed, from Batch's reason and exit code, from the end of the log, and, for jobs older
    than 90 days, from the archive in the bucket.
    """
    context = current(ctx)
    context.announce(Backend.DB)
    jobs = open_jobs(context)
    view = find_job(context, jobs, job)
    with engine_errors():
        found = jobs.why(view, now())
    for note in found.notes:
        context.out.info(f"Note: {note}")
    return _show_cause(context, view, found)


def _show_cause(context: AppContext, view: JobView, found: Reason) -> None:
    shown: dict[str, Any] = {**dict.fromkeys(column.key for column in WHY_COLUMNS), **found.facts}
    shown |= {
        "id": view.key,
        "state": view.state.value,
        "cause": found.name,
        "reason": found.text,
        "next": found.next or None,
        "log": "\n".join(found.lines) if found.lines else None,
    }
    if not context.out.has_layout:
        return context.out.record(WHY_COLUMNS, shown)
    columns = tuple(
        column for column in WHY_COLUMNS if shown[column.key] is not None and column.key != "log"
    )
    context.out.record(columns, shown)
    if found.lines:
        context.out.text("")
        context.out.text("The log ends with:")
        for line in found.lines:
            context.out.text(f"  {visible(line.expandtabs())}")
    return None


@app.command(
    rich_help_panel="Look",
    epilog=examples("aspencli jobs logs 7 --follow", "aspencli jobs logs 7 --step tree-align"),
)
def logs(
    ctx: typer.Context,
    job: Job,
    step: StepOption = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep showing new lines until the job ends.")
    ] = False,
) -> None:
    """Show the log of a job."""
    context = current(ctx)
    jobs = open_jobs(context)
    view = find_job(context, jobs, job)
    shown = 0
    # Ctrl-C is the normal way to stop following a log.
    stopping = contextlib.suppress(KeyboardInterrupt) if follow else contextlib.nullcontext()
    with stopping, engine_errors():
        for line in jobs.logs(view, step=step, follow=follow):
            context.out.text(visible(line.expandtabs()))
            shown += 1
    if not shown:
        context.out.info(f"The log of job {view.key} is empty, or does not exist.")


@app.command(rich_help_panel="Look", epilog=examples("aspencli --env staging jobs outputs 61"))
@prints(OUTPUT_COLUMNS)
def outputs(ctx: typer.Context, job: Job) -> None:
    """List the files that a job wrote to the bucket, with their sizes."""
    context = current(ctx)
    context.announce(Backend.DB)
    jobs = open_jobs(context)
    view = find_job(context, jobs, job)

    def rows() -> Iterator[dict[str, Any]]:
        if is_local(context):
            found = local_objects(context, view)
        else:
            from aspencli.jobs.cloud import CloudJobs

            assert isinstance(jobs, CloudJobs)  # noqa: S101 - the target is not local
            found = jobs.outputs(view)
        for bucket, key, size, when in found:
            yield {
                "bucket": bucket,
                "key": key,
                "size": size_text(size),
                "bytes": size,
                "modified": when.replace(microsecond=0) if when else None,
            }

    context.out.rows(OUTPUT_COLUMNS, rows(), empty=f"Job {view.key} has no files.")


@schedule_app.command("list", epilog=examples("aspencli --env prod jobs schedule list"))
@prints(SCHEDULE_COLUMNS)
def schedule_list(ctx: typer.Context) -> None:
    """List the jobs that start by schedule: EventBridge's rules, or the local schedule of today."""
    context = current(ctx)
    context.announce(Backend.DB)
    if is_local(context):
        from aspencli.jobs.local import INSTALL, planned_trees

        with context.database().reading() as session:
            found = planned_trees(session, now().date())
        if found is None:
            context.out.info(f"This machine has no schedule. {INSTALL}")
            found = []
    else:
        from aspencli.jobs.cloud import CloudJobs

        jobs = open_jobs(context)
        assert isinstance(jobs, CloudJobs)  # noqa: S101 - the target is not local
        with engine_errors():
            found = jobs.schedule()
    context.out.rows(SCHEDULE_COLUMNS, found, empty="No schedules found.")


jobs_changes.register(app)
