"""``aspencli local seed``: test data for the local database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aspencli.context import AppContext, current
from aspencli.errors import BadInputError
from aspencli.output.rendering import Column

if TYPE_CHECKING:
    from aspencli.clients.seeding import Seeded, SeedRequest

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
    from aspencli.clients.seeding import SeedRequest

    run(context, SeedRequest(group, samples, roles, number, metadata, sequences, lat_longs))


def nothing_more() -> SeedRequest:
    """Return a request for only the test groups."""
    from aspencli.clients.seeding import SeedRequest

    return SeedRequest()


def run(context: AppContext, request: SeedRequest) -> None:
    """Add the requested data, and show what was added.

    Raises:
        BadInputError: If the file has lines, and none of them is usable.
    """
    from aspencli.clients import seeding

    database = context.database(writable=True)
    context.require_laptop(database, "add test data")
    context.out.finish_anyway()
    if not context.is_on_laptop:
        context.authorise(f"add test data to {database.url.database}", dry_run=False)
    done, objects = seeding.Seeded(), context.laptop.objects
    alone = not (request.samples or request.metadata or request.roles)
    base = alone or seeding.holds_no_group(database)
    if request.roles:
        with _counting(context, "Making samples up", None) as tell:
            seeding.add_roles(database, objects, done, tell)
    elif base:
        seeding.add_groups(database, done)
    if request.metadata:
        with _counting(context, "Loading the file", None) as tell:
            seeding.add_file(database, request, done, tell)
    if request.samples:
        with _counting(context, "Making samples up", request.samples) as tell:
            seeding.add_samples(database, request, done, tell)
    if base:
        seeding.add_runs(database, objects, done)
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
