"""People and groups for the identity provider and the database, with planted differences.

Both sides are filled directly, the provider's store in a second and the database in two.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.database.models import Group, Location, Role, User, UserRole
from aspen.local.auth0.store import ProviderStore, insert
from aspencli.identity.comparison import Kind
from tests.local.auth0.lab import CLIENT

ROLES = ("admin", "member", "viewer")
STRANGE = "auditor"
"""A role of the tenant that the service does not have."""
_PROVIDER_TABLES = ("invitations", "member_roles", "members", "organizations", "users", "roles")
_DAY_S = 86_400
_BATCH = 5_000

Found = tuple[str, str, str]
"""A difference: its kind, the ID of the organization or an empty text, and the same of a person."""
Place = tuple[str, str]


@dataclass
class Side:
    """One side: the name of each group, name and address of each person, and roles."""

    groups: dict[str, str] = field(default_factory=dict)
    people: dict[str, tuple[str, str]] = field(default_factory=dict)
    roles: dict[Place, set[str]] = field(default_factory=dict)


@dataclass
class Population:
    """Both sides, and the differences between them.

    Attributes:
        provider: The identity provider.
        database: The database.
        invitations: The organization, address, and seconds until it expires of each invitation.
        planted: The differences.
    """

    provider: Side = field(default_factory=Side)
    database: Side = field(default_factory=Side)
    invitations: list[tuple[str, str, float]] = field(default_factory=list)
    planted: set[Found] = field(default_factory=set)

    def of(self, *kinds: Kind) -> set[Found]:
        """Return the planted differences of some kinds."""
        return {one for one in self.planted if one[0] in kinds}


def account(number: int) -> str:
    """Return an account's ID in the format of Auth0."""
    return f"auth0|{number:024x}"


def organization(number: int) -> str:
    """Return an organization's ID in the format of Auth0."""
    return f"org_{number:016d}"


def population(people: int, groups: int, each: int, seed: int) -> Population:
    """Return sides that differ in ``each`` objects of each kind, chosen at random.

    Each group keeps two administrators and a member on both sides, so that no sync empties it.
    There are also objects that are no differences: accounts and users without a group, users of
    other identity providers, several roles in one group, and addresses in another letter case.
    """
    chance = random.Random(seed)
    made = _equal(people, groups, chance)
    _plant_groups(made, each, chance)
    _plant_people(made, each, chance)
    _plant_memberships(made, each, chance)
    _plant_invitations(made, each, chance)
    _add_noise(made, chance)
    return made


def _equal(people: int, groups: int, chance: random.Random) -> Population:
    made = Population()
    for number in range(groups):
        key, name = organization(number), f"Laboratory {number}"
        made.provider.groups[key] = made.database.groups[key] = name
    for number in range(people):
        person = f"Person {number}", f"person{number}@example.org"
        made.provider.people[account(number)] = made.database.people[account(number)] = person
    free = list(range(people))
    chance.shuffle(free)
    for group in range(groups):
        anchors = [account(free.pop()) for _ in range(3)]
        for key, role in zip(anchors, ("admin", "admin", "member"), strict=True):
            _give(made, (organization(group), key), {role})
    for number in free:
        for group in chance.sample(range(groups), min(groups, chance.choice((1, 1, 2, 3)))):
            roles = {chance.choice(ROLES)}
            if chance.random() < 0.02:  # a few have two
                roles.add(chance.choice(ROLES))
            _give(made, (organization(group), account(number)), roles)
    return made


def _give(made: Population, place: Place, roles: Iterable[str]) -> None:
    made.provider.roles[place], made.database.roles[place] = set(roles), set(roles)


def _others(made: Population) -> list[str]:
    """Return the people who are not needed to keep a group alive."""
    anchors = {key for _group, key in list(made.database.roles)[: 3 * len(made.database.groups)]}
    return [key for key in made.database.people if key not in anchors]


def _plant_groups(made: Population, each: int, chance: random.Random) -> None:
    shared = sorted(made.database.groups)
    for number in range(each):
        lone, lost = organization(10**6 + number), organization(2 * 10**6 + number)
        made.provider.groups[lone] = f"Only an organization {number}"
        made.database.groups[lost] = f"Only a group {number}"
        made.planted |= {(Kind.ORGANIZATION, lone, ""), (Kind.GROUP, lost, "")}
    for key in chance.sample(shared, min(each, len(shared))):
        side = chance.choice((made.provider, made.database))
        side.groups[key] += " (renamed)"
        made.planted.add((Kind.GROUP_NAME, key, ""))


def _plant_people(made: Population, each: int, chance: random.Random) -> None:
    people = sorted(made.database.people)
    shared = [key for key in made.provider.groups if key in made.database.groups]
    for kind, side, first in (
        (Kind.ACCOUNT, made.provider, 10**6),
        (Kind.USER, made.database, 2 * 10**6),
    ):
        for number in range(each):
            key = account(first + number)
            side.people[key] = f"Only {kind} {number}", f"only-{kind}{number}@example.org"
            for group in chance.sample(shared, min(len(shared), chance.choice((1, 2)))):
                side.roles[group, key] = {chance.choice(ROLES)}
            made.planted.add((kind, "", key))
    for key in chance.sample(people, each):
        side = chance.choice((made.provider, made.database))
        name, email = side.people[key]
        side.people[key] = f"{name} Younger", email
        made.planted.add((Kind.NAME, "", key))
    for key in chance.sample(people, each):
        side = chance.choice((made.provider, made.database))
        name, email = side.people[key]
        side.people[key] = name, f"new-{email}"
        made.planted.add((Kind.EMAIL, "", key))


def _plant_memberships(made: Population, each: int, chance: random.Random) -> None:
    others = set(_others(made))
    both = made.provider.roles.keys() & made.database.roles.keys()
    places = chance.sample(sorted(place for place in both if place[1] in others), 3 * each)
    for place in places[:each]:
        del chance.choice((made.provider, made.database)).roles[place]
        made.planted.add((Kind.MEMBERSHIP, *place))
    for place in places[each : 2 * each]:
        side = chance.choice((made.provider, made.database))
        now = side.roles[place]
        while side.roles[place] == now:
            side.roles[place] = set(chance.sample(ROLES, chance.choice((1, 1, 1, 2))))
        made.planted.add((Kind.ROLE, *place))
    for place in places[2 * each :]:
        made.provider.roles[place].add(STRANGE)
        made.planted.add((Kind.UNKNOWN_ROLE, *place))


def _plant_invitations(made: Population, each: int, chance: random.Random) -> None:
    shared = sorted(made.provider.groups.keys() & made.database.groups.keys())
    for number in range(each):
        group, email = chance.choice(shared), f"expired{number}@example.org"
        made.invitations.append((group, email, -chance.uniform(60, 90 * _DAY_S)))
        made.planted.add((Kind.INVITATION, group, email))
        waiting = f"invited{number}@example.org"
        made.invitations.append((chance.choice(shared), waiting, chance.uniform(1, 7) * _DAY_S))


def _add_noise(made: Population, chance: random.Random) -> None:
    """Add what is no difference."""
    shared = sorted(made.provider.groups.keys() & made.database.groups.keys())
    changed = {key for kind, _group, key in made.planted if kind == Kind.EMAIL}
    for number in range(max(2, len(made.database.people) // 100)):
        lone = account(3 * 10**6 + number)
        made.provider.people[lone] = f"Signed up {number}", f"signup{number}@example.org"
        idle = account(4 * 10**6 + number)
        person = f"Idle {number}", f"idle{number}@example.org"
        made.provider.people[idle] = made.database.people[idle] = person
        there, here = f"google-oauth2|{number}", f"google-oauth2|{10**6 + number}"
        made.provider.people[there] = f"Other {number}", f"google{number}@example.org"
        made.provider.roles[chance.choice(shared), there] = {"member"}
        made.database.people[here] = f"Other user {number}", f"google-user{number}@example.org"
        made.database.roles[chance.choice(shared), here] = {"viewer"}
        key = chance.choice(sorted(made.database.people.keys() - changed))
        name, email = made.database.people[key]
        made.database.people[key] = name, email.upper()


def small() -> Population:
    """Return equal sides: one group with Ada, its admin, and Bea and Cleo, members."""
    made = Population()
    for side in (made.provider, made.database):
        side.groups[organization(1)] = "Lab"
        for number, role in enumerate(("admin", "member", "member")):
            side.people[account(number)] = f"Person {number}", f"p{number}@example.org"
            side.roles[organization(1), account(number)] = {role}
    return made


def everything() -> Population:
    """Return sides with one difference of each kind that a sync of the provider writes."""
    made = small()
    for key in (account(5), account(6)):
        made.database.people[key] = f"New {key}", f"new{key[-1]}@example.org"
        made.database.roles[organization(1), key] = {"viewer"}
    made.database.groups[organization(7)] = "New lab"
    made.database.roles[organization(7), account(0)] = {"admin"}
    made.database.roles[organization(7), account(5)] = {"member"}
    made.database.groups[organization(1)] = "Renamed lab"
    made.database.people[account(0)] = "Renamed", "moved@example.org"
    made.database.roles[organization(1), account(1)] = {"admin", "viewer"}
    del made.database.roles[organization(1), account(2)]
    made.provider.people[account(8)] = "Gone", "gone@example.org"
    made.provider.roles[organization(1), account(8)] = {"viewer"}
    made.provider.groups[organization(8)] = "Gone"
    made.invitations.append((organization(1), "late@example.org", -60))
    return made


def fill_provider(folder: Path, made: Population) -> None:
    """Replace everything but clients and keys in a provider's store, even while it runs."""
    side, now = made.provider, time.time()
    ids = {role: f"rol_{role:0>16}" for role in (*ROLES, STRANGE)}
    with ProviderStore(folder).writing() as db:
        for table in _PROVIDER_TABLES:
            db.execute(f"DELETE FROM {table}")
        db.executemany("INSERT INTO roles VALUES (?, ?, ?)", [(ids[n], n, n) for n in ids])
        # As in a real tenant, no two accounts are created at the same moment.
        people = [
            (key, email.lower(), name, 1, now - 10**6 + place / 7, now)
            for place, (key, (name, email)) in enumerate(sorted(side.people.items()))
        ]
        db.executemany(
            "INSERT INTO users (user_id, email, name, email_verified, created_at, updated_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            people,
        )
        db.executemany(
            "INSERT INTO organizations (id, name, display_name, created_at) VALUES (?, ?, ?, ?)",
            [(key, f"group-{key[4:]}", name, now) for key, name in side.groups.items()],
        )
        db.executemany("INSERT INTO members VALUES (?, ?)", list(side.roles))
        db.executemany(
            "INSERT INTO member_roles VALUES (?, ?, ?)",
            [(*place, ids[role]) for place, roles in side.roles.items() for role in roles],
        )
        for number, (group, email, seconds) in enumerate(made.invitations):
            row = {
                "id": f"uinv_{number:016d}",
                "organization_id": group,
                "client_id": CLIENT,
                "ticket": f"ticket{number}",
                "inviter_name": "Inge",
                "invitee_email": email,
                "roles": json.dumps([]),
                "user_metadata": "{}",
                "app_metadata": "{}",
                "created_at": now - 100 * _DAY_S,
                "expires_at": now + seconds,
            }
            insert(db, "invitations", row)


def fill_database(database: Database, made: Population) -> None:
    """Replace the users, groups, and roles of a database that has nothing else."""
    side = made.database
    with database.begin() as session:
        for model in (UserRole, User, Group):
            session.execute(sa.delete(model))
        place = session.scalar(sa.select(Location.id).limit(1))
        if place is None:
            location = Location(region="North America", country="USA")
            session.add(location)
            session.flush()
            place = location.id
        roles = {name: id_ for id_, name in session.execute(sa.select(Role.id, Role.name))}
        groups = [
            {
                "auth0_org_id": key,
                "name": name,
                "prefix": f"P{key[4:]}",
                "default_tree_location_id": place,
            }
            for key, name in side.groups.items()
        ]
        _insert(session.execute, Group, groups)
        people = [
            {"auth0_user_id": key, "name": name, "email": email}
            for key, (name, email) in side.people.items()
        ]
        _insert(session.execute, User, people)
        accounts = session.execute(sa.select(User.auth0_user_id, User.id))
        users = {key: id_ for key, id_ in accounts}  # noqa: C416 - dict() does not accept rows
        organizations = session.execute(sa.select(Group.auth0_org_id, Group.id))
        ids = {key: id_ for key, id_ in organizations}  # noqa: C416 - same
        rows = [
            {"group_id": ids[group], "user_id": users[person], "role_id": roles[role]}
            for (group, person), names in side.roles.items()
            for role in names
        ]
        _insert(session.execute, UserRole, rows)


def _insert(execute: Callable[..., Any], model: Any, rows: list[dict[str, Any]]) -> None:
    for start in range(0, len(rows), _BATCH):
        execute(sa.insert(model), rows[start : start + _BATCH])


def provider_side(folder: Path) -> Side:
    """Return what a provider's store has."""
    side = Side()
    with ProviderStore(folder).reading() as db:
        for row in db.execute("SELECT id, display_name FROM organizations"):
            side.groups[row["id"]] = row["display_name"]
        for row in db.execute("SELECT user_id, name, email FROM users"):
            side.people[row["user_id"]] = row["name"], row["email"]
        for row in db.execute("SELECT organization_id, user_id FROM members"):
            side.roles[row["organization_id"], row["user_id"]] = set()
        found = db.execute(
            "SELECT organization_id, user_id, name FROM member_roles"
            " JOIN roles ON roles.id = member_roles.role_id"
        )
        for row in found:
            side.roles[row["organization_id"], row["user_id"]].add(row["name"])
    return side


def database_side(database: Database) -> Side:
    """Return what a database has."""
    side = Side()
    with database.reading() as session:
        for group in session.scalars(sa.select(Group)):
            side.groups[group.auth0_org_id] = group.name
        for user in session.scalars(sa.select(User)):
            side.people[user.auth0_user_id] = user.name, user.email
        found = (
            sa.select(Group.auth0_org_id, User.auth0_user_id, Role.name)
            .select_from(UserRole)
            .join(Group, Group.id == UserRole.group_id)
            .join(User, User.id == UserRole.user_id)
            .join(Role, Role.id == UserRole.role_id)
        )
        for organization_id, account_id, role in session.execute(found):
            side.roles.setdefault((organization_id, account_id), set()).add(role)
    return side


def unequal(provider: Side, database: Side) -> set[Found]:
    """Return the differences between two sides, found in the simplest way.

    Accounts count only if they belong to a group that both sides have.
    """
    found: set[Found] = set()
    found |= {(Kind.ORGANIZATION, key, "") for key in provider.groups.keys() - database.groups}
    found |= {(Kind.GROUP, key, "") for key in database.groups.keys() - provider.groups}
    shared = provider.groups.keys() & database.groups.keys()
    for key in shared:
        if provider.groups[key] != database.groups[key]:
            found.add((Kind.GROUP_NAME, key, ""))
    own = {key for key in provider.people | database.people if key.startswith("auth0|")}
    for key in own:
        there, here = provider.people.get(key), database.people.get(key)
        if here is None:
            if any(one == key and group in shared for group, one in provider.roles):
                found.add((Kind.ACCOUNT, "", key))
        elif there is None:
            found.add((Kind.USER, "", key))
        else:
            if there[0] != here[0]:
                found.add((Kind.NAME, "", key))
            if there[1].lower() != here[1].lower():
                found.add((Kind.EMAIL, "", key))
    both = {key for key in own if key in provider.people and key in database.people}
    for place in provider.roles.keys() | database.roles.keys():
        if place[0] in shared and place[1] in both:
            found |= _unequal_roles(place, provider.roles.get(place), database.roles.get(place))
    return found


def _unequal_roles(place: Place, there: set[str] | None, here: set[str] | None) -> set[Found]:
    if there is None or here is None:
        return {(Kind.MEMBERSHIP, *place)}
    found: set[Found] = set()
    if (there ^ here) - set(ROLES):
        found.add((Kind.UNKNOWN_ROLE, *place))
    if (there ^ here) & set(ROLES):
        found.add((Kind.ROLE, *place))
    return found


def as_found(rows: Iterable[dict[str, Any]]) -> set[Found]:
    """Return the rows of ``identity diff`` in the form of planted differences.

    Raises:
        ValueError: Two rows are the same difference.
    """
    found: set[Found] = set()
    for row in rows:
        kind = Kind(row["kind"])
        person = row["email"] if kind is Kind.INVITATION else row["auth0_user_id"]
        one = (kind, row["organization_id"] or "", person or "")
        if one in found:
            raise ValueError(f"listed twice: {one}")
        found.add(one)
    return found
