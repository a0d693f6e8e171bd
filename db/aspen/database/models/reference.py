"""Reference data: lookup values, locations, lineages, and pathogens with their repositories.

A lookup table has one row for each value that columns elsewhere may hold. Such columns are loaded
as enums.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Mapped, mapped_column, relationship

from aspen.database.models.base import Base

if TYPE_CHECKING:
    from aspen.database.models.accounts import Group
    from aspen.database.models.phylo import PhyloRun, PhyloTree
    from aspen.database.models.samples import Sample


class AccessionType(StrEnum):
    """The repository and kind of an accession number."""

    GENBANK = "GENBANK"
    GISAID_ISL = "GISAID_ISL"


class EntityType(StrEnum):
    """The type of an entity, which determines the class it is loaded as."""

    ALIGNED_GISAID_DUMP = "ALIGNED_GISAID_DUMP"
    ALIGNED_PATHOGEN_GENOME = "ALIGNED_PATHOGEN_GENOME"
    ALIGNED_PUBLIC_REPOSITORY_DATA = "ALIGNED_PUBLIC_REPOSITORY_DATA"
    PHYLO_TREE = "PHYLO_TREE"
    PROCESSED_GISAID_DUMP = "PROCESSED_GISAID_DUMP"
    PROCESSED_PUBLIC_REPOSITORY_DATA = "PROCESSED_PUBLIC_REPOSITORY_DATA"
    RAW_GISAID_DUMP = "RAW_GISAID_DUMP"
    RAW_PUBLIC_REPOSITORY_DATA = "RAW_PUBLIC_REPOSITORY_DATA"
    UPLOADED_PATHOGEN_GENOME = "UPLOADED_PATHOGEN_GENOME"


class LineageType(StrEnum):
    """The tool that called a lineage."""

    NEXTCLADE = "NEXTCLADE"
    PANGOLIN = "PANGOLIN"


class MutationsCaller(StrEnum):
    """The tool that called mutations."""

    NEXTCLADE = "NEXTCLADE"


class QCMetricCaller(StrEnum):
    """The tool that assessed a sequence's quality."""

    NEXTCLADE = "NEXTCLADE"


class TreeType(StrEnum):
    """The method by which the samples of a phylogenetic tree were chosen."""

    NON_CONTEXTUALIZED = "NON_CONTEXTUALIZED"
    OVERVIEW = "OVERVIEW"
    TARGETED = "TARGETED"
    UNKNOWN = "UNKNOWN"


class WorkflowStatus(StrEnum):
    """The status of a workflow."""

    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    STARTED = "STARTED"


class WorkflowType(StrEnum):
    """The type of a workflow, which determines the class it is loaded as."""

    ALIGN_GISAID_DUMP = "ALIGN_GISAID_DUMP"
    ALIGN_PUBLIC_REPOSITORY_DATA = "ALIGN_PUBLIC_REPOSITORY_DATA"
    DOWNLOAD_PUBLIC_REPOSITORY_DATA = "DOWNLOAD_PUBLIC_REPOSITORY_DATA"
    PHYLO_RUN = "PHYLO_RUN"
    PROCESS_GISAID_DUMP = "PROCESS_GISAID_DUMP"


class LookupValue(sa.types.TypeDecorator[StrEnum]):
    """A VARCHAR that refers to a lookup table, read and written as an enum member.

    Writing or comparing with a value outside the enum raises a `ValueError`, which SQLAlchemy
    wraps in a `StatementError`. Reading one returns the plain string instead: a newer release
    of the service may have added rows to the lookup table, and one such row must not make a
    whole query unreadable.
    """

    impl = sa.String
    cache_ok = True

    def __init__(self, kind: type[StrEnum]):
        super().__init__()
        self.kind = kind

    def __repr__(self) -> str:
        return f"LookupValue({self.kind.__name__})"

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Return the string that the database stores."""
        del dialect
        return None if value is None else self.kind(value).value

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Return the enum member, or the string if there is none."""
        del dialect
        try:
            return None if value is None else self.kind(value)
        except ValueError:
            return value


class LookupMixin:
    """A mixin with the only column of a lookup table."""

    item_id: Mapped[str] = mapped_column(primary_key=True)


class AccessionTypeLookup(LookupMixin, Base):
    """The rows behind `AccessionType`."""

    __tablename__ = "accession_types"


class EntityTypeLookup(LookupMixin, Base):
    """The rows behind `EntityType`."""

    __tablename__ = "entity_types"


class LineageTypeLookup(LookupMixin, Base):
    """The rows behind `LineageType`."""

    __tablename__ = "lineage_types"


class MutationsCallerLookup(LookupMixin, Base):
    """The rows behind `MutationsCaller`."""

    __tablename__ = "mutations_callers"


class QCMetricCallerLookup(LookupMixin, Base):
    """The rows behind `QCMetricCaller`."""

    __tablename__ = "qc_metric_callers"


class TreeTypeLookup(LookupMixin, Base):
    """The rows behind `TreeType`."""

    __tablename__ = "tree_types"


class WorkflowStatusLookup(LookupMixin, Base):
    """The rows behind `WorkflowStatus`."""

    __tablename__ = "workflow_status_types"


class WorkflowTypeLookup(LookupMixin, Base):
    """The rows behind `WorkflowType`."""

    __tablename__ = "workflow_types"


class Location(Base):
    """A place, as specific as its deepest non-NULL column (from region down to location)."""

    __tablename__ = "locations"
    __table_args__ = (
        sa.UniqueConstraint("region", "country", "division", "location", name="uq_locations_cols"),
    )
    repr_fields: ClassVar[Mapping[str, str]] = {
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

    samples: Mapped[list[Sample]] = relationship(
        back_populates="collection_location", passive_deletes="all"
    )
    default_for_groups: Mapped[list[Group]] = relationship(
        back_populates="default_tree_location", passive_deletes="all"
    )
    """The groups whose trees cover this place by default."""


class PangoLineage(Base):
    """A SARS-CoV-2 lineage in the Pango nomenclature."""

    __tablename__ = "pango_lineages"
    repr_fields: ClassVar[Mapping[str, str]] = {"lineage": "lineage"}

    id: Mapped[int] = mapped_column(primary_key=True)
    lineage: Mapped[str] = mapped_column(unique=True)


class PathogenLineage(Base):
    """A lineage of any pathogen."""

    __tablename__ = "pathogen_lineages"
    repr_fields: ClassVar[Mapping[str, str]] = {"pathogen": "pathogen_id", "lineage": "lineage"}

    pathogen_id: Mapped[int] = mapped_column(sa.ForeignKey("pathogens.id"), primary_key=True)
    lineage: Mapped[str] = mapped_column(primary_key=True)

    pathogen: Mapped[Pathogen] = relationship(back_populates="lineages")


class SampleLineage(Base):
    """The lineage that one tool assigned to a sample."""

    __tablename__ = "sample_lineages"
    __table_args__ = (sa.UniqueConstraint("sample_id", "lineage_type"),)
    repr_fields: ClassVar[Mapping[str, str]] = {
        "lineage": "lineage",
        "type": "lineage_type",
        "sample": "sample_id",
    }

    id: Mapped[int] = mapped_column(primary_key=True)
    sample_id: Mapped[int | None] = mapped_column(sa.ForeignKey("samples.id"))
    """None if the service deleted the sample, which leaves the lineage behind."""
    lineage_type: Mapped[LineageType] = mapped_column(
        LookupValue(LineageType), sa.ForeignKey("lineage_types.item_id")
    )
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
    repr_fields: ClassVar[Mapping[str, str]] = {"slug": "slug", "name": "name"}

    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str] = mapped_column(unique=True)
    nextclade_dataset_name: Mapped[str | None]

    samples: Mapped[list[Sample]] = relationship(back_populates="pathogen", passive_deletes="all")
    lineages: Mapped[list[PathogenLineage]] = relationship(
        back_populates="pathogen", passive_deletes="all"
    )
    repo_configs: Mapped[list[PathogenRepoConfig]] = relationship(
        back_populates="pathogen", passive_deletes="all"
    )
    usher_options: Mapped[list[UsherOption]] = relationship(
        back_populates="pathogen", passive_deletes="all"
    )
    phylo_runs: Mapped[list[PhyloRun]] = relationship(
        back_populates="pathogen", passive_deletes="all"
    )
    phylo_trees: Mapped[list[PhyloTree]] = relationship(
        back_populates="pathogen", passive_deletes="all"
    )


class PublicRepository(Base):
    """A repository where sequences are published: GISAID or GenBank."""

    __tablename__ = "public_repositories"
    repr_fields: ClassVar[Mapping[str, str]] = {"name": "name"}

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)

    pathogen_configs: Mapped[list[PathogenRepoConfig]] = relationship(
        back_populates="public_repository", passive_deletes="all"
    )


class PathogenRepoConfig(Base):
    """A repository's prefix for a pathogen's public identifiers, such as ``hCoV-19``."""

    __tablename__ = "pathogen_repo_configs"
    __table_args__ = (sa.UniqueConstraint("public_repository_id", "pathogen_id"),)
    repr_fields: ClassVar[Mapping[str, str]] = {
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
    repr_fields: ClassVar[Mapping[str, str]] = {"value": "value", "pathogen": "pathogen_id"}

    id: Mapped[int] = mapped_column(primary_key=True)
    description: Mapped[str] = mapped_column(unique=True)
    value: Mapped[str] = mapped_column(unique=True)
    priority: Mapped[int | None]
    pathogen_id: Mapped[int] = mapped_column(sa.ForeignKey("pathogens.id"))

    pathogen: Mapped[Pathogen] = relationship(back_populates="usher_options")
