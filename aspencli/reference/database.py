"""Groups, pathogens, roles, and locations, found or listed in the database.

Incomplete samples are found here as well, because `aspencli.cli.context` explains with them why the
live service fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from aspen.database.engine import ReadSession
from aspen.database.models import Group, Location, Pathogen, Role, Sample, UploadedPathogenGenome
from aspen.database.models.reference import listed_places, nearest_places
from aspencli.errors import BadInputError, NotFoundError
from aspencli.remote.api import LocationQuery
from aspencli.stored_text import as_id
from aspencli.text import nearest, not_found

_Row = dict[str, Any]
_INCOMPLETE = 20  # samples listed in an error
PLACE = sa.func.nullif(
    sa.func.concat_ws(
        " / ", Location.region, Location.country, Location.division, Location.location
    ),
    "",
)
"""A location as ``Region / Country / Division / Location``; NULL if there is none."""


def find_group(session: ReadSession, key: str) -> Group:
    """Return the group with this ID, name, or prefix; an exact match beats a case-insensitive one.

    Raises:
        NotFoundError: No group matches.
        BadInputError: Several groups match, such as one by ID and one by prefix.
    """
    exact = sa.or_(Group.id == as_id(key), Group.name == key, Group.prefix == key)
    folded = sa.or_(
        sa.func.lower(Group.name) == sa.func.lower(key),
        sa.func.lower(Group.prefix) == sa.func.lower(key),
    )
    for condition in (exact, folded):
        found = session.scalars(sa.select(Group).where(condition).order_by(Group.id)).all()
        if len(found) == 1:
            return found[0]
        if found:
            raise BadInputError(
                f"Several groups match {key!r}.",
                hint="Use the full name of one of them.",
                details=[describe_group(group) for group in found],
            )
    raise _no_group(session, key)


def _no_group(session: ReadSession, key: str) -> NotFoundError:
    groups = session.scalars(sa.select(Group).order_by(Group.id)).all()
    near = set(nearest(key, [name for group in groups for name in (group.name, group.prefix)]))
    return NotFoundError(
        f"No such group: {key!r}",
        details=[
            f"similar: {describe_group(group)}"
            for group in groups
            if group.name in near or group.prefix in near
        ],
        hint="List all groups: aspencli groups list",
    )


def describe_group(group: Group) -> str:
    """Return a one-line description of the group with its ID, name, and prefix."""
    return f"{group.id}  {group.name} (prefix {group.prefix})"


def find_pathogen(session: ReadSession, slug: str) -> Pathogen:
    """Return the pathogen with this slug, trying upper case as well.

    Raises:
        NotFoundError: No pathogen matches.
    """
    slugs = {pathogen.slug: pathogen for pathogen in session.scalars(sa.select(Pathogen))}
    found = slugs.get(slug) or slugs.get(slug.upper())
    if found is None:
        raise not_found("pathogen", slug, slugs)
    return found


def find_role(session: ReadSession, name: str) -> Role:
    """Return the role with this name.

    Raises:
        NotFoundError: No role matches.
    """
    roles = {role.name: role for role in session.scalars(sa.select(Role).order_by(Role.id))}
    found = roles.get(name.lower())
    if found is None:
        raise not_found("role", name, roles)
    return found


def incomplete_samples(session: ReadSession, ids: Sequence[int] | None) -> list[str]:
    """Describe, on one line each, samples that make the live service return a 500 error.

    Args:
        session: The session to query.
        ids: The samples to be changed, which also need a genome; None for a list, which fails
            only if a location is missing.
    """
    lacks_place, lacks_genome = (
        Sample.location_id.is_(None),
        UploadedPathogenGenome.sample_id.is_(None),
    )
    statement = (
        sa.select(Sample.id, Sample.private_identifier, Sample.submitting_group_id, lacks_place)
        .outerjoin(UploadedPathogenGenome, UploadedPathogenGenome.sample_id == Sample.id)
        .order_by(Sample.id)
        .limit(_INCOMPLETE)
    )
    if ids is None:
        statement = statement.where(lacks_place)
    else:
        statement = statement.where(Sample.id.in_(ids), sa.or_(lacks_place, lacks_genome))
    return [
        f'sample {id_} ("{name}") of group {group} has no {"location" if placeless else "genome"}'
        for id_, name, group, placeless in session.execute(statement)
    ]


def list_locations(session: ReadSession, deepest: str) -> Iterator[_Row]:
    """Return the locations down to the given level, ordered by ID."""
    return (dict(row) for row in session.execute(listed_places(deepest)).mappings())


def search_locations(session: ReadSession, query: LocationQuery) -> Iterator[_Row]:
    """Return the locations closest in spelling, as the API does."""
    typed = {level: str(name) for level, name in query.items()}
    return (dict(row) for row in session.execute(nearest_places(typed)).mappings())


def list_pathogens(session: ReadSession) -> Iterator[_Row]:
    """Return every pathogen, ordered by ID."""
    statement = sa.select(Pathogen.id, Pathogen.slug, Pathogen.name).order_by(Pathogen.id)
    return (dict(row) for row in session.execute(statement).mappings())
