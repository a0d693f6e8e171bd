"""Invitations through the API, as a planned write that several commands make."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from aspencli.cli.changes.execute import ItemChange
from aspencli.cli.context import AppContext
from aspencli.cli.output.formats import OUTCOME, Column, Row
from aspencli.errors import AspenError

if TYPE_CHECKING:
    from aspencli.groups.remote import InvitePlan
    from aspencli.reference.remote import Org

COLUMNS = (
    Column("email", "E-mail", whole=True, of=str),
    Column("status", "Status", whole=True, of=str),
    Column("error", "Reason"),
    OUTCOME,
)


def plan_invitations(
    context: AppContext, org: Org, role: str, emails: Sequence[str], *, again: bool = False
) -> InvitePlan:
    """Return the plan for inviting people to a group; warn if it may invite members again."""
    from aspencli.groups.remote import plan_invites

    plan = plan_invites(context.api().groups, org, role, emails, again=again)
    if plan.before is None:
        context.out.warn(
            "You do not have permission to see members and invitations, so everyone is invited."
        )
    return plan


def invitations_change(
    context: AppContext, plans: Sequence[InvitePlan], next_step: str = ""
) -> ItemChange:
    """Return the planned invitations to one or several groups.

    Args:
        context: The context.
        plans: The plan for each group and role.
        next_step: What to do next, to show after success.
    """
    planned = [(*each, "skip") for plan in plans for each in plan.spared.items()]
    planned += [(each, "create", "create") for plan in plans for each in plan.emails]
    invited = sum(len(plan.emails) for plan in plans)
    where = _where(plans)
    return ItemChange(
        context,
        f"invite {_people(plans, invited)} to {where}",
        COLUMNS,
        [
            {"email": email, "status": status, "error": None, "outcome": outcome}
            for email, status, outcome in planned
        ],
        partial(_send, context, plans),
        done=f"{invited:,} invited to {where}.",
        next=next_step,
        label="Inviting",
        partial="addresses were processed",
        permitted=partial(_check, context, plans),
        ended=_refuse_failed,
        group=plans[0].org if len(plans) == 1 else None,
    )


def _people(plans: Sequence[InvitePlan], invited: int) -> str:
    if invited == 1:
        return next(plan.emails[0] for plan in plans if plan.emails)
    return f"{invited:,} people"


def _where(plans: Sequence[InvitePlan]) -> str:
    if len(plans) == 1:
        return f"{plans[0].org} as {plans[0].role}"
    return f"{len({plan.org.id for plan in plans}):,} groups"


def _check(context: AppContext, plans: Sequence[InvitePlan]) -> None:
    from aspencli.groups.remote import check_invite

    for org in dict.fromkeys(plan.org for plan in plans):
        check_invite(context.api(), org)


def _send(context: AppContext, plans: Sequence[InvitePlan]) -> Iterator[Sequence[Row]]:
    """Send the invitations, and return the result of each."""
    from aspencli.groups.remote import send_invites

    for plan in plans:
        for result in send_invites(context.api().groups, plan):
            outcome = {"invited": "created", "failed": "failed"}.get(result["status"], "skipped")
            yield [{**result, "outcome": outcome}]


def _refuse_failed(rows: Sequence[Row]) -> None:
    failed = sum(row["status"] == "failed" for row in rows)
    if failed:
        raise AspenError(
            f"{failed:,} of {len(rows):,} invitations failed.",
            hint="Check the service's log for the reason, then run the command again: people "
            "already invited are skipped.",
        )
