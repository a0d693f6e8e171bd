"""``aspencli samples download``, ``validate-ids`` and ``submission-template``, through the API."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from typing import Annotated

import typer

from aspencli.cli import params
from aspencli.cli.app import examples
from aspencli.cli.context import current
from aspencli.cli.output.formats import Column

VALIDATED_COLUMNS = (
    Column("identifier", "Identifier", whole=True),
    Column("found", "Found"),
)


class Form(StrEnum):
    """The public repositories with a submission form, spelled as the service does."""

    GISAID = "GISAID"
    GENBANK = "GenBank"


def register(app: typer.Typer) -> None:
    """Add the commands to the group ``samples``."""
    app.command(rich_help_panel="Files", epilog=_DOWNLOAD_EXAMPLES)(download)
    app.command("validate-ids", rich_help_panel="Look", epilog=_VALIDATE_EXAMPLES)(validate_ids)
    app.command("submission-template", rich_help_panel="Files", epilog=_TEMPLATE_EXAMPLES)(
        submission_template
    )


_DOWNLOAD_EXAMPLES = examples(
    "aspencli samples download RCPHL-0000001 RCPHL-0000002 --out two.fasta",
    "aspencli samples list --collected-after 2023-01-01 | aspencli samples download - > new.fasta",
)
_VALIDATE_EXAMPLES = examples("aspencli samples validate-ids --from ids.txt")
_TEMPLATE_EXAMPLES = examples(
    "aspencli samples submission-template --from ids.txt --repository GISAID --out gisaid.csv"
)


@params.expanded
def download(
    ctx: typer.Context,
    *,
    samples: params.SampleOptions,
    to: params.OutOptions,
    repository: Annotated[
        str | None,
        params.text_option(
            "Name sequences in the format of this public repository: GISAID or GenBank.",
            *("--repository", "--public-repository-name"),
            metavar="NAME",
        ),
    ] = None,
    scoped: params.ScopeOptions,
) -> None:
    """Download the sequences of samples as FASTA.

    If any identifier does not match a sample, nothing is downloaded. If some samples have no
    sequence, or you do not have permission to see it, the exit code is 6.
    """
    from aspencli.cli.downloads import demand_all, destination, download_fasta

    context = current(ctx)
    ids, scope = params.chosen_samples(context, samples, scoped)
    place = destination(context, to, f"{scope.slug}.fasta")
    known = params.known_ids(context, scope, ids, skip_missing=samples.skip_missing)
    fetch = partial(context.api().samples.sequences, *scope.key, repository=repository)
    demand_all(context, place, len(known), download_fasta(context, place, known, fetch))


@params.expanded
def validate_ids(
    ctx: typer.Context,
    identifiers: params.Identifiers = None,
    file: params.From = None,
    *,
    scoped: params.ScopeOptions,
) -> None:
    """Check which identifiers match samples that you can see.

    Public and private identifiers, strain names, and GISAID accessions are checked. If any do not
    match, the exit code is 6.
    """
    from aspencli.samples.models import IDENTIFIERS
    from aspencli.samples.remote import unknown

    context = current(ctx)
    ids = params.chosen_ids(context, identifiers, file, IDENTIFIERS)
    scope = params.chosen_scope(context, scoped)
    missing = params.missing_ids(context, scope, ids)
    gone = frozenset(missing)
    context.out.rows(VALIDATED_COLUMNS, ({"identifier": i, "found": i not in gone} for i in ids))
    if missing:
        raise unknown(missing, len(ids), "Check their spelling, --group, and --pathogen.")


@params.expanded
def submission_template(
    ctx: typer.Context,
    repository: Annotated[
        Form,
        typer.Option(
            "--repository",
            "--public-repository-name",
            metavar="NAME",
            case_sensitive=False,
            help=f"Repository to submit to: {', '.join(Form)}.",
        ),
    ],
    samples: params.SampleOptions,
    to: params.OutOptions,
    scoped: params.ScopeOptions,
) -> None:
    """Download a submission form for a public repository (CSV, or TSV for GenBank)."""
    from aspencli.cli.downloads import destination, download_of, report_saved

    context = current(ctx)
    ids, scope = params.chosen_samples(context, samples, scoped)
    ending = "csv" if repository is Form.GISAID else "tsv"
    place = destination(context, to, f"{repository}_{scope.slug}.{ending}")
    known = params.known_ids(context, scope, ids, skip_missing=samples.skip_missing)
    service = context.api().samples
    size = download_of(
        context,
        place,
        f"{repository} submission form",
        known,
        lambda some, *landing: service.submission_template(
            *scope.key, some, repository.value, *landing
        ),
        header=True,
    )
    report_saved(context, place, size)
