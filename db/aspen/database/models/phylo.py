"""Phylogenetic runs and the trees that they build."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from aspen.database.models.base import Base
from aspen.database.models.reference import EntityType, LookupValue, TreeType, WorkflowType
from aspen.database.models.workflows import Entity, Workflow

if TYPE_CHECKING:
    from aspen.database.models.accounts import Group
    from aspen.database.models.reference import Pathogen, PublicRepository
    from aspen.database.models.samples import Sample


class PhyloRun(Workflow):
    """A job that builds a phylogenetic tree from a group's samples and public ones."""

    __tablename__ = "phylo_runs"
    __mapper_args__ = {"polymorphic_identity": WorkflowType.PHYLO_RUN}
    repr_fields: ClassVar[Mapping[str, str]] = {
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
    tree_type: Mapped[TreeType] = mapped_column(
        LookupValue(TreeType),
        sa.ForeignKey("tree_types.item_id"),
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
    repr_fields: ClassVar[Mapping[str, str]] = {
        "name": "name",
        "type": "tree_type",
        "group": "group_id",
    }

    entity_id: Mapped[int] = mapped_column(sa.ForeignKey("entities.id"), primary_key=True)
    s3_bucket: Mapped[str]
    s3_key: Mapped[str]
    name: Mapped[str | None]
    tree_type: Mapped[TreeType] = mapped_column(
        LookupValue(TreeType),
        sa.ForeignKey("tree_types.item_id"),
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
    repr_fields: ClassVar[Mapping[str, str]] = {"sample": "sample_id", "tree": "phylo_tree_id"}

    sample_id: Mapped[int] = mapped_column(sa.ForeignKey("samples.id"), primary_key=True)
    phylo_tree_id: Mapped[int] = mapped_column(
        sa.ForeignKey("phylo_trees.entity_id"), primary_key=True
    )
