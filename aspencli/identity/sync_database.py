"""Changes to the database that make it equal to the identity provider, in one transaction.

Each row is locked and compared with the plan before it is changed, and skipped if it is no longer
as planned. What is needed to undo the changes is collected along the way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute

from aspen.database.bulk.columns import EMAIL, IN_GROUP, ROLE, USER_COLUMNS, USERS
from aspen.database.bulk.spec import Spec, Value
from aspen.database.engine import Database
from aspen.database.models import Group, Role, User, UserRole
from aspen.database.roles import Right
from aspen.database.sessions import WriteSession
from aspencli.changes.undo import UndoRow
from aspencli.errors import ConflictError
from aspencli.identity import directory
from aspencli.identity.comparison import Difference, Kind, shown
from aspencli.identity.directory import Person, Place
from aspencli.identity.limits import EMPTIED, UNLED
from aspencli.identity.references import uses_of_groups, uses_of_users
from aspencli.identity.sync import (
    ADMIN,
    CHANGED_SINCE,
    CREATE,
    CREATED,
    DELETE,
    DELETED,
    KNOWN,
    SKIP,
    SKIPPED,
    UNCHANGED,
    UPDATE,
    UPDATED,
    LateError,
    Result,
    Sides,
    Step,
    blocked_by,
)

UNDO_SPEC = Spec(
    USERS,
    key=EMAIL,
    columns=tuple(USER_COLUMNS.values()),
    partial=True,
    creates=True,
    within=IN_GROUP,
)
"""The specification of the undo file, which ``users undo`` reads."""
_OWN = tuple(column for column in UNDO_SPEC.columns if not column.side)
_PARKED = "aspencli-{}@parked.invalid"  # while two addresses are exchanged, within the transaction
_USERS, _GROUPS, _USER_ROLES = "aspen.users", "aspen.groups", "aspen.user_roles"
_ONE = 1  # role per membership is what an undo file can hold
_RIGHTS: Mapping[tuple[Kind, str], tuple[Right, ...]] = {
    (Kind.GROUP_NAME, UPDATE): (Right("UPDATE", _GROUPS, ("name",)),),
    (Kind.GROUP, DELETE): (Right("DELETE", _GROUPS),),
    (Kind.ACCOUNT, CREATE): (Right("INSERT", _USERS), Right("INSERT", _USER_ROLES)),
    (Kind.USER, DELETE): (Right("DELETE", _USERS), Right("DELETE", _USER_ROLES)),
    (Kind.MEMBERSHIP, CREATE): (Right("INSERT", _USER_ROLES),),
    (Kind.MEMBERSHIP, DELETE): (Right("DELETE", _USER_ROLES),),
    (Kind.ROLE, UPDATE): (Right("INSERT", _USER_ROLES), Right("DELETE", _USER_ROLES)),
    (Kind.NAME, UPDATE): (Right("UPDATE", _USERS, ("name",)),),
    (Kind.EMAIL, UPDATE): (Right("UPDATE", _USERS, ("email",)),),
}


def rights(steps: Iterable[Step]) -> list[Right]:
    """Return the privileges that a plan needs."""
    needed = (_RIGHTS.get((step.difference.kind, step.outcome), ()) for step in steps)
    return list(dict.fromkeys(right for some in needed for right in some))


@dataclass
class Written:
    """The result of a sync, and how to undo it.

    Attributes:
        results: The result of each step, in the order of the plan.
        undo: The rows of the undo file.
        saved: The old values of what an undo file cannot hold.
    """

    results: list[Result] = field(default_factory=list)
    undo: list[UndoRow] = field(default_factory=list)
    saved: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class _Trail:
    """The changes of one user, for the undo file."""

    account: str
    label: str
    values: dict[str, tuple[Value, Value]] = field(default_factory=dict)  # new and old, by column
    roles: dict[int, tuple[frozenset[str], frozenset[str]]] = field(default_factory=dict)


class DatabaseSync:
    """Carries out a plan in the database.

    Args:
        session: The transaction.
        sides: Both sides as they were when the plan was made.
    """

    def __init__(self, session: WriteSession, sides: Sides):
        self._session, self._sides = session, sides
        self._role_ids: dict[str, int] = {}
        self._users: dict[str, User] = {}
        self._groups: dict[str, Group] = {}
        self._roles: dict[tuple[int, int], frozenset[str]] = {}
        self._trails: dict[int, _Trail] = {}
        self._written = Written()

    def carry_out(self, steps: Sequence[Step]) -> Written:
        """Write the plan, and return the results and what is needed to undo it.

        Raises:
            ConflictError: A group would lose its last member or administrator, because of what
                others changed since the plan was made.
        """
        self._lock(steps)
        before = self._rosters()
        done = {n: Result(s, SKIPPED, s.reason) for n, s in enumerate(steps) if s.outcome == SKIP}
        for kind, outcome, work in self._handlers():
            chosen = {
                number: step
                for number, step in enumerate(steps)
                if (step.difference.kind, step.outcome) == (kind, outcome)
            }
            done.update(zip(chosen, work(list(chosen.values())), strict=True))
            self._session.flush()
        self._check_rosters(before)
        self._written.undo = list(self._undo_rows())
        self._written.results = [done[number] for number in range(len(steps))]
        return self._written

    def _handlers(self) -> Iterable[tuple[Kind, str, Callable[[Sequence[Step]], Sequence[Result]]]]:
        """Return the method for each kind of step, in the order in which they must run."""
        return (
            (Kind.GROUP_NAME, UPDATE, self._rename_groups),
            (Kind.USER, DELETE, self._delete_users),
            (Kind.EMAIL, UPDATE, self._change_addresses),
            (Kind.ACCOUNT, CREATE, self._create_users),
            (Kind.NAME, UPDATE, self._rename_users),
            (Kind.MEMBERSHIP, CREATE, self._change_roles),
            (Kind.ROLE, UPDATE, self._change_roles),
            (Kind.MEMBERSHIP, DELETE, self._change_roles),
            (Kind.GROUP, DELETE, self._delete_groups),
        )

    # Reading what is there

    def _lock(self, steps: Sequence[Step]) -> None:
        """Read and lock the users with their roles, and the groups."""
        run = self._session
        self._role_ids = {name: id_ for id_, name in run.execute(sa.select(Role.id, Role.name))}
        people = {step.difference.person.key for step in steps if step.difference.person}
        groups = {step.difference.group.key for step in steps if step.difference.group}
        groups |= {place[0] for step in steps for place in step.places}
        # Deleting a user ends memberships in any group, whose roster is then checked.
        held = self._sides.database.by_person
        groups |= {place[0] for person in people for place in held.get(person, ())}
        users = sa.select(User).where(User.auth0_user_id.in_(people)).order_by(User.id)
        # A role cannot be added to a user that is locked like this.
        found = run.scalars(users.with_for_update(of=User)).all()
        self._users = {one.auth0_user_id: one for one in found}
        named = sa.select(Group).where(Group.auth0_org_id.in_(groups)).order_by(Group.id)
        # Samples can still be added to a group that is locked like this.
        locked = run.scalars(named.with_for_update(key_share=True, of=Group)).all()
        self._groups = {one.auth0_org_id: one for one in locked}
        has = (
            sa.select(UserRole.user_id, UserRole.group_id, Role.name)
            .join(Role, Role.id == UserRole.role_id)
            .where(UserRole.user_id.in_([one.id for one in found]))
            .with_for_update(of=UserRole)
        )
        for user, group, role in run.execute(has):
            self._roles[user, group] = self._roles.get((user, group), frozenset()) | {role}

    def _user(self, person: Person | None) -> User:
        """Return the user with a person's ID.

        Raises:
            LateError: There is none any more.
        """
        found = self._users.get(person.key if person else "")
        if found is None:
            raise LateError("the user no longer exists")
        return found

    def _group_id(self, key: str) -> int:
        """Return the ID of the group with an organization's ID.

        Raises:
            LateError: There is none any more.
        """
        if key not in self._groups:
            raise LateError("the group no longer has this organization")
        return self._groups[key].id

    def _rosters(self) -> dict[int, tuple[int, int]]:
        """Return the number of members and of administrators of each locked group."""
        admins = sa.func.count(sa.distinct(UserRole.user_id)).filter(Role.name == ADMIN)
        query = (
            sa.select(UserRole.group_id, sa.func.count(sa.distinct(UserRole.user_id)), admins)
            .join(Role, Role.id == UserRole.role_id)
            .where(UserRole.group_id.in_([group.id for group in self._groups.values()]))
            .group_by(UserRole.group_id)
        )
        return {group: (members, led) for group, members, led in self._session.execute(query)}

    def _check_rosters(self, before: Mapping[int, tuple[int, int]]) -> None:
        after = self._rosters()
        for group in self._groups.values():
            had, has = before.get(group.id, (0, 0)), after.get(group.id, (0, 0))
            lost = EMPTIED if had[0] and not has[0] else UNLED if had[1] and not has[1] else None
            if lost:
                raise ConflictError(
                    f"Because of what others changed since the plan was made, {group.name} {lost}; "
                    "nothing was written.",
                    hint="Run the command again to make a new plan.",
                )

    # Groups

    def _rename_groups(self, steps: Sequence[Step]) -> list[Result]:
        def group_of(one: Difference) -> Group:
            if one.group is None or one.group.key not in self._groups:
                raise LateError("the group no longer has this organization")
            return self._groups[one.group.key]

        results, moves = self._moves(steps, group_of, Group.name)
        for group, before, after in moves:
            facts = {"kind": "group-name", "group_id": group.id, "before": before, "after": after}
            self._written.saved.append(facts)
        return results

    def _delete_groups(self, steps: Sequence[Step]) -> list[Result]:
        used = uses_of_groups(self._session, [one.id for one in self._groups.values()])

        def delete(step: Step) -> str:
            one = step.difference
            group = self._groups.get(one.group.key if one.group else "")
            if group is None:
                return UNCHANGED
            if group.name != one.database:
                raise LateError(f"the name has {CHANGED_SINCE}")
            if group.id in used:
                raise LateError(blocked_by(used[group.id]))
            row = {column.name: getattr(group, column.name) for column in Group.__table__.columns}
            self._written.saved.append({"kind": "group", **row})
            self._session.execute(sa.delete(Group).where(Group.id == group.id))
            return DELETED

        return _each(steps, delete)

    # Users

    def _delete_users(self, steps: Sequence[Step]) -> list[Result]:
        people = [step.difference.person for step in steps if step.difference.person]
        ids = [self._users[one.key].id for one in people if one.key in self._users]
        used = uses_of_users(self._session, ids)
        texts = self._texts(ids)

        def delete(step: Step) -> str:
            person = step.difference.person
            assert person  # noqa: S101 - it is about one
            user = self._users.get(person.key)
            if user is None:
                return UNCHANGED
            if Person(person.key, user.name, user.email, user.id) != person:
                raise LateError(f"the user has {CHANGED_SINCE}")
            if user.id in used:
                raise LateError(blocked_by(used[user.id]))
            trail = self._trail(user)
            trail.values |= {name: (None, text) for name, text in texts[user.id].items()}
            for (id_, group), roles in self._roles.items():
                if id_ == user.id:
                    trail.roles[group] = roles, frozenset()
            self._session.execute(sa.delete(UserRole).where(UserRole.user_id == user.id))
            self._session.execute(sa.delete(User).where(User.id == user.id))
            return DELETED

        return _each(steps, delete)

    def _change_addresses(self, steps: Sequence[Step]) -> list[Result]:
        results, moves = self._moves(steps, lambda one: self._user(one.person), User.email)
        for user, before, after in moves:
            trail = self._trail(user)
            trail.label, trail.values["email"] = after, (after, before)
        return results

    def _rename_users(self, steps: Sequence[Step]) -> list[Result]:
        def rename(step: Step) -> str:
            one = step.difference
            user = self._user(one.person)
            if user.name == one.provider:
                return UNCHANGED
            if user.name != one.database or one.provider is None:
                raise LateError(f"the name has {CHANGED_SINCE}")
            self._trail(user).values["name"] = one.provider, user.name
            user.name = one.provider
            return UPDATED

        return _each(steps, rename)

    def _create_users(self, steps: Sequence[Step]) -> list[Result]:
        people = [step.difference.person for step in steps if step.difference.person]
        taken = self._holders(User.email, (one.email for one in people))
        made: list[tuple[User, Sequence[Place]]] = []

        def create(step: Step) -> str:
            person = step.difference.person
            assert person  # noqa: S101 - it is about one
            if person.key in self._users:
                raise LateError("the user exists by now")
            if person.email.lower() in taken:
                raise LateError(f"another user has the address {person.email}")
            for place in step.places:
                self._group_id(place[0])
            name = person.name or person.email
            user = User(name=name, email=person.email, auth0_user_id=person.key)
            made.append((user, step.places))
            return CREATED

        results = _each(steps, create)
        self._add_users(made)
        return results

    def _add_users(self, made: Sequence[tuple[User, Sequence[Place]]]) -> None:
        """Write new users with their roles, and note what an undo removes."""
        self._session.add_all(user for user, _places in made)
        self._session.flush()
        for user, places in made:
            for place in places:
                self._set_roles(user, self._group_id(place[0]), self._sides.roles(place))
        texts = self._texts([user.id for user, _places in made])
        for user, _places in made:
            values = {name: (text, None) for name, text in texts[user.id].items()}
            self._trail(user).values |= values

    # Memberships and roles

    def _change_roles(self, steps: Sequence[Step]) -> list[Result]:
        def change(step: Step) -> str:
            place = step.difference.place
            user, group = self._user(step.difference.person), self._group_id(place[0])
            now = self._roles.get((user.id, group), frozenset())
            wanted = self._sides.roles(place) | (now - KNOWN)
            if step.outcome == DELETE:
                wanted = frozenset()
            if now == wanted:
                return UNCHANGED
            if now != self._sides.database.roles.get(place, frozenset()):
                raise LateError(f"the roles have {CHANGED_SINCE}: {shown(now)}")
            self._set_roles(user, group, wanted)
            return {CREATE: CREATED, DELETE: DELETED}.get(step.outcome, UPDATED)

        return _each(steps, change)

    def _set_roles(self, user: User, group: int, wanted: frozenset[str]) -> None:
        now = self._roles.get((user.id, group), frozenset())
        ids = [self._role_ids[role] for role in now - wanted]
        if ids:
            of_user = (UserRole.user_id == user.id, UserRole.group_id == group)
            self._session.execute(sa.delete(UserRole).where(*of_user, UserRole.role_id.in_(ids)))
        for role in sorted(wanted - now):
            row = {"user_id": user.id, "group_id": group, "role_id": self._role_ids[role]}
            self._session.execute(sa.insert(UserRole).values(row))
        self._trail(user).roles[group] = now, wanted

    # Values that only one row can have

    def _moves(
        self,
        steps: Sequence[Step],
        row_of: Callable[[Difference], Any],
        column: InstrumentedAttribute[str],
    ) -> tuple[list[Result], list[tuple[Any, str, str]]]:
        """Set a unique column, and return the results, and each row with its old and new value.

        Rows may exchange their values: those that another row takes are parked first.
        """
        rows: dict[int, Any] = {}

        def look(step: Step) -> str:
            one = step.difference
            row = row_of(one)
            now = getattr(row, column.key)
            if now.lower() == (one.provider or "").lower():
                return UNCHANGED
            if now != one.database:
                raise LateError(f"the {column.key} has {CHANGED_SINCE}")
            rows[id(step)] = row
            return UPDATED

        results = _each(steps, look)
        while True:
            moving = {id(one.step): one for one in results if one.outcome == UPDATED}
            wanted = (one.step.difference.provider or "" for one in moving.values())
            taken = self._holders(column, wanted, besides=[rows[each].id for each in moving])
            late = {
                each
                for each, one in moving.items()
                if (one.step.difference.provider or "").lower() in taken
            }
            if not late:
                break
            results = [
                Result(one.step, SKIPPED, "another one has this value by now", is_late=True)
                if id(one.step) in late
                else one
                for one in results
            ]
        moves = [
            (rows[each], getattr(rows[each], column.key), one.step.difference.provider or "")
            for each, one in moving.items()
        ]
        after = {new for _row, _old, new in moves}
        for row, old, _new in moves:
            if old in after:
                setattr(row, column.key, _PARKED.format(row.id))
        self._session.flush()
        for row, _old, new in moves:
            setattr(row, column.key, new)
        self._session.flush()
        return results, moves

    def _holders(
        self,
        column: InstrumentedAttribute[str],
        values: Iterable[str],
        *,
        besides: Collection[int] = (),
    ) -> set[str]:
        """Return the values, in lowercase, that other rows have."""
        lowered = sa.func.lower(column)
        query = sa.select(lowered).where(lowered.in_({value.lower() for value in values}))
        if besides:
            query = query.where(column.class_.id.not_in(besides))
        return set(self._session.scalars(query))

    # Undo

    def _trail(self, user: User) -> _Trail:
        return self._trails.setdefault(user.id, _Trail(user.auth0_user_id, user.email))

    def _texts(self, ids: Sequence[int]) -> dict[int, dict[str, Value]]:
        """Return the columns of users as text."""
        columns = [
            sa.cast(getattr(User, column.stored), sa.Text).label(column.name) for column in _OWN
        ]
        rows = self._session.execute(sa.select(User.id, *columns).where(User.id.in_(ids)))
        return {row.id: {one.name: getattr(row, one.name) for one in _OWN} for row in rows}

    def _undo_rows(self) -> Iterator[UndoRow]:
        for id_, trail in sorted(self._trails.items()):
            lines: list[tuple[int | None, dict[str, tuple[Value, Value]]]] = []
            for group, (before, after) in sorted(trail.roles.items()):
                if len(before) > _ONE or len(after) > _ONE:
                    facts = {"before": sorted(before), "after": sorted(after)}
                    about = {"kind": "role", "auth0_user_id": trail.account, "group_id": group}
                    self._written.saved.append({**about, **facts})
                elif before != after:
                    lines.append((group, {ROLE.name: (self._id_of(after), self._id_of(before))}))
            if trail.values:
                first = lines.pop(0) if lines else (None, {})
                lines.insert(0, (first[0], {**trail.values, **first[1]}))
            for group_id, values in lines:
                cells = [values.get(column.name) for column in UNDO_SPEC.columns]
                yield UndoRow(id_, trail.label, cells, None if group_id is None else str(group_id))

    def _id_of(self, roles: frozenset[str]) -> Value:
        return next((str(self._role_ids[role]) for role in roles), None)


def _each(steps: Iterable[Step], act: Callable[[Step], str]) -> list[Result]:
    """Return the result of each step, of which some may no longer be as planned."""
    results = []
    for step in steps:
        try:
            results.append(Result(step, act(step)))
        except LateError as late:
            results.append(Result(step, SKIPPED, str(late), is_late=True))
    return results


def link_organization(database: Database, group: directory.Group, key: str) -> None:
    """Store the ID of a new organization with its group.

    Raises:
        LateError: The group has another organization by now.
    """
    change = sa.update(Group).where(Group.id == group.id, Group.auth0_org_id == group.key)
    with database.begin() as session:
        done: Any = session.execute(change.values(auth0_org_id=key))
    if not done.rowcount:
        raise LateError(f"the organization of the group has {CHANGED_SINCE}")
