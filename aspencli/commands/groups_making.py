"""``aspencli groups create``, through the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspencli import params
from aspencli.cli import examples
from aspencli.context import current
from aspencli.output.rendering import Column, Row

if TYPE_CHECKING:
    from aspencli.shapes import NewGroup

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
    "--default-tree-location 1024"
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
        int,
        typer.Option(
            "--default-tree-location",
            "--default-tree-location-id",
            metavar="ID",
            min=0,
            help="The location that its trees are about; see: aspencli locations search.",
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

    context = current(ctx)
    wanted = checked_group(
        name=name,
        prefix=prefix,
        default_tree_location=default_tree_location,
        submitting_lab=submitting_lab,
        address=address,
        division=division,
        location=location,
    )
    params.announce(context, params.Road.API)
    if dry_run:
        context.out.records(CREATE_COLUMNS, [_row(wanted, "planned")])
        return context.out.info(f"group {wanted['name']} would be created; nothing was written")
    context.authorise(
        f"create group {wanted['name']} (prefix {wanted['prefix']}) with its organisation at the "
        "identity provider"
    )
    from aspencli.services.group_rows import place_name

    made = make_group(context.api().groups, wanted)
    place = place_name(made["default_tree_location"])
    context.out.records(CREATE_COLUMNS, [_row(wanted, "created", id=made["id"], place=place)])
    return context.out.done(f"group {made['name']} was created with id {made['id']}")


def _row(wanted: NewGroup, status: str, *, id: int | None = None, place: str | None = None) -> Row:  # noqa: A002 - the name of the field
    said = place or f"location {wanted['default_tree_location_id']}"
    fields = {column.key: wanted.get(column.key) for column in CREATE_COLUMNS}
    return {**fields, "status": status, "id": id, "default_tree_location": said}
