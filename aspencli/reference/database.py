"""Groups, pathogens, roles, and locations, found or listed in the database.

Incomplete samples are found here as well, because `aspencli.cli.context` explains with them why the
live service fails. The models are loaded only where they are needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from aspen.database.tables import GROUPS, LOCATIONS, PATHOGENS, PLACE, ROLES
from aspencli.errors import BadInputError, NotFoundError
from aspencli.text import as_id, nearest, not_found

if TYPE_CHECKING:
    from aspen.database.sessions import Reader
    from aspencli.remote.types import LocationQuery

_Row = dict[str, Any]
_INCOMPLETE = 20  # samples listed in an error
_GROUP: sa.Select[Any] = sa.select(GROUPS.c.id, GROUPS.c.name, GROUPS.c.prefix)


def find_group(reader: Reader, key: str) -> sa.Row[Any]:
    """Return the ID, name, and prefix of the group that has one of them as the key.

    An exact match beats a case-insensitive one.

    Raises:
        NotFoundError: No group matches.
        BadInputError: Several groups match, such as one by ID and one by prefix.
    """
    group = GROUPS.c
    exact = sa.or_(group.id == as_id(key), group.name == key, group.prefix == key)
    folded = sa.or_(
        sa.func.lower(group.name) == sa.func.lower(key),
        sa.func.lower(group.prefix) == sa.func.lower(key),
    )
    for condition in (exact, folded):
        found = reader.execute(_GROUP.where(condition).order_by(group.id)).all()
        if len(found) == 1:
            return found[0]
        if found:
            raise BadInputError(
                f"Several groups match {key!r}.",
                hint="Use the full name of one of them.",
                details=[describe_group(each) for each in found],
            )
    raise _no_group(reader, key)


def _no_group(reader: Reader, key: str) -> NotFoundError:
    groups = reader.execute(_GROUP.order_by(GROUPS.c.id)).all()
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


def describe_group(group: sa.Row[Any]) -> str:
    """Return a one-line description of the group with its ID, name, and prefix."""
    return f"{group.id}  {group.name} (prefix {group.prefix})"


def find_pathogen(reader: Reader, slug: str) -> sa.Row[Any]:
    """Return the ID, slug, and name of the pathogen with this slug, trying upper case as well.

    Raises:
        NotFoundError: No pathogen matches.
    """
    slugs = {pathogen.slug: pathogen for pathogen in reader.execute(sa.select(PATHOGENS))}
    found = slugs.get(slug) or slugs.get(slug.upper())
    if found is None:
        raise not_found("pathogen", slug, slugs)
    return found


def find_role(reader: Reader, name: str) -> sa.Row[Any]:
    """Return the ID and name of the role with this name.

    Raises:
        NotFoundError: No role matches.
    """
    roles = {role.name: role for role in reader.execute(sa.select(ROLES).order_by(ROLES.c.id))}
    found = roles.get(name.lower())
    if found is None:
        raise not_found("role", name, roles)
    return found


def find_location(reader: Reader, text: str) -> sa.Row[Any]:
    """Return the ID and the place of the location with this ID or name.

    A name is ``Region / Country / Division / Location``, without the parts that it does not have.
    Letter case and further spaces are ignored.

    Raises:
        NotFoundError: No location matches.
        BadInputError: Several locations match.
    """
    name = "/".join(" ".join(part.split()) for part in text.split("/"))
    parts = (LOCATIONS.c[level] for level in ("region", "country", "division", "location"))
    known = sa.func.lower(sa.func.concat_ws("/", *(sa.func.nullif(part, "") for part in parts)))
    query: sa.Select[Any] = sa.select(LOCATIONS.c.id, PLACE.label("place"))
    for condition in (LOCATIONS.c.id == as_id(text), known == name.lower()):
        found = reader.execute(query.where(condition).order_by(LOCATIONS.c.id)).all()
        if len(found) == 1:
            return found[0]
        if found:
            raise BadInputError(
                f"Several locations match {text!r}.",
                hint="Use the ID of one of them.",
                details=[f"{place.id}  {place.place}" for place in found],
            )
    raise NotFoundError(
        f"No such location: {text!r}",
        hint="Use an ID, or Region / Country / Division / Location (the last ones may be left "
        "out). To search: aspencli locations search",
    )


def incomplete_samples(reader: Reader, ids: Sequence[int] | None) -> list[str]:
    """Describe, on one line each, samples that make the live service return a 500 error.

    Args:
        reader: The connection to query.
        ids: The samples to be changed, which also need a genome; None for a list, which fails
            only if a location is missing.
    """
    from aspen.database.models import Sample, UploadedPathogenGenome

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
        for id_, name, group, placeless in reader.execute(statement)
    ]


def list_locations(reader: Reader, deepest: str) -> Iterator[_Row]:
    """Return the locations down to the given level, ordered by ID."""
    from aspen.database.models.reference import listed_places

    return (dict(row) for row in reader.execute(listed_places(deepest)).mappings())


def search_locations(reader: Reader, query: LocationQuery) -> Iterator[_Row]:
    """Return the locations closest in spelling, as the API does."""
    from aspen.database.models.reference import nearest_places

    typed = {level: str(name) for level, name in query.items()}
    return (dict(row) for row in reader.execute(nearest_places(typed)).mappings())


def list_pathogens(reader: Reader) -> Iterator[_Row]:
    """Return every pathogen, ordered by ID."""
    rows = reader.execute(sa.select(PATHOGENS).order_by(PATHOGENS.c.id))
    return (dict(row) for row in rows.mappings())
