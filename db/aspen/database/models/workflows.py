"""Workflows, and the entities that they read and write: genomes, trees, and repository dumps."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from aspen.database.models.base import (
    Base,
    EntityType,
    TreeType,
    WorkflowStatus,
    WorkflowType,
    dependents,
    lookup_column,
)

if TYPE_CHECKING:
    from aspen.database.models.accounts import Group, User
    from aspen.database.models.reference import Pathogen, PublicRepository
    from aspen.database.models.samples import Sample


class Entity(Base):
    """An artifact, loaded as the class of its `entity_type`, such as `PhyloTree`."""

    __tablename__ = "entities"
    repr_fields = {"group": "group_id", "producing_workflow": "producing_workflow_id"}

    id: Mapped[int] = mapped_column(primary_key=True)
    entity_type: Mapped[EntityType] = lookup_column(EntityType)
    producing_workflow_id: Mapped[int | None] = mapped_column(sa.ForeignKey("workflows.id"))
    group_id: Mapped[int | None] = mapped_column(sa.ForeignKey("groups.id"))

    __mapper_args__ = {"polymorphic_on": entity_type, "polymorphic_abstract": True}

    producing_workflow: Mapped[Workflow | None] = relationship(back_populates="outputs")
    consuming_workflows: Mapped[list[Workflow]] = relationship(
        secondary="aspen.workflow_inputs", back_populates="inputs"
    )
    group: Mapped[Group | None] = relationship(back_populates="entities")


class WorkflowInput(Base):
    """A link from a workflow to one of its inputs; see `Workflow.inputs`."""

    __tablename__ = "workflow_inputs"
    repr_fields = {"entity": "entity_id", "workflow": "workflow_id"}

    entity_id: Mapped[int] = mapped_column(sa.ForeignKey("entities.id"), primary_key=True)
    workflow_id: Mapped[int] = mapped_column(sa.ForeignKey("workflows.id"), primary_key=True)


class Workflow(Base):
    """A job, loaded as the class of its `workflow_type`, such as `PhyloRun`. Times are in UTC."""

    __tablename__ = "workflows"
    repr_fields = {"status": "workflow_status"}

    id: Mapped[int] = mapped_column(primary_key=True)
    workflow_type: Mapped[WorkflowType] = lookup_column(WorkflowType)
    software_versions: Mapped[Any] = mapped_column(sa.JSON(none_as_null=True), default=dict)
    end_datetime: Mapped[datetime | None]
    start_datetime: Mapped[datetime | None]
    workflow_status: Mapped[WorkflowStatus] = lookup_column(WorkflowStatus)
    user_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("users.id", name="fk_workflows_user_id")
    )

    __mapper_args__ = {"polymorphic_on": workflow_type, "polymorphic_abstract": True}

    user: Mapped[User | None] = relationship(back_populates="workflows")
    inputs: Mapped[list[Entity]] = relationship(
        secondary="aspen.workflow_inputs", back_populates="consuming_workflows"
    )
    outputs: Mapped[list[Entity]] = dependents("producing_workflow")


# Phylogenetic runs and the trees that they build


class PhyloRun(Workflow):
    """A job that builds a phylogenetic tree from a group's samples and public ones."""

    __tablename__ = "phylo_runs"
    __mapper_args__ = {"polymorphic_identity": WorkflowType.PHYLO_RUN}
    repr_fields = {
        "name": "name",
        "type": "tree_type",
        "status": "workflow_status",
        "group": "group_id",
    }

    workflow_id: Mapped[int] = mapped_column(sa.ForeignKey("workflows.id"), primary_key=True)
    group_id: Mapped[int] = mapped_column(sa.ForeignKey("groups.id"))
    template_args: Mapped[dict[str, Any]] = mapped_column(
        default=dict, server_default=sa.text("'{}'::jsonb")
    )
    """The requested parameters, such as ``filter_start_date``."""
    template_file_path: Mapped[str | None]
    name: Mapped[str | None]
    gisaid_ids: Mapped[list[str]] = mapped_column(
        JSONB(none_as_null=True), default=list, server_default=sa.text("'[]'::jsonb")
    )
    """The public samples that were requested in addition to the group's own."""
    tree_type: Mapped[TreeType] = lookup_column(
        TreeType,
        default=TreeType.UNKNOWN,
        server_default=sa.text("'UNKNOWN'::character varying"),
    )
    pathogen_id: Mapped[int] = mapped_column(sa.ForeignKey("pathogens.id"))
    contextual_repository_id: Mapped[int] = mapped_column(sa.ForeignKey("public_repositories.id"))

    group: Mapped[Group] = relationship(back_populates="phylo_runs")
    pathogen: Mapped[Pathogen] = relationship(back_populates="phylo_runs")
    contextual_repository: Mapped[PublicRepository] = relationship()
    """The repository that the public samples are taken from."""
    phylo_trees: Mapped[list[PhyloTree]] = relationship(back_populates="phylo_run", viewonly=True)
    """The `outputs` that are trees."""


class PhyloTree(Entity):
    """A phylogenetic tree: a JSON document in S3 and the samples that it shows."""

    __tablename__ = "phylo_trees"
    __table_args__ = (sa.UniqueConstraint("s3_bucket", "s3_key"),)
    __mapper_args__ = {"polymorphic_identity": EntityType.PHYLO_TREE}
    repr_fields = {"name": "name", "type": "tree_type", "group": "group_id"}

    entity_id: Mapped[int] = mapped_column(sa.ForeignKey("entities.id"), primary_key=True)
    s3_bucket: Mapped[str]
    s3_key: Mapped[str]
    name: Mapped[str | None]
    tree_type: Mapped[TreeType] = lookup_column(
        TreeType,
        default=TreeType.UNKNOWN,
        server_default=sa.text("'UNKNOWN'::character varying"),
    )
    pathogen_id: Mapped[int] = mapped_column(sa.ForeignKey("pathogens.id"))
    resolved_template_args: Mapped[dict[str, Any] | None]
    """The run's `template_args` with every default filled in."""
    contextual_repository_id: Mapped[int] = mapped_column(sa.ForeignKey("public_repositories.id"))

    samples: Mapped[list[Sample]] = relationship(
        secondary="aspen.phylo_tree_samples", back_populates="phylo_trees"
    )
    pathogen: Mapped[Pathogen] = relationship(back_populates="phylo_trees")
    contextual_repository: Mapped[PublicRepository] = relationship()
    phylo_run: Mapped[PhyloRun | None] = relationship(back_populates="phylo_trees", viewonly=True)
    """The `producing_workflow`, if that is a phylogenetic run."""


class PhyloTreeSample(Base):
    """A link from a tree to a sample that it shows; see `PhyloTree.samples`."""

    __tablename__ = "phylo_tree_samples"
    repr_fields = {"sample": "sample_id", "tree": "phylo_tree_id"}

    sample_id: Mapped[int] = mapped_column(sa.ForeignKey("samples.id"), primary_key=True)
    phylo_tree_id: Mapped[int] = mapped_column(
        sa.ForeignKey("phylo_trees.entity_id"), primary_key=True
    )


# Dumps of public repositories, and the workflows that process them. The GISAID models are from
# when SARS-CoV-2 was the only pathogen; the others serve any pathogen.

_SOURCE = {"pathogen": "pathogen_id", "repository": "public_repository_id"}


class RawGisaidDump(Entity):
    """A dump as downloaded."""

    __tablename__ = "raw_gisaid_dump"
    __table_args__ = (sa.UniqueConstraint("s3_bucket", "s3_key"),)
    __mapper_args__ = {"polymorphic_identity": EntityType.RAW_GISAID_DUMP}
    repr_fields = {"downloaded": "download_date", "s3_key": "s3_key"}

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
    repr_fields = {"metadata": "metadata_s3_key"}

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
    repr_fields = {"metadata": "metadata_s3_key"}

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
    repr_fields = {"isl": "gisaid_epi_isl", "lineage": "pango_lineage"}

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
    repr_fields = {**_SOURCE, "downloaded": "download_date"}

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
    repr_fields = _SOURCE

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
    repr_fields = _SOURCE

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
    repr_fields = {"status": "workflow_status", **_SOURCE}

    workflow_id: Mapped[int] = mapped_column(sa.ForeignKey("workflows.id"), primary_key=True)
    pathogen_id: Mapped[int] = mapped_column(sa.ForeignKey("pathogens.id"))
    public_repository_id: Mapped[int] = mapped_column(sa.ForeignKey("public_repositories.id"))

    pathogen: Mapped[Pathogen] = relationship()
    public_repository: Mapped[PublicRepository] = relationship()


class RepositoryAlignmentWorkflow(Workflow):
    """A job that aligns a dump."""

    __tablename__ = "repository_alignment_workflows"
    __mapper_args__ = {"polymorphic_identity": WorkflowType.ALIGN_PUBLIC_REPOSITORY_DATA}
    repr_fields = {"status": "workflow_status", **_SOURCE}

    workflow_id: Mapped[int] = mapped_column(sa.ForeignKey("workflows.id"), primary_key=True)
    pathogen_id: Mapped[int] = mapped_column(sa.ForeignKey("pathogens.id"))
    public_repository_id: Mapped[int] = mapped_column(sa.ForeignKey("public_repositories.id"))

    pathogen: Mapped[Pathogen] = relationship()
    public_repository: Mapped[PublicRepository] = relationship()


class PublicRepositoryMetadata(Base):
    """A repository's metadata for one strain."""

    __tablename__ = "public_repository_metadata"
    __table_args__ = (sa.PrimaryKeyConstraint("pathogen_id", "strain", "public_repository_id"),)
    repr_fields = {"strain": "strain", "isl": "isl", **_SOURCE}

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
