"""``aspencli phylo-trees``, ``auspice``, and ``usher``: trees, and links for use elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlencode

import typer

from aspencli.cli import params
from aspencli.cli.app import examples
from aspencli.cli.app import group as command_group
from aspencli.cli.context import AppContext, Backend, current
from aspencli.cli.output.formats import Column
from aspencli.errors import BadInputError

if TYPE_CHECKING:
    from aspencli.remote.api import PhyloTrees
    from aspencli.remote.downloads import Downloaded, Landing, Progress


app = command_group("Download phylogenetic trees.")
auspice_app = command_group("Create links to view trees.")
usher_app = command_group("Place samples on UShER trees.")

LINK_COLUMNS = (Column("url", "Link", whole=True),)
TREE_COLUMNS = (
    Column("id", "Id", right=True, whole=True),
    Column("value", "Value", whole=True),
    Column("description", "Description"),
    Column("priority", "Priority", right=True),
)
_PLACER = "https://genome.ucsc.edu/cgi-bin/hgPhyloPlace"
_GENOMES = {"SC2": "wuhCor1"}
"""UCSC's names of the reference genomes, by pathogen."""
CONSUMER = "USHER"
"""The consumer of the sequences, as reported to the service."""


class IdStyle(StrEnum):
    """The kinds of identifiers for the group's own samples in a download."""

    PRIVATE = "private"
    PUBLIC = "public"


Tree = Annotated[
    int,
    typer.Argument(metavar="TREE", min=0, help="Tree id; see: aspencli phylo-runs list."),
]


@dataclass(frozen=True, kw_only=True)
class TreeOptions(params.ScopeOptions, params.OutOptions):
    """A tree, and how to download it."""

    tree: Tree
    id_style: Annotated[
        IdStyle,
        typer.Option(
            metavar="STYLE",
            help="Identifiers to use for your group's own samples: private or public.",
        ),
    ] = IdStyle.PRIVATE


@app.command(epilog=examples("aspencli phylo-trees download 61 --out tree.json"))
@params.expanded
def download(ctx: typer.Context, given: TreeOptions) -> None:
    """Download a tree as JSON for Auspice."""
    name = f"tree_{given.tree}.json"
    _download(current(ctx), given, name, "tree", lambda trees: trees.download)


@app.command("selected-samples", epilog=examples("aspencli phylo-trees selected-samples 61"))
@params.expanded
def selected_samples(ctx: typer.Context, given: TreeOptions) -> None:
    """Download the samples of a tree as TSV, marking those that were selected for it."""
    name = f"tree_{given.tree}_samples.tsv"
    _download(current(ctx), given, name, "samples of tree", lambda trees: trees.samples)


def _download(
    context: AppContext,
    given: TreeOptions,
    usual: str,
    what: str,
    method: Callable[[PhyloTrees], Callable[..., Downloaded]],
) -> None:
    from aspencli.cli.downloads import destination, report_saved, run_download

    scope = params.chosen_scope(context, given)
    public = given.id_style is IdStyle.PUBLIC
    fetch = partial(method(context.api().phylo_trees), *scope.key, given.tree, public_ids=public)

    def take(landing: Landing, progress: Progress) -> Downloaded:
        return fetch(landing=landing, progress=progress)

    place = destination(context, given, usual)
    described = f"{what} {given.tree} ({given.id_style} identifiers)"
    report_saved(context, place, run_download(context, place, described, take))


@auspice_app.command(epilog=examples("aspencli auspice link 61"))
@params.expanded
def link(ctx: typer.Context, tree: Tree, scoped: params.ScopeOptions) -> None:
    """Create a link that lets anyone view a tree for a week.

    On the live service as last published, anyone with the link can do everything there that you
    can, until it expires. Treat it like your password.
    """
    from aspencli.phylo.remote import with_scheme

    context = current(ctx)
    scope = params.chosen_scope(context, scoped)
    api = context.api()
    found = api.phylo_trees.auspice_link(*scope.key, tree)
    context.out.warn(
        "Anyone with this link can view the tree for a week. On the live service as last "
        "published, they can also do everything there that you can."
    )
    context.out.rows(LINK_COLUMNS, [{"url": with_scheme(found, context.access.at.api_url)}])


@usher_app.command("get-tree-versions", epilog=examples("aspencli usher get-tree-versions"))
def get_tree_versions(ctx: typer.Context, via: params.ViaOption = None) -> None:
    """List the UShER trees available for the pathogen, the default one first."""
    context = current(ctx)
    backend = context.choose_backend(via)
    slug = context.config.value("pathogen_slug") or ""
    context.announce(backend)
    if backend is Backend.API:
        from aspencli.reference.remote import find_org, find_slugs

        api = context.api()
        org, (slug,) = find_org(api, params.chosen_org(context)), find_slugs(api, slug)
        trees = api.usher_trees(org.id, slug)
        return context.out.rows(TREE_COLUMNS, trees, empty="No trees found.")
    from aspencli.phylo.database import list_usher_trees

    with context.database().reading() as session:
        found = list_usher_trees(session, slug)
        return context.out.rows(TREE_COLUMNS, found, empty="No trees found.")


@usher_app.command(
    "get-link", epilog=examples("aspencli usher get-link RCPHL-0000001 RCPHL-0000002 --output json")
)
@params.expanded
def get_link(
    ctx: typer.Context,
    *,
    samples: params.SampleOptions,
    subtree_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Print a link to UCSC's UShER instead, for a subtree of N samples.",
        ),
    ] = None,
    scoped: params.ScopeOptions,
) -> None:
    """Create a link from which UShER, or anyone, can download sequences for an hour.

    Enter it in UShER as the URL of a FASTA file, with a tree listed by get-tree-versions. Or pass
    --subtree-size to get a link that opens UShER directly.
    """
    context = current(ctx)
    ids, scope = params.chosen_samples(context, samples, scoped)
    genome = _genome(scope.slug) if subtree_size is not None else None
    known = params.known_ids(context, scope, ids, skip_missing=samples.skip_missing)
    url = context.api().samples.fasta_link(*scope.key, known, CONSUMER)
    if genome is not None:
        asked = {"db": genome, "remoteFile": url, "subtreeSize": subtree_size}
        url = f"{_PLACER}?{urlencode(asked)}"
    context.out.warn("Anyone with this link can download the sequences for an hour.")
    context.out.rows(LINK_COLUMNS, [{"url": url}])


def _genome(slug: str) -> str:
    """Return UCSC's name of a pathogen's reference genome.

    Raises:
        BadInputError: If UCSC does not support this pathogen.
    """
    if slug not in _GENOMES:
        raise BadInputError(
            f"Invalid pathogen for --subtree-size: {slug!r} (choose {', '.join(_GENOMES)})",
            hint="Omit --subtree-size, then enter the link in UShER yourself.",
        )
    return _GENOMES[slug]
