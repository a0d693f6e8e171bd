"""``aspencli usher``: placement of samples on UShER trees."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

import typer

from aspencli import params
from aspencli.cli import examples
from aspencli.cli import group as command_group
from aspencli.commands import api_options as options
from aspencli.context import current
from aspencli.errors import BadInputError
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
_PLACER = "https://genome.ucsc.edu/cgi-bin/hgPhyloPlace"
_GENOMES = {"SC2": "wuhCor1"}
"""UCSC's names of the reference genomes, by pathogen."""
CONSUMER = "USHER"
"""The consumer of the sequences, as reported to the service."""


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
    subtree_size: Annotated[
        int | None,
        typer.Option(
            "--subtree-size",
            metavar="N",
            min=1,
            help="Show the link to UCSC's UShER instead, for a subtree of so many samples.",
        ),
    ] = None,
    skip_missing: options.SkipMissing = False,
    group: options.Group = None,
    pathogen: options.Pathogen = None,
) -> None:
    """Make an address from which UShER, and anybody, can load samples' sequences for an hour.

    Give it to UShER as the address of a FASTA file, with one of the trees of get-tree-versions; or
    open the link that --subtree-size makes of it.
    """
    from aspencli.commands.api_scope import chosen_ids, chosen_scope, known_ids
    from aspencli.services.id_list import NAMES

    context = current(ctx)
    ids = chosen_ids(context, identifiers, file, NAMES)
    scope = chosen_scope(context, group, pathogen)
    genome = _genome(scope.slug) if subtree_size is not None else None
    known = known_ids(context, scope, ids, skip_missing=skip_missing)
    url = context.api().samples.fasta_link(*scope.key, known, CONSUMER)
    if genome is not None:
        asked = {"db": genome, "remoteFile": url, "subtreeSize": subtree_size}
        url = f"{_PLACER}?{urlencode(asked)}"
    context.out.warn("who has this address can load the sequences for an hour")
    context.out.rows(LINK_COLUMNS, [{"url": url}])


def _genome(slug: str) -> str:
    """Return UCSC's name of a pathogen's reference genome.

    Raises:
        BadInputError: If UCSC does not support this pathogen.
    """
    if slug not in _GENOMES:
        raise BadInputError(
            f"Invalid pathogen for --subtree-size: {slug!r} (choose {', '.join(_GENOMES)})",
            hint="Leave --subtree-size out, and give the address to UShER yourself.",
        )
    return _GENOMES[slug]
