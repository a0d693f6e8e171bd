"""``aspencli local``: the deployment on this machine, and test data for its database."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspen.local.services import NO_WORKER, PARTS, SUPERVISOR, WORKER, installed_parts
from aspencli.cli.app import examples, expanded, group
from aspencli.cli.context import AppContext, current
from aspencli.cli.output.formats import OUTCOME, Column, Row, prints, titled
from aspencli.cli.params import (
    DryRunOption,
    LimitOption,
    all_among,
    chosen_limit,
    text_option,
)
from aspencli.config import BUILT_IN
from aspencli.errors import BadInputError, UnreachableError
from aspencli.text import counted, size_text, visible

if TYPE_CHECKING:
    from aspen.database.engine import Database
    from aspen.local.auth0.outbox import Message
    from aspen.local.deployment import Up
    from aspen.local.seed import MetadataResult, Seeded
    from aspen.local.services import PartStatus
    from aspencli.cli.changes.execute import ItemChange
    from aspencli.cli.output.console import Output


app = group("Run a full deployment on this machine.")

_VOICES = (*PARTS, SUPERVISOR)  # the parts that keep logs

UP_COLUMNS = (
    *titled("part", of=str),
    *titled("state", of=str),
    *titled("port", of=int | None),
    Column("url", "URL", whole=True),
)
_HEALTH = (
    *UP_COLUMNS,
    Column("pid", "PID", secondary=True, of=int | None),
    Column("uptime_s", "Uptime (s)", right=True, secondary=True, of=int | None),
    Column("restarts", "Restarts", right=True, secondary=True, of=int),
)
_SIZE = Column("size", "Size", right=True, secondary=True, of=int)
STATUS_COLUMNS = (
    *_HEALTH,
    *titled("last_restart", "reason", "version"),
    _SIZE,
    *titled("data", of=str),
    *titled("program"),
)
DOWN_COLUMNS = (
    *titled("part", of=str),
    *titled("was_running", of=bool),
    Column("how", "Method", of=str),
    Column("seconds", "Seconds", of=float),
)
MAIL_COLUMNS = (
    Column("id", "ID", right=True, whole=True, of=int),
    Column("sent_at", "Sent", whole=True, of=datetime),
    *titled("to", of=str),
    *titled("subject", of=str),
)
MESSAGE_COLUMNS = (*MAIL_COLUMNS, *titled("link"), *titled("text", of=str))
RESET_COLUMNS = (*titled("part", of=str), *titled("deleted", of=Any), OUTCOME)
SEED_COLUMNS = (
    *titled("groups", "users", "locations", "samples", "runs", right=True, of=int),
    *titled("trees", "genomes", right=True, of=int),
    Column("already", "Unchanged", right=True, of=int),
    Column("rejected", "Rejected", right=True, of=int),
    Column("seconds", "Seconds", right=True, of=float),
    OUTCOME,
)


@dataclass(frozen=True)
class SeedRequest:
    """The test data to add: the options of ``aspencli local seed``."""

    samples: Annotated[int, typer.Option(metavar="N", min=0, help="Generate N samples.")] = 0
    roles: Annotated[
        bool,
        typer.Option("--roles", help="Fill the test groups up to 1,000, 20, and 5 samples."),
    ] = False
    group: Annotated[
        int, typer.Option(metavar="ID", min=1, help="The group to add the samples to.")
    ] = 1
    number: Annotated[
        int,
        typer.Option("--seed", metavar="K", help="Random seed; another K generates other samples."),
    ] = 0
    metadata: Annotated[
        Path | None,
        typer.Option(metavar="TSV", help="Load a Nextstrain metadata file."),
    ] = None
    sequences: Annotated[
        Path | None,
        typer.Option(metavar="FASTA", help="Genomes for the metadata file; may be gzipped."),
    ] = None
    lat_longs: Annotated[
        Path | None,
        typer.Option(metavar="TSV", help="Coordinates for the locations in the metadata file."),
    ] = None


@app.command(epilog=examples("aspencli local up", "aspencli local up --only postgres"))
@prints(UP_COLUMNS)
def up(
    ctx: typer.Context,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART",
            help=f"Only this part and those it needs: {', '.join(PARTS)}. Repeatable.",
            callback=all_among("part", PARTS),
            autocompletion=lambda: list(PARTS),
        ),
    ] = None,
) -> None:
    """Start PostgreSQL, the AWS emulator, the identity provider, and the API, and wait for them.

    So does the worker that runs compute jobs, if what it needs is installed ('make workflows').
    Creates the database and upgrades its schema; an empty database gets the test data, unless the
    API is not started. Everything keeps running until 'aspencli local down'; parts that exit are
    restarted. Running this again changes nothing.
    """
    context = on_laptop(ctx)
    bring_up(context, only or ())


@app.command(epilog=examples("aspencli local init"))
@prints(UP_COLUMNS, SEED_COLUMNS)
def init(ctx: typer.Context) -> None:
    """Start the deployment (as 'up' does), and add the test groups, users, and locations."""
    context = on_laptop(ctx)
    bring_up(context, (), hint=False)
    add_data(context, SeedRequest())


@app.command(epilog=examples("aspencli local down"))
@prints(DOWN_COLUMNS)
def down(ctx: typer.Context) -> None:
    """Stop the deployment. Data is kept; open transactions are rolled back."""
    context = on_laptop(ctx)
    context.out.finish_anyway()
    stopped = context.laptop.deployment.down()
    rows = [
        {"part": name, **vars(what), "seconds": round(what.seconds, 2)}
        for name, what in stopped.items()
    ]
    context.out.rows(DOWN_COLUMNS, rows)
    running = any(what.was_running for what in stopped.values())
    context.out.done("Stopped" if running else "Already stopped")


@app.command(epilog=examples("aspencli local status", "aspencli local status --check"))
@prints(STATUS_COLUMNS)
def status(
    ctx: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with code 5 unless everything is running.")
    ] = False,
) -> None:
    """Show the state and address of each part; the exit code is 0 either way (see --check)."""
    context = on_laptop(ctx)
    out, found = context.out, context.laptop.deployment.status()
    people = out.chosen_form == "table"
    columns = (*_HEALTH, _SIZE) if people else STATUS_COLUMNS
    out.rows(columns, [_status_row(part, people=people) for part in found])
    for part in found:
        _tell_of_restarts(out, part)
    idle = [f"{part.name} is {part.state.value}" for part in found if not part.runs]
    if idle and check:
        raise UnreachableError(", ".join(idle), hint="Start it: aspencli local up")
    if idle:
        context.out.hint("Start it: aspencli local up")
    if WORKER not in installed_parts():
        context.out.hint(NO_WORKER)


Voices = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PART]...",
        help=f"The parts to show: {', '.join(_VOICES)}. Default: all.",
        callback=all_among("part", _VOICES),
        autocompletion=lambda: list(_VOICES),
    ),
]


@app.command(epilog=examples("aspencli local logs -n 20", "aspencli local logs api -f"))
def logs(
    ctx: typer.Context,
    parts: Voices = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep showing new messages.")
    ] = False,
    lines: Annotated[
        int,
        typer.Option(
            "--lines", "-n", metavar="N", min=0, help="Number of recent messages to show."
        ),
    ] = 100,
) -> None:
    """Show the latest log messages of the parts, in order of time."""
    context, whose = on_laptop(ctx), parts or ()
    width = 0 if len(whose) == 1 else max(len(name) for name in whose or _VOICES)
    # Ctrl-C is the normal way to stop following the logs.
    with contextlib.suppress(KeyboardInterrupt) if follow else contextlib.nullcontext():
        for name, line in context.laptop.deployment.logs(whose, lines, follow=follow):
            lead = f"{name:{width}} | " if width else ""
            context.out.text(lead + visible(line.expandtabs()))


@app.command(
    epilog=examples(
        "aspencli local mail",
        "aspencli local mail 12",
        "aspencli local mail --to guest@example.org -o json",
    )
)
@prints(MESSAGE_COLUMNS)
def mail(
    ctx: typer.Context,
    number: Annotated[
        int | None,
        typer.Argument(metavar="[ID]", min=1, help="Show this message. Default: list them."),
    ] = None,
    to: Annotated[
        str | None,
        text_option("Only messages to this address.", metavar="E-MAIL", what="the address"),
    ] = None,
    limit: LimitOption = None,
) -> None:
    """Show the e-mails that the local identity provider sent, such as invitations, newest first.

    They never leave this machine. JSON, CSV, and TSV contain the whole text, and the link in it in
    a column of its own.
    """
    context = on_laptop(ctx)
    out, outbox = context.out, context.laptop.deployment.outbox
    if number is not None and to is not None:
        raise BadInputError(
            "An ID and --to cannot be combined.", hint="Give the ID or the address."
        )
    if number is not None:
        return _show_message(out, outbox.message(number))
    limit = chosen_limit(out, limit, everything=False)
    return _list_messages(out, outbox.messages(to), limit)


def _list_messages(out: Output, found: Sequence[Message], limit: int | None) -> None:
    columns = MAIL_COLUMNS if out.has_layout else MESSAGE_COLUMNS
    out.rows(columns, map(_message_row, found[:limit]), empty="No messages.")
    if limit is not None and limit < len(found):
        out.info(f"{limit:,} of {len(found):,} messages shown")
        out.hint("Show all with --limit 0.")
    if found and out.has_layout:
        out.hint("Read one: aspencli local mail ID")


def _show_message(out: Output, message: Message) -> None:
    row = _message_row(message)
    if not out.has_layout:
        return out.rows(MESSAGE_COLUMNS, [row])
    for column in MAIL_COLUMNS[1:]:
        out.text(f"{column.title}: {visible(row[column.key])}")
    # Plain lines, so that a terminal recognizes the link.
    return out.text("\n" + "\n".join(map(visible, message.text.splitlines())))


def _message_row(message: Message) -> dict[str, Any]:
    return {
        "id": message.id,
        "sent_at": _moment(message.sent_at),
        "to": message.recipient,
        "subject": message.subject,
        "link": message.link,
        "text": message.text,
    }


@app.command(epilog=examples("aspencli local reset", "aspencli local reset --yes"))
@prints(RESET_COLUMNS)
def reset(ctx: typer.Context, dry_run: DryRunOption = False) -> None:
    """Stop the deployment and delete all of its data, including passwords. Asks for confirmation.

    Only the deployment on this machine is deleted, whatever address the target has.
    """
    from aspencli.cli.changes.execute import execute

    execute(_reset(on_laptop(ctx)), dry_run=dry_run)


def _reset(context: AppContext) -> ItemChange:
    from aspencli.cli.changes.execute import ItemChange

    deployment = context.laptop.deployment
    found = [part for part in deployment.status() if part.data.exists()]
    for part in found:
        context.out.info(f"{part.name}: {size_text(part.size)} in {part.data}")

    def remove() -> Iterator[Sequence[Row]]:
        for name, done in deployment.reset().items():
            yield [{"part": name, "deleted": done, "outcome": "deleted" if done else "unchanged"}]

    return ItemChange(
        context,
        "delete all data and passwords of the local deployment",
        RESET_COLUMNS,
        [{"part": part.name, "deleted": False, "outcome": "delete"} for part in found],
        remove,
        done="Deleted",
        # The local deployment is deleted even if the chosen target has another address.
        target=BUILT_IN["local"],
        is_idempotent=True,
    )


@app.command(
    epilog=examples(
        "aspencli local seed",
        "aspencli local seed --samples 500",
        "aspencli local seed --metadata metadata.tsv --sequences sequences.fasta.gz",
    )
)
@expanded
@prints(SEED_COLUMNS)
def seed(ctx: typer.Context, request: SeedRequest) -> None:
    """Add test data: test groups and users, generated samples, or samples from a file.

    A database without groups first gets the test groups, with their phylogenetic runs and trees;
    without further options, nothing else is added. --roles gives the groups 1,000, 20, and 5
    samples for testing permissions, every fifth of them private. Invalid lines of a file are listed
    and skipped; the exit code is 2 if no line is valid.
    """
    context = on_laptop(ctx)
    if request.metadata is None and (request.sequences or request.lat_longs):
        raise BadInputError(
            "--sequences and --lat-longs require --metadata", hint="Give the metadata file, too."
        )
    add_data(context, request)


def on_laptop(ctx: typer.Context) -> AppContext:
    """Return the context, after checking that the target is this machine.

    Raises:
        BadInputError: If another target is chosen.
    """
    context = current(ctx)
    if context.target.name != "local":
        chosen = context.config.setting("env")
        raise BadInputError(
            f"This command only works on the local target, not on {context.target.label} "
            f"(set by {chosen.source})",
            hint="Omit --env, or use --env local.",
        )
    return context


def bring_up(context: AppContext, only: Sequence[str], *, hint: bool = True) -> None:
    """Start the given parts, or all if none is given, and show their addresses."""
    out, deployment = context.out, context.laptop.deployment
    out.finish_anyway()
    did = deployment.up(only, lambda part, step: out.info(f"{part}: {step} ..."))
    for started in did.started.values():
        if started.repaired:
            out.warn("The deployment was not shut down cleanly; PostgreSQL recovered its data.")
        for note in started.notes:
            out.warn(note)
    running = {part.name: part for part in deployment.status()}
    out.rows(UP_COLUMNS, [_up_row(running[name]) for name in did.started])
    if did.filled and did.filled.samples:
        out.info(f"Added the test groups and users, and {did.filled.samples:,} generated samples.")
    if did.changed:
        out.done(f"Ready in {did.seconds:.1f} s{_seconds(did)}")
    if not context.is_on_laptop:
        out.warn("The target local is configured for another database, not for this one.")
    elif did.empty and hint:
        out.hint("The database is empty. Add test data: aspencli local seed --roles")
    elif did.changed and hint:
        _tell_what_next(context, running)


def _tell_what_next(context: AppContext, running: Mapping[str, PartStatus]) -> None:
    if url := running["api"].url:
        context.out.hint(f"Try the API in a browser: {url}/v2/docs")
    context.out.hint("Open a console: aspencli db interact")
    if WORKER not in installed_parts():
        context.out.hint(NO_WORKER)


def _seconds(did: Up) -> str:
    """Return the startup time of each part; the parts start in parallel."""
    took = [f"{n} {one.seconds:.1f}" for n, one in did.started.items() if not one.already_running]
    return f" ({', '.join(took)})" if len(did.started) > 1 and took else ""


def _tell_of_restarts(out: Output, part: PartStatus) -> None:
    if part.last_restart:
        times = "once" if part.restarts == 1 else f"{part.restarts} times"
        last = _moment(part.last_restart)
        out.warn(f"{part.name} restarted {times}, most recently at {last}: {part.reason}")
    elif part.reason:
        out.warn(f"{part.name}: {part.reason}")


def _up_row(part: PartStatus) -> dict[str, Any]:
    return {"part": part.name, "state": part.state.value, "port": part.port, "url": part.url}


def _status_row(part: PartStatus, *, people: bool) -> dict[str, Any]:
    return {
        **_up_row(part),
        "pid": part.pid,
        "uptime_s": None if part.uptime is None else round(part.uptime),
        "restarts": part.restarts,
        "last_restart": _moment(part.last_restart) if part.last_restart else None,
        "reason": part.reason or None,
        "version": part.version,
        "size": size_text(part.size) if people else part.size,
        "data": part.data,
        "program": part.program,
    }


def _moment(seconds: float) -> str:
    """Return a Unix timestamp as UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def add_data(context: AppContext, request: SeedRequest) -> None:
    """Add the requested data, and show what was added.

    Raises:
        BadInputError: If the file has lines, and none of them is usable.
    """
    from aspencli.cli.changes.execute import ItemChange, execute

    database = context.database(writable=True)
    context.require_laptop(database, "add test data")
    change = ItemChange(
        context,
        f"add test data to {database.url.database}",
        SEED_COLUMNS,
        [{"outcome": "create"}],
        partial(_seed, context, request, database),
        done=_added,
        next=lambda rows: "List them: aspencli samples list" if rows[0]["samples"] else "",
        ended=partial(_explain_rejected, context.out, request),
        single=True,
        has_dry_run=False,
        default_yes=context.is_on_laptop,
    )
    execute(change, dry_run=False)


def _seed(context: AppContext, request: SeedRequest, database: Database) -> Iterator[Sequence[Row]]:
    from aspen.local.seed import Seeded, has_groups, seed_base, seed_roles, seed_runs

    done, objects = Seeded(), context.laptop.deployment.objects
    alone = not (request.samples or request.metadata or request.roles)
    base = alone or not has_groups(database)
    if request.roles:
        with _counting(context, "Generating samples", None) as tell:
            done += seed_roles(database, objects, progress=tell)
    elif base:
        done += seed_base(database)
    loaded = _load_file(context, request, database)
    done += loaded.counts
    done += _generate(context, request, database)
    if base:
        done += seed_runs(database, objects)
    if context.is_on_laptop and (base or request.roles):
        context.laptop.deployment.publish()
    for row in loaded.rejected:
        column = f", column {row.column}" if row.column else ""
        context.out.warn(f"Line {row.line}{column}: {row.reason}; skipped")
    counts = {**vars(done), "rejected": len(loaded.rejected), "seconds": round(done.seconds, 1)}
    added = (done.groups, done.users, done.locations, done.samples, done.runs, done.genomes)
    outcome = "created" if any(added) else "skipped" if loaded.rejected else "unchanged"
    yield [{**counts, "outcome": outcome}]


def _load_file(context: AppContext, request: SeedRequest, database: Database) -> MetadataResult:
    from aspen.local.seed import MetadataResult, seed_metadata

    if not request.metadata:
        return MetadataResult()
    with _counting(context, "Loading the file", None) as tell:
        return seed_metadata(
            database,
            request.metadata,
            sequences=request.sequences,
            lat_longs=request.lat_longs,
            group=request.group,
            progress=tell,
        )


def _generate(context: AppContext, request: SeedRequest, database: Database) -> Seeded:
    from aspen.local.seed import Seeded, seed_samples

    if not (count := request.samples):
        return Seeded()
    with _counting(context, "Generating samples", count) as tell:
        made = seed_samples(
            database, count, group=request.group, seed=request.number, progress=tell
        )
    return Seeded(samples=made.samples_added, seconds=made.seconds)


def _explain_rejected(out: Output, request: SeedRequest, rows: Sequence[Row]) -> None:
    (row,) = rows
    if row["rejected"] and not (row["samples"] or row["already"]):
        raise BadInputError(
            f"No valid lines in {request.metadata}",
            hint="Fix the lines listed above, then run the command again.",
        )
    if row["rejected"]:
        out.warn(f"Skipped {counted(row['rejected'], 'line')} of {request.metadata}.")


def _added(rows: Sequence[Row]) -> str:
    (row,) = rows
    if row["samples"]:
        return f"Added {counted(row['samples'], 'sample')}"
    return f"Added {row['groups']} groups and {row['users']} users"


@contextmanager
def _counting(
    context: AppContext, label: str, total: int | None
) -> Iterator[Callable[[int], None]]:
    """Show a progress bar; the callback takes the amount done since its last call."""
    done = 0
    with context.out.progress(label, total) as tick:

        def tell(more: int) -> None:
            nonlocal done
            done += more
            tick(done)

        yield tell
