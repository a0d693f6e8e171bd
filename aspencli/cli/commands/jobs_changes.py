"""``aspencli jobs start``, ``cancel``, ``retry``, ``reconcile``, and ``undo``: changes of jobs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspencli.cli import params
from aspencli.cli.app import examples, expanded
from aspencli.cli.changes import options
from aspencli.cli.changes.execute import ItemChange, SavedFile, execute, is_made_here
from aspencli.cli.context import AppContext, Backend, current
from aspencli.cli.job_access import (
    engine_errors,
    find_job,
    is_local,
    now,
    open_jobs,
)
from aspencli.cli.output.formats import OUTCOME, Column, Row, prints
from aspencli.errors import BadInputError, ConflictError
from aspencli.jobs.models import COMPLETED, FAILED, STARTED, JobKind, JobState, Settlement
from aspencli.text import counted

if TYPE_CHECKING:
    from aspencli.changes.journal import Recording
    from aspencli.changes.runs import Place, Subject
    from aspencli.jobs.cloud import CloudJobs
    from aspencli.jobs.local import LocalJobs
    from aspencli.jobs.models import JobView, RunRow
    from aspencli.jobs.undo_file import JobsOrigin, Settled

    Jobs = CloudJobs | LocalJobs

COLUMNS = (
    Column("id", "Id", whole=True, of=str | None),
    Column("kind", "Kind", whole=True),
    Column("state", "State", whole=True, of=str | None),
    Column("group", "Group"),
    Column("name", "Name"),
    Column("started", "Started", whole=True, of=dt.datetime | None),
    Column("job", "Job", secondary=True),
    OUTCOME,
)
SETTLE_COLUMNS = (
    Column("id", "Id", right=True, whole=True, of=int),
    Column("kind", "Kind", whole=True, secondary=True),
    Column("group", "Group", secondary=True),
    Column("name", "Name"),
    Column("started", "Started", whole=True, of=dt.datetime | None),
    Column("before", "Before", whole=True),
    Column("after", "After", whole=True),
    Column("ended", "Ended", whole=True, secondary=True, of=dt.datetime | None),
    Column("reason", "Reason"),
    OUTCOME,
)
_RUN_TYPES = {"given": "specified-ids-only", "stale": "refresh-stale", "all": "force-all"}
_LIST = "List the jobs: aspencli jobs list"
Job = Annotated[
    str,
    typer.Argument(
        metavar="JOB",
        help="Id of a run, or of a job; see: aspencli jobs list.",
        callback=params.checked("the job"),
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the group ``jobs``."""
    panel: Any = {"rich_help_panel": "Change"}
    app.command(**panel, epilog=_START_EXAMPLES)(start)
    app.command(**panel, epilog=examples("aspencli jobs cancel 7"))(cancel)
    app.command(**panel, epilog=examples("aspencli --env staging jobs retry 61"))(retry)
    app.command(**panel, epilog=_RECONCILE_EXAMPLES)(reconcile)
    app.command(**panel, epilog=examples("aspencli jobs undo 20261124-034012-3f9a"))(undo)


_START_EXAMPLES = examples(
    "aspencli jobs start qc --pathogen SC2 --stale",
    "aspencli --env staging jobs start lineages --pathogen SC2 --group CZI --sample 17",
    "aspencli jobs start import-repository --pathogen SC2 --repository GenBank "
    "--metadata metadata.tsv.xz --sequences aligned.fasta.xz",
)
_RECONCILE_EXAMPLES = examples(
    "aspencli --env staging jobs reconcile --dry-run", "aspencli --env prod jobs reconcile"
)


@dataclass(frozen=True, kw_only=True)
class StartOptions:
    """The parameters of a new job."""

    pathogen: Annotated[
        str | None,
        params.text_option(
            "Pathogen. Default: --pathogen-slug.",
            "--pathogen",
            metavar="SLUG",
            what="the pathogen",
        ),
    ] = None
    group: Annotated[
        str | None,
        params.group_option("Group that owns the samples. Default: --org, or any.", "--group"),
    ] = None
    samples: Annotated[
        list[str] | None,
        typer.Option(
            "--sample",
            metavar="KEY",
            help="Id, private identifier, or public identifier of a sample; can be repeated.",
        ),
    ] = None
    file: Annotated[
        str | None, params.file_option("key", "an id, private_identifier, or public_identifier")
    ] = None
    stale: Annotated[
        bool, typer.Option("--stale", help="All samples that lack current results.")
    ] = False
    every: Annotated[bool, typer.Option("--all", help="All samples of the pathogen.")] = False
    repository: Annotated[
        str | None,
        params.text_option(
            "Public repository to import, such as GenBank.", metavar="NAME", what="the repository"
        ),
    ] = None
    metadata: Annotated[
        str | None, params.text_option("Metadata to import.", metavar="FILE|URL")
    ] = None
    sequences: Annotated[
        str | None, params.text_option("Sequences to import.", metavar="FILE|URL")
    ] = None
    coordinates: Annotated[
        str | None,
        params.text_option(
            "Latitudes and longitudes of places, for import-repository.", metavar="FILE|URL"
        ),
    ] = None
    source: Annotated[
        str | None, params.text_option("File to import.", "--file", metavar="FILE|URL")
    ] = None


@expanded
@prints(COLUMNS)
def start(
    ctx: typer.Context,
    kind: Annotated[
        JobKind, typer.Argument(metavar="KIND", help=f"Kind of job: {', '.join(JobKind)}.")
    ],
    *,
    given: StartOptions,
    dry_run: params.DryRunOption = False,
) -> None:
    """Start a job, except a tree, which is started with its run: aspencli phylo-runs create.

    A job of the kind qc or lineages needs samples: some with --sample or --from, all that lack
    current results with --stale, or --all. An import needs the files to import; in AWS, a
    repository's usual addresses are the default.
    """
    if kind is JobKind.TREE:
        raise BadInputError(
            "A tree is started together with its run.", hint="Run: aspencli phylo-runs create"
        )
    context = current(ctx)
    context.announce(Backend.DB)
    execute(_start(context, kind, given), dry_run=dry_run)


def _start(context: AppContext, kind: JobKind, given: StartOptions) -> ItemChange:
    jobs = open_jobs(context)
    prefix, parameters = _parameters(context, kind, given)
    with engine_errors():
        jobs.check_start(kind.value, parameters)
    row = _new_row(kind, prefix)

    def begin() -> Iterator[Sequence[Row]]:
        with engine_errors():
            made = jobs.start(kind.value, parameters, prefix, now())
        yield [{**row, "id": made, "job": made, "started": now(), "outcome": "created"}]

    return ItemChange(
        context,
        f"start a job of the kind {kind.value}{_what(parameters)}",
        COLUMNS,
        [row],
        begin,
        done=lambda rows: f"Started job {rows[0]['id']}.",
        next=lambda rows: (
            f"Follow it: {context.command('jobs', 'logs', rows[0]['id'], '--follow')}"
        ),
        single=True,
    )


def _new_row(kind: JobKind, prefix: str) -> dict[str, Any]:
    return {
        **{column.key: None for column in COLUMNS},
        "kind": kind.value,
        "state": JobState.QUEUED.value,
        "group": prefix or None,
        "outcome": "create",
    }


def _what(parameters: dict[str, Any]) -> str:
    count = len(parameters.get("sample_ids") or parameters.get("samples") or ())
    pathogen = parameters.get("pathogen")
    of = f" of {pathogen}" if pathogen else ""
    if count:
        return f" for {counted(count, 'sample')}{of}"
    return f" for {parameters['run_type']}{of}" if "run_type" in parameters else of


def _parameters(
    context: AppContext, kind: JobKind, given: StartOptions
) -> tuple[str, dict[str, Any]]:
    """Return the prefix of the group, and the parameters of a job.

    Raises:
        BadInputError: Options are missing, or do not go together.
    """
    slug = given.pathogen or context.config.value("pathogen_slug") or ""
    if kind in {JobKind.QC, JobKind.LINEAGES}:
        return _sample_parameters(context, kind, given, slug)
    _refuse(kind, given, ("--sample", given.samples), ("--from", given.file))
    _refuse(kind, given, ("--stale", given.stale), ("--all", given.every))
    if kind is JobKind.IMPORT_REPOSITORY:
        return "", {"pathogen": slug, **_repository_parameters(context, kind, given)}
    _refuse(kind, given, ("--coordinates", given.coordinates))
    if not given.source:
        raise BadInputError(
            f"A job of the kind {kind.value} needs --file.", hint="See: aspencli jobs start --help"
        )
    return "", {"pathogen": slug, "file": _full(given.source)}


def _repository_parameters(
    context: AppContext, kind: JobKind, given: StartOptions
) -> dict[str, str]:
    _refuse(kind, given, ("--file", given.source))
    wanted = {
        "repository": given.repository,
        "metadata": given.metadata,
        "sequences": given.sequences,
    }
    missing = [f"--{name}" for name, value in wanted.items() if not value]
    if missing and is_local(context):
        raise BadInputError(
            f"A job of the kind {kind.value} needs {', '.join(missing)}.",
            hint="See: aspencli jobs start --help",
        )
    files = {"metadata": given.metadata, "sequences": given.sequences}
    if given.coordinates:
        if not is_local(context):
            raise BadInputError(
                "--coordinates does not apply in AWS, where the import has its own coordinates."
            )
        files["coordinates"] = given.coordinates
    values = {name: _full(value) for name, value in files.items() if value}
    if given.repository:
        values["repository"] = given.repository
    return values


def _full(text: str) -> str:
    """Return a URL as it is, and the path of a file in full: another process opens it."""
    return text if "://" in text else str(Path(text).expanduser().absolute())


def _refuse(kind: JobKind, _given: StartOptions, *options: tuple[str, object]) -> None:
    for name, value in options:
        if value:
            raise BadInputError(
                f"{name} does not apply to jobs of the kind {kind.value}.",
                hint="See: aspencli jobs start --help",
            )


def _sample_parameters(
    context: AppContext, kind: JobKind, given: StartOptions, slug: str
) -> tuple[str, dict[str, Any]]:
    from aspencli.jobs.database import find_samples
    from aspencli.reference.database import find_group, find_pathogen

    keys = _sample_keys(context, kind, given)
    group = params.chosen_group(context, given.group)
    with context.database().connected() as reader:
        found = find_group(reader, group) if group is not None else None
        pathogen = find_pathogen(reader, slug)
        samples = (
            find_samples(reader, keys, found.id if found else None, pathogen.id) if keys else []
        )
    run_type = _RUN_TYPES["stale" if given.stale else "all" if given.every else "given"]
    parameters: dict[str, Any] = {"pathogen": pathogen.slug, "run_type": run_type}
    parameters["sample_ids"] = [sample.id for sample in samples]
    if kind is JobKind.LINEAGES and not is_local(context):
        parameters["samples"] = [sample.public_identifier for sample in samples]
    return (found.prefix if found is not None else ""), parameters


def _sample_keys(context: AppContext, kind: JobKind, given: StartOptions) -> list[str]:
    """Return the samples that are named; none with ``--stale`` and ``--all``.

    Raises:
        BadInputError: Options do not apply, or do not go together.
    """
    for name in ("repository", "metadata", "sequences", "coordinates"):
        _refuse(kind, given, (f"--{name}", getattr(given, name)))
    _refuse(kind, given, ("--file", given.source))
    named = bool(given.samples or given.file)
    if named + given.stale + given.every != 1:
        raise BadInputError(
            "Choose the samples in one way: --sample and --from, --stale, or --all.",
            hint="See: aspencli jobs start --help",
        )
    if not named:
        return []
    from aspencli.samples.keys import SampleKey

    return params.chosen_ids(context, given.samples, given.file, tuple(SampleKey))


@prints(COLUMNS)
def cancel(
    ctx: typer.Context,
    job: Job,
    why: Annotated[
        str,
        params.text_option("Reason, for the record.", "--reason", what="the reason"),
    ] = "Canceled by an operator",
    dry_run: params.DryRunOption = False,
) -> None:
    """Stop a job, and mark its run as FAILED, so that it can be deleted or retried."""
    context = current(ctx)
    context.announce(Backend.DB)
    execute(_cancellation(context, job, why), dry_run=dry_run)


def _cancellation(context: AppContext, job: str, why: str) -> ItemChange:
    jobs, view = _job_to_change(context, job)
    _require_cancelable(context, view)
    row = _row(view, "unchanged" if _has_ended(view) else "update")

    def stop() -> Iterator[Sequence[Row]]:
        with engine_errors():
            ended = jobs.cancel(view, why)
        if ended is None:
            yield [{**row, "state": JobState.DONE.value, "outcome": "skipped"}]
            return
        if view.row is not None:
            _settle(context, [Settlement(view.row, FAILED, ended, why)])
        yield [{**row, "state": JobState.CANCELLED.value, "outcome": "updated"}]

    return ItemChange(
        context,
        f"cancel job {view.key} ({_named(view)})",
        COLUMNS,
        [row],
        stop,
        done=f"Canceled job {view.key}.",
        next=f"Start it again: {context.command('jobs', 'retry', view.key)}",
        reason="the job has ended",
        single=True,
    )


def _job_to_change(context: AppContext, job: str) -> tuple[Jobs, JobView]:
    """Return the jobs of the target, and the one to change; the engine must be reachable."""
    jobs = open_jobs(context)
    view = find_job(context, jobs, job)
    jobs.require_engine()
    return jobs, view


def _has_ended(view: JobView) -> bool:
    return view.state not in {JobState.QUEUED, JobState.RUNNING}


def _require_cancelable(context: AppContext, view: JobView) -> None:
    if not _has_ended(view) and view.engine_id is None:
        raise ConflictError(
            f"Job {view.key} has not been started yet; nothing was written.",
            hint=f"Look again in a few minutes: {context.command('jobs', 'show', view.key)}",
        )
    if view.state is JobState.STUCK:
        raise ConflictError(
            f"Job {view.key} has ended, but its row is {STARTED}; nothing was written.",
            hint=f"Settle it: {context.command('jobs', 'reconcile')}",
        )


@prints(COLUMNS)
def retry(ctx: typer.Context, job: Job, dry_run: params.DryRunOption = False) -> None:
    """Start a job again that failed or was canceled, with the same input.

    A run keeps its id, so it never has two trees. Two operators cannot start two attempts.
    """
    context = current(ctx)
    context.announce(Backend.DB)
    execute(_new_attempt(context, job), dry_run=dry_run)


def _new_attempt(context: AppContext, job: str) -> ItemChange:
    jobs, view = _job_to_change(context, job)
    _require_ended(context, view)
    jobs.require_retry(view)
    row = _row(view, "update")

    def again() -> Iterator[Sequence[Row]]:
        with engine_errors():
            if view.row is None or is_local(context):
                made = jobs.retry(view)
            else:
                made = _retry_run(context, view, jobs.retry)
        state = JobState.QUEUED.value
        yield [{**row, "state": state, "job": made, "outcome": "updated"}]

    return ItemChange(
        context,
        f"retry job {view.key} ({_named(view)})",
        COLUMNS,
        [row],
        again,
        done=f"Started job {view.key} again.",
        next=f"Follow it: {context.command('jobs', 'logs', view.key, '--follow')}",
        single=True,
    )


def _require_ended(context: AppContext, view: JobView) -> None:
    if view.state is JobState.DONE:
        raise ConflictError(
            f"Job {view.key} is done; nothing was written.",
            hint="To build another tree, start a new run: aspencli phylo-runs create",
        )
    if not _has_ended(view):
        raise ConflictError(
            f"Job {view.key} has not ended; nothing was written.",
            hint=f"Wait for it, or cancel it: {context.command('jobs', 'cancel', view.key)}",
        )


def _retry_run(context: AppContext, view: JobView, begin: Any) -> str:
    """Start a run's job again while its row is locked, and return the engine's ID.

    Raises:
        ConflictError: The run was completed, or deleted, in the meantime.
    """
    from aspencli.jobs.database import lock_run, set_status

    assert view.row is not None  # noqa: S101 - only runs have rows
    with context.database(writable=True).begin() as session:
        row = lock_run(session, view.row.id)
        if row is None or row.status == COMPLETED:
            status = "was deleted" if row is None else f"is {COMPLETED}"
            raise ConflictError(f"Run {view.key} {status}; nothing was written.", hint=_LIST)
        set_status(session, row.id, STARTED, None)
        made: str = begin(view)
    return made


@prints(SETTLE_COLUMNS)
def reconcile(
    ctx: typer.Context,
    undo_file: options.UndoFile = None,
    dry_run: params.DryRunOption = False,
) -> None:
    """Settle runs that are STARTED although their job has ended, or does not exist.

    Such a run can be neither deleted nor renamed. It becomes FAILED, or COMPLETED if its job
    succeeded and its tree is there. Runs whose job waits or runs, and those that began within ten
    minutes, stay as they are. All rows change in one transaction; `jobs undo` restores them.
    """
    context = current(ctx)
    context.announce(Backend.DB)
    execute(_reconciliation(context, undo_file), dry_run=dry_run)


def _reconciliation(context: AppContext, undo_file: Path | None) -> ItemChange:
    jobs = open_jobs(context)
    moment = now()
    rows = _started(context)
    with engine_errors():
        found = jobs.stuck(rows, moment)
    return ItemChange(
        context,
        f"settle {counted(len(found), 'run')} of {len(rows):,} that are {STARTED}",
        SETTLE_COLUMNS,
        [_settle_row(each, "update") for each in found],
        partial(_settle_stuck, context, jobs, found),
        done=lambda rows: f"Settled {counted(_updated(rows), 'run')}.",
        reason="every run that is STARTED has a job",
        save=partial(_save, context, found, undo_file),
    )


def _settle_stuck(
    context: AppContext, jobs: Jobs, found: Sequence[Settlement]
) -> Iterator[Sequence[Row]]:
    # A run may have been started again since the plan.
    with engine_errors():
        live = jobs.live_runs([each.row for each in found])
    done = set(_settle(context, [each for each in found if each.row.id not in live]))
    yield [_settle_row(each, "updated" if each.row.id in done else "skipped") for each in found]


def _updated(rows: Sequence[Row]) -> int:
    return sum(row["outcome"] == "updated" for row in rows)


def _started(context: AppContext) -> list[RunRow]:
    from aspencli.jobs.database import list_runs

    with context.database().connected() as reader:
        return list_runs(reader, status=STARTED)


def _settle(context: AppContext, wanted: list[Settlement]) -> list[int]:
    from aspencli.jobs.database import settle

    with context.database(writable=True).begin() as session:
        return settle(session, wanted)


def _save(
    context: AppContext, found: Sequence[Settlement], path: Path | None, recording: Recording
) -> SavedFile:
    from aspencli.jobs.undo_file import settled

    return _save_rows(context, [settled(each) for each in found], path, recording)


def _save_rows(
    context: AppContext, rows: Sequence[Settled], path: Path | None, recording: Recording
) -> SavedFile:
    from aspencli import files
    from aspencli.changes.undo import write_undo
    from aspencli.jobs.undo_file import JobsOrigin, write_settled

    origin = JobsOrigin(
        target=context.target.label,
        made=dt.datetime.now(dt.UTC).isoformat(),
        rows=len(rows),
        run=recording.id,
        place=_place(context),
    )
    found = write_undo(files.state_dir() / "undo", origin, partial(write_settled, rows), path)
    command = context.command("jobs", "undo", str(found.absolute()))
    return SavedFile(found, partial(context.out.hint, f"Undo it: {command}"))


def _place(context: AppContext) -> Place:
    """Return the database, with its identity, which its address alone does not prove."""
    from aspencli.changes.journal import place_of

    database = context.database()
    return place_of(database.url, database.identity())


class _Restoration(ItemChange):
    """An undo of a run of `reconcile`."""

    undoes: str

    def subject(self) -> Subject:
        """Return the facts to record in the history."""
        return replace(super().subject(), undo_of=self.undoes)


@prints(SETTLE_COLUMNS)
def undo(
    ctx: typer.Context,
    what: Annotated[
        str,
        typer.Argument(help="Run id from `aspencli history`, or an undo file.", metavar="ID|FILE"),
    ],
    undo_file: options.UndoFile = None,
    dry_run: params.DryRunOption = False,
) -> None:
    """Restore the rows that `jobs reconcile` settled, where they are still as it left them."""
    context = current(ctx)
    origin, rows = _read_undo(context, what)
    context.announce(Backend.DB)
    change = _restoration(context, origin, rows, undo_file)
    here, run = _place(context), f"run {origin.run}"
    change.by_name = not is_made_here(context.out, origin.place, here, run, "this database")
    execute(change, dry_run=dry_run)


def _read_undo(context: AppContext, what: str) -> tuple[JobsOrigin, list[Settled]]:
    """Return the origin and the rows of the undo file of a run.

    Raises:
        BadInputError: It was written on another target.
    """
    from aspencli.changes.journal import open_journal
    from aspencli.changes.runs import runs_of, undo_source
    from aspencli.config import command_for
    from aspencli.jobs.undo_file import read_settled

    path, _run = undo_source(what, runs_of(open_journal().read().events))
    origin, rows = read_settled(path)
    if origin.target != context.target.label:
        raise BadInputError(
            f"{path} was written on {origin.target}, but the target is {context.target.label}.",
            hint=f"Undo it there: {command_for(origin.target, 'jobs', 'undo', what)}",
        )
    return origin, rows


def _restoration(
    context: AppContext, origin: JobsOrigin, rows: Sequence[Settled], undo_file: Path | None
) -> _Restoration:
    from aspencli.jobs.database import find_run

    with context.database().connected() as reader:
        plan = [(row, _restoration_row(row, find_run(reader, row.id))) for row in rows]
    change = _Restoration(
        context,
        f"undo run {origin.run} ({counted(len(rows), 'row')})",
        SETTLE_COLUMNS,
        [line for _row, line in plan],
        partial(_restore, context, plan),
        done=lambda rows: f"Undid run {origin.run}: {counted(_updated(rows), 'row')} restored.",
        reason="the old values are in place"
        if all(line["outcome"] == "unchanged" for _row, line in plan)
        else "the rows were changed since",
        save=partial(_save_restored, context, plan, undo_file),
    )
    change.undoes = origin.run
    return change


def _restoration_row(row: Settled, run: RunRow | None) -> dict[str, Any]:
    return {
        **{column.key: None for column in SETTLE_COLUMNS},
        **({"kind": run.kind, "group": run.group, "name": run.name} if run else {}),
        "id": row.id,
        "started": run.started if run else None,
        "before": run.status if run else None,
        "after": row.before,
        "reason": "it was deleted" if run is None else None,
        "outcome": _restoration_outcome(row, run),
    }


def _restoration_outcome(row: Settled, found: RunRow | None) -> str:
    if found is None:
        return "skip"
    if (found.status, found.ended) == (row.before, row.before_ended):
        return "unchanged"
    is_ours = found.status == row.after and _close(found.ended, row.after_ended)
    return "update" if is_ours else "skip"


def _save_restored(
    context: AppContext,
    plan: Sequence[tuple[Settled, dict[str, Any]]],
    path: Path | None,
    recording: Recording,
) -> SavedFile:
    from aspencli.jobs.undo_file import Settled

    kept = [
        Settled(row.id, row.after, row.after_ended, row.before, row.before_ended)
        for row, line in plan
        if line["outcome"] == "update"
    ]
    return _save_rows(context, kept, path, recording)


def _restore(
    context: AppContext, plan: Sequence[tuple[Settled, dict[str, Any]]]
) -> Iterator[Sequence[Row]]:
    """Restore the planned rows in one transaction, where they are still as planned."""
    from aspencli.jobs.database import lock_run, set_status

    done = []
    with context.database(writable=True).begin() as session:
        for row, line in plan:
            found = lock_run(session, row.id) if line["outcome"] == "update" else None
            if found is not None and _restoration_outcome(row, found) == "update":
                set_status(session, row.id, row.before, row.before_ended)
                done.append({**line, "outcome": "updated"})
            else:
                kept = line["outcome"] == "unchanged"
                done.append({**line, "outcome": "unchanged" if kept else "skipped"})
    yield done


def _close(one: dt.datetime | None, other: dt.datetime | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) < dt.timedelta(milliseconds=1)


def _settle_row(wanted: Settlement, outcome: str) -> dict[str, Any]:
    row = wanted.row
    return {
        "id": row.id,
        "kind": row.kind,
        "group": row.group,
        "name": row.name,
        "started": row.started.replace(microsecond=0) if row.started else None,
        "before": row.status,
        "after": wanted.status,
        "ended": wanted.ended.replace(microsecond=0),
        "reason": wanted.reason,
        "outcome": outcome,
    }


def _row(view: JobView, outcome: str) -> dict[str, Any]:
    values = view.columns()
    return {
        **{column.key: values.get(column.key) for column in COLUMNS},
        "outcome": outcome,
    }


def _named(view: JobView) -> str:
    values = view.columns()
    return ", ".join(filter(None, (values["kind"], values["name"], values["group"]))) or "job"
