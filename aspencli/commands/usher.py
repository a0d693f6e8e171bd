"""``aspencli usher``: samples on the tree of UShER."""

from __future__ import annotations

import typer

from aspencli import params
from aspencli.cli import examples
from aspencli.cli import group as command_group
from aspencli.context import current
from aspencli.output.rendering import Column
from aspencli.params import Road

app = command_group("Place samples on the trees of UShER.")

TREE_COLUMNS = (
    Column("id", "Id", right=True, whole=True),
    Column("value", "Value", whole=True),
    Column("description", "Description"),
    Column("priority", "Priority", right=True),
)


@app.command("get-tree-versions", epilog=examples("aspencli usher get-tree-versions"))
def get_tree_versions(ctx: typer.Context, via: params.ViaOption = None) -> None:
    """List the trees that UShER can place samples of the pathogen in; the usual one comes first."""
    context = current(ctx)
    road = params.chosen_road(context, via)
    slug = context.config.value("pathogen_slug") or ""
    params.announce(context, road)
    if road is Road.API:
        from aspencli.services.orgs import find_org, find_slugs

        api = context.api()
        org, (slug,) = find_org(api, params.chosen_org(context)), find_slugs(api, slug)
        trees = api.usher_trees(org.id, slug)
        return context.out.rows(TREE_COLUMNS, trees, empty="no trees found")
    from aspencli.services.usher import list_usher_trees

    with context.database().reading() as session:
        found = list_usher_trees(session, slug)
        return context.out.rows(TREE_COLUMNS, found, empty="no trees found")
