"""Plans of changes of one group on both sides: fields, archiving, and deletion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from aspen.database.sessions import Reader
from aspen.database.tables import GROUPS, ROLES, USER_ROLES, USERS
from aspen.identity.management import (
    Management,
    ManagementError,
    Member,
    Organization,
    organization_name,
)
from aspencli.errors import ConflictError, NotFoundError
from aspencli.identity.apply import Plan, Planner
from aspencli.identity.references import uses_of_groups
from aspencli.identity.sides import row_of
from aspencli.identity.steps import EXISTS, Kind, Step, Value, removal
from aspencli.identity.user_plans import account_of, lock_groups, lock_text, require_provider
from aspencli.remote.identity import IdentityProvider

_UNIQUE = ("name", "prefix")


@dataclass
class GroupPlanner(Planner):
    """A planner for one group.

    Args:
        group_id: The group's ID in the database.
        provider: The identity provider, or None to change only the database.
        database_only: True if the operator asked to change only the database.
    """

    group_id: int
    provider: IdentityProvider | None
    database_only: bool

    def lock(self, connection: sa.Connection) -> None:
        """Lock the group."""
        lock_groups(connection, [self.group_id])

    def _group(self, reader: Reader) -> dict[str, Any]:
        found = row_of(reader, Kind.GROUP, self.group_id)
        if found is None:
            raise ConflictError(
                f"Another operator deleted group {self.group_id} in the meantime; nothing was "
                "written.",
                hint="See: aspencli groups list",
            )
        return found


# Fields


@dataclass
class GroupUpdate(GroupPlanner):
    """Planner of new values for a group's fields.

    Args:
        wanted: The new values, by column.
    """

    wanted: Mapping[str, Value]

    def lock(self, connection: sa.Connection) -> None:
        """Lock the group, and its new name and prefix."""
        for column in _UNIQUE:
            if column in self.wanted:
                lock_text(connection, f"group {column} {self.wanted[column]}")
        super().lock(connection)

    def plan(self, reader: Reader) -> Plan:
        """Return the plan; see `Planner.plan`."""
        group = self._group(reader)
        for column in _UNIQUE:
            if column in self.wanted:
                _refuse_taken(reader, column, str(self.wanted[column]), self.group_id)
        steps = [
            Step(Kind.GROUP, (self.group_id,), column, group[column], value, group["name"])
            for column, value in self.wanted.items()
            if group[column] != value
        ]
        place = str(group["auth0_org_id"])
        if not set(_UNIQUE) & self.wanted.keys():
            return Plan(tuple(steps))
        if self.provider is None:
            return Plan(tuple(steps), left=tuple(_left(place, steps)))
        there = self.provider.run(lambda management: management.organization(place))
        if there is None:
            note = f"The identity provider has no organization {place}, so only the database"
            return Plan(tuple(steps), notes=(f"{note} changes.",))
        return Plan((*steps, *self._organization_steps(group, place, there)))

    def _organization_steps(
        self, group: Mapping[str, Any], place: str, there: Organization
    ) -> list[Step]:
        wanted: dict[str, str] = {}
        if "name" in self.wanted:
            wanted["display_name"] = str(self.wanted["name"])
        # A name that was chosen otherwise stays.
        if "prefix" in self.wanted and there.name == organization_name(group["prefix"]):
            wanted["name"] = organization_name(str(self.wanted["prefix"]))
        return [
            Step(Kind.ORGANIZATION, (place,), field, getattr(there, field), value, place)
            for field, value in wanted.items()
            if getattr(there, field) != value
        ]


def _refuse_taken(reader: Reader, column: str, text: str, group_id: int) -> None:
    group = GROUPS.c
    query = sa.select(group.id, group.name, group.prefix).where(
        sa.func.lower(group[column]) == sa.func.lower(text), group.id != group_id
    )
    other = reader.execute(query).first()
    if other is not None:
        raise ConflictError(
            f"The {column} {text} already belongs to another group; nothing was written.",
            hint=f"See: aspencli groups show {other.id}",
            details=[f"group {other.id}  {other.name} (prefix {other.prefix})"],
        )


def _left(place: str, steps: list[Step]) -> list[str]:
    names = {"name": "display name", "prefix": "name"}
    changes = []
    for step in steps:
        if step.field in names:
            value = str(step.after)
            value = value if step.field == "name" else organization_name(value)
            changes.append(f"{names[step.field]} to {value!r}")
    return [f"change the {' and the '.join(changes)} of organization {place}"] if changes else []


# Archiving


@dataclass
class GroupArchiving(GroupPlanner):
    """Planner of the removal of all members and invitations of a group."""

    def plan(self, reader: Reader) -> Plan:
        """Return the plan; see `Planner.plan`."""
        group = self._group(reader)
        prefix, place = str(group["prefix"]), str(group["auth0_org_id"])
        members = _members(reader, self.group_id)
        steps = [
            removal(Kind.ROLE, (row.id, self.group_id), row.role, f"{row.email} in {prefix}")
            for row in members
        ]
        if self.provider is None:
            accounts = sorted({row.account for row in members if account_of(row.account)})
            if accounts:
                require_provider(self, "archive the group")
            left = f"remove all members and invitations of organization {place}"
            return Plan(tuple(steps), left=(left,) if steps else ())
        found = self.provider.run(_Emptying(place, prefix).steps)
        if found is None:
            note = f"The identity provider has no organization {place}, so only the database"
            return Plan(tuple(steps), notes=(f"{note} changes.",))
        return Plan((*steps, *found))


def _members(reader: Reader, group_id: int) -> list[sa.Row[Any]]:
    return list(
        reader.execute(
            sa.select(
                USERS.c.id,
                USERS.c.email,
                USERS.c.auth0_user_id.label("account"),
                ROLES.c.name.label("role"),
            )
            .join(USER_ROLES, USER_ROLES.c.user_id == USERS.c.id)
            .join(ROLES, ROLES.c.id == USER_ROLES.c.role_id)
            .where(USER_ROLES.c.group_id == group_id)
            .order_by(USERS.c.id, ROLES.c.name)
        )
    )


@dataclass(frozen=True)
class _Emptying:
    """The removal of everyone from an organization."""

    place: str
    group: str

    async def steps(self, management: Management) -> list[Step] | None:
        """Return the steps, or None if the organization does not exist."""
        try:
            members = await management.members(self.place)
            invitations = await management.invited(self.place)
        except ManagementError as error:
            if not error.absent:
                raise
            return None
        members.sort(key=lambda member: member.id)
        found = []
        for member in members:
            key, item = (self.place, member.id), f"{_address(member)} in {self.group}"
            found += [removal(Kind.MEMBER_ROLE, key, name, item) for name in member.roles]
        for member in members:
            key, item = (self.place, member.id), f"{_address(member)} in {self.group}"
            found.append(removal(Kind.MEMBERSHIP, key, EXISTS, item))
        for one in sorted(invitations, key=lambda one: one.id):
            item = f"{one.email} to {self.group}"
            found.append(removal(Kind.INVITATION, (self.place, one.id), EXISTS, item))
        return found


def _address(member: Member) -> str:
    return member.email or member.id


# Deletion


@dataclass
class GroupDeletion(GroupPlanner):
    """Planner of the deletion of a group that nothing refers to, and of its organization."""

    def lock(self, connection: sa.Connection) -> None:
        """Lock the group against new references, too."""
        lock_groups(connection, [self.group_id], delete=True)

    def plan(self, reader: Reader) -> Plan:
        """Return the plan; see `Planner.plan`."""
        group = self._group(reader)
        name, place = str(group["name"]), str(group["auth0_org_id"])
        blocking = list(uses_of_groups(reader, [self.group_id]).get(self.group_id, ()))
        there = None
        if self.provider is not None:
            there = self.provider.run(_Look(place).look)
            if there is not None and there.members:
                blocking.append(f"members at the identity provider: {there.members:,}")
        if blocking:
            raise ConflictError(
                f"Cannot delete group {name}, because other data refer to it (listed below); "
                "nothing was written.",
                hint="Delete or move these first. To take away everyone's access and keep the "
                f"data: aspencli groups archive {self.group_id}",
                details=blocking,
            )
        steps = (Step(Kind.GROUP, (self.group_id,), EXISTS, group, None, name),)
        if self.provider is None:
            return Plan(steps, left=(f"delete organization {place}",))
        if there is None:
            return Plan(steps, notes=(f"The identity provider has no organization {place}.",))
        return Plan(
            steps, last=(removal(Kind.ORGANIZATION, (place,), EXISTS, place),), notes=there.notes
        )


@dataclass(frozen=True)
class _Organization:
    """The number of members and invitations of an organization."""

    members: int
    invitations: int

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the notes of a plan that deletes it."""
        if not self.invitations:
            return ()
        return (f"Invitations that are deleted with it: {self.invitations:,}",)


@dataclass(frozen=True)
class _Look:
    """A look at an organization."""

    place: str

    async def look(self, management: Management) -> _Organization | None:
        """Return what it has, or None if it does not exist."""
        if await management.organization(self.place) is None:
            return None
        members = await management.members(self.place)
        return _Organization(len(members), len(await management.invited(self.place)))


@dataclass
class OrganizationDeletion(Planner):
    """Planner of the deletion of an organization that belongs to no group.

    Args:
        organization: Its ID.
        provider: The identity provider.
    """

    organization: str
    provider: IdentityProvider | None

    def plan(self, reader: Reader) -> Plan:
        """Return the plan; see `Planner.plan`.

        Raises:
            NotFoundError: The organization does not exist.
        """
        place = self.organization
        _refuse_owned(reader, place)
        provider = self.provider
        assert provider is not None  # noqa: S101 - the command has checked it
        there = provider.run(_Look(place).look)
        if there is None:
            raise NotFoundError(
                f"No such group or organization: {place!r}", hint="See: aspencli groups list"
            )
        if there.members:
            raise ConflictError(
                f"Organization {place} still has {there.members:,} members; nothing was written.",
                hint="Remove them at the identity provider first.",
            )
        return Plan(
            (), last=(removal(Kind.ORGANIZATION, (place,), EXISTS, place),), notes=there.notes
        )


def _refuse_owned(reader: Reader, organization: str) -> None:
    query = sa.select(GROUPS.c.name).where(GROUPS.c.auth0_org_id == organization)
    if name := reader.scalar(query):
        raise ConflictError(
            f"Organization {organization} belongs to group {name} now; nothing was written.",
            hint="See: aspencli groups list",
        )
