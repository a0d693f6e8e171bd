"""Groups as commands show them, whichever way they were read; through the API, too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from aspencli.services import orgs
from aspencli.services.orgs import find_org
from aspencli.services.places import name_of
from aspencli.shapes import Group
from aspencli.shapes import Member as AskedMember

ROLES = ("admin", "member", "viewer")
"""The roles that there are in a group, the strongest first."""


@dataclass(frozen=True)
class GroupSummary:
    """A group in a list.

    Attributes:
        default_tree_location: Where its trees are about, as ``Region / Country / ...``.
        users: How many users have a role in it.
        samples: How many samples it submitted; None where that is not told.
    """

    id: int
    name: str
    prefix: str
    default_tree_location: str | None
    users: int
    samples: int | None


@dataclass(frozen=True)
class Member:
    """A user and the roles that the user has in one group."""

    id: int
    name: str
    email: str
    roles: tuple[str, ...]


@dataclass(frozen=True)
class GroupDetails(GroupSummary):
    """All there is to a group; what is None may be not told."""

    address: str | None
    division: str | None
    location: str | None
    submitting_lab: str | None
    auth0_org_id: str | None
    tree_parameters: dict[str, Any] | None
    members: tuple[Member, ...]


UNTOLD = ("samples", "division", "location", "auth0_org_id", "tree_parameters")
"""What the API does not tell of a group."""


class Groups(orgs.Groups, Protocol):
    """Tells of groups and who is in them."""

    def members(self, group: int) -> list[AskedMember]:
        """The members, in no order."""


class Source(orgs.Directory, Protocol):
    """The API, as far as groups need it."""

    @property
    def groups(self) -> Groups:
        """Its groups."""


def ask_group(source: Source, key: str) -> GroupDetails:
    """The group of that id, name or prefix, with its members, as far as the API tells of it.

    Raises:
        NotFoundError: There is none, or one is neither an admin nor a member there.
        CredentialsError: The same.
    """
    org = find_org(source, key)
    group, members = source.groups.get(org.id), source.groups.members(org.id)
    shown = (Member(m["id"], m["name"], m["email"], (m["role"],)) for m in members)
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


def ask_members(source: Source, key: str) -> Iterable[AskedMember]:
    """The members of the group of that id, name or prefix, in the order of their ids.

    Raises:
        NotFoundError: One has no role in such a group.
        CredentialsError: One is neither an admin nor a member there.
    """
    found = source.groups.members(find_org(source, key).id)
    return sorted(found, key=lambda member: member["id"])


def _summary(group: Group) -> dict[str, Any]:
    plain = ("id", "name", "prefix", "address", "submitting_lab")
    place = name_of(group["default_tree_location"]) or None
    return {key: group.get(key) for key in plain} | {"default_tree_location": place}
