"""``aspencli locations``: the locations of samples and trees."""

from __future__ import annotations

from enum import StrEnum
from operator import itemgetter
from typing import Annotated, Any

import typer

from aspencli import params
from aspencli.cli import examples
from aspencli.cli import group as command_group
from aspencli.context import current
from aspencli.errors import BadInputError
from aspencli.output.rendering import Column
from aspencli.params import Road

app = command_group("Places that samples come from and trees are about.")


class Depth(StrEnum):
    """The levels of a location, from the least to the most specific."""

    REGION = "region"
    COUNTRY = "country"
    DIVISION = "division"
    LOCATION = "location"


COLUMNS = (
    Column("id", "Id", right=True, whole=True),
    *(Column(level, level.capitalize(), whole=level is Depth.LOCATION) for level in Depth),
)
_EMPTY = "no locations found"


def _named(what: str) -> Any:
    return typer.Option(
        metavar="TEXT", help=f"The {what}, or nearly.", callback=params.checked(f"the {what}")
    )


@app.command("list", epilog=examples("aspencli locations list --depth division"))
def list_(
    ctx: typer.Context,
    depth: Annotated[
        Depth,
        typer.Option(
            "--depth",
            "--max-location-depth",
            metavar="LEVEL",
            help=f"How far down: {', '.join(Depth)}. What is less exact is listed, too.",
        ),
    ] = Depth.LOCATION,
    via: params.ViaOption = None,
) -> None:
    """List locations, with the ids that other commands take."""
    context = current(ctx)
    road = params.chosen_road(context, via)
    params.announce(context, road)
    if road is Road.API:
        found = sorted(context.api().locations.all(depth), key=itemgetter("id"))
        return context.out.rows(COLUMNS, found, empty=_EMPTY)
    from aspencli.services.locations import list_locations

    with context.database().reading() as session:
        return context.out.rows(COLUMNS, list_locations(session, depth), empty=_EMPTY)


@app.command(epilog=examples("aspencli locations search --country usa --location 'san fransisco'"))
def search(
    ctx: typer.Context,
    region: Annotated[str | None, _named("region")] = None,
    country: Annotated[str | None, _named("country")] = None,
    division: Annotated[str | None, _named("division, such as a state")] = None,
    location: Annotated[str | None, _named("location, such as a county")] = None,
    via: params.ViaOption = None,
) -> None:
    """Find locations by names that may be misspelt; the nearest come first.

    Something is always found, however far it is from what was meant. Where no --location is
    given, it is the one nearest place and what lies directly in it.
    """
    from aspencli.shapes import LocationQuery

    given = {"region": region, "country": country, "division": division, "location": location}
    query = LocationQuery(**{level: name for level, name in given.items() if name})  # type: ignore[typeddict-item] # the keys are those of the type
    if not query:
        raise BadInputError(
            "no name was given to search for",
            hint="Give one or more of --region, --country, --division and --location.",
        )
    context = current(ctx)
    road = params.chosen_road(context, via)
    params.announce(context, road)
    if road is Road.API:
        return context.out.rows(COLUMNS, context.api().locations.search(query), empty=_EMPTY)
    from aspencli.services.locations import search_locations

    with context.database().reading() as session:
        return context.out.rows(COLUMNS, search_locations(session, query), empty=_EMPTY)
