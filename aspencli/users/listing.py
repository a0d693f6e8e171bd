"""The list of users with their groups and roles, read without the models."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from aspen.database.tables import GROUPS, ROLES, USER_ROLES, USERS, holds
from aspencli.reference.database import find_group, find_role

if TYPE_CHECKING:
    from aspen.database.sessions import Reader


@dataclasses.dataclass(frozen=True)
class UserQuery:
    """A filter for users; None means no restriction."""

    group: str | None = None  # ID, name, or prefix of a group in which they have a role
    role: str | None = None  # a role that they have (in that group, if given)
    system_admin: bool | None = None  # True for system administrators, False for all other users
    search: str | None = None  # part of the name or e-mail address, ignoring case
    after: int | None = None  # the ID of the user to continue after


class UserRow(NamedTuple):
    """A user in a list."""

    id: int
    name: str
    email: str
    auth0_user_id: str
    system_admin: bool
    # Each group in which the user has a role: ``id``, ``name``, and ``roles``.
    groups: list[dict[str, Any]]


class UserList:
    """The users that match a query, ordered by ID.

    Args:
        reader: The database connection; it must stay open while rows are read.
        query: The filter.

    Raises:
        NotFoundError: The group or the role does not exist.
        BadInputError: The group is ambiguous.
    """

    def __init__(self, reader: Reader, query: UserQuery):
        self._reader = reader
        self._conditions = list(_conditions(reader, query))

    def rows(self, limit: int | None = None) -> Generator[UserRow, None, None]:
        """Yield the rows; all of them if there is no limit."""
        yield from user_rows(self._reader, *self._conditions, limit=limit)

    def count(self) -> int:
        """Return the total number of matches."""
        statement = sa.select(sa.func.count()).select_from(USERS).where(*self._conditions)
        return self._reader.scalar(statement) or 0


def user_rows(
    reader: Reader, *conditions: sa.ColumnElement[bool], limit: int | None = None
) -> Iterator[UserRow]:
    """Yield the users for which the conditions hold, ordered by ID."""
    role = sa.func.json_build_array(GROUPS.c.id, GROUPS.c.name, ROLES.c.name)
    roles = (
        sa.select(sa.func.json_agg(role, type_=sa.JSON))
        .select_from(USER_ROLES)
        .join(GROUPS, GROUPS.c.id == USER_ROLES.c.group_id)
        .join(ROLES, ROLES.c.id == USER_ROLES.c.role_id)
        .where(USER_ROLES.c.user_id == USERS.c.id)
        .scalar_subquery()
    )
    fields = (USERS.c[name] for name in UserRow._fields[:-1])
    statement = sa.select(*fields, roles).where(*conditions).order_by(USERS.c.id).limit(limit)
    # All at once: there are thousands, and a server-side cursor takes more round trips.
    for *values, found in reader.execute(statement):
        yield UserRow(*values, _groups(found or ()))  # type: ignore[call-arg] # the first five


def _conditions(reader: Reader, query: UserQuery) -> Iterator[sa.ColumnElement[bool]]:
    has = []
    if query.group is not None:
        has.append(USER_ROLES.c.group_id == find_group(reader, query.group).id)
    if query.role is not None:
        has.append(USER_ROLES.c.role_id == find_role(reader, query.role).id)
    if has:
        yield sa.exists().where(USER_ROLES.c.user_id == USERS.c.id, *has)
    if query.system_admin is not None:
        yield USERS.c.system_admin.is_(query.system_admin)
    if query.search is not None:
        yield sa.or_(holds(USERS.c.name, query.search), holds(USERS.c.email, query.search))
    if query.after is not None:
        yield USERS.c.id > query.after


def _groups(roles: Iterable[tuple[int, str, str]]) -> list[dict[str, Any]]:
    groups: dict[int, dict[str, Any]] = {}
    for group_id, name, role in sorted(roles, key=lambda found: (found[0], found[2])):
        group = groups.setdefault(group_id, {"id": group_id, "name": name, "roles": []})
        group["roles"].append(role)
    return list(groups.values())
