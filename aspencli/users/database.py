"""Users in the database: describe one, or create one with a role in a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from aspen.database.engine import Database
from aspen.database.models import Sample, User, UserRole
from aspen.database.roles import Right
from aspen.database.sessions import Reader, ReadSession
from aspen.database.tables import USERS
from aspencli.errors import BadInputError, ConflictError, NotFoundError
from aspencli.reference.database import find_group, find_role
from aspencli.text import as_id
from aspencli.users.listing import user_rows
from aspencli.users.remote import NewUser

RIGHTS = (Right("INSERT", "aspen.users"), Right("INSERT", "aspen.user_roles"))
"""The rights that `create_user` needs."""

_DETAILS = ("agreed_to_tos", "acknowledged_policy_version", "gisaid_submitter_id", "created_at")


def show_user(session: ReadSession, key: str) -> dict[str, Any]:
    """Return the user with this ID, e-mail address (ignoring case), or Auth0 ID.

    Raises:
        NotFoundError: No user matches.
        BadInputError: Several users match.
    """
    user = session.get_one(User, find_user(session, key).id)
    return details_of(session, user)


def find_user(reader: Reader, key: str) -> sa.Row[Any]:
    """Return the ID, name, address, and Auth0 ID of the user that has one of them as the key.

    Letter case of an e-mail address is ignored if no address is the same.

    Raises:
        NotFoundError: No user matches.
        BadInputError: Several users match.
    """
    user = USERS.c
    exact = sa.or_(user.id == as_id(key), user.email == key, user.auth0_user_id == key)
    query: sa.Select[Any] = sa.select(user.id, user.name, user.email, user.auth0_user_id)
    for condition in (exact, sa.func.lower(user.email) == sa.func.lower(key)):
        found = reader.execute(query.where(condition).order_by(user.id)).all()
        if len(found) == 1:
            return found[0]
        if found:
            raise BadInputError(
                f"Several users match {key!r}.",
                hint="Use the ID of one of them.",
                details=[describe_user(each) for each in found],
            )
    raise NotFoundError(
        f"No such user: {key!r}",
        hint="Search by part of the name or e-mail address: aspencli users list --search TEXT",
    )


def details_of(session: ReadSession, user: User) -> dict[str, Any]:
    """Return a loaded user with all details, and the number of samples that the user uploaded.

    IDs that link the user to other services are left out on purpose.
    """
    uploaded = sa.select(sa.func.count()).where(Sample.uploaded_by_id == user.id)
    details = {key: getattr(user, key) for key in _DETAILS}
    (row,) = user_rows(session, USERS.c.id == user.id)
    return {**row._asdict(), **details, "samples": session.scalar(uploaded) or 0}


def describe_user(user: User | sa.Row[Any]) -> str:
    """Describe the user in one line, including everything a user can be looked up by."""
    return f"{user.id}  {user.name} <{user.email}> {user.auth0_user_id}"


@dataclass(frozen=True)
class UserPlan:
    """The plan for creating a user."""

    wanted: NewUser  # the user, with the group's full name and the role as the database spells it
    group_id: int
    existing: dict[str, Any] | None  # the user, if an identical one with that role already exists


@dataclass(frozen=True)
class Onboarded:
    """The user as now stored in the database, and whether this run created it."""

    user: dict[str, Any]
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
        replace(wanted, group=group.name, role=role.name),
        group.id,
        details_of(session, existing) if existing else None,
    )


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
        roles=[UserRole(group_id=group.id, role_id=role.id)],
    )
    session.add(user)
    session.flush()
    return Onboarded(details_of(session, user), created=True)


def _existing(
    session: ReadSession, wanted: NewUser, group: sa.Row[Any], role: sa.Row[Any]
) -> User | None:
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


def _differences(user: User, wanted: NewUser, group: sa.Row[Any], role: sa.Row[Any]) -> list[str]:
    has = {(each.group_id, each.role_id) for each in user.roles}
    pairs = (
        ("e-mail address", user.email.lower(), wanted.email.lower()),
        ("Auth0 ID", user.auth0_user_id, wanted.auth0_user_id),
        ("name", user.name, wanted.name),
        ("system_admin", user.system_admin, wanted.system_admin),
    )
    lines = [
        f"its {what} is {there!r}, not {here!r}" for what, there, here in pairs if there != here
    ]
    if (group.id, role.id) not in has:
        lines.append(f"it does not have the role {role.name} in group {group.name}")
    return lines


def _conflict(
    found: Sequence[User], wanted: NewUser, group: sa.Row[Any], role: sa.Row[Any]
) -> ConflictError:
    details = []
    for user in found:
        details.append(f"user {describe_user(user)}")
        details += [f"  {line}" for line in _differences(user, wanted, group, role)]
    return ConflictError(
        f"{wanted.email} or {wanted.auth0_user_id} already belongs to a user; nothing was written.",
        hint=f"See: aspencli users show {found[0].id}",
        details=details,
    )
