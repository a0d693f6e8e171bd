"""Values on both sides, read and written: in the database, and at the identity provider."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Any, TypeVar

import sqlalchemy as sa

from aspen.database.sessions import Reader
from aspen.identity.management import Account, Management, ManagementError, Organization
from aspencli.errors import ConflictError, NotFoundError
from aspencli.identity.steps import ABSENT, EXISTS, TABLES, Absence, Kind, Slot, Step, Value

T = TypeVar("T")
_ATTRIBUTES = {"email_verified": "is_verified"}  # of an account, by the provider's name
_BATCH = 10  # accounts per request
_AT_ONCE = 8  # requests
_FEW = 2  # members of an organization that are cheaper to look up one at a time
_BAD_REQUEST = 400


# The database


def row_of(reader: Reader, kind: Kind, row_id: int) -> dict[str, Any] | None:
    """Return the row of a user or a group with all its columns in JSON, or None."""
    return _rows(reader, kind, [row_id]).get(row_id)


def _rows(reader: Reader, kind: Kind, ids: Iterable[int]) -> dict[int, dict[str, Any]]:
    query = f"SELECT id, to_jsonb(t)::text FROM {TABLES[kind]} t WHERE id = ANY(:ids)"  # noqa: S608 - a constant
    found = reader.execute(sa.text(query), {"ids": sorted(set(ids))})
    return {row[0]: json.loads(row[1]) for row in found}


def roles_of(reader: Reader, users: Iterable[int]) -> set[tuple[int, int, str]]:
    """Return the user, the group, and the name of each role that any of the users has."""
    query = (
        "SELECT ur.user_id, ur.group_id, r.name FROM aspen.user_roles ur"
        " JOIN aspen.roles r ON r.id = ur.role_id WHERE ur.user_id = ANY(:users)"
    )
    rows = reader.execute(sa.text(query), {"users": sorted(set(users))})
    return {(row[0], row[1], row[2]) for row in rows}


def read_database(reader: Reader, slots: Iterable[Slot]) -> dict[Slot, Value | Absence]:
    """Return the current values in the database."""
    wanted = [slot for slot in slots if slot.kind.is_in_database]
    rows = {
        kind: _rows(reader, kind, [int(slot.key[0]) for slot in wanted if slot.kind is kind])
        for kind in TABLES
    }
    roles = roles_of(reader, [int(slot.key[0]) for slot in wanted if slot.kind is Kind.ROLE])
    found: dict[Slot, Value | Absence] = {}
    for slot in wanted:
        if slot.kind is Kind.ROLE:
            found[slot] = True if (*slot.key, slot.field) in roles else None
        else:
            found[slot] = _value(rows[slot.kind].get(int(slot.key[0])), slot.field)
    return found


def _value(thing: Mapping[str, Any] | None, field: str) -> Value | Absence:
    if field == EXISTS:
        return thing
    return ABSENT if thing is None else thing.get(field)


def write_database(connection: sa.Connection, steps: Sequence[Step]) -> None:
    """Carry out the steps in the database, in order, in the open transaction.

    Raises:
        ConflictError: A row does not exist any more.
    """
    for (kind, key, is_field), some in groupby(steps, lambda s: (s.kind, s.key, s.is_field)):
        if kind is Kind.ROLE:
            for step in some:
                _write_role(connection, step)
        elif is_field:
            _update(connection, kind, int(key[0]), {step.field: step.after for step in some})
        else:
            for step in some:
                _write_row(connection, step)


def _update(
    connection: sa.Connection, kind: Kind, row_id: int, values: Mapping[str, Value]
) -> None:
    changes = ", ".join(f"{name} = :{name}" for name in values)  # the columns are our own
    statement = f"UPDATE {TABLES[kind]} SET {changes} WHERE id = :id"  # noqa: S608 - all ours
    if not connection.execute(sa.text(statement), {**values, "id": row_id}).rowcount:
        raise _gone(kind, row_id)


def _write_row(connection: sa.Connection, step: Step) -> None:
    table = TABLES[step.kind]
    if step.after is None:
        statement = f"DELETE FROM {table} WHERE id = :id"  # noqa: S608 - a constant
        if not connection.execute(sa.text(statement), {"id": step.key[0]}).rowcount:
            raise _gone(step.kind, int(step.key[0]))
        return
    statement = (
        f"INSERT INTO {table}"  # noqa: S608 - a constant
        f" SELECT * FROM jsonb_populate_record(CAST(NULL AS {table}), CAST(:row AS jsonb))"
    )
    connection.execute(sa.text(statement), {"row": json.dumps(step.after)})


def _write_role(connection: sa.Connection, step: Step) -> None:
    role = "(SELECT id FROM aspen.roles WHERE name = :role)"
    if step.after is None:
        statement = (
            "DELETE FROM aspen.user_roles"  # noqa: S608 - a constant
            f" WHERE user_id = :user AND group_id = :group AND role_id = {role}"
        )
    else:  # a sign-in at the same moment may add it, too
        statement = (
            "INSERT INTO aspen.user_roles (user_id, group_id, role_id)"  # noqa: S608 - a constant
            f" VALUES (:user, :group, {role}) ON CONFLICT DO NOTHING"
        )
    user, group = step.key
    connection.execute(sa.text(statement), {"user": user, "group": group, "role": step.field})


def _gone(kind: Kind, row_id: int) -> ConflictError:
    return ConflictError(
        f"Another operator deleted {kind} {row_id} in the meantime; nothing was written.",
        hint=f"See: aspencli {kind}s list",
    )


# The identity provider


async def read_provider(
    management: Management, slots: Iterable[Slot]
) -> dict[Slot, Value | Absence]:
    """Return the current values at the identity provider."""
    wanted = [slot for slot in slots if not slot.kind.is_in_database]
    found: dict[Slot, Value | Absence] = {}
    for (kind, key), some in _by_thing(wanted, Kind.ACCOUNT, Kind.ORGANIZATION):
        look = management.account if kind is Kind.ACCOUNT else management.organization
        thing = await look(str(key[0]))
        found |= {slot: _provided(thing, slot) for slot in some}
    members = [s for s in wanted if s.kind in {Kind.MEMBERSHIP, Kind.MEMBER_ROLE}]
    for place in dict.fromkeys(str(slot.key[0]) for slot in members):
        here = [slot for slot in members if slot.key[0] == place]
        roles = await members_of(management, place, {str(slot.key[1]) for slot in here})
        for slot in here:
            has = roles.get(str(slot.key[1]))
            is_held = has is not None and (slot.kind is Kind.MEMBERSHIP or slot.field in has)
            found[slot] = True if is_held else None
    invitations = [slot for slot in wanted if slot.kind is Kind.INVITATION]
    for place in dict.fromkeys(str(slot.key[0]) for slot in invitations):
        there = {one.id for one in await management.invited(place)}
        for slot in invitations:
            if slot.key[0] == place:
                found[slot] = True if slot.key[1] in there else None
    return found


def _by_thing(
    slots: Iterable[Slot], *kinds: Kind
) -> Iterator[tuple[tuple[Kind, tuple[int | str, ...]], list[Slot]]]:
    things: dict[tuple[Kind, tuple[int | str, ...]], list[Slot]] = {}
    for slot in slots:
        if slot.kind in kinds:
            things.setdefault((slot.kind, slot.key), []).append(slot)
    yield from things.items()


def _provided(thing: Account | Organization | None, slot: Slot) -> Value | Absence:
    if slot.field == EXISTS:
        return None if thing is None else True
    if thing is None:
        return ABSENT
    found: Value = getattr(thing, _ATTRIBUTES.get(slot.field, slot.field))
    return found


async def members_of(
    management: Management, organization: str, accounts: Iterable[str]
) -> dict[str, list[str]]:
    """Return the roles of those accounts that are members of an organization, by account.

    An organization or an account that does not exist counts as one without members.
    """
    wanted = set(accounts)
    if len(wanted) > _FEW:
        try:
            there = await management.members(organization)
        except ManagementError as error:
            if not error.absent:
                raise
            return {}
        return {member.id: list(member.roles) for member in there if member.id in wanted}
    found = {}
    for account in sorted(wanted):
        try:
            if organization in await management.organizations_of(account):
                found[account] = sorted(await management.member_roles(organization, account))
        except ManagementError as error:
            # The account does not exist, or left the organization between the two requests.
            if not error.absent and error.status != _BAD_REQUEST:
                raise
    return found


class ProviderWriter:
    """Carries out steps at the identity provider.

    Args:
        management: The client.
        tried: The list to which it adds the steps that may have taken effect, in order.
        verifies: True to e-mail a message to a new address that is not verified.
        before_request: Called before each request with the number of steps that are done; may raise
            an error to stop.
    """

    def __init__(
        self,
        management: Management,
        tried: list[Step] | None = None,
        *,
        verifies: bool = False,
        before_request: Callable[[int], None] = lambda _done: None,
    ):
        self._management = management
        self._tried = [] if tried is None else tried
        self._verifies, self._before_request = verifies, before_request
        self._role_ids: dict[str, str] | None = None

    async def write(self, steps: Sequence[Step]) -> None:
        """Carry out the steps in order, with as few requests as possible.

        Raises:
            ManagementError: The provider refused a request, which has no effect then.
            ManagementUnavailableError: It did not respond; the request may have taken effect.
        """
        for _kind, some in groupby(_requests(steps), lambda part: _turn_of(part[0])):
            for parts in _batches(some, _AT_ONCE):
                self._before_request(len(self._tried))
                self._tried += [step for part in parts for step in part]
                done = await asyncio.gather(*map(self._send, parts), return_exceptions=True)
                self._note(parts, done)

    def _note(self, parts: Sequence[Sequence[Step]], done: Sequence[BaseException | None]) -> None:
        """Raise the first error of some requests; those that were refused were not tried."""
        refused = [
            step
            for part, error in zip(parts, done, strict=True)
            if isinstance(error, (ManagementError, NotFoundError))
            for step in part
        ]
        self._tried[:] = [step for step in self._tried if step not in refused]
        for error in done:
            if error is not None:
                raise error

    async def _send(self, steps: Sequence[Step]) -> None:
        first, management = steps[0], self._management
        key = tuple(map(str, first.key))
        is_deleted = first.after is None
        match first.kind:
            case Kind.ACCOUNT if first.is_field:
                await management.update_account(key[0], **self._account(steps))
            case Kind.ACCOUNT:
                await management.delete_account(key[0])
            case Kind.ORGANIZATION if first.is_field:
                values = {step.field: str(step.after) for step in steps}
                await management.update_organization(key[0], **values)
            case Kind.ORGANIZATION:
                await management.delete_organization(key[0])
            case Kind.INVITATION:
                await management.delete_invitation(*key)
            case Kind.MEMBERSHIP:
                change_members = management.add_members
                if is_deleted:
                    change_members = management.remove_members
                await change_members(key[0], [str(step.key[1]) for step in steps])
            case Kind.MEMBER_ROLE:
                change = management.add_roles
                if is_deleted:
                    change = management.remove_roles
                await change(key[0], key[1], [await self._role(step.field) for step in steps])
            case _:
                raise AssertionError(first.kind)

    def _account(self, steps: Sequence[Step]) -> dict[str, str | bool]:
        values: dict[str, Any] = {step.field: step.after for step in steps}
        if "email" in values:
            verified = values.setdefault("email_verified", False)
            values["verify_email"] = self._verifies and not verified
        return values

    async def _role(self, name: str) -> str:
        if self._role_ids is None:
            self._role_ids = await self._management.role_ids()
        if name not in self._role_ids:
            raise NotFoundError(
                f"The identity provider has no role {name}; nothing was written.",
                hint="Create the role there first.",
            )
        return self._role_ids[name]


def _requests(steps: Iterable[Step]) -> Iterator[list[Step]]:
    """Yield the steps in the parts that are one request each."""
    for _what, some in groupby(steps, _request_of):
        yield from _batches(some, _BATCH)


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch


def _turn_of(step: Step) -> tuple[object, ...]:
    """Return what requests that may be sent at the same time have in common."""
    if step.kind in {Kind.MEMBERSHIP, Kind.MEMBER_ROLE, Kind.INVITATION}:
        return (step.kind, step.after is None)
    return (step.kind, step.key, step.is_field)


def _request_of(step: Step) -> tuple[object, ...]:
    """Return what steps that one request can carry out have in common."""
    is_deleted = step.after is None
    if step.kind is Kind.MEMBERSHIP:
        return (step.kind, step.key[0], is_deleted)
    if step.kind is Kind.MEMBER_ROLE:
        return (step.kind, step.key, is_deleted)
    return (step.kind, step.key, step.is_field)


async def changed_values(
    management: Management, steps: Sequence[Step]
) -> tuple[list[Step], list[Step]]:
    """Return the steps whose new values hold now, and those with neither the new nor the old."""
    now = await read_provider(management, [step.slot for step in steps])
    done = [step for step in steps if now[step.slot] == step.after]
    other = [step for step in steps if now[step.slot] not in (step.after, step.before)]
    return done, other
