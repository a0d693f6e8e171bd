"""Authorization: the table of permissions, and the SQL filters derived from it.

A permission comes from a role over the group that owns an object. Users have such a role as members
of that group, or because that group granted one to the group in the path (``group_roles``).
System administrators have no permissions here; endpoints check for them separately.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.database.models import (
    Group,
    GroupRole,
    PhyloRun,
    PhyloTree,
    Role,
    Sample,
    User,
    UserRole,
)


class RoleName(StrEnum):
    """The names of roles, as in `aspen.database.models.Role`, the strongest first."""

    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


class Action(StrEnum):
    """An action on an object or on a group."""

    READ = "read"
    READ_PRIVATE = "read_private"
    """See the private identifier."""
    SEQUENCES = "sequences"
    """Download the sequence."""
    WRITE = "write"
    CREATE_SAMPLE = "create_sample"
    CREATE_PHYLO_RUN = "create_phylorun"
    INVITE_MEMBERS = "invite_members"


Condition = sa.ColumnElement[bool]
YES: Condition = sa.true()
NO: Condition = sa.false()
SHARED: Condition = ~Sample.private

# The formatter would undo the alignment of the columns.
# fmt: off
_SAMPLE: Mapping[Action, tuple[Condition, Condition, Condition]] = {
    #                         admin member viewer
    Action.READ:             (YES,  YES,   SHARED),
    Action.READ_PRIVATE:     (YES,  YES,   NO),
    Action.SEQUENCES:        (YES,  YES,   NO),
    Action.WRITE:            (YES,  YES,   NO),
}
_PHYLO: Mapping[Action, tuple[Condition, Condition, Condition]] = {
    Action.READ:             (YES,  YES,   YES),
    Action.WRITE:            (YES,  YES,   NO),
}
_GROUP: Mapping[Action, tuple[bool, bool, bool]] = {
    Action.READ:             (True, True,  False),
    Action.CREATE_SAMPLE:    (True, True,  False),
    Action.CREATE_PHYLO_RUN: (True, True,  False),
    Action.INVITE_MEMBERS:   (True, False, False),
}
# fmt: on
ROLES = tuple(RoleName)


@dataclass(frozen=True)
class Access:
    """The permissions of a user in the context of a group."""

    user: User
    group: Group  # that in the path
    own: frozenset[RoleName]  # the user's roles in that group; empty if the user is not a member
    over: Mapping[int, frozenset[RoleName]]  # by the ID of the owning group, the path's included

    def may(self, action: Action) -> bool:
        """Return True if the user may perform the action on the group itself."""
        return any(
            allowed for role, allowed in zip(ROLES, _GROUP[action], strict=True) if role in self.own
        )

    def samples(self, action: Action) -> Condition:
        """Return a filter on `Sample` for samples on which the user may perform the action."""
        return self._filter(Sample.submitting_group_id, _SAMPLE[action])

    def phylo_runs(self, action: Action) -> Condition:
        """Return a filter on `PhyloRun` for runs on which the user may perform the action."""
        return self._filter(PhyloRun.group_id, _PHYLO[action])

    def phylo_trees(self, action: Action) -> Condition:
        """Return a filter on `PhyloTree` for trees on which the user may perform the action."""
        return self._filter(PhyloTree.group_id, _PHYLO[action])

    def _filter(self, owner: Any, row: tuple[Condition, Condition, Condition]) -> Condition:
        granted = [
            sa.and_(owner.in_(owners), condition)
            for role, condition in zip(ROLES, row, strict=True)
            if condition is not NO and (owners := self._owners(role))
        ]
        return sa.or_(NO, *granted)

    def _owners(self, role: RoleName) -> list[int]:
        return sorted(owner for owner, roles in self.over.items() if role in roles)


async def load_access(db: AsyncSession, user: User, group_id: int) -> Access | None:
    """Return a user's permissions in a group's context, or None if there is no such group."""
    group = await db.get(Group, group_id)
    if group is None:
        return None
    direct = sa.select(UserRole.group_id.label("owner"), UserRole.role_id, sa.true().label("own"))
    granted = sa.select(GroupRole.grantor_group_id, GroupRole.role_id, sa.false())
    held = sa.union_all(
        direct.where(UserRole.user_id == user.id, UserRole.group_id == group_id),
        granted.where(GroupRole.grantee_group_id == group_id),
    ).subquery()
    query = sa.select(held.c.owner, Role.name, held.c.own).join(Role, Role.id == held.c.role_id)
    rows = [
        (owner, RoleName(name), own)
        for owner, name, own in await db.execute(query)
        if name in ROLES
    ]
    over: dict[int, frozenset[RoleName]] = {}
    for owner, name, _ in rows:
        over[owner] = over.get(owner, frozenset()) | {name}
    return Access(user, group, frozenset(name for _, name, own in rows if own), over)
