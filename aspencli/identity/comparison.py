"""The differences between the identity provider and the database, matched by the provider's IDs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from aspencli.identity.directory import ROLES, Directory, Group, Person, is_own, named


class Kind(StrEnum):
    """The kinds of differences, in the order in which they are shown and synced."""

    ORGANIZATION = "organization"
    GROUP = "group"
    GROUP_NAME = "group-name"
    ACCOUNT = "account"
    USER = "user"
    MEMBERSHIP = "membership"
    ROLE = "role"
    UNKNOWN_ROLE = "unknown-role"
    NAME = "name"
    EMAIL = "email"
    INVITATION = "invitation"


TITLES: Mapping[Kind, str] = {
    Kind.ORGANIZATION: "Organizations without a group",
    Kind.GROUP: "Groups without an organization",
    Kind.GROUP_NAME: "Names of groups",
    Kind.ACCOUNT: "Accounts without a user",
    Kind.USER: "Users without an account",
    Kind.MEMBERSHIP: "Memberships on one side only",
    Kind.ROLE: "Roles of members",
    Kind.UNKNOWN_ROLE: "Roles that the service does not have",
    Kind.NAME: "Names of people",
    Kind.EMAIL: "E-mail addresses",
    Kind.INVITATION: "Expired invitations",
}
"""The headings of the kinds."""

_KNOWN = frozenset(ROLES)
_ORDER = {kind: place for place, kind in enumerate(Kind)}
NO_ROLE = "(no role)"
"""The value of a membership without a role, which only the provider can have."""


@dataclass(frozen=True)
class Difference:
    """One object that is not the same on both sides.

    Attributes:
        kind: The kind of object.
        provider: The value at the provider; None if it has no such object.
        database: The value in the database; None if it has no such object.
        group: The group, if there is one, from the database if it is there.
        person: The person, if there is one, from the database if it is there.
        note: What else an object has that is on one side only, such as memberships.
        invitation: The ID of the invitation.
    """

    kind: Kind
    provider: str | None
    database: str | None
    group: Group | None = None
    person: Person | None = None
    note: str = ""
    invitation: str | None = None

    @property
    def place(self) -> tuple[str, str]:
        """Return the keys of the group and the person of a membership or a role."""
        assert self.group is not None  # noqa: S101 - they have both
        assert self.person is not None  # noqa: S101 - same
        return self.group.key, self.person.key

    def sorts_by(self) -> tuple[object, ...]:
        """Return the sort key: by kind, group, and person."""
        group = (self.group.name, self.group.key) if self.group else ("", "")
        person = (self.person.email, self.person.key) if self.person else ("", "")
        return _ORDER[self.kind], *group, *person, self.invitation or ""


def compare(provider: Directory, database: Directory, now: dt.datetime) -> list[Difference]:
    """Return all differences, sorted by kind.

    What follows from another difference is not listed again: an object that is on one side only is
    one difference, with its memberships.
    """
    found = [
        *_groups(provider, database),
        *_people(provider, database),
        *_memberships(provider, database),
        *_invitations(provider, database, now),
    ]
    return sorted(found, key=Difference.sorts_by)


def _groups(provider: Directory, database: Directory) -> Iterator[Difference]:
    for key, group in provider.groups.items():
        if key not in database.groups:
            yield Difference(Kind.ORGANIZATION, group.name, None, group=group)
    for key, group in database.groups.items():
        if key not in provider.groups:
            note = memberships_of_group(database, key)
            yield Difference(Kind.GROUP, None, group.name, group=group, note=note)
        elif (name := provider.groups[key].name) != group.name:
            yield Difference(Kind.GROUP_NAME, name, group.name, group=group)


def _people(provider: Directory, database: Directory) -> Iterator[Difference]:
    for key, account in provider.people.items():
        if key in database.people:
            continue
        note = memberships_of(provider, database, key)
        if key in provider.unaffiliated:
            note = "in no organization of a group"
        yield Difference(Kind.ACCOUNT, account.name, None, person=account, note=note)
    for key, user in database.people.items():
        if key not in provider.people:
            note = memberships_of(database, database, key)
            yield Difference(Kind.USER, None, user.name, person=user, note=note)
            continue
        account = provider.people[key]
        if account.name != user.name:
            yield Difference(Kind.NAME, account.name, user.name, person=user)
        if account.email.lower() != user.email.lower():  # the provider stores lowercase
            yield Difference(Kind.EMAIL, account.email, user.email, person=user)


def _memberships(provider: Directory, database: Directory) -> Iterator[Difference]:
    for place in provider.roles.keys() | database.roles.keys():
        organization, account = place
        there, here = provider.roles.get(place), database.roles.get(place)
        user, group = database.people.get(account), database.groups.get(organization)
        is_shared = account in provider.people and organization in provider.groups
        if not (is_own(account) and is_shared and user and group):
            continue
        strange = ((there or frozenset()) ^ (here or frozenset())) - _KNOWN
        if strange:
            names = [named(strange & (side or frozenset())) or None for side in (there, here)]
            yield Difference(Kind.UNKNOWN_ROLE, names[0], names[1], group, user)
        values = [None if side is None else shown(side) for side in (there, here)]
        if there is None or here is None:
            yield Difference(Kind.MEMBERSHIP, values[0], values[1], group, user)
        elif there & _KNOWN != here & _KNOWN:
            yield Difference(Kind.ROLE, values[0], values[1], group, user)


def _invitations(
    provider: Directory, database: Directory, now: dt.datetime
) -> Iterator[Difference]:
    for one in provider.invitations:
        if one.expires_at <= now:
            yield Difference(
                Kind.INVITATION,
                f"expired {one.expires_at:%Y-%m-%d}",
                None,
                group=database.groups[one.organization],
                person=Person("", "", one.email),
                invitation=one.id,
            )


def shown(roles: frozenset[str]) -> str:
    """Return the value of a membership with these roles."""
    return named(roles) or NO_ROLE


def memberships_of(side: Directory, names: Directory, person: str) -> str:
    """Describe the memberships of a person on one side, with the names of groups of another."""
    return "; ".join(
        f"{shown(side.roles[place])} in {names.groups[place[0]].name}"
        for place in side.by_person.get(person, ())
        if place[0] in names.groups
    )


def memberships_of_group(side: Directory, group: str) -> str:
    """Return the number of members of a group on one side."""
    number = len(side.by_group.get(group, ()))
    return f"{number:,} {'member' if number == 1 else 'members'}" if number else ""
