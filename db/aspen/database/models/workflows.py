"""Workflows, and the entities that they read and write (genomes, trees, repository dumps)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from aspen.database.models.base import Base
from aspen.database.models.reference import EntityType, LookupValue, WorkflowStatus, WorkflowType

if TYPE_CHECKING:
    from aspen.database.models.accounts import Group, User


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


class Workflow(Base):
    """A job, loaded as the class of its `workflow_type`, such as `PhyloRun`. Times are in UTC."""

    __tablename__ = "workflows"
    repr_fields: ClassVar[Mapping[str, str]] = {"status": "workflow_status"}

    id: Mapped[int] = mapped_column(primary_key=True)
    workflow_type: Mapped[WorkflowType] = mapped_column(
        LookupValue(WorkflowType), sa.ForeignKey("workflow_types.item_id")
    )
    software_versions: Mapped[Any] = mapped_column(sa.JSON(none_as_null=True), default=dict)
    end_datetime: Mapped[datetime | None]
    start_datetime: Mapped[datetime | None]
    workflow_status: Mapped[WorkflowStatus] = mapped_column(
        LookupValue(WorkflowStatus), sa.ForeignKey("workflow_status_types.item_id")
    )
    user_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("users.id", name="fk_workflows_user_id")
    )

    __mapper_args__ = {
        "polymorphic_on": workflow_type,
        "polymorphic_abstract": True,
    }

    user: Mapped[User | None] = relationship(back_populates="workflows")
    inputs: Mapped[list[Entity]] = relationship(
        secondary="aspen.workflow_inputs", back_populates="consuming_workflows"
    )
    outputs: Mapped[list[Entity]] = relationship(
        back_populates="producing_workflow", passive_deletes="all"
    )
