"""``aspencli groups invites`` and ``invite``, through the API and the identity provider."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from aspencli import params
from aspencli.cli import examples
from aspencli.commands import api_options as options
from aspencli.context import AppContext, current
from aspencli.errors import AspenError
from aspencli.output.rendering import Column, Row

if TYPE_CHECKING:
    from aspencli.services.invitations import InvitePlan

INVITE_COLUMNS = (
    Column("email", "E-mail", whole=True),
    Column("status", "Status", whole=True),
    Column("error", "Why"),
)
INVITATION_COLUMNS = (
    Column("id", "Id", whole=True, secondary=True),
    Column("email", "E-mail", whole=True),
    Column("inviter", "Invited by"),
    Column("created_at", "Invited", whole=True),
    Column("expires_at", "Until", whole=True),
    Column("lapsed", "Lapsed"),
)
_INVITE_EXAMPLES = examples(
    "aspencli groups invite --group CZI --role member ada@lab.example.org",
    "aspencli groups invite --group CZI --role viewer --from addresses.csv",
)


class GroupRole(StrEnum):
    """The roles in a group."""

    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


def register(app: typer.Typer) -> None:
    """Add the commands to the group ``groups``."""
    app.command("invites", epilog=examples("aspencli groups invites CZI"))(invites)
    app.command("invite", epilog=_INVITE_EXAMPLES)(invite)


def invites(
    ctx: typer.Context, group: options.GroupKey = None, old: options.OldGroupKey = None
) -> None:
    """List the invitations to a group, the oldest first, lapsed ones too; through the API."""
    from aspencli.commands.api_scope import named_group
    from aspencli.services.invitations import list_invitations
    from aspencli.services.orgs import find_org

    context = current(ctx)
    key = named_group(context, group, old)
    params.announce(context, params.Road.API)
    api = context.api()
    rows = list_invitations(api.groups, find_org(api, key))
    context.out.rows(INVITATION_COLUMNS, map(vars, rows), empty="no invitations found")


def invite(
    ctx: typer.Context,
    emails: Annotated[
        list[str] | None,
        typer.Argument(metavar="E-MAIL...", help="Whom to invite; - reads them from stdin."),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="A file with one address a line, or a table with a column email; - for stdin.",
        ),
    ] = None,
    role: Annotated[
        GroupRole,
        typer.Option(metavar="NAME", help=f"What they are to be: {', '.join(GroupRole)}."),
    ] = GroupRole.MEMBER,
    group: Annotated[
        str | None,
        typer.Option(
            "--group",
            "--group-id",
            metavar="ID|NAME|PREFIX",
            help="The group. Default: --org.",
            callback=params.checked("the group"),
        ),
    ] = None,
    again: Annotated[
        bool,
        typer.Option("--again", help="Also who is a member already, or has an invitation."),
    ] = False,
    dry_run: params.DryRunOption = False,
) -> None:
    """Invite people to a group by e-mail, through the API.

    It takes an administrator of the group or of the system. Who is a member already, or has an
    invitation that has not lapsed, is left alone, as far as you may see that. Where an invitation
    fails, the others are sent, and the exit code is 1.
    """
    from aspencli.commands.api_scope import chosen_ids, named_group
    from aspencli.services.invitations import check_invite, plan_invites
    from aspencli.services.orgs import find_org

    context = current(ctx)
    first, rest = _split(emails or [])
    key = named_group(context, first, group)
    wanted = chosen_ids(context, rest, file, ("email",))
    params.announce(context, params.Road.API)
    api = context.api()
    plan = plan_invites(api.groups, find_org(api, key), role.value, wanted, again=again)
    if plan.before is None:
        context.out.warn(
            "you may not see who is a member or invited already, so nobody is left out"
        )
    if dry_run:
        if plan.emails:
            check_invite(api, plan.org)
        rows: list[Row] = [{"email": e, "status": s, "error": None} for e, s in plan.spared.items()]
        rows += [{"email": each, "status": "planned", "error": None} for each in plan.emails]
        context.out.rows(INVITE_COLUMNS, rows)
        return context.out.info(f"{len(plan.emails):,} would be invited; nothing was sent")
    if plan.emails:
        people = plan.emails[0] if len(plan.emails) == 1 else f"{len(plan.emails):,} people"
        context.authorise(f"invite {people} to {plan.org} as {plan.role}")
    return _send(context, plan)


def _split(words: list[str]) -> tuple[str | None, list[str]]:
    """Split off a group given before the addresses, as in the old syntax."""
    if words and words[0] != "-" and "@" not in words[0]:
        return words[0], words[1:]
    return None, words


def _send(context: AppContext, plan: InvitePlan) -> None:
    """Send the invitations, and report the result of each."""
    from aspencli.commands.item_report import item_report
    from aspencli.services.invitations import send_invites

    total = len(plan.spared) + len(plan.emails)
    with (
        item_report(context.out, INVITE_COLUMNS, total, "addresses were dealt with") as rows,
        context.out.progress("Inviting", total) as tick,
    ):
        for result in send_invites(context.api().groups, plan):
            rows.append(vars(result))
            tick(len(rows))
    failed = sum(row["status"] == "failed" for row in rows)
    if failed:
        raise AspenError(
            f"{failed:,} of {total:,} could not be invited",
            hint="The service's own log says why. Run it again: who was invited is left alone.",
        )
    sent = sum(row["status"] == "invited" for row in rows)
    context.out.done(f"{sent:,} invited to {plan.org} as {plan.role}")
