"""List and describe users from the database."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import selectinload

from aspencli.errors import BadInputError, NotFoundError
from aspencli.services.checks import as_id
from aspencli.services.lookups import find_group, find_role
from db.models import Sample, User, UserRole
from db.sessions import ReadSession

_BATCH = 500


@dataclass(frozen=True)
class UserQuery:
    """A filter for users; None means no restriction.

    Attributes:
        group: ID, name, or prefix of a group in which they have a role.
        role: A role that they have (in that group, if given).
        system_admin: True for system administrators, False for all other users.
        search: Part of the name or e-mail address, ignoring case.
        after: The ID of the user to continue after.
    """

    group: str | None = None
    role: str | None = None
    system_admin: bool | None = None
    search: str | None = None
    after: int | None = None


@dataclass(frozen=True)
class UserRow:
    """A user in a list.

    Attributes:
        groups: Each group in which the user has a role: ``id``, ``name``, and ``roles``.
    """

    id: int
    name: str
    email: str
    auth0_user_id: str
    system_admin: bool
    groups: list[dict[str, Any]]


@dataclass(frozen=True)
class UserDetails(UserRow):
    """A user with all details.

    IDs that link the user to other services are left out on purpose.

    Attributes:
        samples: The number of samples that the user uploaded.
    """

    agreed_to_tos: bool
    acknowledged_policy_version: dt.date | None
    gisaid_submitter_id: str | None
    created_at: dt.datetime | None
    samples: int


class UserList:
    """The users that match a query, ordered by ID.

    Args:
        session: The database session; it must stay open while rows are read.
        query: The filter.

    Raises:
        NotFoundError: The group or the role does not exist.
        BadInputError: The group is ambiguous.
    """

    def __init__(self, session: ReadSession, query: UserQuery):
        self._session = session
        self._conditions = list(_conditions(session, query))

    def rows(self, limit: int | None = None) -> Iterator[UserRow]:
        """Yield the rows; all of them if there is no limit."""
        statement = (
            sa.select(User).where(*self._conditions).order_by(User.id).limit(limit).options(*_ROLES)
        )
        for user in self._session.scalars(statement, execution_options={"yield_per": _BATCH}):
            yield _row(user)

    def count(self) -> int:
        """Return the total number of matches."""
        statement = sa.select(sa.func.count()).select_from(User).where(*self._conditions)
        return self._session.scalar(statement) or 0


def show_user(session: ReadSession, key: str) -> UserDetails:
    """Return the user with this ID, e-mail address (ignoring case), or Auth0 ID.

    Raises:
        NotFoundError: No user matches.
        BadInputError: Several users match.
    """
    exact = sa.or_(User.id == as_id(key), User.email == key, User.auth0_user_id == key)
    for condition in (exact, sa.func.lower(User.email) == sa.func.lower(key)):
        found = session.scalars(sa.select(User).where(condition).order_by(User.id)).all()
        if len(found) == 1:
            return details_of(session, found[0])
        if found:
            raise BadInputError(
                f"several users go by {key!r}",
                hint="Give the id of one.",
                details=[describe_user(user) for user in found],
            )
    raise NotFoundError(
        f"there is no user {key!r}",
        hint="Look for a part of the name or address: aspencli users list --search TEXT",
    )


def details_of(session: ReadSession, user: User) -> UserDetails:
    """Return the details of a loaded user."""
    uploaded = sa.select(sa.func.count()).where(Sample.uploaded_by_id == user.id)
    return UserDetails(
        **vars(_row(user)),
        agreed_to_tos=user.agreed_to_tos,
        acknowledged_policy_version=user.acknowledged_policy_version,
        gisaid_submitter_id=user.gisaid_submitter_id,
        created_at=user.created_at,
        samples=session.scalar(uploaded) or 0,
    )


def describe_user(user: User) -> str:
    """Describe the user in one line, including everything a user can be looked up by."""
    return f"{user.id}  {user.name} <{user.email}> {user.auth0_user_id}"


_ROLES = (
    selectinload(User.roles).joinedload(UserRole.group),
    selectinload(User.roles).joinedload(UserRole.role),
)


def _conditions(session: ReadSession, query: UserQuery) -> Iterator[sa.ColumnElement[bool]]:
    has = []
    if query.group is not None:
        has.append(UserRole.group_id == find_group(session, query.group).id)
    if query.role is not None:
        has.append(UserRole.role_id == find_role(session, query.role).id)
    if has:
        yield User.roles.any(sa.and_(*has))
    if query.system_admin is not None:
        yield User.system_admin.is_(query.system_admin)
    if query.search is not None:
        yield sa.or_(
            User.name.icontains(query.search, autoescape=True),
            User.email.icontains(query.search, autoescape=True),
        )
    if query.after is not None:
        yield User.id > query.after


def _row(user: User) -> UserRow:
    return UserRow(
        user.id,
        user.name,
        user.email,
        user.auth0_user_id,
        user.system_admin,
        _groups(user.roles),
    )


def _groups(roles: Iterable[UserRole]) -> list[dict[str, Any]]:
    groups: dict[int, dict[str, Any]] = {}
    for role in sorted(roles, key=lambda role: (role.group_id, role.role.name)):
        group = groups.setdefault(
            role.group_id, {"id": role.group_id, "name": role.group.name, "roles": []}
        )
        group["roles"].append(role.role.name)
    return list(groups.values())
