"""``aspencli pathogens``: the pathogens of samples."""

from __future__ import annotations

from operator import itemgetter

import typer

from aspencli import params
from aspencli.cli import examples
from aspencli.cli import group as command_group
from aspencli.context import current
from aspencli.output.rendering import Column
from aspencli.params import Road

app = command_group("The pathogens that samples are of.")

COLUMNS = (
    Column("id", "Id", right=True, whole=True),
    Column("slug", "Slug", whole=True),
    Column("name", "Name"),
)


@app.command("list", epilog=examples("aspencli pathogens list"))
def list_(ctx: typer.Context, via: params.ViaOption = None) -> None:
    """List the pathogens, with the slugs that --pathogen takes."""
    context = current(ctx)
    road = params.chosen_road(context, via)
    params.announce(context, road)
    if road is Road.API:
        found = sorted(context.api().pathogens(), key=itemgetter("id"))
        return context.out.rows(COLUMNS, found, empty="no pathogens found")
    from aspencli.services.pathogens import list_pathogens

    with context.database().reading() as session:
        return context.out.rows(COLUMNS, list_pathogens(session), empty="no pathogens found")
