"""Dumps of public repositories, and the workflows that process them.

The GISAID models are from when SARS-CoV-2 was the only pathogen; the others serve any pathogen.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from aspen.database.models.base import Base
from aspen.database.models.reference import EntityType, WorkflowType
from aspen.database.models.workflows import Entity, Workflow

if TYPE_CHECKING:
    from aspen.database.models.reference import Pathogen, PublicRepository


_SOURCE: Mapping[str, str] = {"pathogen": "pathogen_id", "repository": "public_repository_id"}


class RawGisaidDump(Entity):
    """A dump as downloaded."""

    __tablename__ = "raw_gisaid_dump"
    __table_args__ = (sa.UniqueConstraint("s3_bucket", "s3_key"),)
    __mapper_args__ = {"polymorphic_identity": EntityType.RAW_GISAID_DUMP}
    repr_fields: ClassVar[Mapping[str, str]] = {"downloaded": "download_date", "s3_key": "s3_key"}

    entity_id: Mapped[int] = mapped_column(sa.ForeignKey("entities.id"), primary_key=True)
    download_date: Mapped[datetime]
    s3_bucket: Mapped[str]
    s3_key: Mapped[str]


class ProcessedGisaidDump(Entity):
    """A dump, split into sequences and metadata."""

    __tablename__ = "processed_gisaid_dump"
    __table_args__ = (
        sa.UniqueConstraint(
            "s3_bucket", "sequences_s3_key", name="uq_processed_gisaid_dump_s3_bucket_sequences"
        ),
        sa.UniqueConstraint(
            "s3_bucket", "metadata_s3_key", name="uq_processed_gisaid_dump_s3_bucket_key"
        ),
    )
    __mapper_args__ = {"polymorphic_identity": EntityType.PROCESSED_GISAID_DUMP}
    repr_fields: ClassVar[Mapping[str, str]] = {"metadata": "metadata_s3_key"}

    entity_id: Mapped[int] = mapped_column(sa.ForeignKey("entities.id"), primary_key=True)
    s3_bucket: Mapped[str]
    metadata_s3_key: Mapped[str]
    sequences_s3_key: Mapped[str]


class AlignedGisaidDump(Entity):
    """A dump, aligned to the reference."""

    __tablename__ = "aligned_gisaid_dump"
    __table_args__ = (
        sa.UniqueConstraint(
            "s3_bucket", "sequences_s3_key", name="uq_aligned_gisaid_dump_s3_bucket_sequences"
        ),
        sa.UniqueConstraint(
            "s3_bucket", "metadata_s3_key", name="uq_aligned_gisaid_dump_s3_bucket_key"
        ),
    )
    __mapper_args__ = {"polymorphic_identity": EntityType.ALIGNED_GISAID_DUMP}
    repr_fields: ClassVar[Mapping[str, str]] = {"metadata": "metadata_s3_key"}

    entity_id: Mapped[int] = mapped_column(sa.ForeignKey("entities.id"), primary_key=True)
    s3_bucket: Mapped[str]
    sequences_s3_key: Mapped[str]
    metadata_s3_key: Mapped[str]


class GisaidWorkflow(Workflow):
    """A job that splits a dump into sequences and metadata."""

    __tablename__ = "gisaid_workflows"
    __mapper_args__ = {"polymorphic_identity": WorkflowType.PROCESS_GISAID_DUMP}

    workflow_id: Mapped[int] = mapped_column(sa.ForeignKey("workflows.id"), primary_key=True)


class GisaidAlignmentWorkflow(Workflow):
    """A job that aligns a dump."""

    __tablename__ = "gisaid_alignment_workflows"
    __mapper_args__ = {"polymorphic_identity": WorkflowType.ALIGN_GISAID_DUMP}

    workflow_id: Mapped[int] = mapped_column(sa.ForeignKey("workflows.id"), primary_key=True)


class GisaidMetadata(Base):
    """GISAID's metadata for one strain."""

    __tablename__ = "gisaid_metadata"
    repr_fields: ClassVar[Mapping[str, str]] = {
        "isl": "gisaid_epi_isl",
        "lineage": "pango_lineage",
    }

    strain: Mapped[str] = mapped_column(primary_key=True)
    pango_lineage: Mapped[str | None]
    gisaid_clade: Mapped[str | None]
    date: Mapped[datetime | None]
    region: Mapped[str | None]
    division: Mapped[str | None]
    location: Mapped[str | None]
    gisaid_epi_isl: Mapped[str | None]
    country: Mapped[str | None]


class RawRepositoryData(Entity):
    """A dump as downloaded."""

    __tablename__ = "raw_repository_data"
    __table_args__ = (sa.UniqueConstraint("s3_bucket", "s3_key"),)
    __mapper_args__ = {"polymorphic_identity": EntityType.RAW_PUBLIC_REPOSITORY_DATA}
    repr_fields: ClassVar[Mapping[str, str]] = {**_SOURCE, "downloaded": "download_date"}

    entity_id: Mapped[int] = mapped_column(sa.ForeignKey("entities.id"), primary_key=True)
    pathogen_id: Mapped[int] = mapped_column(sa.ForeignKey("pathogens.id"))
    public_repository_id: Mapped[int] = mapped_column(sa.ForeignKey("public_repositories.id"))
    download_date: Mapped[datetime]
    s3_bucket: Mapped[str]
    s3_key: Mapped[str]

    pathogen: Mapped[Pathogen] = relationship()
    public_repository: Mapped[PublicRepository] = relationship()


class ProcessedRepositoryData(Entity):
    """A dump, split into sequences and metadata."""

    __tablename__ = "processed_repository_data"
    __table_args__ = (
        sa.UniqueConstraint("s3_bucket", "sequences_s3_key"),
        sa.UniqueConstraint("s3_bucket", "metadata_s3_key"),
    )
    __mapper_args__ = {"polymorphic_identity": EntityType.PROCESSED_PUBLIC_REPOSITORY_DATA}
    repr_fields: ClassVar[Mapping[str, str]] = _SOURCE

    entity_id: Mapped[int] = mapped_column(sa.ForeignKey("entities.id"), primary_key=True)
    pathogen_id: Mapped[int] = mapped_column(sa.ForeignKey("pathogens.id"))
    public_repository_id: Mapped[int] = mapped_column(sa.ForeignKey("public_repositories.id"))
    s3_bucket: Mapped[str]
    sequences_s3_key: Mapped[str]
    metadata_s3_key: Mapped[str]

    pathogen: Mapped[Pathogen] = relationship()
    public_repository: Mapped[PublicRepository] = relationship()


class AlignedRepositoryData(Entity):
    """A dump, aligned to the reference."""

    __tablename__ = "aligned_repository_data"
    __table_args__ = (
        sa.UniqueConstraint("s3_bucket", "sequences_s3_key"),
        sa.UniqueConstraint("s3_bucket", "metadata_s3_key"),
    )
    __mapper_args__ = {"polymorphic_identity": EntityType.ALIGNED_PUBLIC_REPOSITORY_DATA}
    repr_fields: ClassVar[Mapping[str, str]] = _SOURCE

    entity_id: Mapped[int] = mapped_column(sa.ForeignKey("entities.id"), primary_key=True)
    pathogen_id: Mapped[int] = mapped_column(sa.ForeignKey("pathogens.id"))
    public_repository_id: Mapped[int] = mapped_column(sa.ForeignKey("public_repositories.id"))
    s3_bucket: Mapped[str]
    sequences_s3_key: Mapped[str]
    metadata_s3_key: Mapped[str]

    pathogen: Mapped[Pathogen] = relationship()
    public_repository: Mapped[PublicRepository] = relationship()


class RepositoryDownloadWorkflow(Workflow):
    """A job that downloads a dump."""

    __tablename__ = "repository_download_workflows"
    __mapper_args__ = {"polymorphic_identity": WorkflowType.DOWNLOAD_PUBLIC_REPOSITORY_DATA}
    repr_fields: ClassVar[Mapping[str, str]] = {"status": "workflow_status", **_SOURCE}

    workflow_id: Mapped[int] = mapped_column(sa.ForeignKey("workflows.id"), primary_key=True)
    pathogen_id: Mapped[int] = mapped_column(sa.ForeignKey("pathogens.id"))
    public_repository_id: Mapped[int] = mapped_column(sa.ForeignKey("public_repositories.id"))

    pathogen: Mapped[Pathogen] = relationship()
    public_repository: Mapped[PublicRepository] = relationship()


class RepositoryAlignmentWorkflow(Workflow):
    """A job that aligns a dump."""

    __tablename__ = "repository_alignment_workflows"
    __mapper_args__ = {"polymorphic_identity": WorkflowType.ALIGN_PUBLIC_REPOSITORY_DATA}
    repr_fields: ClassVar[Mapping[str, str]] = {"status": "workflow_status", **_SOURCE}

    workflow_id: Mapped[int] = mapped_column(sa.ForeignKey("workflows.id"), primary_key=True)
    pathogen_id: Mapped[int] = mapped_column(sa.ForeignKey("pathogens.id"))
    public_repository_id: Mapped[int] = mapped_column(sa.ForeignKey("public_repositories.id"))

    pathogen: Mapped[Pathogen] = relationship()
    public_repository: Mapped[PublicRepository] = relationship()


class PublicRepositoryMetadata(Base):
    """A repository's metadata for one strain."""

    __tablename__ = "public_repository_metadata"
    __table_args__ = (sa.PrimaryKeyConstraint("pathogen_id", "strain", "public_repository_id"),)
    repr_fields: ClassVar[Mapping[str, str]] = {"strain": "strain", "isl": "isl", **_SOURCE}

    pathogen_id: Mapped[int] = mapped_column(sa.ForeignKey("pathogens.id"), primary_key=True)
    public_repository_id: Mapped[int] = mapped_column(
        sa.ForeignKey("public_repositories.id"), primary_key=True
    )
    strain: Mapped[str] = mapped_column(primary_key=True)
    lineage: Mapped[str | None]
    isl: Mapped[str | None]
    date: Mapped[datetime | None]
    region: Mapped[str | None]
    country: Mapped[str | None]
    division: Mapped[str | None]
    location: Mapped[str | None]

    pathogen: Mapped[Pathogen] = relationship()
    public_repository: Mapped[PublicRepository] = relationship()
