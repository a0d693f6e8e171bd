"""``aspencli phylo-trees``: download trees and lists of their samples."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from aspencli.cli import examples
from aspencli.cli import group as command_group
from aspencli.commands import api_options as options
from aspencli.context import AppContext, current

if TYPE_CHECKING:
    from aspencli.clients.downloads import Downloaded, Landing, Progress

app = command_group("Phylogenetic trees as files.")


class IdStyle(StrEnum):
    """The kinds of identifiers for the group's own samples in a download."""

    PRIVATE = "private"
    PUBLIC = "public"


Tree = Annotated[
    int,
    typer.Argument(metavar="TREE", min=0, help="The tree's id; see: aspencli phylo-runs list."),
]
Style = Annotated[
    IdStyle,
    typer.Option(
        "--id-style",
        metavar="STYLE",
        help="What your group's own samples are called: private or public.",
    ),
]


@app.command(epilog=examples("aspencli phylo-trees download 61 --out tree.json"))
def download(
    ctx: typer.Context,
    tree: Tree,
    id_style: Style = IdStyle.PRIVATE,
    out: options.Out = None,
    force: options.Force = False,
    group: options.Group = None,
    pathogen: options.Pathogen = None,
) -> None:
    """Download a tree as Auspice reads it, as JSON."""
    from aspencli.commands.api_scope import chosen_scope

    context = current(ctx)
    scope = chosen_scope(context, group, pathogen)
    public = id_style is IdStyle.PUBLIC
    fetch = partial(context.api().phylo_trees.download, *scope.key, tree, public_ids=public)
    _land(context, out, f"tree_{tree}.json", force, f"tree {tree}, {id_style} names", fetch)


@app.command("selected-samples", epilog=examples("aspencli phylo-trees selected-samples 61"))
def selected_samples(
    ctx: typer.Context,
    tree: Tree,
    id_style: Style = IdStyle.PRIVATE,
    out: options.Out = None,
    force: options.Force = False,
    group: options.Group = None,
    pathogen: options.Pathogen = None,
) -> None:
    """Download the names of a tree's samples, and which were selected for it, as TSV."""
    from aspencli.commands.api_scope import chosen_scope

    context = current(ctx)
    scope = chosen_scope(context, group, pathogen)
    public = id_style is IdStyle.PUBLIC
    fetch = partial(context.api().phylo_trees.samples, *scope.key, tree, public_ids=public)
    what = f"samples of tree {tree}, {id_style} names"
    _land(context, out, f"tree_{tree}_samples.tsv", force, what, fetch)


def _land(
    context: AppContext,
    out: str | None,
    usual: str,
    force: bool,
    what: str,
    fetch: partial[Downloaded],
) -> None:
    from aspencli.commands.downloading import destination, say_where
    from aspencli.commands.downloading import download as land

    def take(landing: Landing, progress: Progress) -> Downloaded:
        return fetch(landing=landing, progress=progress)

    place = destination(context, out, usual, force=force)
    say_where(context, place, land(context, place, what, take))
