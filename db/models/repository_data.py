"""Public repository dumps, for any pathogen, and the workflows that process them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.models.base import Base
from db.models.entities import Entity
from db.models.enums import EntityType, WorkflowType
from db.models.workflows import Workflow

if TYPE_CHECKING:
    from db.models.pathogens import Pathogen, PublicRepository

_SOURCE: Mapping[str, str] = {"pathogen": "pathogen_id", "repository": "public_repository_id"}


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
