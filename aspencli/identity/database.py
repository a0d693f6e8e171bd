"""People and groups in the database: read many, and write one in a transaction that is held.

A transaction locks its person or group against other runs of this program. The lock ends with the
transaction, so it also works through a pooler, and ends if the process or the connection does.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from aspen.database.engine import Database
from aspen.database.errors import sqlstate
from aspen.database.roles import Right
from aspen.database.sessions import Reader, WriteSession
from aspen.database.tables import GROUPS, ROLES, USER_ROLES, USERS
from aspencli.errors import ConflictError
from aspencli.identity.directory import OFFBOARDED
from aspencli.identity.people import GroupPlace, StoredUser
from aspencli.reference.database import find_group

RIGHTS = (
    Right("INSERT", "aspen.users"),
    Right("UPDATE", "aspen.users"),
    Right("INSERT", "aspen.user_roles"),
)
"""The rights that onboarding needs."""
_UNIQUE_VIOLATION = "23505"
_LOCK = sa.text("SELECT pg_try_advisory_xact_lock(:key)")


def find_places(reader: Reader, keys: Iterable[str]) -> dict[str, GroupPlace]:
    """Return the group for each ID, name, or prefix.

    Raises:
        NotFoundError: A group does not exist.
        BadInputError: A key matches several groups.
    """
    found = {key: find_group(reader, key).id for key in dict.fromkeys(keys)}
    query = sa.select(GROUPS.c.id, GROUPS.c.name, GROUPS.c.prefix, GROUPS.c.auth0_org_id)
    rows = reader.execute(query.where(GROUPS.c.id.in_(set(found.values()))))
    places = {row.id: GroupPlace(*row) for row in rows}
    return {key: places[id_] for key, id_ in found.items()}


def find_users(
    reader: Reader, *, emails: Collection[str] = (), accounts: Collection[str] = ()
) -> list[StoredUser]:
    """Return the users who have one of the addresses (in lowercase) or accounts."""
    columns = (USERS.c.id, USERS.c.name, USERS.c.email, USERS.c.auth0_user_id, USERS.c.system_admin)
    query = sa.select(*columns).where(
        sa.or_(
            sa.func.lower(USERS.c.email).in_(list(emails)),
            USERS.c.auth0_user_id.in_(list(accounts)),
        )
    )
    return [StoredUser(*row) for row in reader.execute(query.order_by(USERS.c.id))]


def find_roles(reader: Reader, users: Collection[int]) -> dict[int, dict[int, tuple[str, ...]]]:
    """Return the names of each user's roles, by user and by group."""
    query = (
        sa.select(USER_ROLES.c.user_id, USER_ROLES.c.group_id, ROLES.c.name)
        .join(ROLES, ROLES.c.id == USER_ROLES.c.role_id)
        .where(USER_ROLES.c.user_id.in_(list(users)))
        .order_by(ROLES.c.name)
    )
    found: dict[int, dict[int, tuple[str, ...]]] = defaultdict(dict)
    for user, group, role in reader.execute(query):
        found[user][group] = (*found[user].get(group, ()), role)
    return dict(found)


class LockedTransaction:
    """A transaction that holds a lock of its own; other threads may continue it.

    Args:
        database: The database, which may be written.
        item: What is locked, such as ``person ada@lab.example.org``.
        busy: The message if another run has the lock.

    Raises:
        ConflictError: Another run has the lock.
    """

    def __init__(self, database: Database, item: str, busy: str):
        session = database.make_session()
        if not isinstance(session, WriteSession):
            raise TypeError("the database is read-only")
        self.session = session
        try:
            if not session.scalar(_LOCK, {"key": _lock_key(item)}):
                raise ConflictError(
                    busy, hint="Wait until it has finished, then run the command again."
                )
        except BaseException:
            session.close()
            raise

    def mark(self) -> None:
        """Mark the point that `undo` goes back to."""
        self._mark = self.session.begin_nested()

    def undo(self) -> None:
        """Undo what was written since the mark; the lock stays.

        Raises:
            SQLAlchemyError: The connection is lost, and the lock with it.
        """
        self._mark.rollback()

    def check(self) -> None:
        """Check that the connection still works, and so the lock is still held.

        Raises:
            DBAPIError: It does not.
        """
        self.session.execute(sa.text("SELECT 1"))

    def commit(self) -> None:
        """Commit, which ends the lock."""
        self.session.commit()

    def close(self) -> None:
        """Roll back unless it is committed, which ends the lock."""
        self.session.close()

    def _write(self, write: Callable[[], object], what: str) -> None:
        """Write something of which there may be only one.

        Raises:
            ConflictError: Someone else was faster.
        """
        try:
            write()
        except IntegrityError as error:
            if sqlstate(error) != _UNIQUE_VIOLATION:
                raise
            raise ConflictError(
                f"Someone else created {what} at the same moment.",
                hint="Run the command again to see the current state.",
            ) from error


class PersonTransaction(LockedTransaction):
    """A transaction that holds the lock on a person."""

    def __init__(self, database: Database, email: str):
        busy = f"Another run is onboarding or offboarding {email} at this moment."
        super().__init__(database, f"person {email.lower()}", busy)

    def users(
        self, *, emails: Collection[str] = (), accounts: Collection[str] = ()
    ) -> list[StoredUser]:
        """Return the users with these addresses or accounts as they are now."""
        return find_users(self.session, emails=emails, accounts=accounts)

    def roles(self, user: int) -> Mapping[int, tuple[str, ...]]:
        """Return the names of a user's roles by group, as they are now."""
        return find_roles(self.session, [user]).get(user, {})

    def create_user(self, name: str, email: str, account: str) -> int:
        """Create a user, and return the ID.

        Raises:
            ConflictError: Another user has the address or the account.
        """
        from aspen.database.models import User

        user = User(name=name, email=email, auth0_user_id=account, system_admin=False)
        self.session.add(user)
        self._write(self.session.flush, f"a user for {email}")
        return user.id

    def link_user(self, user: int, account: str) -> None:
        """Make an account that of a user.

        Raises:
            ConflictError: Another user has the account.
        """
        values = {"auth0_user_id": account}
        change = sa.update(USERS).where(USERS.c.id == user).values(values)
        self._write(partial(self.session.execute, change), f"a user for {account}")

    def unlink_user(self, user: StoredUser) -> None:
        """Detach a user from the account, so that its tokens are rejected; revoke system admin.

        The account's ID is kept in the value, for whoever looks at it later.
        """
        if user.is_offboarded:
            return
        values = {"auth0_user_id": f"{OFFBOARDED}{user.auth0_user_id}", "system_admin": False}
        self.session.execute(sa.update(USERS).where(USERS.c.id == user.id).values(values))

    def add_role(self, user: int, group: int, role: str) -> None:
        """Give a user a role in a group.

        Raises:
            ConflictError: The user has it already.
        """
        role_id = sa.select(ROLES.c.id).where(ROLES.c.name == role).scalar_subquery()
        values = {"user_id": user, "group_id": group, "role_id": role_id}
        insert = sa.insert(USER_ROLES).values(values)
        self._write(partial(self.session.execute, insert), f"the role {role}")

    def remove_roles(self, user: int) -> None:
        """Take all roles from a user."""
        self.session.execute(sa.delete(USER_ROLES).where(USER_ROLES.c.user_id == user))


class GroupTransaction(LockedTransaction):
    """A transaction that holds the lock on a new group, by its prefix."""

    def __init__(self, database: Database, prefix: str):
        busy = f"Another run is onboarding the group with prefix {prefix} at this moment."
        super().__init__(database, f"group {prefix.lower()}", busy)

    def create_group(self, fields: Mapping[str, Any]) -> int:
        """Create a group, and return its ID; its organization follows.

        Raises:
            ConflictError: Another group has the name or the prefix.
        """
        from aspen.database.models import Group

        group = Group(**fields, auth0_org_id=f"pending-{uuid.uuid4()}")
        self.session.add(group)
        what = f"a group {fields['name']!r} or with the prefix {fields['prefix']!r}"
        self._write(self.session.flush, what)
        return group.id

    def link_group(self, group: int, organization: str) -> None:
        """Make an organization that of a group.

        Raises:
            ConflictError: Another group has the organization.
        """
        values = {"auth0_org_id": organization}
        change = sa.update(GROUPS).where(GROUPS.c.id == group).values(values)
        self._write(partial(self.session.execute, change), f"a group for {organization}")

    def delete_group(self, group: int) -> None:
        """Delete a group.

        Raises:
            IntegrityError: It has users, samples, or anything else.
        """
        self.session.execute(sa.delete(GROUPS).where(GROUPS.c.id == group))


def _lock_key(item: str) -> int:
    """Return the number of a lock in PostgreSQL's 64-bit space."""
    digest = hashlib.sha256(f"aspencli {item}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
