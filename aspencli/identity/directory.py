"""People, groups, and roles as one side has them: the identity provider, or the database.

At the provider, a group is an organization and a person is an account. Both sides use the
provider's IDs, so entries are matched by those and never by a name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from aspen.identity.names import OWN_ACCOUNT

if TYPE_CHECKING:
    from aspen.identity.management import Invitation

OFFBOARDED = "offboarded|"
"""The prefix of the account ID of a user who was offboarded; no token has such a subject."""
ROLES = ("admin", "member", "viewer")
"""The roles of the service, strongest first; a tenant may have others."""


@dataclass(frozen=True)
class Person:
    """An account at the provider, or a user in the database."""

    key: str  # the provider's ID, such as ``auth0|5f7c8ec7c33c6c004bbafe82``
    name: str
    email: str
    id: int | None = None  # in the database


@dataclass(frozen=True)
class Group:
    """An organization at the provider, or a group in the database."""

    key: str  # the provider's ID, such as ``org_5f7c8ec7c33c6c00``
    name: str  # for people
    slug: str  # the organization's name at the provider, which is unique; the group's prefix
    id: int | None = None  # in the database
    marks: Mapping[str, str] = field(default_factory=dict, compare=False)  # its metadata


Place = tuple[str, str]
"""The key of a group and the key of a person."""


@dataclass
class Directory:
    """Everything that one side has.

    Attributes:
        people: The people by key who belong to the provider itself.
        groups: The groups by key.
        roles: The names of the roles of each person in each group; a person without an entry is not
            a member. People of other identity providers are included.
        invitations: The invitations, if they were read.
        outsiders: The people of other identity providers by key.
        unaffiliated: The keys of the accounts that belong to no group, if they were read.
    """

    people: dict[str, Person] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    roles: dict[Place, frozenset[str]] = field(default_factory=dict)
    invitations: list[Invitation] = field(default_factory=list)
    outsiders: dict[str, Person] = field(default_factory=dict)
    unaffiliated: frozenset[str] = frozenset()

    @cached_property
    def by_person(self) -> Mapping[str, Sequence[Place]]:
        """Return the memberships of each person, once all are known."""
        return self._indexed(1)

    @cached_property
    def by_group(self) -> Mapping[str, Sequence[Place]]:
        """Return the memberships in each group, once all are known."""
        return self._indexed(0)

    def _indexed(self, part: int) -> Mapping[str, Sequence[Place]]:
        found: dict[str, list[Place]] = {}
        for place in sorted(self.roles):
            found.setdefault(place[part], []).append(place)
        return found


def is_own(person: str) -> bool:
    """Return True if an ID belongs to one of the provider's own accounts."""
    return person.startswith(OWN_ACCOUNT)


def named(roles: Iterable[str]) -> str:
    """Return the names of roles as text, strongest first."""
    ranks = {name: rank for rank, name in enumerate(ROLES)}
    return ", ".join(sorted(roles, key=lambda name: (ranks.get(name, len(ranks)), name)))
