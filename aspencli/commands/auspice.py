"""``aspencli auspice``: links to view trees."""

from __future__ import annotations

from typing import Annotated

import typer

from aspencli.cli import examples
from aspencli.cli import group as command_group
from aspencli.commands import api_options as options
from aspencli.context import current
from aspencli.output.rendering import Column

app = command_group("Links that show trees.")

LINK_COLUMNS = (Column("url", "Address", whole=True),)


@app.command(epilog=examples("aspencli auspice link 61"))
def link(
    ctx: typer.Context,
    tree: Annotated[
        int,
        typer.Argument(metavar="TREE", min=0, help="The tree; see: aspencli phylo-runs list."),
    ],
    group: options.Group = None,
    pathogen: options.Pathogen = None,
) -> None:
    """Make an address under which anybody sees a tree for a week.

    On the live service as it was last published, whoever has that address can do everything there
    that you can, until it lapses. Give it to nobody whom you would not give your password.
    """
    from aspencli.commands.api_scope import chosen_scope
    from aspencli.services.links import with_scheme

    context = current(ctx)
    scope = chosen_scope(context, group, pathogen)
    api = context.api()
    found = api.phylo_trees.auspice_link(*scope.key, tree)
    context.out.warn(
        "who has this address sees the tree for a week, and on the live service as it was last "
        "published can do everything there that you can"
    )
    context.out.rows(LINK_COLUMNS, [{"url": with_scheme(found, context.access.at.api_url)}])
