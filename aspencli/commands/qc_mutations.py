"""``aspencli qc-mutations``: quality and mutations of samples."""

from __future__ import annotations

from functools import partial

import typer

from aspencli.cli import examples
from aspencli.cli import group as command_group
from aspencli.commands import api_options as options
from aspencli.context import current

app = command_group("Quality and mutations of samples.")


@app.command(
    epilog=examples(
        "aspencli qc-mutations download RCPHL-0000001",
        "aspencli qc-mutations download --from ids.txt --out quality.tsv",
    )
)
def download(
    ctx: typer.Context,
    identifiers: options.Identifiers = None,
    file: options.From = None,
    out: options.Out = None,
    force: options.Force = False,
    skip_missing: options.SkipMissing = False,
    group: options.Group = None,
    pathogen: options.Pathogen = None,
) -> None:
    """Download the quality and the mutations of samples, as TSV."""
    from aspencli.commands.api_scope import chosen_ids, chosen_scope, known_ids
    from aspencli.commands.downloading import destination, download_of, say_where
    from aspencli.services.id_list import NAMES

    context = current(ctx)
    ids = chosen_ids(context, identifiers, file, NAMES)
    scope = chosen_scope(context, group, pathogen)
    place = destination(context, out, f"{scope.slug}_qc_mutations.tsv", force=force)
    known = known_ids(context, scope, ids, skip_missing=skip_missing)
    fetch = partial(context.api().samples.qc_mutations, *scope.key)
    what = "quality and mutations"
    say_where(context, place, download_of(context, place, what, known, fetch, header=True))
