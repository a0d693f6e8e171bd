"""Plans of changes of one user on both sides: fields, roles, and deletion."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import sqlalchemy as sa

from aspen.database.sessions import Reader
from aspen.database.tables import GROUPS, ROLES, USER_ROLES, USERS
from aspen.identity.management import Account, Invitation, Management, ManagementError
from aspencli.errors import (
    BadInputError,
    ConflictError,
    CredentialsError,
    NotFoundError,
    RefusedError,
)
from aspencli.identity.apply import Plan, Planner
from aspencli.identity.directory import is_own
from aspencli.identity.references import uses_of_users
from aspencli.identity.sides import members_of, roles_of, row_of
from aspencli.identity.steps import EXISTS, Kind, Step, Value, removal
from aspencli.remote.identity import IdentityProvider

ADMIN = "admin"
_AT_SIGN_IN = (
    "At each sign-in the service makes roles equal to those at the identity provider, which would "
    "undo this."
)


def account_of(auth0_user_id: str) -> str | None:
    """Return a user's account at the provider, or None if the user has none there."""
    return auth0_user_id if is_own(auth0_user_id) else None


@dataclass(frozen=True)
class GroupRef:
    """A group and its organization."""

    id: int
    name: str
    prefix: str
    organization: str


def group_refs(reader: Reader, ids: Iterable[int] | None = None) -> dict[int, GroupRef]:
    """Return the groups with these IDs, or all groups, by ID."""
    group = GROUPS.c
    query = sa.select(group.id, group.name, group.prefix, group.auth0_org_id)
    if ids is not None:
        query = query.where(group.id.in_(sorted(set(ids))))
    return {row.id: GroupRef(*row) for row in reader.execute(query)}


@dataclass
class UserPlanner(Planner):
    """A planner for one user.

    Args:
        user_id: The user's ID in the database.
        provider: The identity provider, or None to change only the database.
        database_only: True if the operator asked to change only the database.
        allow_no_admin: True to allow a group, or the service, to have no administrator.
    """

    user_id: int
    provider: IdentityProvider | None
    database_only: bool
    allow_no_admin: bool

    def lock(self, connection: sa.Connection) -> None:
        """Lock the user, and all whom the check of administrators depends on."""
        lock_groups(connection, self._groups(connection))
        admins = USERS.c.system_admin.is_(True) if self._may_end_system_admin() else sa.false()
        lock_users(connection, sa.or_(USERS.c.id == self.user_id, admins))

    def _may_end_system_admin(self) -> bool:
        """Return True if the user may lose the right of a system administrator."""
        return False

    def _groups(self, _reader: Reader) -> Iterable[int]:
        """Return the groups that may lose an administrator."""
        return ()

    def _user(self, reader: Reader) -> dict[str, Any]:
        found = row_of(reader, Kind.USER, self.user_id)
        if found is None:
            raise ConflictError(
                f"Another operator deleted user {self.user_id} in the meantime; nothing was "
                "written.",
                hint="See: aspencli users list",
            )
        return found

    def _plan(self, reader: Reader, steps: Sequence[Step], **more: Any) -> Plan:
        if not self.allow_no_admin:
            refuse_no_admin(reader, steps)
        return Plan(tuple(steps), **more)


def lock_groups(connection: sa.Connection, ids: Iterable[int], *, delete: bool = False) -> None:
    """Lock groups in the order of their IDs; sign-ins and uploads go on unless one is deleted."""
    query = sa.select(GROUPS.c.id).where(GROUPS.c.id.in_(sorted(set(ids)))).order_by(GROUPS.c.id)
    connection.execute(query.with_for_update(key_share=not delete))


def lock_users(
    connection: sa.Connection, condition: sa.ColumnElement[bool], *, delete: bool = False
) -> None:
    """Lock users in the order of their IDs; sign-ins and uploads go on unless one is deleted."""
    query = sa.select(USERS.c.id).where(condition).order_by(USERS.c.id)
    connection.execute(query.with_for_update(key_share=not delete))


def lock_text(connection: sa.Connection, text: str) -> None:
    """Lock a text that must be unique in any letter case, which no constraint ensures."""
    query = "SELECT pg_advisory_xact_lock(hashtext('aspencli'), hashtext(:text))"
    connection.execute(sa.text(query), {"text": text.lower()})


def refuse_no_admin(reader: Reader, steps: Sequence[Step]) -> None:
    """Refuse steps that leave a group or the service without an administrator.

    Raises:
        RefusedError: They would.
    """
    problems = [
        f"group {name} would have no administrator" for name in _groups_without(reader, steps)
    ]
    if _ends_system_admins(reader, steps):
        problems.append("the service would have no system administrator")
    if problems:
        raise RefusedError(
            "This would remove the last administrator (listed below); nothing was written.",
            hint="Give someone else that right first, or add --allow-no-admin.",
            details=problems,
        )


def _groups_without(reader: Reader, steps: Sequence[Step]) -> list[str]:
    changes = [step for step in steps if step.kind is Kind.ROLE and step.field == ADMIN]
    ended = {int(step.key[1]) for step in changes if step.after is None}
    found = []
    for group in group_refs(reader, ended).values():
        before = set(
            reader.scalars(
                sa.select(USER_ROLES.c.user_id)
                .join(ROLES, ROLES.c.id == USER_ROLES.c.role_id)
                .where(USER_ROLES.c.group_id == group.id, ROLES.c.name == ADMIN)
            )
        )
        here = [step for step in changes if step.key[1] == group.id]
        after = before | {step.key[0] for step in here if step.after is not None}
        after -= {step.key[0] for step in here if step.after is None}
        if before and not after:
            found.append(group.name)
    return found


def _ends_system_admins(reader: Reader, steps: Sequence[Step]) -> bool:
    ended = set()
    for step in steps:
        if step.kind is not Kind.USER:
            continue
        is_deleted = step.field == EXISTS and step.after is None
        if is_deleted or (step.field == "system_admin" and not step.after):
            ended.add(step.key[0])
    if not ended:
        return False
    query = sa.select(USERS.c.id).where(USERS.c.system_admin.is_(True))
    before = set(reader.scalars(query))
    return bool(before & ended) and not before - ended


def refuse_taken(reader: Reader, email: str, user_id: int) -> None:
    """Refuse an e-mail address that another user has, in any letter case.

    Raises:
        ConflictError: Another user has it.
    """
    user = USERS.c
    query = sa.select(user.id, user.name, user.email).where(
        sa.func.lower(user.email) == sa.func.lower(email), user.id != user_id
    )
    other = reader.execute(query).first()
    if other is not None:
        raise ConflictError(
            f"The e-mail address {email} already belongs to another user; nothing was written.",
            hint=f"See: aspencli users show {other.id}",
            details=[f"user {other.id}  {other.name} <{other.email}>"],
        )


# Fields


@dataclass
class UserUpdate(UserPlanner):
    """Planner of new values for a user's fields.

    Args:
        wanted: The new values, by column.
        verified: True if the e-mail address needs no verification at the provider.
    """

    wanted: Mapping[str, Value]
    verified: bool = False

    def _may_end_system_admin(self) -> bool:
        return self.wanted.get("system_admin") is False

    def lock(self, connection: sa.Connection) -> None:
        """Lock the user, the new address, and perhaps the system administrators."""
        if "email" in self.wanted:
            lock_text(connection, f"email {self.wanted['email']}")
        super().lock(connection)

    def plan(self, reader: Reader) -> Plan:
        """Return the plan; see `Planner.plan`."""
        user = self._user(reader)
        if "email" in self.wanted:
            refuse_taken(reader, str(self.wanted["email"]), self.user_id)
        steps = [
            Step(Kind.USER, (self.user_id,), field, user[field], value, user["email"])
            for field, value in self.wanted.items()
            if user[field] != value
        ]
        account = account_of(user["auth0_user_id"])
        if account is None or not {"name", "email"} & self.wanted.keys():
            return self._plan(reader, steps)
        if self.provider is None:
            return self._plan(reader, steps, left=tuple(_left(account, steps)))
        there = self.provider.run(lambda management: management.account(account))
        if there is None:
            note = f"The identity provider has no account {account}, so only the database changes."
            return self._plan(reader, steps, notes=(note,))
        return self._plan_both(reader, steps, account, there)

    def _plan_both(
        self, reader: Reader, steps: Sequence[Step], account: str, there: Account
    ) -> Plan:
        """Return the plan with the steps for the account."""
        found = self._account_steps(account, there)
        changes_email = any(step.field == "email" for step in found)
        if changes_email:
            self._refuse_other_account(account)
        needs_mail = changes_email and not self.verified
        email = self.wanted.get("email")
        notes = (f"A verification e-mail will be sent to {email}.",) if needs_mail else ()
        return self._plan(reader, [*steps, *found], notes=notes, verifies=needs_mail)

    def _account_steps(self, account: str, there: Account) -> list[Step]:
        before: dict[str, Value] = {"name": there.name, "email": there.email}
        before["email_verified"] = there.is_verified
        after: dict[str, Value] = {}
        if "name" in self.wanted:
            after["name"] = self.wanted["name"]
        if "email" in self.wanted:
            after["email"] = str(self.wanted["email"]).lower()  # the provider stores it like this
        is_new = after.get("email", before["email"]) != before["email"]
        if is_new or self.verified:
            after["email_verified"] = self.verified
        return [
            Step(Kind.ACCOUNT, (account,), field, before[field], value, account)
            for field, value in after.items()
            # A new address counts as not verified, so this is set again even if it was true.
            if before[field] != value or (is_new and field == "email_verified" and value)
        ]

    def _refuse_other_account(self, account: str) -> None:
        email = str(self.wanted["email"])
        provider = self.provider
        assert provider is not None  # noqa: S101 - this is about an account there
        there = provider.run(lambda management: management.accounts_with_email(email))
        others = [one.id for one in there if account_of(one.id) and one.id != account]
        if others:
            raise ConflictError(
                f"The identity provider has another account with the address {email}: "
                f"{', '.join(others)}; nothing was written.",
                hint="Change or delete that account first, or use another address.",
            )


def _left(account: str, steps: Sequence[Step]) -> list[str]:
    changes = [
        f"{'e-mail address' if step.field == 'email' else step.field} to {step.after!r}"
        for step in steps
        if step.field in {"name", "email"}
    ]
    if not changes:
        return []
    return [f"change the {' and the '.join(changes)} of account {account}"]


# Roles


def require_provider(planner: UserPlanner | Any, what: str, why: str = _AT_SIGN_IN) -> None:
    """Refuse a change that the provider would undo, unless only the database is to change.

    Raises:
        CredentialsError: There are no credentials for the provider.
    """
    if planner.provider is None and not planner.database_only:
        raise CredentialsError(
            f"Cannot {what}: there are no credentials for the target's identity provider; nothing "
            f"was written. {why}",
            hint="Set AUTH0_MANAGEMENT_DOMAIN, AUTH0_MANAGEMENT_CLIENT_ID, and "
            "AUTH0_MANAGEMENT_CLIENT_SECRET, or use a target with a secret. To change only the "
            "database anyway: --database-only",
        )


def list_user_roles(
    reader: Reader, user: sa.Row[Any], provider: IdentityProvider | None
) -> list[dict[str, Any]]:
    """Return a row for each role of a user in a group, with the sides that have it."""
    stored = {(group, name) for _user, group, name in roles_of(reader, [user.id])}
    group = GROUPS.c
    query = sa.select(group.id, group.name, group.prefix, group.auth0_org_id)
    groups = {row.id: row for row in reader.execute(query)}
    account = account_of(user.auth0_user_id)
    provided: set[tuple[int, str]] | None = None
    if provider is not None and account is not None:
        by_place = {row.auth0_org_id: row.id for row in groups.values()}
        provided = provider.run(partial(_roles_at_provider, account, by_place))
    return [
        {
            "group_id": place,
            "group": groups[place].name,
            "prefix": groups[place].prefix,
            "role": name,
            "in_database": (place, name) in stored,
            "at_provider": None if provided is None else (place, name) in provided,
        }
        for place, name in sorted(stored | (provided or set()))
    ]


async def _roles_at_provider(
    account: str, by_place: Mapping[str, int], management: Management
) -> set[tuple[int, str]]:
    try:
        places = await management.organizations_of(account)
    except ManagementError as error:
        if not error.absent:
            raise
        return set()
    return {
        (by_place[place], name)
        for place in places
        if place in by_place
        for name in await management.member_roles(place, account)
    }


@dataclass(frozen=True)
class Membership:
    """A user's roles in a group, on both sides."""

    stored: frozenset[str]  # in the database
    provided: frozenset[str] | None  # at the provider; None if the user is not a member there


@dataclass
class RolePlanner(UserPlanner):
    """A planner for the roles of a user in one group."""

    group: GroupRef

    def _groups(self, _reader: Reader) -> Iterable[int]:
        return (self.group.id,)

    def _membership(self, reader: Reader, account: str | None) -> Membership:
        stored = {
            name
            for _user, group, name in roles_of(reader, [self.user_id])
            if group == self.group.id
        }
        provided = None
        if account is not None and self.provider is not None:
            place = self.group.organization

            async def look(management: Management) -> list[str] | None:
                return (await members_of(management, place, [account])).get(account)

            found = self.provider.run(look)
            provided = None if found is None else frozenset(found)
        return Membership(frozenset(stored), provided)

    def _role(self, user: Mapping[str, Any], name: str) -> Step:
        """Return the step that removes a role in the database."""
        item = f"{user['email']} in {self.group.prefix}"
        return removal(Kind.ROLE, (self.user_id, self.group.id), name, item)

    def _provided(self, user: Mapping[str, Any], name: str | None) -> Step:
        """Return the step that removes a role at the provider; without a name, the membership."""
        key = (self.group.organization, str(user["auth0_user_id"]))
        kind = Kind.MEMBERSHIP if name is None else Kind.MEMBER_ROLE
        return removal(kind, key, name or EXISTS, f"{user['email']} in {self.group.prefix}")


@dataclass
class RoleAddition(RolePlanner):
    """Planner of a role that a user gets in a group.

    Args:
        role: The name of the role.
        replace: True to take away the user's other roles there.
    """

    role: str
    replace: bool = False

    def plan(self, reader: Reader) -> Plan:
        """Return the plan; see `Planner.plan`."""
        user = self._user(reader)
        account = account_of(user["auth0_user_id"])
        there = self._membership(reader, account)
        others = sorted((there.stored | (there.provided or frozenset())) - {self.role})
        if others and not self.replace:
            raise self._has_role(user, others)
        steps = [] if self.role in there.stored else [self._role(user, self.role).inverse]
        steps += [self._role(user, name) for name in others if name in there.stored]
        if account is None:
            return self._plan(reader, steps)
        if self.provider is None:
            if steps:
                require_provider(self, "change roles")
            return self._plan(reader, steps, left=self._left(account) if steps else ())
        if there.provided is None:
            note = self._missing(account)
            if note is not None:
                return self._plan(reader, steps, notes=(note,))
            steps.append(self._provided(user, None).inverse)
        provided = there.provided or frozenset()
        if self.role not in provided:
            steps.append(self._provided(user, self.role).inverse)
        steps += [self._provided(user, name) for name in others if name in provided]
        return self._plan(reader, steps)

    def _has_role(self, user: Mapping[str, Any], others: Iterable[str]) -> ConflictError:
        return ConflictError(
            f"{user['email']} already has the role {' and '.join(others)} in group "
            f"{self.group.name}; nothing was written.",
            hint=f"A user has one role in a group. To change it to {self.role}, add --replace.",
        )

    def _left(self, account: str) -> tuple[str, ...]:
        what = f"make account {account} a member of {self.group.organization} as {self.role}"
        return (what,)

    def _missing(self, account: str) -> str | None:
        """Return a note if the account does not exist.

        Raises:
            NotFoundError: The organization does not exist.
        """
        place = self.group.organization

        async def look(management: Management) -> tuple[bool, bool]:
            known = await management.organization(place) is not None
            return known, await management.account(account) is not None

        provider = self.provider
        assert provider is not None  # noqa: S101 - the plan has asked it before
        has_place, has_account = provider.run(look)
        if not has_place:
            raise NotFoundError(
                f"Organization {place} of group {self.group.name} does not exist at the identity "
                "provider; nothing was written.",
                hint="Check the group's organization: aspencli groups show. To change only the "
                "database: --database-only",
            )
        if has_account:
            return None
        return f"The identity provider has no account {account}, so only the database changes."


@dataclass
class RoleRemoval(RolePlanner):
    """Planner of a role that a user loses in a group, or of all roles there if it is None."""

    role: str | None

    def plan(self, reader: Reader) -> Plan:
        """Return the plan; see `Planner.plan`."""
        user = self._user(reader)
        account = account_of(user["auth0_user_id"])
        there = self._membership(reader, account)
        provided = there.provided or frozenset()
        held = there.stored | provided
        gone = held if self.role is None else held & {self.role}
        steps = [self._role(user, name) for name in sorted(gone & there.stored)]
        if account is not None and self.provider is None and steps:
            require_provider(self, "remove roles")
            left = f"take {' and '.join(sorted(gone))} in {self.group.organization} from {account}"
            return self._plan(reader, steps, left=(left,))
        steps += [self._provided(user, name) for name in sorted(gone & provided)]
        leaves = held == gone and (gone or self.role is None)
        if there.provided is not None and leaves:  # no membership without a role
            steps.append(self._provided(user, None))
        if leaves and self.provider is not None:  # with an invitation, the user could come back
            place = {self.group.organization: self.group.prefix}
            steps += self.provider.run(partial(_withdrawn, str(user["email"]), place))
        return self._plan(reader, steps)


# Deletion


@dataclass
class UserDeletion(UserPlanner):
    """Planner of the deletion of a user with roles and memberships.

    Args:
        account: True to delete the account at the provider, too.
    """

    account: bool

    def _may_end_system_admin(self) -> bool:
        return True

    def lock(self, connection: sa.Connection) -> None:
        """Lock the user against new references, too."""
        super().lock(connection)
        lock_users(connection, USERS.c.id == self.user_id, delete=True)

    def _groups(self, reader: Reader) -> Iterable[int]:
        return {group for _user, group, _name in roles_of(reader, [self.user_id])}

    def plan(self, reader: Reader) -> Plan:
        """Return the plan; see `Planner.plan`."""
        user = self._user(reader)
        email = str(user["email"])
        self._refuse_referred(reader, email)
        groups = group_refs(reader)
        steps = self._stored_steps(reader, user, groups)
        account = account_of(user["auth0_user_id"])
        if account is None:
            if self.account:
                raise BadInputError(
                    f"User {email} has no account of the provider's own: {user['auth0_user_id']}",
                    hint="Run the command without --account.",
                )
            return self._plan(reader, steps)
        if self.provider is None:
            why = "At the next sign-in the service would create the user again."
            require_provider(self, "delete the user", why)
            left = f"remove account {account} from its organizations"
            if self.account:
                left = f"delete account {account}"
            return self._plan(reader, steps, left=(left,))
        places = {group.organization: group.prefix for group in groups.values()}
        found, others = self.provider.run(_Departure(account, email, places).steps)
        return self._plan_both(reader, [*steps, *found], account, others)

    def _refuse_referred(self, reader: Reader, email: str) -> None:
        if uses := uses_of_users(reader, [self.user_id]).get(self.user_id):
            raise ConflictError(
                f"Cannot delete user {email}, because other data refer to the user (listed below); "
                "nothing was written.",
                hint="To take away the user's access and keep the data: "
                f"aspencli users offboard {email}",
                details=uses,
            )

    def _stored_steps(
        self, reader: Reader, user: Mapping[str, Value], groups: Mapping[int, GroupRef]
    ) -> list[Step]:
        email = str(user["email"])
        steps = [
            removal(Kind.ROLE, (self.user_id, group), name, f"{email} in {groups[group].prefix}")
            for _user, group, name in sorted(roles_of(reader, [self.user_id]))
        ]
        return [*steps, Step(Kind.USER, (self.user_id,), EXISTS, user, None, email)]

    def _plan_both(
        self, reader: Reader, steps: Sequence[Step], account: str, others: Sequence[str] | None
    ) -> Plan:
        """Return the plan for both sides; ``others`` are the account's other organizations."""
        last = []
        if self.account:
            last = [removal(Kind.ACCOUNT, (account,), EXISTS, account)]
        notes = []
        if others is None:
            notes.append(f"The identity provider has no account {account}.")
            last = []
        elif others:
            verb = "is also" if self.account else "stays"
            notes.append(
                f"The account {verb} a member of organizations of no group in this database: "
                f"{', '.join(others)}"
            )
        return self._plan(reader, steps, last=tuple(last), notes=tuple(notes))


@dataclass(frozen=True)
class _Departure:
    """The departure of an account from the organizations of this database's groups.

    Open invitations to them are deleted, too, because the person could come back with one.
    """

    account: str
    email: str
    places: Mapping[str, str]  # the groups' prefixes, by organization

    async def steps(self, management: Management) -> tuple[list[Step], list[str] | None]:
        """Return the steps, and the account's other organizations; None without an account."""
        try:
            there = sorted(await management.organizations_of(self.account))
        except ManagementError as error:
            if not error.absent:
                raise
            return [], None
        found = []
        for place in (place for place in there if place in self.places):
            key, item = (place, self.account), f"{self.email} in {self.places[place]}"
            roles = sorted(await management.member_roles(place, self.account))
            found += [removal(Kind.MEMBER_ROLE, key, name, item) for name in roles]
            found.append(removal(Kind.MEMBERSHIP, key, EXISTS, item))
        found += await _withdrawn(self.email, self.places, management)
        return found, [place for place in there if place not in self.places]


async def _withdrawn(email: str, places: Mapping[str, str], management: Management) -> list[Step]:
    """Return the steps that delete the open invitations of a person to organizations.

    An organization that does not exist counts as one without invitations.
    """
    now = dt.datetime.now(dt.UTC)

    async def open_to(place: str) -> list[Invitation]:
        try:
            there = await management.invited(place)
        except ManagementError as error:
            if not error.absent:
                raise
            return []
        return [one for one in there if one.email == email.lower() and one.expires_at > now]

    found = await asyncio.gather(*map(open_to, sorted(places)))
    return [
        removal(Kind.INVITATION, (one.organization, one.id), EXISTS, f"{email} to {prefix}")
        for some in found
        for one in sorted(some, key=lambda one: one.id)
        for prefix in (places[one.organization],)
    ]


@dataclass
class AccountDeletion(Planner):
    """Planner of the deletion of an account that belongs to no user and no organization."""

    account: str
    provider: IdentityProvider | None

    def plan(self, reader: Reader) -> Plan:
        """Return the plan; see `Planner.plan`.

        Raises:
            NotFoundError: The account does not exist.
        """
        query = sa.select(USERS.c.email).where(USERS.c.auth0_user_id == self.account)
        if email := reader.scalar(query):
            raise ConflictError(
                f"Account {self.account} belongs to user {email} now; nothing was written.",
                hint=f"See: aspencli users show {email}",
            )
        provider = self.provider
        assert provider is not None  # noqa: S101 - the command has checked it
        _steps, places = provider.run(_Departure(self.account, "", {}).steps)
        if places is None:
            raise NotFoundError(
                f"No such user or account: {self.account!r}", hint="See: aspencli users list"
            )
        if places:
            raise ConflictError(
                f"Account {self.account} belongs to no user in this database, but is a member of "
                f"organizations: {', '.join(places)}; nothing was written.",
                hint="Another deployment may use it. Delete it at the identity provider.",
            )
        return Plan((), last=(removal(Kind.ACCOUNT, (self.account,), EXISTS, self.account),))
