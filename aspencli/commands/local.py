"""``aspencli local``: the deployment on this machine, up and down."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspencli.cli import examples, group
from aspencli.commands import local_seed
from aspencli.commands.local_seed import on_laptop
from aspencli.context import AppContext
from aspencli.errors import UnreachableError
from aspencli.output.rendering import Column
from aspencli.output.text import size_text, visible
from aspencli.params import DryRunOption

if TYPE_CHECKING:
    from aspencli.clients.laptop import Laptop, Up
    from local.parts import PartStatus

app = group("A whole deployment on this machine.")

UP_COLUMNS = (
    Column("part", "Part"),
    Column("state", "State"),
    Column("port", "Port"),
    Column("url", "Address"),
)
STATUS_COLUMNS = (
    *UP_COLUMNS,
    Column("pid", "Process"),
    Column("uptime_s", "Running for (s)"),
    Column("version", "Version"),
    Column("size", "Size"),
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


@app.command(epilog=examples("aspencli local up"))
def up(ctx: typer.Context) -> None:
    """Start PostgreSQL and bring its database to the newest schema; made anew where missing.

    It keeps running until 'aspencli local down'. Running this again does nothing.
    """
    context = on_laptop(ctx)
    bring_up(context)


@app.command(epilog=examples("aspencli local init"))
def init(ctx: typer.Context) -> None:
    """Start it (as 'up' does), and add the test groups, users and locations."""
    context = on_laptop(ctx)
    bring_up(context, hint=False)
    local_seed.run(context, local_seed.nothing_more())


@app.command(epilog=examples("aspencli local down"))
def down(ctx: typer.Context) -> None:
    """Stop it; the data stays. Open transactions are rolled back."""
    context = on_laptop(ctx)
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
    """Show what is running, and where; exit code 0 whether it runs or not (see --check)."""
    context = on_laptop(ctx)
    found = context.laptop.status()
    context.out.records(STATUS_COLUMNS, [_status_row(context, part) for part in found])
    idle = [f"{part.name} is {part.state.value}" for part in found if part.pid is None]
    if idle and check:
        raise UnreachableError(", ".join(idle), hint="Start it: aspencli local up")
    if idle:
        context.out.hint("Start it: aspencli local up")


@app.command(epilog=examples("aspencli local logs -n 20", "aspencli local logs -f"))
def logs(
    ctx: typer.Context,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new ones as they come.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", metavar="N", min=0, help="So many of the last ones.")
    ] = 100,
) -> None:
    """Show the last messages of PostgreSQL."""
    context = on_laptop(ctx)
    # Ctrl-C is how one leaves it, and nothing is undone by that.
    with contextlib.suppress(KeyboardInterrupt) if follow else contextlib.nullcontext():
        for line in context.laptop.logs(lines, follow=follow):
            context.out.text(visible(line.expandtabs()))


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
        context.authorise("delete all data and passwords of the deployment")
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
)(local_seed.seed)


def bring_up(context: AppContext, *, hint: bool = True) -> None:
    """Bring the deployment up, and show where it answers."""
    out, laptop = context.out, context.laptop
    did = laptop.up(lambda part, step: out.info(f"{part}: {step} ..."))
    for started in did.started.values():
        if started.repaired:
            out.warn("it had not been stopped last time; PostgreSQL repaired its data")
        for note in started.notes:
            out.warn(note)
    out.rows(UP_COLUMNS, [_up_row(laptop, name, did) for name in did.started])
    if did.changed:
        out.done(f"ready after {did.seconds:.1f} s")
    if not context.is_on_laptop:
        out.warn("the target local is set to another database; this one is not used by it")
    elif did.empty and hint:
        out.hint("It is empty. Fill it: aspencli local seed --samples 500")
    elif did.changed and hint:
        out.hint("Open a console: aspencli db interact")


def _up_row(laptop: Laptop, name: str, did: Up) -> dict[str, Any]:
    port = did.started[name].port
    return {"part": name, "state": "running", "port": port, "url": laptop.display_url()}


def _status_row(context: AppContext, part: PartStatus) -> dict[str, Any]:
    people = context.out.chosen_form == "table"
    return {
        "part": part.name,
        "state": part.state.value,
        "port": part.port,
        "url": context.laptop.display_url() if part.pid else None,
        "pid": part.pid,
        "uptime_s": None if part.uptime is None else round(part.uptime),
        "version": part.version,
        "size": size_text(part.size) if people else part.size,
        "data": part.data,
        "program": part.program,
    }
