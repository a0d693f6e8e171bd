"""``aspencli local``: the deployment on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspencli.cli import examples, group
from aspencli.commands import local_seed
from aspencli.commands.local_seed import on_laptop
from aspencli.context import AppContext
from aspencli.errors import UnreachableError
from aspencli.output.rendering import Column
from aspencli.output.text import size_text, visible
from aspencli.params import DryRunOption, all_among
from aspencli.targets import BUILT_IN
from local.services import PARTS, SUPERVISOR

if TYPE_CHECKING:
    from aspencli.output.console import Output
    from local.deployment import Up
    from local.parts import PartStatus

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
    local_seed.run(context, local_seed.nothing_more())


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
)(local_seed.seed)


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
