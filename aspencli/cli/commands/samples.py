"""``aspencli samples``: list and show samples, from either backend.

The commands that change samples, or download their data, are in modules of their own.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer

from aspencli.cli import params
from aspencli.cli.app import examples
from aspencli.cli.app import group as command_group
from aspencli.cli.commands import samples_create, samples_edit, samples_files
from aspencli.cli.commands.bulk import register_samples
from aspencli.cli.context import Backend, current
from aspencli.cli.output.console import show_page
from aspencli.cli.output.formats import Column, titled
from aspencli.samples.models import SampleQuery, SampleSort

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
SHOW_COLUMNS = (
    *titled("id", "matched_by"),
    Column("private_identifier", "Private identifier", whole=True),
    Column("public_identifier", "Public identifier", whole=True),
    *titled("private", "group", "pathogen"),
    Column("collection_date", "Collected", whole=True),
    Column("location", "Location"),
    Column("collection_location", "Location details"),
    *titled("uploaded_by", "organism", "host"),
    Column("purpose_of_sampling", "Purpose"),
    Column("specimen_processing", "Processing"),
    Column("sample_collected_by", "Collected by"),
    Column("sample_collector_contact_email", "Collector e-mail"),
    Column("sample_collector_contact_address", "Collector address"),
    *titled("authors", "genome", "aligned_genome", "accessions", "lineages"),
    Column("qc_metrics", "QC metrics"),
    *titled("mutations", "original_submission"),
)


@app.command(
    "list",
    rich_help_panel="Look",
    epilog=examples("aspencli samples list --group CZI --collected-after 2023-01-01"),
)
def list_(
    ctx: typer.Context,
    group: params.GroupOption = None,
    pathogen: params.PathogenOption = None,
    private: Annotated[
        bool | None,
        typer.Option(
            "--private/--public", help="Only samples hidden from, or visible to, other groups."
        ),
    ] = None,
    collected_after: Annotated[
        dt.date | None,
        typer.Option(metavar="DATE", parser=params.day, help="Collected on this day or later."),
    ] = None,
    collected_before: Annotated[
        dt.date | None,
        typer.Option(metavar="DATE", parser=params.day, help="Collected on this day or earlier."),
    ] = None,
    location: Annotated[
        str | None,
        params.text_option(
            "Part of 'Region / Country / Division / Location' (case-insensitive).",
            what="the location",
        ),
    ] = None,
    search: Annotated[
        str | None,
        params.text_option(
            "Part of the private or public identifier (case-insensitive).", what="the search text"
        ),
    ] = None,
    sort: Annotated[
        SampleSort,
        typer.Option(metavar="FIELD", help=f"Sort by {', '.join(SampleSort)}; then by id."),
    ] = SampleSort.ID,
    reverse: Annotated[bool, typer.Option("--reverse", help="Reverse the order.")] = False,
    limit: params.LimitOption = None,
    everything: params.AllOption = False,
    after: params.AfterOption = None,
    via: params.ViaOption = None,
) -> None:
    """List samples."""
    context = current(ctx)
    query = SampleQuery(
        group=params.chosen_group(context, group),
        pathogen=params.chosen_pathogen(context, pathogen),
        private=private,
        collected_after=collected_after,
        collected_before=collected_before,
        location=location,
        search=search,
        after=after,
        sort=sort,
        reverse=reverse,
    )
    limit = params.chosen_limit(context.out, limit, everything)
    show_first = partial(show_page, context.out, LIST_COLUMNS, limit=limit, noun="samples")
    if context.backend(via) is Backend.API:
        from aspencli.samples.remote import SamplesAsked

        return show_first(SamplesAsked(context.api(), query, params.chosen_org(context)))
    from aspencli.samples.database import SampleList

    with context.database().reading() as session:
        return show_first(SampleList(session, query))


@app.command("get", hidden=True, epilog=examples("aspencli samples get 17"))
@app.command(rich_help_panel="Look", epilog=_SHOW_EXAMPLES)
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
    if context.backend(via) is Backend.API:
        from aspencli.samples.remote import describe_asked

        org, slug = params.chosen_org(context), params.chosen_pathogen(context, None)
        found = describe_asked(context.api(), keys, group=group, by=by, org=org, slug=slug)
    else:
        from aspencli.samples.database import describe_samples, match_samples

        with context.database().reading() as session:
            found = describe_samples(session, match_samples(session, keys, group=group, by=by))
    context.out.records(SHOW_COLUMNS, [asdict(sample) for sample in found])


samples_create.register(app)
samples_edit.register(app)
samples_files.register(app)
register_samples(app)
