"""``aspencli groups create``, through the API."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from aspencli import params
from aspencli.cli import examples
from aspencli.context import current
from aspencli.output.rendering import Column

CREATE_COLUMNS = (
    Column("status", "Status"),
    Column("id", "Id", right=True, whole=True),
    Column("name", "Name"),
    Column("prefix", "Prefix"),
    Column("default_tree_location", "Trees are about"),
    Column("address", "Address", secondary=True),
    Column("division", "Division", secondary=True),
    Column("location", "Location", secondary=True),
    Column("submitting_lab", "Submitting lab", secondary=True),
)
_EXAMPLES = examples(
    "aspencli --env staging groups create --name 'Lake County' --prefix LAKE "
    "--default-tree-location 'North America / USA / California'"
)


def register(app: typer.Typer) -> None:
    """Add the command to the group ``groups``."""
    app.command(epilog=_EXAMPLES)(create)


def _text(what: str) -> Any:
    return typer.Option(metavar="TEXT", help=what)


def create(
    ctx: typer.Context,
    name: Annotated[str, _text("Its name, 3 to 128 characters that no other group has.")],
    prefix: Annotated[
        str, _text("What its public identifiers begin with: 2 to 25 characters of its own.")
    ],
    default_tree_location: Annotated[
        str,
        typer.Option(
            "--default-tree-location",
            "--default-tree-location-id",
            metavar="ID|PLACE",
            help="What its trees are about: an id, or Region / Country / Division / Location as "
            "far down as it goes; see: aspencli locations search.",
            callback=params.checked("the location"),
        ),
    ],
    submitting_lab: Annotated[str | None, _text("The laboratory that submits its samples.")] = None,
    address: Annotated[str | None, _text("Its address.")] = None,
    division: Annotated[str | None, _text("The division, such as a state, where it is.")] = None,
    location: Annotated[str | None, _text("The place where it is.")] = None,
    dry_run: params.DryRunOption = False,
) -> None:
    """Create a group, and its organisation at the identity provider, through the API.

    It takes a system administrator. A group whose organisation is there already comes in with
    groups import. A name or prefix that is taken is a conflict (exit code 7).
    """
    from aspencli.services.group_making import checked_group, make_group
    from aspencli.services.places import Gazetteer, name_of

    context = current(ctx)
    params.announce(context, params.Road.API)
    place = Gazetteer(context.api().locations).find(default_tree_location)
    wanted = checked_group(
        name=name,
        prefix=prefix,
        default_tree_location=place["id"],
        submitting_lab=submitting_lab,
        address=address,
        division=division,
        location=location,
    )
    row = {column.key: wanted.get(column.key) for column in CREATE_COLUMNS}
    row["default_tree_location"] = name_of(place)
    if dry_run:
        context.api().groups.check_create()
        context.out.records(CREATE_COLUMNS, [{**row, "status": "planned"}])
        return context.out.info(f"group {wanted['name']} would be created; nothing was written")
    context.authorise(
        f"create group {wanted['name']} (prefix {wanted['prefix']}), whose trees are about "
        f"{name_of(place)}, with its organisation at the identity provider"
    )
    made = make_group(context.api().groups, wanted)
    context.out.records(CREATE_COLUMNS, [{**row, "status": "created", "id": made["id"]}])
    return context.out.done(f"group {made['name']} was created with id {made['id']}")
