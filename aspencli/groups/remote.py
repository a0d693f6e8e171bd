"""Groups through the API: read them, create them with their organization, and invite people."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from aspencli.errors import AspenError, CredentialsError, UncertainError
from aspencli.reference.locations import name_of
from aspencli.remote import scope
from aspencli.remote.scope import Org, find_org
from aspencli.remote.types import Group, Invitation, Invited, Member, NewGroup
from aspencli.stored_text import clean_email, clean_identifier, clean_name

ROLES = ("admin", "member", "viewer")
"""The roles in a group, strongest first."""
UNTOLD = ("samples", "division", "location", "auth0_org_id", "tree_parameters")
"""The details of a group that the API does not provide."""

_FORBIDDEN, _SERVER_ERROR = 403, 500
_LIVE = (
    "The published version of the service responds this way if the name or the prefix is taken, or "
    "if the location does not exist. See: aspencli groups list, aspencli locations list"
)


@dataclass(frozen=True)
class GroupSummary:
    """A group in a list.

    Attributes:
        default_tree_location: Default location of its trees, as ``Region / Country / ...``.
        users: Number of users with a role in the group.
        samples: Number of samples it submitted; None if that is not known.
    """

    id: int
    name: str
    prefix: str
    default_tree_location: str | None
    users: int
    samples: int | None


@dataclass(frozen=True)
class MemberRow:
    """A user and that user's roles in one group."""

    id: int
    name: str
    email: str
    roles: tuple[str, ...]


@dataclass(frozen=True)
class GroupDetails(GroupSummary):
    """The details of a group; None may mean that the backend does not provide the value."""

    address: str | None
    division: str | None
    location: str | None
    submitting_lab: str | None
    auth0_org_id: str | None
    tree_parameters: dict[str, Any] | None
    members: tuple[MemberRow, ...]


class ListsMembers(scope.Groups, Protocol):
    """The groups of the API, with their members."""

    def members(self, group: int) -> list[Member]:
        """Return the members, in no particular order."""


class Source(scope.Directory, Protocol):
    """The part of the API that groups need."""

    @property
    def groups(self) -> ListsMembers:
        """Return the groups."""


def ask_group(source: Source, key: str) -> GroupDetails:
    """Return the group with this ID, name, or prefix, as far as the API provides its details.

    Raises:
        NotFoundError: The group does not exist, or the user is neither an admin nor a member of it.
        CredentialsError: The user is neither an admin nor a member of it.
    """
    org = find_org(source, key)
    group, members = source.groups.get(org.id), source.groups.members(org.id)
    shown = (MemberRow(m["id"], m["name"], m["email"], (m["role"],)) for m in members)
    return GroupDetails(
        **_summary(group),
        users=len(members),
        samples=None,
        division=None,
        location=None,
        auth0_org_id=None,
        tree_parameters=None,
        members=tuple(sorted(shown, key=lambda member: (member.name, member.id))),
    )


def ask_members(source: Source, key: str) -> Iterable[Member]:
    """Return the members of the group with this ID, name, or prefix, ordered by ID.

    Raises:
        NotFoundError: The user has no role in such a group.
        CredentialsError: The user is neither an admin nor a member of it.
    """
    found = source.groups.members(find_org(source, key).id)
    return sorted(found, key=lambda member: member["id"])


def _summary(group: Group) -> dict[str, Any]:
    plain = ("id", "name", "prefix", "address", "submitting_lab")
    place = name_of(group["default_tree_location"]) or None
    return {key: group.get(key) for key in plain} | {"default_tree_location": place}


class CreatesGroups(Protocol):
    """The groups of the API."""

    def create(self, group: NewGroup) -> Group:
        """Create a group."""


def checked_group(
    *, name: str, prefix: str, default_tree_location: int, **others: str | None
) -> NewGroup:
    """Return the new group after validating all text; fields that are None are omitted.

    Raises:
        BadInputError: A text is blank, too long, or contains an invisible character.
    """
    group = NewGroup(
        name=clean_name(name, "the name"),
        prefix=clean_identifier(prefix, "the prefix"),
        default_tree_location_id=default_tree_location,
    )
    for key, text in others.items():
        if text is not None:
            group[key] = clean_name(text, f"the {key.replace('_', ' ')}")  # type: ignore[literal-required] # keys of the type
    return group


def make_group(groups: CreatesGroups, group: NewGroup) -> Group:
    """Create the group.

    Raises:
        ConflictError: The name or the prefix is taken.
        UncertainError: No response was received.
    """
    try:
        return groups.create(group)
    except UncertainError as error:
        error.hint = (
            "Run the same command again: it creates the group, or reports that it already exists "
            "(exit code 7)."
        )
        raise
    except AspenError as error:
        if error.answer is not None and error.answer.status == _SERVER_ERROR:
            error.hint = _LIVE
        raise


class InvitesMembers(Protocol):
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
    def users(self) -> scope.Users:
        """Return the users."""

    @property
    def groups(self) -> InvitesMembers:
        """Return the groups."""


def list_invitations(
    groups: InvitesMembers, org: Org, now: dt.datetime | None = None
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
    groups: InvitesMembers, org: Org, role: str, emails: Sequence[str], *, again: bool
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
            f"You are not allowed to invite people to {org}.",
            hint="Ask an administrator of the group or a system administrator.",
            details=error.details,
            answer=error.answer,
        ) from error


def send_invites(groups: InvitesMembers, plan: InvitePlan) -> Iterator[InviteResult]:
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


def _seen(groups: InvitesMembers, plan: InvitePlan, email: str) -> list[Invited] | None:
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
