"""Known lineages, and the lineages assigned to samples."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from aspen.database.models.base import Base
from aspen.database.models.lookups import LineageType, LookupValue

if TYPE_CHECKING:
    from aspen.database.models.pathogens import Pathogen
    from aspen.database.models.samples import Sample


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
