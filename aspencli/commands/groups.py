"""``aspencli groups``: look at groups and make them, straight in the database."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from aspencli import params
from aspencli.cli import examples
from aspencli.cli import group as command_group
from aspencli.commands.accounts_bulk import register_groups
from aspencli.context import current
from aspencli.output.rendering import Column

app = command_group("List, look into and import groups.")

LIST_COLUMNS = (
    Column("id", "Id", right=True, whole=True),
    Column("name", "Name"),
    Column("prefix", "Prefix"),
    Column("default_tree_location", "Trees are about", secondary=True),
    Column("users", "Users", right=True),
    Column("samples", "Samples", right=True),
)
SHOW_COLUMNS = (
    *LIST_COLUMNS,
    Column("address", "Address"),
    Column("division", "Division"),
    Column("location", "Location"),
    Column("submitting_lab", "Submitting lab"),
    Column("auth0_org_id", "Auth0 organisation"),
    Column("tree_parameters", "Tree parameters"),
    Column("members", "Members"),
)


@app.command("list", epilog=examples("aspencli groups list --output json"))
def list_(ctx: typer.Context) -> None:
    """List every group, with how many users and samples it has."""
    from aspencli.services.groups import list_groups

    context = current(ctx)
    with context.database().reading() as session:
        rows = (vars(group) for group in list_groups(session))
        context.out.rows(LIST_COLUMNS, rows, empty="no groups found")


@app.command(epilog=examples("aspencli groups show CZI"))
def show(
    ctx: typer.Context,
    key: Annotated[
        str,
        typer.Argument(
            metavar="ID|NAME|PREFIX",
            help="The group, by any of the three.",
            callback=params.checked("the group"),
        ),
    ],
) -> None:
    """Show a group, its members and their roles."""
    from aspencli.services.groups import show_group

    context = current(ctx)
    with context.database().reading() as session:
        found = show_group(session, key)
    context.out.records(SHOW_COLUMNS, [asdict(found)])


register_groups(app)
