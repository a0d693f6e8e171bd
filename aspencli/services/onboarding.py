"""Create a user in the database: plan it, then write user and role in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from aspencli.errors import ConflictError
from aspencli.services.lookups import find_group, find_role
from aspencli.services.new_user import NewUser
from aspencli.services.users import UserDetails, describe_user, details_of
from db.database import Database
from db.models import Group, Role, User, UserRole
from db.rights import Right
from db.sessions import ReadSession


@dataclass(frozen=True)
class UserPlan:
    """The plan for creating a user.

    Attributes:
        wanted: The user, with the group's full name and the role as the database spells it.
        group_id: The group's ID.
        existing: The user, if an identical one with that role already exists.
    """

    wanted: NewUser
    group_id: int
    existing: UserDetails | None


@dataclass(frozen=True)
class Onboarded:
    """The user as now stored in the database, and whether this run created it."""

    user: UserDetails
    created: bool


def plan_user(session: ReadSession, wanted: NewUser) -> UserPlan:
    """Return the plan for creating the user.

    Raises:
        NotFoundError: The group or the role does not exist.
        ConflictError: The e-mail address or Auth0 ID belongs to another user, or to this user with
            a different name, role, or ``system_admin``.
    """
    group, role = find_group(session, wanted.group), find_role(session, wanted.role)
    existing = _existing(session, wanted, group, role)
    return UserPlan(
        NewUser(
            wanted.name,
            wanted.email,
            wanted.auth0_user_id,
            group.name,
            role.name,
            wanted.system_admin,
        ),
        group.id,
        details_of(session, existing) if existing else None,
    )


RIGHTS = (Right("INSERT", "aspen.users"), Right("INSERT", "aspen.user_roles"))
"""The rights that `create_user` needs."""


def create_user(database: Database, wanted: NewUser) -> Onboarded:
    """Write the user and the role in one transaction; safe to repeat.

    Raises:
        NotFoundError: As `plan_user`.
        ConflictError: As `plan_user`, including when another process created the user first.
    """
    try:
        with database.begin() as session:
            return _write(session, wanted)
    except IntegrityError:
        # Another process wrote between our check and our write. The current state decides: an
        # identical user is fine, a different one is a conflict, none means an unrelated error.
        with database.reading() as session:
            existing = plan_user(session, wanted).existing
        if existing is None:
            raise
        return Onboarded(existing, created=False)


def _write(session: ReadSession, wanted: NewUser) -> Onboarded:
    group, role = find_group(session, wanted.group), find_role(session, wanted.role)
    existing = _existing(session, wanted, group, role)
    if existing is not None:
        return Onboarded(details_of(session, existing), created=False)
    user = User(
        name=wanted.name,
        email=wanted.email,
        auth0_user_id=wanted.auth0_user_id,
        system_admin=wanted.system_admin,
        roles=[UserRole(group=group, role=role)],
    )
    session.add(user)
    session.flush()
    return Onboarded(details_of(session, user), created=True)


def _existing(session: ReadSession, wanted: NewUser, group: Group, role: Role) -> User | None:
    """Return the identical user if there is one, or None if no user conflicts."""
    found = session.scalars(
        sa.select(User)
        .where(
            sa.or_(
                sa.func.lower(User.email) == sa.func.lower(wanted.email),
                User.auth0_user_id == wanted.auth0_user_id,
            )
        )
        .order_by(User.id)
    ).all()
    if not found:
        return None
    if len(found) > 1 or _differences(found[0], wanted, group, role):
        raise _conflict(found, wanted, group, role)
    return found[0]


def _differences(user: User, wanted: NewUser, group: Group, role: Role) -> list[str]:
    has = {(each.group_id, each.role_id) for each in user.roles}
    pairs = (
        ("e-mail address", user.email.lower(), wanted.email.lower()),
        ("Auth0 id", user.auth0_user_id, wanted.auth0_user_id),
        ("name", user.name, wanted.name),
        ("system_admin", user.system_admin, wanted.system_admin),
    )
    lines = [
        f"its {what} is {there!r}, not {here!r}" for what, there, here in pairs if there != here
    ]
    if (group.id, role.id) not in has:
        lines.append(f"it is no {role.name} of group {group.name}")
    return lines


def _conflict(found: Sequence[User], wanted: NewUser, group: Group, role: Role) -> ConflictError:
    details = []
    for user in found:
        details.append(f"user {describe_user(user)}")
        details += [f"  {line}" for line in _differences(user, wanted, group, role)]
    return ConflictError(
        f"{wanted.email} or {wanted.auth0_user_id} belongs to a user already; nothing was written",
        hint=f"Look at it: aspencli users show {found[0].id}",
        details=details,
    )
