"""``aspencli groups``: list, show, create, and import groups, and invite people to them."""

from __future__ import annotations

from dataclasses import asdict

import typer

from aspencli import params
from aspencli.cli import examples
from aspencli.cli import group as command_group
from aspencli.commands import api_options as options
from aspencli.commands import groups_inviting, groups_making
from aspencli.commands.accounts_bulk import register_groups
from aspencli.context import current
from aspencli.output.rendering import Column
from aspencli.params import Road

app = command_group("List, look into, make and import groups, and invite to them.")

_SHOW_EXAMPLES = examples("aspencli groups show CZI")
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
MEMBER_COLUMNS = (
    Column("id", "Id", right=True, whole=True),
    Column("name", "Name"),
    Column("email", "E-mail", whole=True),
    Column("role", "Role", whole=True),
    Column("agreed_to_tos", "Agreed to terms", secondary=True),
    Column("acknowledged_policy_version", "Policy acknowledged", secondary=True),
)


@app.command("list", epilog=examples("aspencli groups list --output json"))
def list_(ctx: typer.Context) -> None:
    """List every group, with how many users and samples it has; straight from the database."""
    from aspencli.services.groups import list_groups

    context = current(ctx)
    with context.database().reading() as session:
        rows = (vars(group) for group in list_groups(session))
        context.out.rows(LIST_COLUMNS, rows, empty="no groups found")


@app.command("get", hidden=True, epilog=_SHOW_EXAMPLES)
@app.command(epilog=_SHOW_EXAMPLES)
def show(
    ctx: typer.Context,
    group: options.GroupKey = None,
    old: options.OldGroupKey = None,
    via: params.ViaOption = None,
) -> None:
    """Show a group, its members and their roles.

    Through the API you see groups in which you are admin or member, and not how many samples they
    have, their division, location, organisation and tree parameters.
    """
    from aspencli.commands.api_scope import named_group

    context = current(ctx)
    key = named_group(context, group, old)
    road = params.chosen_road(context, via)
    params.announce(context, road)
    if road is Road.API:
        from aspencli.services.group_rows import ask_group

        return context.out.records(SHOW_COLUMNS, [asdict(ask_group(context.api(), key))])
    from aspencli.services.groups import show_group

    with context.database().reading() as session:
        found = show_group(session, key)
    return context.out.records(SHOW_COLUMNS, [asdict(found)])


@app.command(epilog=examples("aspencli groups members CZI"))
def members(
    ctx: typer.Context,
    group: options.GroupKey = None,
    old: options.OldGroupKey = None,
    via: params.ViaOption = None,
) -> None:
    """List the members of a group, each with the strongest role."""
    from aspencli.commands.api_scope import named_group

    context = current(ctx)
    key = named_group(context, group, old)
    road = params.chosen_road(context, via)
    params.announce(context, road)
    if road is Road.API:
        from aspencli.services.group_rows import ask_members

        found = ask_members(context.api(), key)
        return context.out.rows(MEMBER_COLUMNS, found, empty="no members found")
    from aspencli.services.groups import list_members

    with context.database().reading() as session:
        rows = list_members(session, key)
        return context.out.rows(MEMBER_COLUMNS, rows, empty="no members found")


groups_making.register(app)
groups_inviting.register(app)
register_groups(app)
