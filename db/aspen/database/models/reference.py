"""Reference data: locations, lineages, and pathogens with their repositories."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from aspen.database.models.base import Base, LineageType, dependents, lookup_column

if TYPE_CHECKING:
    from aspen.database.models.accounts import Group
    from aspen.database.models.samples import Sample
    from aspen.database.models.workflows import PhyloRun, PhyloTree


class Location(Base):
    """A place, as specific as its deepest non-NULL column (from region down to location)."""

    __tablename__ = "locations"
    __table_args__ = (
        sa.UniqueConstraint("region", "country", "division", "location", name="uq_locations_cols"),
    )
    repr_fields = {
        "region": "region",
        "country": "country",
        "division": "division",
        "location": "location",
    }

    id: Mapped[int] = mapped_column(primary_key=True)
    region: Mapped[str | None]
    country: Mapped[str | None]
    division: Mapped[str | None]
    location: Mapped[str | None]
    latitude: Mapped[float | None]
    """Degrees, north positive."""
    longitude: Mapped[float | None]
    """Degrees, east positive."""

    samples: Mapped[list[Sample]] = dependents("collection_location")
    default_for_groups: Mapped[list[Group]] = dependents("default_tree_location")
    """The groups whose trees cover this place by default."""


class PangoLineage(Base):
    """A SARS-CoV-2 lineage in the Pango nomenclature."""

    __tablename__ = "pango_lineages"
    repr_fields = {"lineage": "lineage"}

    id: Mapped[int] = mapped_column(primary_key=True)
    lineage: Mapped[str] = mapped_column(unique=True)


class PathogenLineage(Base):
    """A lineage of any pathogen."""

    __tablename__ = "pathogen_lineages"
    repr_fields = {"pathogen": "pathogen_id", "lineage": "lineage"}

    pathogen_id: Mapped[int] = mapped_column(sa.ForeignKey("pathogens.id"), primary_key=True)
    lineage: Mapped[str] = mapped_column(primary_key=True)

    pathogen: Mapped[Pathogen] = relationship(back_populates="lineages")


class SampleLineage(Base):
    """The lineage that one tool assigned to a sample."""

    __tablename__ = "sample_lineages"
    __table_args__ = (sa.UniqueConstraint("sample_id", "lineage_type"),)
    repr_fields = {"lineage": "lineage", "type": "lineage_type", "sample": "sample_id"}

    id: Mapped[int] = mapped_column(primary_key=True)
    sample_id: Mapped[int | None] = mapped_column(sa.ForeignKey("samples.id"))
    """None if the service deleted the sample, which leaves the lineage behind."""
    lineage_type: Mapped[LineageType] = lookup_column(LineageType)
    lineage_software_version: Mapped[str]
    lineage: Mapped[str]
    lineage_probability: Mapped[float | None]
    raw_lineage_output: Mapped[dict[str, Any] | None]
    reference_dataset_name: Mapped[str | None]
    reference_sequence_accession: Mapped[str | None]
    reference_dataset_tag: Mapped[str | None]
    last_updated: Mapped[datetime | None]

    sample: Mapped[Sample | None] = relationship(back_populates="lineages")


class Pathogen(Base):
    """A pathogen; the slug (``SC2``, ``MPX``, ``HCV``) is its name in URLs and options."""

    __tablename__ = "pathogens"
    repr_fields = {"slug": "slug", "name": "name"}

    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str] = mapped_column(unique=True)
    nextclade_dataset_name: Mapped[str | None]

    samples: Mapped[list[Sample]] = dependents("pathogen")
    lineages: Mapped[list[PathogenLineage]] = dependents("pathogen")
    repo_configs: Mapped[list[PathogenRepoConfig]] = dependents("pathogen")
    usher_options: Mapped[list[UsherOption]] = dependents("pathogen")
    phylo_runs: Mapped[list[PhyloRun]] = dependents("pathogen")
    phylo_trees: Mapped[list[PhyloTree]] = dependents("pathogen")


class PublicRepository(Base):
    """A repository where sequences are published: GISAID or GenBank."""

    __tablename__ = "public_repositories"
    repr_fields = {"name": "name"}

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)

    pathogen_configs: Mapped[list[PathogenRepoConfig]] = dependents("public_repository")


class PathogenRepoConfig(Base):
    """A repository's prefix for a pathogen's public identifiers, such as ``hCoV-19``."""

    __tablename__ = "pathogen_repo_configs"
    __table_args__ = (sa.UniqueConstraint("public_repository_id", "pathogen_id"),)
    repr_fields = {
        "prefix": "prefix",
        "pathogen": "pathogen_id",
        "repository": "public_repository_id",
    }

    id: Mapped[int] = mapped_column(primary_key=True)
    prefix: Mapped[str]
    public_repository_id: Mapped[int] = mapped_column(sa.ForeignKey("public_repositories.id"))
    pathogen_id: Mapped[int] = mapped_column(sa.ForeignKey("pathogens.id"))

    public_repository: Mapped[PublicRepository] = relationship(back_populates="pathogen_configs")
    pathogen: Mapped[Pathogen] = relationship(back_populates="repo_configs")


class UsherOption(Base):
    """A tree that UShER can place samples in; the lowest `priority` is offered first."""

    __tablename__ = "usher_options"
    __table_args__ = (sa.UniqueConstraint("pathogen_id", "priority"),)
    repr_fields = {"value": "value", "pathogen": "pathogen_id"}

    id: Mapped[int] = mapped_column(primary_key=True)
    description: Mapped[str] = mapped_column(unique=True)
    value: Mapped[str] = mapped_column(unique=True)
    priority: Mapped[int | None]
    pathogen_id: Mapped[int] = mapped_column(sa.ForeignKey("pathogens.id"))

    pathogen: Mapped[Pathogen] = relationship(back_populates="usher_options")


# Queries for locations

LEVELS = ("region", "country", "division", "location")
"""The parts of a location, from largest to smallest."""
_COLUMNS = [getattr(Location, level) for level in LEVELS]
_NEAREST = 30
_LONGEST = 255  # the maximum length for PostgreSQL's levenshtein()


def listed_places(deepest: str) -> sa.Select[Any]:
    """Return a query for all locations no more specific than a level, ordered by ID."""
    return _places().where(_no_deeper_than(deepest)).order_by(Location.id)


def nearest_places(typed: Mapping[str, str]) -> sa.Select[Any]:
    """Return a query for the locations nearest to what was typed, by edit distance.

    A country or division comes with what is directly in it; a region alone, with locations. What
    was typed is at least one name, by level; none of them empty.
    """
    distance = sum(_distance(level, name) for level, name in typed.items())
    depth = max(map(LEVELS.index, typed)) or LEVELS.index("location")
    path = _COLUMNS[: depth + 1]
    if depth == LEVELS.index("location"):
        order = [distance, *path, Location.id]
        return _places().where(path[-1].is_not(None)).order_by(*order).limit(_NEAREST)
    inner = LEVELS[depth + 1]
    nearest = (
        sa.select(*path)
        .where(path[-1].is_not(None))
        .order_by(distance, *path)
        .limit(1)
        .cte("nearest")
    )
    same = (column.is_not_distinct_from(nearest.c[column.name]) for column in path)
    return (
        _places()
        .join(nearest, sa.and_(*same))
        .where(_no_deeper_than(inner))
        .order_by(getattr(Location, inner).nulls_first(), Location.id)
    )


def _places() -> sa.Select[Any]:
    return sa.select(Location.id, *_COLUMNS)


def _no_deeper_than(level: str) -> sa.ColumnElement[bool]:
    deeper = _COLUMNS[LEVELS.index(level) + 1 :]
    return sa.and_(sa.true(), *(column.is_(None) for column in deeper))


def _distance(level: str, name: str) -> Any:
    """Return the edit distance of a location's name at a level; a missing name counts as empty."""
    known = sa.func.lower(sa.func.coalesce(getattr(Location, level), ""))
    return sa.func.levenshtein(
        sa.func.left(known, _LONGEST), sa.func.left(sa.func.lower(name), _LONGEST)
    )
