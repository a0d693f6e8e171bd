"""Invitations to a group: listing them, and sending new ones one by one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from aspencli.errors import CredentialsError
from aspencli.services import orgs
from aspencli.services.checks import clean_email
from aspencli.services.orgs import Org
from aspencli.shapes import Invitation, Invited, Member

_FORBIDDEN = 403


class Groups(Protocol):
    """The groups of the API, with their members and invitations."""

    def check_create(self) -> None:
        """Check that the user may create groups."""

    def members(self, group: int) -> list[Member]:
        """Return the members."""

    def invitations(self, group: int) -> list[Invitation]:
        """Return the invitations, including expired ones."""

    def invite(
        self,
        group: int,
        role: str,
        emails: list[str],
        settle: Callable[[], list[Invited] | None] | None = None,
    ) -> list[Invited]:
        """Invite people to a group."""


@dataclass(frozen=True)
class InvitationRow:
    """An invitation.

    Attributes:
        lapsed: True if it has expired, by this machine's clock.
    """

    id: str
    email: str
    inviter: str
    created_at: str
    expires_at: str
    lapsed: bool


@dataclass(frozen=True)
class InvitePlan:
    """The plan for inviting people to a group.

    Attributes:
        org: The group.
        role: The role to invite them to.
        emails: The addresses to invite.
        spared: The addresses to skip, with the reason: ``member`` or ``pending``.
        before: The IDs of the existing invitations; None if the user may not see them.
    """

    org: Org
    role: str
    emails: tuple[str, ...]
    spared: dict[str, str]
    before: frozenset[str] | None


@dataclass(frozen=True)
class InviteResult:
    """The result for one address.

    Attributes:
        status: ``invited``, ``failed``, or the reason nothing was sent: ``member`` or ``pending``.
        error: Why it failed, if the service gives a reason.
    """

    email: str
    status: str
    error: str | None = None


class Inviting(Protocol):
    """The part of the API that invitations need."""

    @property
    def users(self) -> orgs.Users:
        """Return the users."""

    @property
    def groups(self) -> Groups:
        """Return the groups."""


def list_invitations(
    groups: Groups, org: Org, now: dt.datetime | None = None
) -> list[InvitationRow]:
    """Return the invitations to a group, oldest first."""
    moment = now or dt.datetime.now(dt.UTC)
    rows = [
        InvitationRow(
            each["id"],
            each["invitee"].get("email", ""),
            each["inviter"].get("name", ""),
            each["created_at"],
            each["expires_at"],
            _moment(each["expires_at"]) <= moment,
        )
        for each in groups.invitations(org.id)
    ]
    return sorted(rows, key=lambda row: (row.created_at, row.id))


def plan_invites(
    groups: Groups, org: Org, role: str, emails: Sequence[str], *, again: bool
) -> InvitePlan:
    """Plan the invitations, skipping members and people already invited unless ``again``.

    Raises:
        BadInputError: An e-mail address is invalid.
    """
    wanted = list({email.lower(): email for email in map(clean_email, emails)}.values())
    try:
        there, members = list_invitations(groups, org), groups.members(org.id)
    except CredentialsError as error:
        if error.answer is None or error.answer.status != _FORBIDDEN:
            raise
        # A system administrator may send invitations but not list them.
        return InvitePlan(org, role, tuple(wanted), {}, None)
    known = {row.email.lower(): "pending" for row in there if not row.lapsed}
    known |= {member["email"].lower(): "member" for member in members}
    spared = {} if again else {e: known[e.lower()] for e in wanted if e.lower() in known}
    left = tuple(email for email in wanted if email not in spared)
    return InvitePlan(org, role, left, spared, frozenset(row.id for row in there))


def check_invite(directory: Inviting, org: Org) -> None:
    """Check that the user may invite people to a group, without sending anything.

    Raises:
        CredentialsError: The user is neither a group administrator nor a system administrator.
    """
    mine = {group["id"]: group["roles"] for group in directory.users.me()["groups"]}
    if "admin" in mine.get(org.id, ()):
        return
    try:
        directory.groups.check_create()  # also requires a system administrator
    except CredentialsError as error:
        raise CredentialsError(
            f"You may not invite people to {org}",
            hint="Only an administrator of the group or a system administrator can: ask one.",
            details=error.details,
            answer=error.answer,
        ) from error


def send_invites(groups: Groups, plan: InvitePlan) -> Iterator[InviteResult]:
    """Yield the result for each address, sending one request each to isolate failures.

    Raises:
        UncertainError: A response was lost, so it is unknown whether the invitation was sent.
    """
    for email, status in plan.spared.items():
        yield InviteResult(email, status)
    for email in plan.emails:
        settle = None if plan.before is None else partial(_seen, groups, plan, email)
        (answer,) = groups.invite(plan.org.id, plan.role, [email], settle)
        yield _result(answer)


def _result(answer: Invited) -> InviteResult:
    status = "invited" if answer["success"] else "failed"
    return InviteResult(answer["email"], status, answer.get("error"))


def _seen(groups: Groups, plan: InvitePlan, email: str) -> list[Invited] | None:
    """Return the response that was lost, if the invitation now exists."""
    new: list[Any] = [
        each
        for each in groups.invitations(plan.org.id)
        if each["id"] not in (plan.before or ())
        and each["invitee"].get("email", "").lower() == email.lower()
    ]
    return [Invited(email=email, success=True)] if new else None


def _moment(text: str) -> dt.datetime:
    found = dt.datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)
