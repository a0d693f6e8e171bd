"""Invitations to a group: who has one, and new ones, sent one by one."""

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
    """Knows members and invitations, and sends some."""

    def check_create(self) -> None:
        """Make sure that one may create groups."""

    def members(self, group: int) -> list[Member]:
        """The members."""

    def invitations(self, group: int) -> list[Invitation]:
        """The invitations, lapsed ones too."""

    def invite(
        self,
        group: int,
        role: str,
        emails: list[str],
        settle: Callable[[], list[Invited] | None] | None = None,
    ) -> list[Invited]:
        """Invite people."""


@dataclass(frozen=True)
class InvitationRow:
    """An invitation.

    Attributes:
        lapsed: Whether it can no longer be accepted, by the clock of this machine.
    """

    id: str
    email: str
    inviter: str
    created_at: str
    expires_at: str
    lapsed: bool


@dataclass(frozen=True)
class InvitePlan:
    """Whom to invite.

    Attributes:
        org: The group.
        role: What they are to be there.
        emails: Who is invited.
        spared: Who is not, and why: ``member`` or ``pending``.
        before: The ids of the invitations that there are; None where one may not see them.
    """

    org: Org
    role: str
    emails: tuple[str, ...]
    spared: dict[str, str]
    before: frozenset[str] | None


@dataclass(frozen=True)
class InviteResult:
    """What became of one address.

    Attributes:
        status: ``invited``, ``failed``, or why nothing was sent: ``member`` or ``pending``.
        error: Why it failed, where the service says so.
    """

    email: str
    status: str
    error: str | None = None


class Inviting(Protocol):
    """Tells who is signed in, and invites."""

    @property
    def users(self) -> orgs.Users:
        """Its users."""

    @property
    def groups(self) -> Groups:
        """Its groups."""


def list_invitations(
    groups: Groups, org: Org, now: dt.datetime | None = None
) -> list[InvitationRow]:
    """The invitations to a group, the oldest first."""
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
    """Whom to invite: who is in already, or has an invitation, is spared unless ``again``.

    Raises:
        BadInputError: One is no e-mail address.
    """
    wanted = list({email.lower(): email for email in map(clean_email, emails)}.values())
    try:
        there, members = list_invitations(groups, org), groups.members(org.id)
    except CredentialsError as error:
        if error.answer is None or error.answer.status != _FORBIDDEN:
            raise
        # A system administrator may invite, and may not look.
        return InvitePlan(org, role, tuple(wanted), {}, None)
    known = {row.email.lower(): "pending" for row in there if not row.lapsed}
    known |= {member["email"].lower(): "member" for member in members}
    spared = {} if again else {e: known[e.lower()] for e in wanted if e.lower() in known}
    left = tuple(email for email in wanted if email not in spared)
    return InvitePlan(org, role, left, spared, frozenset(row.id for row in there))


def check_invite(directory: Inviting, org: Org) -> None:
    """Make sure that one may invite to a group; nothing is sent.

    Raises:
        CredentialsError: One is administrator neither of the group nor of the system.
    """
    mine = {group["id"]: group["roles"] for group in directory.users.me()["groups"]}
    if "admin" in mine.get(org.id, ()):
        return
    try:
        directory.groups.check_create()  # which takes a system administrator, too
    except CredentialsError as error:
        raise CredentialsError(
            f"You may not invite people to {org}",
            hint="Only an administrator of the group or a system administrator can: ask one.",
            details=error.details,
            answer=error.answer,
        ) from error


def send_invites(groups: Groups, plan: InvitePlan) -> Iterator[InviteResult]:
    """What becomes of each address; one request each, so that what is lost is one's own only.

    Raises:
        UncertainError: An answer was lost, and whether the invitation went out cannot be seen.
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
    """The answer that was lost, where the invitation is there."""
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
