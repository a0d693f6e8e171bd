"""``aspencli groups``: list, show, create, change, and delete groups, and invite people to them.

Creation and invitations go through the API, because the identity provider takes part in them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import typer

from aspencli.cli import params
from aspencli.cli.app import examples, expanded
from aspencli.cli.app import group as command_group
from aspencli.cli.context import AppContext, Backend, current
from aspencli.cli.output.formats import OUTCOME, Column, Row, prints, titled

if TYPE_CHECKING:
    from aspencli.cli.changes.execute import ItemChange
    from aspencli.remote.types import NewGroup


app = command_group("List, show, create, change, and delete groups, and invite people to them.")


class _Member(TypedDict):
    """A member of a group, with every role there."""

    id: int
    name: str
    email: str
    roles: list[str]


LIST_COLUMNS = (
    Column("id", "Id", right=True, whole=True, of=int),
    Column("name", "Name", whole=True, of=str),
    Column("prefix", "Prefix", of=str),
    Column("default_tree_location", "Default tree location", secondary=True, tail=True),
    Column("users", "Users", right=True, of=int),
    Column("samples", "Samples", right=True, of=int | None),
)
SHOW_COLUMNS = (
    *LIST_COLUMNS,
    *titled("address", "division", "location", "submitting_lab"),
    Column("auth0_org_id", "Auth0 organization"),
    *titled("tree_parameters", of=dict[str, Any] | None),
    *titled("members", of=list[_Member]),
)
MEMBER_COLUMNS = (
    Column("id", "Id", right=True, whole=True, of=int),
    Column("name", "Name", of=str),
    Column("email", "E-mail", whole=True, of=str),
    Column("role", "Role", whole=True, of=str),
    Column("agreed_to_tos", "Agreed to terms", secondary=True, of=bool),
    Column("acknowledged_policy_version", "Policy acknowledged", secondary=True, of=dt.date | None),
)
CREATE_COLUMNS = (
    Column("status", "Status", retired=True, of=str),
    Column("id", "Id", right=True, whole=True, of=int | None),
    Column("name", "Name", of=str),
    Column("prefix", "Prefix", of=str),
    Column("default_tree_location", "Default tree location", tail=True),
    *titled("address", "division", "location", "submitting_lab", secondary=True),
    OUTCOME,
)
INVITATION_COLUMNS = (
    Column("id", "Id", whole=True, secondary=True, of=str),
    Column("email", "E-mail", whole=True, of=str),
    Column("inviter", "Invited by", of=str),
    Column("created_at", "Invited", whole=True, of=str),
    Column("expires_at", "Expires", whole=True, of=str),
    Column("lapsed", "Expired", of=bool),
)
_SHOW_EXAMPLES = examples("aspencli groups show CZI")
_CREATE_EXAMPLES = examples(
    "aspencli --env staging groups create --name 'Lake County' --prefix LAKE "
    "--default-tree-location 'North America / USA / California'"
)
_INVITE_EXAMPLES = examples(
    "aspencli groups invite --group CZI --role member ada@lab.example.org",
    "aspencli groups invite --group CZI --role viewer --from addresses.csv",
)


class InvitationRole(StrEnum):
    """The roles in a group."""

    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


@app.command("list", epilog=examples("aspencli groups list --output json"))
@prints(LIST_COLUMNS)
def list_(ctx: typer.Context) -> None:
    """List all groups with their number of users and samples (database only)."""
    context = current(ctx)
    database = context.database(early=True)
    from aspencli.groups.database import list_groups

    with database.connected() as reader:
        rows = context.remember(list_groups(reader), kinds=("groups",))
        context.out.rows(LIST_COLUMNS, rows, empty="No groups found.")


@app.command("get", hidden=True, epilog=_SHOW_EXAMPLES)
@app.command(epilog=_SHOW_EXAMPLES)
@expanded
@prints(SHOW_COLUMNS)
def show(ctx: typer.Context, named: params.MemberOptions, via: params.ViaOption = None) -> None:
    """Show a group, its members, and their roles.

    The API only shows groups in which you are an admin or a member, without their number of
    samples, division, location, organization, and tree parameters.
    """
    context = current(ctx)
    key = params.named_group(context, named)
    if context.backend(via) is Backend.API:
        from aspencli.groups.remote import ask_group

        return context.out.records(SHOW_COLUMNS, [ask_group(context.api(), key)])
    database = context.database(early=True)
    from aspencli.groups.database import show_group

    with database.connected() as reader:
        found = show_group(reader, key)
    return context.out.records(SHOW_COLUMNS, [found])


@app.command(epilog=examples("aspencli groups members CZI"))
@expanded
@prints(MEMBER_COLUMNS)
def members(ctx: typer.Context, named: params.MemberOptions, via: params.ViaOption = None) -> None:
    """List the members of a group with their highest role."""
    context = current(ctx)
    key = params.named_group(context, named)
    if context.backend(via) is Backend.API:
        from aspencli.groups.remote import ask_members

        found = ask_members(context.api(), key)
        return context.out.rows(MEMBER_COLUMNS, found, empty="No members found.")
    database = context.database(early=True)
    from aspencli.groups.database import list_members

    with database.connected() as reader:
        rows = list_members(reader, key)
        return context.out.rows(MEMBER_COLUMNS, rows, empty="No members found.")


@app.command(epilog=_CREATE_EXAMPLES)
@expanded
@prints(CREATE_COLUMNS)
def create(
    ctx: typer.Context,
    *,
    group: params.NewGroupOptions,
    submitting_lab: Annotated[
        str | None, params.text_option("Laboratory that submits its samples.")
    ] = None,
    address: params.AddressOptions,
    dry_run: params.DryRunOption = False,
) -> None:
    """Create a group and its organization at the identity provider (API only).

    Requires a system administrator. If the organization already exists, use groups import instead.
    A name or prefix that is already taken is a conflict (exit code 7).
    """
    from aspencli.cli.changes.execute import execute

    context = current(ctx)
    context.announce(Backend.API)
    wanted, place = _checked(context, group, submitting_lab, address)
    execute(_creation(context, wanted, place), dry_run=dry_run)


def _checked(
    context: AppContext,
    group: params.NewGroupOptions,
    submitting_lab: str | None,
    address: params.AddressOptions,
) -> tuple[NewGroup, str]:
    """Return the group, and the name of its default tree location."""
    from aspencli.groups.remote import checked_group
    from aspencli.reference.remote import Gazetteer, name_of

    place = Gazetteer(context.api().locations).find(group.default_tree_location)
    wanted = checked_group(
        name=group.name,
        prefix=group.prefix,
        default_tree_location=place["id"],
        submitting_lab=submitting_lab,
        **vars(address),
    )
    return wanted, name_of(place)


def _creation(context: AppContext, wanted: NewGroup, place: str) -> ItemChange:
    from aspencli.cli.changes.execute import ItemChange
    from aspencli.groups.remote import make_group

    row = {column.key: wanted.get(column.key) for column in CREATE_COLUMNS}
    row["default_tree_location"] = place
    service = context.api().groups

    def make() -> Iterator[Sequence[Row]]:
        made = make_group(service, wanted)
        yield [{**row, "status": "created", "id": made["id"], "outcome": "created"}]

    return ItemChange(
        context,
        f"create group {wanted['name']} (prefix {wanted['prefix']}, default tree location "
        f"{place}) and its organization at the identity provider",
        CREATE_COLUMNS,
        [{**row, "status": "create", "outcome": "create"}],
        make,
        done=lambda rows: f"Created group {wanted['name']} (id {rows[0]['id']}).",
        single=True,
        permitted=service.check_create,
    )


@app.command("invites", epilog=examples("aspencli groups invites CZI"))
@expanded
@prints(INVITATION_COLUMNS)
def invites(ctx: typer.Context, named: params.MemberOptions) -> None:
    """List invitations to a group, oldest first, including expired ones (API only)."""
    from aspencli.groups.remote import list_invitations
    from aspencli.reference.remote import find_org

    context = current(ctx)
    key = params.named_group(context, named)
    context.announce(Backend.API)
    api = context.api()
    rows = list_invitations(api.groups, find_org(api, key))
    context.out.rows(INVITATION_COLUMNS, rows, empty="No invitations found.")


@app.command("invite", epilog=_INVITE_EXAMPLES)
@prints("aspencli.cli.invitations:COLUMNS")
def invite(
    ctx: typer.Context,
    emails: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="E-MAIL...", help="E-mail addresses to invite; - reads them from stdin."
        ),
    ] = None,
    file: Annotated[str | None, params.file_option("address", "an email")] = None,
    role: Annotated[
        InvitationRole,
        typer.Option(metavar="NAME", help=f"Role to invite them as: {', '.join(InvitationRole)}."),
    ] = InvitationRole.MEMBER,
    group: Annotated[
        str | None,
        params.group_option("Group to invite them to. Default: --org.", "--group", "--group-id"),
    ] = None,
    again: Annotated[
        bool,
        typer.Option("--again", help="Also invite current members and people already invited."),
    ] = False,
    dry_run: params.DryRunOption = False,
) -> None:
    """Invite people to a group by e-mail (API only).

    Requires a group administrator or a system administrator. People who are already members or have
    a pending invitation are skipped, if you have permission to see that. If an invitation fails,
    the others are still sent, and the exit code is 1.
    """
    from aspencli.cli.changes.execute import execute
    from aspencli.cli.invitations import invitations_change, plan_invitations
    from aspencli.reference.remote import find_org

    context = current(ctx)
    first, rest = _split(emails or [])
    key = params.named_group(context, params.MemberOptions(group=first, old=group))
    wanted = params.chosen_ids(context, rest, file, ("email",))
    context.announce(Backend.API)
    org = find_org(context.api(), key)
    plan = plan_invitations(context, org, role.value, wanted, again=again)
    execute(invitations_change(context, [plan]), dry_run=dry_run)


def _split(words: list[str]) -> tuple[str | None, list[str]]:
    """Split off a group given before the addresses, as in the old syntax."""
    if words and words[0] != "-" and "@" not in words[0]:
        return words[0], words[1:]
    return None, words


# What a list need not wait for, in the order of the help.

app.later_from("people:register_groups", "onboard")
app.later_from("bulk:register_groups", "import", "undo")
app.later_from("groups_edit:register", "update", "archive", "delete")
