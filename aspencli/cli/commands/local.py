"""``aspencli local``: the deployment on this machine.

``aspencli local seed``: test data for the local database.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspen.local.services import PARTS, SUPERVISOR
from aspencli.cli.app import examples, group
from aspencli.cli.context import AppContext, current
from aspencli.cli.output.formats import Column
from aspencli.cli.params import DryRunOption, all_among
from aspencli.errors import BadInputError, UnreachableError
from aspencli.targets import BUILT_IN
from aspencli.text import size_text, visible

if TYPE_CHECKING:
    from aspen.local.client import Seeded, SeedRequest
    from aspen.local.deployment import Up
    from aspen.local.services import PartStatus
    from aspencli.cli.output.console import Output


COLUMNS = (
    Column("groups", "Groups", right=True),
    Column("users", "Users", right=True),
    Column("locations", "Locations", right=True),
    Column("samples", "Samples", right=True),
    Column("runs", "Runs", right=True),
    Column("trees", "Trees", right=True),
    Column("genomes", "Genomes", right=True),
    Column("already", "There already", right=True),
    Column("rejected", "Rejected", right=True),
    Column("seconds", "Seconds", right=True),
)


def seed(
    ctx: typer.Context,
    samples: Annotated[
        int, typer.Option("--samples", metavar="N", min=0, help="Make N samples up.")
    ] = 0,
    roles: Annotated[
        bool,
        typer.Option("--roles", help="Fill the test groups up to 1,000, 20 and 5 samples."),
    ] = False,
    group: Annotated[
        int, typer.Option("--group", metavar="ID", min=1, help="The group that gets the samples.")
    ] = 1,
    number: Annotated[
        int, typer.Option("--seed", metavar="K", help="Another K makes other samples up.")
    ] = 0,
    metadata: Annotated[
        Path | None,
        typer.Option("--metadata", metavar="TSV", help="Load a Nextstrain metadata file."),
    ] = None,
    sequences: Annotated[
        Path | None,
        typer.Option("--sequences", metavar="FASTA", help="Its genomes; may be gzipped."),
    ] = None,
    lat_longs: Annotated[
        Path | None,
        typer.Option("--lat-longs", metavar="TSV", help="The coordinates of its locations."),
    ] = None,
) -> None:
    """Add test data: the test groups and users, made-up samples, or those of a file.

    The test groups, with their phylogenetic runs and trees, come first in a database without
    groups; alone without further options. --roles gives them the samples with which it can be
    seen who may do what: 1,000, 20 and 5, every fifth of them private. Lines of a file that
    cannot be used are named, and the others loaded; exit code 2 when none could be.
    """
    context = on_laptop(ctx)
    if metadata is None and (sequences or lat_longs):
        raise BadInputError(
            "--sequences and --lat-longs go with --metadata", hint="Name the metadata file, too."
        )
    from aspen.local.client import SeedRequest

    run(context, SeedRequest(group, samples, roles, number, metadata, sequences, lat_longs))


def nothing_more() -> SeedRequest:
    """Return a request for only the test groups."""
    from aspen.local.client import SeedRequest

    return SeedRequest()


def run(context: AppContext, request: SeedRequest) -> None:
    """Add the requested data, and show what was added.

    Raises:
        BadInputError: If the file has lines, and none of them is usable.
    """
    from aspen.local import client

    database = context.database(writable=True)
    context.require_laptop(database, "add test data")
    context.out.finish_anyway()
    if not context.is_on_laptop:
        context.authorise(f"add test data to {database.url.database}", dry_run=False)
    done, objects = client.Seeded(), context.laptop.objects
    alone = not (request.samples or request.metadata or request.roles)
    base = alone or client.holds_no_group(database)
    if request.roles:
        with _counting(context, "Making samples up", None) as tell:
            client.add_roles(database, objects, done, tell)
    elif base:
        client.add_groups(database, done)
    if request.metadata:
        with _counting(context, "Loading the file", None) as tell:
            client.add_file(database, request, done, tell)
    if request.samples:
        with _counting(context, "Making samples up", request.samples) as tell:
            client.add_samples(database, request, done, tell)
    if base:
        client.add_runs(database, objects, done)
    if context.is_on_laptop and (base or request.roles):
        context.laptop.publish()
    _show(context, request, done)


def on_laptop(ctx: typer.Context) -> AppContext:
    """Return the context, after checking that the target is this machine.

    Raises:
        BadInputError: If another target is chosen.
    """
    context = current(ctx)
    if context.target.name != "local":
        chosen = context.config.setting("env")
        raise BadInputError(
            f"this command is about this machine, and the target is {context.target.label} "
            f"(from {chosen.source})",
            hint="Leave --env out, or give --env local.",
        )
    return context


def _show(context: AppContext, request: SeedRequest, done: Seeded) -> None:
    out = context.out
    for row in done.rejected:
        column = f", column {row.column}" if row.column else ""
        out.warn(f"line {row.line}{column}: {row.reason}; left out")
    counts = {**vars(done), "rejected": len(done.rejected), "seconds": round(done.seconds, 1)}
    out.record(COLUMNS, counts)
    if done.rejected and not (done.samples or done.already):
        raise BadInputError(
            f"no line of {request.metadata} could be used", hint="Mend them as told above."
        )
    if done.rejected:
        out.warn(f"{len(done.rejected)} line(s) of {request.metadata} were left out")
    if done.samples:
        out.done(f"added {done.samples:,} samples")
        out.hint("Look at them: aspencli samples list")
    else:
        out.done(
            f"added {done.groups} groups and {done.users} users"
            if done.users
            else "nothing was missing"
        )


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


app = group("A whole deployment on this machine.")

_VOICES = (*PARTS, SUPERVISOR)  # the parts that keep logs

UP_COLUMNS = (
    Column("part", "Part"),
    Column("state", "State"),
    Column("port", "Port"),
    Column("url", "Address"),
)
_HEALTH = (
    *UP_COLUMNS,
    Column("pid", "Process"),
    Column("uptime_s", "Running for (s)", right=True),
    Column("restarts", "Restarts", right=True),
)
_SIZE = Column("size", "Size", right=True)
STATUS_COLUMNS = (
    *_HEALTH,
    Column("last_restart", "Last restart"),
    Column("reason", "Reason"),
    Column("version", "Version"),
    _SIZE,
    Column("data", "Data"),
    Column("program", "Programs"),
)
DOWN_COLUMNS = (
    Column("part", "Part"),
    Column("was_running", "Was running"),
    Column("how", "Stopped"),
    Column("seconds", "Seconds"),
)
RESET_COLUMNS = (Column("part", "Part"), Column("deleted", "Deleted"))


@app.command(epilog=examples("aspencli local up", "aspencli local up --only postgres"))
def up(
    ctx: typer.Context,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="PART",
            help=f"This part and those that it needs: {', '.join(PARTS)}. Repeatable.",
            callback=all_among("part", PARTS),
            autocompletion=lambda: list(PARTS),
        ),
    ] = None,
) -> None:
    """Start PostgreSQL, the AWS stand-in, the identity provider and the API; wait until all answer.

    The database is made and brought to the newest schema; an empty one gets the test data, unless
    the API is left out. They keep running until 'aspencli local down': what ends by itself is
    started again. Running this again does nothing.
    """
    context = on_laptop(ctx)
    bring_up(context, only or ())


@app.command(epilog=examples("aspencli local init"))
def init(ctx: typer.Context) -> None:
    """Start it (as 'up' does), and add the test groups, users and locations."""
    context = on_laptop(ctx)
    bring_up(context, (), hint=False)
    run(context, nothing_more())


@app.command(epilog=examples("aspencli local down"))
def down(ctx: typer.Context) -> None:
    """Stop it; the data stays. Open transactions are rolled back."""
    context = on_laptop(ctx)
    context.out.finish_anyway()
    stopped = context.laptop.down()
    rows = [
        {"part": name, **vars(what), "seconds": round(what.seconds, 2)}
        for name, what in stopped.items()
    ]
    context.out.rows(DOWN_COLUMNS, rows)
    running = any(what.was_running for what in stopped.values())
    context.out.done("stopped" if running else "it was not running")


@app.command(epilog=examples("aspencli local status", "aspencli local status --check"))
def status(
    ctx: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with code 5 unless everything is running.")
    ] = False,
) -> None:
    """Show how each part is, and where; exit code 0 whether it runs or not (see --check)."""
    context = on_laptop(ctx)
    out, found = context.out, context.laptop.status()
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


@app.command(epilog=examples("aspencli local logs -n 20", "aspencli local logs api -f"))
def logs(
    ctx: typer.Context,
    parts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PART]...",
            help=f"Whose: {', '.join(_VOICES)}. Everybody's, when none is named.",
            callback=all_among("part", _VOICES),
            autocompletion=lambda: list(_VOICES),
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new ones as they come.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", metavar="N", min=0, help="So many of the last ones.")
    ] = 100,
) -> None:
    """Show the last messages of the parts, by their times."""
    context, whose = on_laptop(ctx), parts or ()
    width = 0 if len(whose) == 1 else max(len(name) for name in whose or _VOICES)
    # Ctrl-C is the normal way to stop following the logs.
    with contextlib.suppress(KeyboardInterrupt) if follow else contextlib.nullcontext():
        for name, line in context.laptop.logs(whose, lines, follow=follow):
            lead = f"{name:{width}} | " if width else ""
            context.out.text(lead + visible(line.expandtabs()))


@app.command(epilog=examples("aspencli local reset", "aspencli local reset --yes"))
def reset(ctx: typer.Context, dry_run: DryRunOption = False) -> None:
    """Stop it and delete all of its data, passwords included; asks first.

    Only the deployment on this machine is ever deleted, whatever address the target has.
    """
    context = on_laptop(ctx)
    laptop = context.laptop
    found = [part for part in laptop.status() if part.data.exists()]
    for part in found:
        context.out.info(f"{part.name}: {size_text(part.size)} in {part.data}")
    if dry_run:
        return context.out.info("nothing was deleted")
    if found:
        # The local deployment is deleted even if the chosen target has another address.
        context.authorise(
            "delete all data and passwords of the deployment", target=BUILT_IN["local"]
        )
    context.out.finish_anyway()
    deleted = laptop.reset()
    context.out.rows(
        RESET_COLUMNS, [{"part": name, "deleted": done} for name, done in deleted.items()]
    )
    return context.out.done("deleted" if any(deleted.values()) else "there was nothing to delete")


app.command(
    epilog=examples(
        "aspencli local seed",
        "aspencli local seed --samples 500",
        "aspencli local seed --metadata metadata.tsv --sequences sequences.fasta.gz",
    )
)(seed)


def bring_up(context: AppContext, only: Sequence[str], *, hint: bool = True) -> None:
    """Start the given parts, or all if none is given, and show their addresses."""
    out, laptop = context.out, context.laptop
    out.finish_anyway()
    did = laptop.up(only, lambda part, step: out.info(f"{part}: {step} ..."))
    for started in did.started.values():
        if started.repaired:
            out.warn("it had not been stopped last time; PostgreSQL repaired its data")
        for note in started.notes:
            out.warn(note)
    running = {part.name: part for part in laptop.status()}
    out.rows(UP_COLUMNS, [_up_row(running[name]) for name in did.started])
    if did.filled and did.filled.samples:
        out.info(f"added the test groups and users, and {did.filled.samples:,} made-up samples")
    if did.changed:
        out.done(f"ready after {did.seconds:.1f} s{_seconds(did)}")
    if not context.is_on_laptop:
        out.warn("the target local is set to another database; this one is not used by it")
    elif did.empty and hint:
        out.hint("It is empty. Fill it: aspencli local seed --roles")
    elif did.changed and hint:
        _tell_what_next(context, running)


def _tell_what_next(context: AppContext, running: Mapping[str, PartStatus]) -> None:
    if url := running["api"].url:
        context.out.hint(f"The API, to be tried in a browser: {url}/v2/docs")
    context.out.hint("Open a console: aspencli db interact")


def _seconds(did: Up) -> str:
    """Return the startup time of each part; the parts start in parallel."""
    took = [f"{n} {one.seconds:.1f}" for n, one in did.started.items() if not one.already_running]
    return f" ({', '.join(took)})" if len(did.started) > 1 and took else ""


def _tell_of_restarts(out: Output, part: PartStatus) -> None:
    if part.last_restart:
        times = "once" if part.restarts == 1 else f"{part.restarts} times"
        out.warn(
            f"{part.name} restarted {times}, last at {_moment(part.last_restart)}: {part.reason}"
        )
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
