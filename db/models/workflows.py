"""Workflows: jobs that produce entities from other entities."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.models.base import Base
from db.models.enums import LookupValue, WorkflowStatus, WorkflowType

if TYPE_CHECKING:
    from db.models.accounts import User
    from db.models.entities import Entity


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
