"""Groups as commands show them, from either backend, and how to read them from the API."""

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
"""The roles in a group, strongest first."""


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
class Member:
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
    members: tuple[Member, ...]


UNTOLD = ("samples", "division", "location", "auth0_org_id", "tree_parameters")
"""The details of a group that the API does not provide."""


class Groups(orgs.Groups, Protocol):
    """The groups of the API, with their members."""

    def members(self, group: int) -> list[AskedMember]:
        """Return the members, in no particular order."""


class Source(orgs.Directory, Protocol):
    """The part of the API that groups need."""

    @property
    def groups(self) -> Groups:
        """Return the groups."""


def ask_group(source: Source, key: str) -> GroupDetails:
    """Return the group with this ID, name, or prefix, as far as the API provides its details.

    Raises:
        NotFoundError: There is no such group, or the user is neither an admin nor a member of it.
        CredentialsError: The user is neither an admin nor a member of it.
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
