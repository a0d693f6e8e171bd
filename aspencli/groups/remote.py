"""Groups through the API: read them, create them with their organization, and invite people."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from aspencli.errors import CredentialsError
from aspencli.reference.remote import Org, creating, find_org, name_of
from aspencli.remote.types import Group, Invited, Member, NewGroup
from aspencli.text import clean_email, clean_identifier, clean_name

if TYPE_CHECKING:
    from aspencli.remote.api import Api, Groups

ROLES = ("admin", "member", "viewer")
"""The roles in a group, strongest first."""
UNTOLD = ("samples", "division", "location", "auth0_org_id", "tree_parameters")
"""The details of a group that the API does not provide."""
_TOLD = ("id", "name", "prefix", "address", "submitting_lab")

_FORBIDDEN = 403
_LIVE = (
    "The published version of the service responds this way if the name or the prefix is taken, or "
    "if the location does not exist. See: aspencli groups list, aspencli locations list"
)


def ask_group(api: Api, key: str) -> dict[str, Any]:
    """Return the group with this ID, name, or prefix, as far as the API provides its details.

    Raises:
        NotFoundError: The group does not exist, or the user is neither an admin nor a member of it.
        CredentialsError: The user is neither an admin nor a member of it.
    """
    org = find_org(api, key)
    group, members = api.groups.get(org.id), api.groups.members(org.id)
    return {
        **{key: group.get(key) for key in _TOLD},
        **dict.fromkeys(UNTOLD),
        "default_tree_location": name_of(group["default_tree_location"]) or None,
        "users": len(members),
        "members": [
            {"id": m["id"], "name": m["name"], "email": m["email"], "roles": [m["role"]]}
            for m in sorted(members, key=lambda member: (member["name"], member["id"]))
        ],
    }


def ask_members(api: Api, key: str) -> Iterable[Member]:
    """Return the members of the group with this ID, name, or prefix, ordered by ID.

    Raises:
        NotFoundError: The user has no role in such a group.
        CredentialsError: The user is neither an admin nor a member of it.
    """
    found = api.groups.members(find_org(api, key).id)
    return sorted(found, key=lambda member: member["id"])


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


def make_group(groups: Groups, group: NewGroup) -> Group:
    """Create the group.

    Raises:
        ConflictError: The name or the prefix is taken.
        UncertainError: No response was received.
    """
    with creating("group", _LIVE):
        return groups.create(group)


@dataclass(frozen=True)
class InvitePlan:
    """The plan for inviting people to a group."""

    org: Org
    role: str
    emails: tuple[str, ...]
    spared: dict[str, str]  # the addresses to skip, with the reason: ``member`` or ``pending``
    # The IDs of the existing invitations; None if the user may not see them.
    before: frozenset[str] | None


def list_invitations(groups: Groups, org: Org) -> list[dict[str, Any]]:
    """Return the invitations to a group, oldest first; this machine's clock tells which expired."""
    now = dt.datetime.now(dt.UTC)
    rows = [
        {
            "id": each["id"],
            "email": each["invitee"].get("email", ""),
            "inviter": each["inviter"].get("name", ""),
            "created_at": each["created_at"],
            "expires_at": each["expires_at"],
            "lapsed": _moment(each["expires_at"]) <= now,
        }
        for each in groups.invitations(org.id)
    ]
    return sorted(rows, key=lambda row: (row["created_at"], row["id"]))


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
    known = {row["email"].lower(): "pending" for row in there if not row["lapsed"]}
    known |= {member["email"].lower(): "member" for member in members}
    spared = {} if again else {e: known[e.lower()] for e in wanted if e.lower() in known}
    left = tuple(email for email in wanted if email not in spared)
    return InvitePlan(org, role, left, spared, frozenset(row["id"] for row in there))


def check_invite(api: Api, org: Org) -> None:
    """Check that the user may invite people to a group, without sending anything.

    Raises:
        CredentialsError: The user is neither a group administrator nor a system administrator.
    """
    mine = {group["id"]: group["roles"] for group in api.users.me()["groups"]}
    if "admin" in mine.get(org.id, ()):
        return
    try:
        api.groups.check_create()  # also requires a system administrator
    except CredentialsError as error:
        raise CredentialsError(
            f"You are not allowed to invite people to {org}.",
            hint="Ask an administrator of the group or a system administrator.",
            details=error.details,
            answer=error.answer,
        ) from error


def send_invites(groups: Groups, plan: InvitePlan) -> Iterator[dict[str, Any]]:
    """Yield the result for each address, sending one request each to isolate failures.

    The status is ``invited``, ``failed``, or the reason nothing was sent.

    Raises:
        UncertainError: A response was lost, so it is unknown whether the invitation was sent.
    """
    for email, status in plan.spared.items():
        yield {"email": email, "status": status, "error": None}
    for email in plan.emails:
        settle = None if plan.before is None else partial(_seen, groups, plan, email)
        (answer,) = groups.invite(plan.org.id, plan.role, [email], settle)
        status = "invited" if answer["success"] else "failed"
        yield {"email": answer["email"], "status": status, "error": answer.get("error")}


def _seen(groups: Groups, plan: InvitePlan, email: str) -> list[Invited] | None:
    """Return the response that was lost, if the invitation now exists."""
    made = any(
        each["id"] not in (plan.before or ())
        and each["invitee"].get("email", "").lower() == email.lower()
        for each in groups.invitations(plan.org.id)
    )
    return [Invited(email=email, success=True)] if made else None


def _moment(text: str) -> dt.datetime:
    found = dt.datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)
