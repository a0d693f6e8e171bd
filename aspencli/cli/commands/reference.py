"""``aspencli locations``, ``pathogens``, ``lineages``, and ``qc-mutations``: reference data.

Pathogens and locations are read from either backend, the others only from the API.
"""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspencli.cli import params
from aspencli.cli.app import examples, expanded
from aspencli.cli.app import group as command_group
from aspencli.cli.context import Backend, current
from aspencli.cli.output.formats import Column, prints
from aspencli.errors import BadInputError

if TYPE_CHECKING:
    from aspencli.remote.types import LocationQuery

locations_app = command_group("List and search locations of samples and trees.")


class Depth(StrEnum):
    """The levels of a location, from the least to the most specific."""

    REGION = "region"
    COUNTRY = "country"
    DIVISION = "division"
    LOCATION = "location"


LOCATION_COLUMNS = (
    Column("id", "Id", right=True, whole=True),
    *(Column(level, level.capitalize(), whole=level is Depth.LOCATION) for level in Depth),
)
_EMPTY = "No locations found."


def _named(what: str) -> Any:
    return params.text_option(f"The {what}; the spelling can be approximate.", what=f"the {what}")


@locations_app.command("list", epilog=examples("aspencli locations list --depth division"))
@prints(LOCATION_COLUMNS, row="aspencli.remote.types:Location")
def list_locations(
    ctx: typer.Context,
    depth: Annotated[
        Depth,
        typer.Option(
            "--depth",
            "--max-location-depth",
            metavar="LEVEL",
            help=f"Most specific level to list: {', '.join(Depth)}.",
        ),
    ] = Depth.LOCATION,
    via: params.ViaOption = None,
) -> None:
    """List locations and their ids."""
    context = current(ctx)
    if context.backend(via) is Backend.API:
        found = sorted(context.api().locations.all(depth), key=itemgetter("id"))
        return context.out.rows(LOCATION_COLUMNS, found, empty=_EMPTY)
    from aspencli.reference.database import list_locations

    with context.database().reading() as session:
        return context.out.rows(LOCATION_COLUMNS, list_locations(session, depth), empty=_EMPTY)


@locations_app.command(
    epilog=examples("aspencli locations search --country usa --location 'san fransisco'")
)
@prints(LOCATION_COLUMNS, row="aspencli.remote.types:Location")
def search(
    ctx: typer.Context,
    region: Annotated[str | None, _named("region")] = None,
    country: Annotated[str | None, _named("country")] = None,
    division: Annotated[str | None, _named("division, such as a state")] = None,
    location: Annotated[str | None, _named("location, such as a county")] = None,
    via: params.ViaOption = None,
) -> None:
    """Search locations by name, best matches first. Names can be misspelled.

    There is always a result, however poor the match. Without --location, the result is the single
    best match and the locations directly inside it.
    """
    query = _query(region=region, country=country, division=division, location=location)
    context = current(ctx)
    if context.backend(via) is Backend.API:
        found = context.api().locations.search(query)
        return context.out.rows(LOCATION_COLUMNS, found, empty=_EMPTY)
    from aspencli.reference.database import search_locations

    with context.database().reading() as session:
        return context.out.rows(LOCATION_COLUMNS, search_locations(session, query), empty=_EMPTY)


def _query(**given: str | None) -> LocationQuery:
    """Return the names to search for.

    Raises:
        BadInputError: There is none.
    """
    from aspencli.remote.types import LocationQuery

    query: LocationQuery = LocationQuery(**{level: name for level, name in given.items() if name})  # type: ignore[typeddict-item] # the keys are those of the type
    if not query:
        raise BadInputError(
            "No name to search for.",
            hint="Pass one or more of --region, --country, --division, and --location.",
        )
    return query


pathogens_app = command_group("List pathogens.")

PATHOGEN_COLUMNS = (
    Column("id", "Id", right=True, whole=True),
    Column("slug", "Slug", whole=True),
    Column("name", "Name"),
)


@pathogens_app.command("list", epilog=examples("aspencli pathogens list"))
@prints(PATHOGEN_COLUMNS, row="aspencli.remote.types:Pathogen")
def list_pathogens(ctx: typer.Context, via: params.ViaOption = None) -> None:
    """List pathogens and the slugs to use with --pathogen."""
    context = current(ctx)
    if context.backend(via) is Backend.API:
        found = sorted(context.api().pathogens(), key=itemgetter("id"))
        rows = context.remember(found, kinds=("pathogens",))
        return context.out.rows(PATHOGEN_COLUMNS, rows, empty="No pathogens found.")
    database = context.database(early=True)
    from aspencli.reference.database import list_pathogens

    with database.connected() as reader:
        rows = context.remember(list_pathogens(reader), kinds=("pathogens",))
        return context.out.rows(PATHOGEN_COLUMNS, rows, empty="No pathogens found.")


lineages_app = command_group("List the lineages of a pathogen.")

LINEAGE_COLUMNS = (Column("lineage", "Lineage", whole=True, of=str),)


@lineages_app.command("list-pango", epilog=examples("aspencli lineages list-pango --output tsv"))
@prints(LINEAGE_COLUMNS)
def list_pango(ctx: typer.Context) -> None:
    """List Pango lineages, lineage families such as 'BA.2* / 21L', and WHO names (API only).

    Use them to filter the samples of a tree with phylo-runs create --lineage. Families and WHO
    names come from the API and are not stored in the database.
    """
    context = current(ctx)
    context.announce(Backend.API)
    rows = ({"lineage": lineage} for lineage in context.api().lineages())
    context.out.rows(LINEAGE_COLUMNS, rows, empty="No lineages found.")


qc_mutations_app = command_group("Download quality control results and mutations of samples.")


@qc_mutations_app.command(
    epilog=examples(
        "aspencli qc-mutations download RCPHL-0000001",
        "aspencli qc-mutations download --from ids.txt --out quality.tsv",
    )
)
@expanded
def download(
    ctx: typer.Context,
    samples: params.SampleOptions,
    to: params.OutOptions,
    scoped: params.ScopeOptions,
) -> None:
    """Download QC results and mutations of samples as TSV."""
    from aspencli.cli.downloads import destination, download_of, report_saved

    context = current(ctx)
    ids, scope = params.chosen_samples(context, samples, scoped)
    place = destination(context, to, f"{scope.slug}_qc_mutations.tsv")
    known = params.known_ids(context, scope, ids, skip_missing=samples.skip_missing)
    fetch = partial(context.api().samples.qc_mutations, *scope.key)
    what = "QC results and mutations"
    report_saved(context, place, download_of(context, place, what, known, fetch, header=True))
