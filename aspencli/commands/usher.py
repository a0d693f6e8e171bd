"""``aspencli usher``: samples on the tree of UShER."""

from __future__ import annotations

import typer

from aspencli import params
from aspencli.cli import examples
from aspencli.cli import group as command_group
from aspencli.commands import api_options as options
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
LINK_COLUMNS = (Column("url", "Address", whole=True),)
CONSUMER = "USHER"
"""What the service is told of who loads the sequences."""


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


@app.command(
    "get-link", epilog=examples("aspencli usher get-link RCPHL-0000001 RCPHL-0000002 --output json")
)
def get_link(
    ctx: typer.Context,
    identifiers: options.Identifiers = None,
    file: options.From = None,
    skip_missing: options.SkipMissing = False,
    group: options.Group = None,
    pathogen: options.Pathogen = None,
) -> None:
    """Make an address from which UShER, and anybody, can load samples' sequences for an hour.

    Give it to UShER as the address of a FASTA file, with one of the trees of get-tree-versions.
    """
    from aspencli.commands.api_scope import chosen_ids, chosen_scope, known_ids
    from aspencli.services.id_list import NAMES

    context = current(ctx)
    ids = chosen_ids(context, identifiers, file, NAMES)
    scope = chosen_scope(context, group, pathogen)
    known = known_ids(context, scope, ids, skip_missing=skip_missing)
    url = context.api().samples.fasta_link(*scope.key, known, CONSUMER)
    context.out.warn("who has this address can load the sequences for an hour")
    context.out.rows(LINK_COLUMNS, [{"url": url}])
