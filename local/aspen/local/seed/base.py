"""The test groups and users, which together cover every case of access control.

Each group has samples, phylogenetic runs, and trees.
"""

from __future__ import annotations

import hashlib
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
from aspen.local.aws.content import ObjectFolder
from aspen.local.seed.phylo import seed_runs
from aspen.local.seed.samples import (
    PlaceNames,
    Seeded,
    add_places,
    known_places,
    pathogen_id,
    resource,
    seed_samples,
    seeded_lineages,
    seeded_places,
)
from aspencli.errors import ConflictError

SAMPLES = {1: 1000, 2: 20, 3: 5}
"""The number of samples of each test group; every fifth one is private."""

_Row = Mapping[str, Any]


def seed_roles(
    database: Database,
    objects: ObjectFolder,
    *,
    progress: Callable[[int], None] | None = None,
) -> Seeded:
    """Add the test groups and users, their samples up to `SAMPLES`, their runs, and trees.

    A new database gets 1,000 samples in group 1 (200 private), 20 in group 2 (4), and 5 in group 3
    (1). Running it again adds what is missing. ``objects`` gets the tree files, and ``progress`` is
    called with the number of samples written since the last call.

    Raises:
        ConflictError: The database has different groups with the test groups' IDs.
    """
    began = time.monotonic()
    added = seed_base(database)
    for group, wanted in SAMPLES.items():
        missing = wanted - _count(database, group)
        if missing > 0:
            made = seed_samples(database, missing, group=group, progress=progress)
            added += Seeded(samples=made.samples_added)
    added += seed_runs(database, objects)
    return replace(added, seconds=time.monotonic() - began)


def _count(database: Database, group: int) -> int:
    statement = sa.select(sa.func.count()).where(Sample.submitting_group_id == group)
    with database.reading() as session:
        return session.scalar(statement) or 0


def has_groups(database: Database) -> bool:
    """Return True if there is a group that could own samples."""
    with database.reading() as session:
        return bool(session.scalar(sa.select(sa.exists(sa.select(Group.id)))))


def base_document() -> dict[str, Any]:
    """Return the groups, the users with their roles, and what else every deployment has."""
    return tomllib.loads(resource("base.toml"))


def auth0_user_id(login: str) -> str:
    """Return the ID by which the service knows a user."""
    return f"auth0|{login}"


def email(login: str) -> str:
    """Return the e-mail address that a user signs in with."""
    return f"{login}@example.org"


def seed_base(database: Database) -> Seeded:
    """Add the test groups 1 to 3, their users and roles, locations, and lineages.

    Running it again adds what is missing and changes nothing else.

    Raises:
        ConflictError: The database has a different group with one of these IDs or prefixes.
    """
    began, document = time.monotonic(), base_document()
    with database.begin() as session:
        locations = add_places(session, seeded_places().items())
        groups = _add_groups(session, document["groups"])
        users = _add_users(session, document["users"])
        _add_roles(session, document["users"], document["grants"])
        _add_lineages(session)
        _add_usher_options(session, document["usher_options"])
    seconds = time.monotonic() - began
    return Seeded(groups=groups, users=users, locations=locations, seconds=seconds)


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
        home = PlaceNames("North America", "USA", row["division"], row["location"])
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


def _add_missing(session: Session, model: type[Any], rows: Sequence[_Row]) -> None:
    session.execute(insert(model).values(rows).on_conflict_do_nothing())


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
    _add_missing(session, UserRole, memberships)
    granted = [
        {
            "role_id": roles[grant["role"]],
            "grantor_group_id": grant["grantor"],
            "grantee_group_id": grant["grantee"],
        }
        for grant in grants
    ]
    _add_missing(session, GroupRole, granted)


def _add_lineages(session: Session) -> None:
    names, pathogen = sorted(seeded_lineages()), pathogen_id(session)
    _add_missing(session, PangoLineage, [{"lineage": name} for name in names])
    pairs = [{"pathogen_id": pathogen, "lineage": name} for name in names]
    _add_missing(session, PathogenLineage, pairs)


def _add_usher_options(session: Session, rows: Sequence[_Row]) -> None:
    pathogens = dict(session.execute(sa.select(Pathogen.slug, Pathogen.id)).all())
    options = [
        {
            "pathogen_id": pathogens[row["pathogen"]],
            **{name: row[name] for name in ("description", "value", "priority")},
        }
        for row in rows
    ]
    _add_missing(session, UsherOption, options)


def _identifier(purpose: str, user: _Row) -> str:
    """Return an opaque identifier that is the same in every local deployment."""
    return hashlib.sha256(f"{purpose}:{user['login']}".encode()).hexdigest()[:20]
