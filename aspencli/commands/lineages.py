"""``aspencli lineages``: lineages of pathogens."""

from __future__ import annotations

import typer

from aspencli import params
from aspencli.cli import examples
from aspencli.cli import group as command_group
from aspencli.context import current
from aspencli.output.rendering import Column
from aspencli.params import Road

app = command_group("Lineages of pathogens.")

COLUMNS = (Column("lineage", "Lineage", whole=True),)


@app.command("list-pango", epilog=examples("aspencli lineages list-pango --output tsv"))
def list_pango(ctx: typer.Context) -> None:
    """List the Pango lineages, their parents such as 'BA.2* / 21L', and names of the WHO.

    These are what runs of trees can be narrowed to. They come from the API: the families and the
    names are its own and stand in no database.
    """
    context = current(ctx)
    params.announce(context, Road.API)
    rows = ({"lineage": lineage} for lineage in context.api().lineages())
    context.out.rows(COLUMNS, rows, empty="no lineages found")
