"""``aspencli samples``: list and show samples from either backend, and download their data.

The commands that change samples are in modules of their own.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from typing import Annotated, Any

import typer

from aspencli.cli import params
from aspencli.cli.app import examples, expanded
from aspencli.cli.app import group as command_group
from aspencli.cli.context import AppContext, Backend, current
from aspencli.cli.output.console import Found, show_page
from aspencli.cli.output.formats import Column, prints, shape, titled
from aspencli.samples.keys import SampleKey
from aspencli.samples.models import (
    LINEAGE,
    QC_METRIC,
    SITES,
    UPLOADED_GENOME,
    SampleDetails,
    SampleQuery,
    SampleRow,
    SampleSort,
)

app = command_group("List, create, update, delete, and download samples.")

_SHOW_EXAMPLES = examples("aspencli samples show 17 LAB-0017 --group CZI")
LIST_COLUMNS = (
    Column("id", "Id", right=True, whole=True),
    Column("private_identifier", "Private ID", whole=True),  # so that it fits 80 columns
    Column("public_identifier", "Public ID", whole=True),
    Column("group", "Group"),
    Column("pathogen", "Pathogen", secondary=True),
    Column("collection_date", "Collected", whole=True),
    Column("location", "Location", secondary=True, tail=True),
    Column("private", "Private"),
    Column("uploaded_by", "Uploaded by", secondary=True),
)


def _place() -> Any:
    from aspencli.reference.remote import LOCATION_LEVELS

    return shape("Place", ("id", *LOCATION_LEVELS), id=int) | None


def _genome(*keys: str, **types: Any) -> Any:
    numbers = dict.fromkeys(("length", *SITES), int | None)
    day = dt.date | None
    return shape("Genome", keys, **numbers, sequencing_date=day, **types) | None


def _uploaded() -> Any:
    return _genome(*UPLOADED_GENOME, upload_date=dt.datetime | None, sequencing_depth=float | None)


def _aligned() -> Any:
    return _genome("aligned_date", "reference_name", aligned_date=dt.datetime | None)


def _lineages() -> Any:
    types: dict[str, Any] = {"lineage_probability": float | None, "last_updated": dt.date | None}
    return list[shape("Lineage", LINEAGE, **types)]  # type: ignore[misc] # made at run time


def _metrics() -> Any:
    return list[shape("Metric", QC_METRIC)]  # type: ignore[misc] # same


def _accessions() -> Any:
    return list[shape("Accession", ("accession_type", "accession"))]  # type: ignore[misc] # same


SHOW_COLUMNS = (
    *titled("id", "matched_by"),
    Column("private_identifier", "Private identifier", whole=True),
    Column("public_identifier", "Public identifier", whole=True),
    *titled("private"),
    Column("group", "Group", of=lambda: shape("Group", ("name", "prefix"), id=int)),
    Column("pathogen", "Pathogen", of=lambda: shape("Pathogen", ("slug", "name"), id=int | None)),
    Column("collection_date", "Collected", whole=True),
    Column("location", "Location"),
    Column("collection_location", "Location details", of=_place),
    Column("uploaded_by", "Uploaded by", of=lambda: shape("User", ("name", "email"), id=int)),
    *titled("organism", "host"),
    Column("purpose_of_sampling", "Purpose"),
    Column("specimen_processing", "Processing"),
    Column("sample_collected_by", "Collected by"),
    Column("sample_collector_contact_email", "Collector e-mail"),
    Column("sample_collector_contact_address", "Collector address"),
    *titled("authors"),
    *titled("genome", of=_uploaded),
    *titled("aligned_genome", of=_aligned),
    *titled("accessions", of=_accessions),
    *titled("lineages", of=_lineages),
    Column("qc_metrics", "QC metrics", of=_metrics),
    *titled("mutations", "original_submission"),
)

_DOWNLOAD_EXAMPLES = examples(
    "aspencli samples download RCPHL-0000001 RCPHL-0000002 --out two.fasta",
    "aspencli samples list --collected-after 2023-01-01 | aspencli samples download - > new.fasta",
)
_VALIDATE_EXAMPLES = examples("aspencli samples validate-ids --from ids.txt")
_TEMPLATE_EXAMPLES = examples(
    "aspencli samples submission-template --from ids.txt --repository GISAID --out gisaid.csv"
)
VALIDATED_COLUMNS = (
    Column("identifier", "Identifier", whole=True, of=str),
    Column("found", "Found", of=bool),
)


class SubmissionForm(StrEnum):
    """The public repositories with a submission form, spelled as the service does."""

    GISAID = "GISAID"
    GENBANK = "GenBank"


NamingOption = Annotated[
    str | None,
    params.text_option(
        "Name sequences in the format of this public repository: GISAID or GenBank.",
        *("--repository", "--public-repository-name"),
        metavar="NAME",
    ),
]
FormOption = Annotated[
    SubmissionForm,
    typer.Option(
        "--repository",
        "--public-repository-name",
        metavar="NAME",
        case_sensitive=False,
        help=f"Repository to submit to: {', '.join(SubmissionForm)}.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class SampleFilters:
    """The options for which samples to list, and in which order."""

    group: params.GroupOption = None
    pathogen: params.PathogenOption = None
    private: Annotated[
        bool | None,
        typer.Option(
            "--private/--public", help="Only samples hidden from, or visible to, other groups."
        ),
    ] = None
    collected_after: Annotated[
        dt.date | None,
        typer.Option(
            metavar="DATE",
            parser=params.parse_typed_day,
            help="Collected on this day or later, such as 2023-05-17 or 7d.",
        ),
    ] = None
    collected_before: Annotated[
        dt.date | None,
        typer.Option(
            metavar="DATE", parser=params.parse_typed_day, help="Collected on this day or earlier."
        ),
    ] = None
    location: Annotated[
        str | None,
        params.text_option(
            "Part of 'Region / Country / Division / Location' (case-insensitive).",
            what="the location",
        ),
    ] = None
    search: Annotated[
        str | None,
        params.text_option(
            "Part of the private or public identifier (case-insensitive).", what="the search text"
        ),
    ] = None
    sort: Annotated[
        SampleSort,
        typer.Option(metavar="FIELD", help=f"Sort by {', '.join(SampleSort)}; then by id."),
    ] = SampleSort.ID
    reverse: Annotated[bool, typer.Option("--reverse", help="Reverse the order.")] = False

    def query(self, context: AppContext, after: int | None) -> SampleQuery:
        """Return the query for the samples after the one with an ID."""
        chosen = {
            **vars(self),
            "group": params.chosen_group(context, self.group),
            "pathogen": params.chosen_pathogen(context, self.pathogen),
        }
        return SampleQuery(**chosen, after=after)


@app.command(
    "list",
    rich_help_panel="Look",
    epilog=examples("aspencli samples list --group CZI --collected-after 2023-01-01"),
)
@expanded
@prints(LIST_COLUMNS, row=SampleRow)
def list_(
    ctx: typer.Context,
    *,
    given: SampleFilters,
    limit: params.LimitOption = None,
    everything: params.AllOption = False,
    after: params.AfterOption = None,
    via: params.ViaOption = None,
) -> None:
    """List samples."""
    context = current(ctx)
    query = given.query(context, after)
    limit = params.chosen_limit(context.out, limit, everything)
    show_first = partial(_show_first, context, limit)
    if context.backend(via) is Backend.API:
        from aspencli.samples.remote import list_asked

        with list_asked(context.api(), query, params.chosen_org(context), limit) as found:
            return show_first(found)
    database = context.database(early=True)
    from aspencli.samples.listing import BATCH, SampleList

    # Many rows are read through a cursor on the server, which needs a transaction.
    many = limit is None or limit >= BATCH
    with database.connected(transaction=many) as reader:
        return show_first(SampleList(reader, query))


def _show_first(context: AppContext, limit: int | None, found: Found) -> None:
    seen = partial(context.remember, kinds=("samples",))
    show_page(context.out, LIST_COLUMNS, found, limit, noun="samples", seen=seen)


@app.command("get", hidden=True, epilog=examples("aspencli samples get 17"))
@app.command(rich_help_panel="Look", epilog=_SHOW_EXAMPLES)
@prints(SHOW_COLUMNS, row=SampleDetails)
def show(
    ctx: typer.Context,
    keys: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY...",
            help="Id, private identifier, or public identifier.",
            callback=params.all_checked("a key"),
        ),
    ],
    group: params.GroupOption = None,
    by: params.By = None,
    via: params.ViaOption = None,
) -> None:
    """Show samples with their genomes, accessions, lineages, and QC metrics."""
    context = current(ctx)
    group = params.chosen_group(context, group)
    backend = context.backend(via)
    describe = _describe_asked if backend is Backend.API else _describe_stored
    found = describe(context, keys, group, by)
    context.out.records(SHOW_COLUMNS, [asdict(sample) for sample in found])


def _describe_asked(
    context: AppContext, keys: Sequence[str], group: str | None, by: SampleKey | None
) -> Sequence[SampleDetails]:
    from aspencli.samples.remote import describe_asked

    org, slug = params.chosen_org(context), params.chosen_pathogen(context, None)
    return describe_asked(context.api(), keys, group=group, by=by, org=org, slug=slug)


def _describe_stored(
    context: AppContext, keys: Sequence[str], group: str | None, by: SampleKey | None
) -> Sequence[SampleDetails]:
    database = context.database(early=True)
    from aspencli.samples.database import describe_samples, match_samples

    with database.observing() as session:
        return describe_samples(session, match_samples(session, keys, group=group, by=by))


@expanded
def download(
    ctx: typer.Context,
    *,
    samples: params.SampleOptions,
    to: params.OutOptions,
    repository: NamingOption = None,
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


@expanded
@prints(VALIDATED_COLUMNS)
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
    from aspencli.samples.keys import IDENTIFIERS
    from aspencli.samples.remote import unknown

    context = current(ctx)
    ids = params.chosen_ids(context, identifiers, file, IDENTIFIERS)
    scope = params.chosen_scope(context, scoped)
    missing = params.missing_ids(context, scope, ids)
    gone = frozenset(missing)
    context.out.rows(VALIDATED_COLUMNS, ({"identifier": i, "found": i not in gone} for i in ids))
    if missing:
        raise unknown(missing, len(ids), "Check their spelling, --group, and --pathogen.")


@expanded
def submission_template(
    ctx: typer.Context,
    repository: FormOption,
    samples: params.SampleOptions,
    to: params.OutOptions,
    scoped: params.ScopeOptions,
) -> None:
    """Download a submission form for a public repository (CSV, or TSV for GenBank)."""
    from aspencli.cli.downloads import destination, download_of, report_saved

    context = current(ctx)
    ids, scope = params.chosen_samples(context, samples, scoped)
    place = destination(context, to, _form_name(repository, scope.slug))
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


def _form_name(repository: SubmissionForm, slug: str) -> str:
    ending = "csv" if repository is SubmissionForm.GISAID else "tsv"
    return f"{repository}_{slug}.{ending}"


# What a list need not wait for, in the order of the help.

app.later_from("samples_create:register", "create")
app.later_from("samples_edit:register", "update", "delete")


@app.later("download", "validate-ids", "submission-template")
def _add_files() -> None:
    app.command(rich_help_panel="Files", epilog=_DOWNLOAD_EXAMPLES)(download)
    app.command("validate-ids", rich_help_panel="Look", epilog=_VALIDATE_EXAMPLES)(validate_ids)
    app.command("submission-template", rich_help_panel="Files", epilog=_TEMPLATE_EXAMPLES)(
        submission_template
    )


app.later_from("bulk:register_samples", "update-public-ids", "bulk-update", "undo", "resume")
