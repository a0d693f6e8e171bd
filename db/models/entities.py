"""Entities: the inputs and outputs of workflows (genomes, trees, repository dumps)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.models.base import Base
from db.models.enums import EntityType, LookupValue

if TYPE_CHECKING:
    from db.models.accounts import Group
    from db.models.workflows import Workflow


class Entity(Base):
    """An artifact, loaded as the class of its `entity_type`, such as `PhyloTree`."""

    __tablename__ = "entities"
    repr_fields: ClassVar[Mapping[str, str]] = {
        "group": "group_id",
        "producing_workflow": "producing_workflow_id",
    }

    id: Mapped[int] = mapped_column(primary_key=True)
    entity_type: Mapped[EntityType] = mapped_column(
        LookupValue(EntityType), sa.ForeignKey("entity_types.item_id")
    )
    producing_workflow_id: Mapped[int | None] = mapped_column(sa.ForeignKey("workflows.id"))
    group_id: Mapped[int | None] = mapped_column(sa.ForeignKey("groups.id"))

    __mapper_args__ = {
        "polymorphic_on": entity_type,
        "polymorphic_abstract": True,
    }

    producing_workflow: Mapped[Workflow | None] = relationship(back_populates="outputs")
    consuming_workflows: Mapped[list[Workflow]] = relationship(
        secondary="aspen.workflow_inputs", back_populates="inputs"
    )
    group: Mapped[Group | None] = relationship(back_populates="entities")


class WorkflowInput(Base):
    """A link from a workflow to one of its inputs; see `Workflow.inputs`."""

    __tablename__ = "workflow_inputs"
    repr_fields: ClassVar[Mapping[str, str]] = {"entity": "entity_id", "workflow": "workflow_id"}

    entity_id: Mapped[int] = mapped_column(sa.ForeignKey("entities.id"), primary_key=True)
    workflow_id: Mapped[int] = mapped_column(sa.ForeignKey("workflows.id"), primary_key=True)
