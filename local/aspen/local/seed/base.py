"""The test groups and users, which together cover every case of access control.

Each group has samples, phylogenetic runs, and trees.
"""

from __future__ import annotations

import hashlib
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from aspen.database.engine import Database
from aspen.database.models import (
    Group,
    GroupRole,
    PangoLineage,
    Pathogen,
    PathogenLineage,
    Role,
    Sample,
    User,
    UserRole,
    UsherOption,
)
from aspen.local.seed.phylo import seed_runs
from aspen.local.seed.samples import (
    PATHOGEN_SLUG,
    Objects,
    Place,
    add_places,
    known_places,
    seed_samples,
    seeded_lineages,
    seeded_places,
)
from aspencli.errors import ConflictError

SAMPLES = {1: 1000, 2: 20, 3: 5}
"""The number of samples of each test group; every fifth one is private."""

_Row = Mapping[str, Any]


@dataclass(frozen=True)
class BaseResult:
    """The number of objects added; all zero if everything existed.

    Attributes:
        groups: The number of groups.
        users: The number of users.
        locations: The number of locations.
        seconds: The time it took.
    """

    groups: int
    users: int
    locations: int
    seconds: float


@dataclass(frozen=True)
class RolesResult:
    """The number of objects added; all zero if everything existed.

    Attributes:
        groups: The number of groups.
        users: The number of users.
        locations: The number of locations.
        samples: The number of samples.
        runs: The number of phylogenetic runs.
        trees: The number of runs with a tree.
        seconds: The time it took.
    """

    groups: int
    users: int
    locations: int
    samples: int
    runs: int
    trees: int
    seconds: float


def seed_roles(
    database: Database,
    objects: Objects,
    *,
    progress: Callable[[int], None] | None = None,
) -> RolesResult:
    """Add the test groups and users, their samples up to `SAMPLES`, their runs, and trees.

    A new database gets 1,000 samples in group 1 (200 private), 20 in group 2 (4), and 5 in group 3
    (1). Running it again adds what is missing.

    Args:
        database: The database to write to.
        objects: Where to store the tree files.
        progress: Called with the number of samples written since the last call.

    Raises:
        ConflictError: The database has different groups with the test groups' IDs.
    """
    began = time.monotonic()
    base = seed_base(database)
    added = 0
    for group, wanted in SAMPLES.items():
        missing = wanted - _count(database, group)
        if missing > 0:
            added += seed_samples(database, missing, group=group, progress=progress).samples_added
    runs = seed_runs(database, objects)
    seconds = time.monotonic() - began
    return RolesResult(
        base.groups, base.users, base.locations, added, runs.runs, runs.trees, seconds
    )


def _count(database: Database, group: int) -> int:
    statement = sa.select(sa.func.count()).where(Sample.submitting_group_id == group)
    with database.reading() as session:
        return session.scalar(statement) or 0


def auth0_user_id(login: str) -> str:
    """Return the ID by which the service knows a user."""
    return f"auth0|{login}"


def email(login: str) -> str:
    """Return the e-mail address that a user signs in with."""
    return f"{login}@example.org"


def organization_name(prefix: str) -> str:
    """Return the name of a group's organization, in the service's format for new groups."""
    return f"group-{prefix.lower()}"


def seed_base(database: Database) -> BaseResult:
    """Add the test groups 1 to 3, their users and roles, locations, and lineages.

    Running it again adds what is missing and changes nothing else.

    Raises:
        ConflictError: The database has a different group with one of these IDs or prefixes.
    """
    began = time.monotonic()
    text = (files("aspen.local.seed") / "base.toml").read_text(encoding="utf-8")
    document = tomllib.loads(text)
    with database.begin() as session:
        locations = add_places(session, seeded_places().items())
        groups = _add_groups(session, document["groups"])
        users = _add_users(session, document["users"])
        _add_roles(session, document["users"], document["grants"])
        _add_lineages(session)
        _add_usher_options(session, document["usher_options"])
    return BaseResult(groups, users, locations, time.monotonic() - began)


def _add_groups(session: Session, rows: Sequence[_Row]) -> int:
    there = dict(session.execute(sa.select(Group.id, Group.prefix)).all())
    places, added = known_places(session), []
    for row in rows:
        taken = there.get(row["id"])
        if taken == row["prefix"]:
            continue
        if taken is not None or row["prefix"] in there.values():
            raise ConflictError(
                f"The database has another group with ID {row['id']} or prefix {row['prefix']}.",
                hint="The test groups require an empty database. Run 'aspencli local reset' first.",
            )
        home = Place("North America", "USA", row["division"], row["location"])
        added.append({**row, "default_tree_location_id": places[home]})
    if added:
        session.execute(sa.insert(Group), added)
        # The IDs were set explicitly, so move the sequence past them.
        session.execute(
            sa.text(
                "SELECT setval('aspen.groups_id_seq', GREATEST(max(id),"
                " (SELECT last_value FROM aspen.groups_id_seq))) FROM aspen.groups"
            )
        )
    return len(added)


def _add_users(session: Session, rows: Sequence[_Row]) -> int:
    users = [
        {
            "name": row["name"],
            "email": email(row["login"]),
            "auth0_user_id": auth0_user_id(row["login"]),
            "system_admin": row.get("system_admin", False),
            "agreed_to_tos": True,
            "split_id": _identifier("split", row),
            "analytics_id": _identifier("analytics", row),
        }
        for row in rows
    ]
    statement = insert(User).values(users).on_conflict_do_nothing().returning(User.id)
    return len(session.scalars(statement).all())


def _add_roles(session: Session, users: Sequence[_Row], grants: Sequence[_Row]) -> None:
    roles = dict(session.execute(sa.select(Role.name, Role.id)).all())
    ids = dict(session.execute(sa.select(User.auth0_user_id, User.id)).all())
    memberships = [
        {
            "user_id": ids[auth0_user_id(user["login"])],
            "group_id": held["group"],
            "role_id": roles[held["role"]],
        }
        for user in users
        for held in user.get("roles", [])
    ]
    session.execute(insert(UserRole).values(memberships).on_conflict_do_nothing())
    granted = [
        {
            "role_id": roles[grant["role"]],
            "grantor_group_id": grant["grantor"],
            "grantee_group_id": grant["grantee"],
        }
        for grant in grants
    ]
    session.execute(insert(GroupRole).values(granted).on_conflict_do_nothing())


def _add_lineages(session: Session) -> None:
    names = sorted({lineage.name for lineage in seeded_lineages()})
    rows = [{"lineage": name} for name in names]
    session.execute(insert(PangoLineage).values(rows).on_conflict_do_nothing())
    pathogen = session.scalars(sa.select(Pathogen.id).where(Pathogen.slug == PATHOGEN_SLUG)).one()
    pairs = [{"pathogen_id": pathogen, "lineage": name} for name in names]
    session.execute(insert(PathogenLineage).values(pairs).on_conflict_do_nothing())


def _add_usher_options(session: Session, rows: Sequence[_Row]) -> None:
    pathogens = dict(session.execute(sa.select(Pathogen.slug, Pathogen.id)).all())
    options = [
        {
            "pathogen_id": pathogens[row["pathogen"]],
            "description": row["description"],
            "value": row["value"],
            "priority": row["priority"],
        }
        for row in rows
    ]
    session.execute(insert(UsherOption).values(options).on_conflict_do_nothing())


def _identifier(purpose: str, user: _Row) -> str:
    """Return an opaque identifier that is the same in every local deployment."""
    return hashlib.sha256(f"{purpose}:{user['login']}".encode()).hexdigest()[:20]
