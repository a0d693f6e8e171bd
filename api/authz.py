"""Who may do what: the table, and the SQL filters that it turns into.

A right comes from a role over the group that owns the thing. A user has such a role by being in
that group, or because that group granted one to the group whose path is used (``group_roles``).
System administrators have no right here; what they may is decided where it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Group, GroupRole, PhyloRun, PhyloTree, Role, Sample, User, UserRole


class RoleName(StrEnum):
    """What `db.models.Role` calls them."""

    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


class Action(StrEnum):
    """What one may want to do with a thing, or with a group."""

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

# The columns are kept in line, which the formatter would undo.
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
_COLUMNS = (RoleName.ADMIN, RoleName.MEMBER, RoleName.VIEWER)


@dataclass(frozen=True)
class Access:
    """A user in the context of a group: what the filters are made for.

    Attributes:
        user: Who asks.
        group: In whose path.
        own: The roles of the user in that group; empty for somebody who is not in it.
        over: The roles over each owning group (its id), the own group included.
    """

    user: User
    group: Group
    own: frozenset[RoleName]
    over: Mapping[int, frozenset[RoleName]]

    def may(self, action: Action) -> bool:
        """Whether the user may do that with the group itself."""
        return any(
            allowed
            for role, allowed in zip(_COLUMNS, _GROUP[action], strict=True)
            if role in self.own
        )

    def samples(self, action: Action) -> Condition:
        """The samples with which the user may do that: a filter on `Sample`."""
        return self._filter(Sample.submitting_group_id, _SAMPLE[action])

    def phylo_runs(self, action: Action) -> Condition:
        """The runs with which the user may do that: a filter on `PhyloRun`."""
        return self._filter(PhyloRun.group_id, _PHYLO[action])

    def phylo_trees(self, action: Action) -> Condition:
        """The trees with which the user may do that: a filter on `PhyloTree`."""
        return self._filter(PhyloTree.group_id, _PHYLO[action])

    def _filter(self, owner: Any, row: tuple[Condition, Condition, Condition]) -> Condition:
        granted = [
            sa.and_(owner.in_(owners), condition)
            for role, condition in zip(_COLUMNS, row, strict=True)
            if condition is not NO and (owners := self._owners(role))
        ]
        return sa.or_(NO, *granted)

    def _owners(self, role: RoleName) -> list[int]:
        return sorted(owner for owner, roles in self.over.items() if role in roles)


async def load_access(db: AsyncSession, user: User, group_id: int) -> Access | None:
    """The user in the context of a group; None where there is no such group."""
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
        if name in _COLUMNS
    ]
    over: dict[int, frozenset[RoleName]] = {}
    for owner, name, _ in rows:
        over[owner] = over.get(owner, frozenset()) | {name}
    return Access(user, group, frozenset(name for _, name, own in rows if own), over)
