"""Nextclade's results for a sample's sequence: quality and mutations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.models.base import Base
from db.models.enums import LookupValue, MutationsCaller, QCMetricCaller

if TYPE_CHECKING:
    from db.models.samples import Sample


class SampleQCMetric(Base):
    """The quality of a sample's sequence."""

    __tablename__ = "sample_qc_metrics"
    __table_args__ = (sa.UniqueConstraint("sample_id", "qc_caller"),)
    repr_fields: ClassVar[Mapping[str, str]] = {
        "status": "qc_status",
        "score": "qc_score",
        "sample": "sample_id",
    }

    id: Mapped[int] = mapped_column(primary_key=True)
    sample_id: Mapped[int] = mapped_column(sa.ForeignKey("samples.id"), unique=True)
    qc_score: Mapped[str | None]
    qc_software_version: Mapped[str]
    qc_status: Mapped[str]
    raw_qc_output: Mapped[dict[str, Any] | None]
    reference_dataset_name: Mapped[str | None]
    reference_sequence_accession: Mapped[str | None]
    reference_dataset_tag: Mapped[str | None]
    qc_caller: Mapped[QCMetricCaller] = mapped_column(
        LookupValue(QCMetricCaller), sa.ForeignKey("qc_metric_callers.item_id")
    )

    sample: Mapped[Sample] = relationship(back_populates="qc_metrics")


class SampleMutation(Base):
    """Differences of a sample's sequence from the reference, as comma-separated lists."""

    __tablename__ = "sample_mutations"
    __table_args__ = (sa.UniqueConstraint("sample_id", "mutations_caller"),)
    repr_fields: ClassVar[Mapping[str, str]] = {
        "caller": "mutations_caller",
        "sample": "sample_id",
    }

    id: Mapped[int] = mapped_column(primary_key=True)
    sample_id: Mapped[int] = mapped_column(sa.ForeignKey("samples.id"), unique=True)
    substitutions: Mapped[str | None]
    insertions: Mapped[str | None]
    deletions: Mapped[str | None]
    aa_substitutions: Mapped[str | None]
    aa_insertions: Mapped[str | None]
    aa_deletions: Mapped[str | None]
    reference_sequence_accession: Mapped[str | None]
    mutations_caller: Mapped[MutationsCaller] = mapped_column(
        LookupValue(MutationsCaller), sa.ForeignKey("mutations_callers.item_id")
    )

    sample: Mapped[Sample] = relationship(back_populates="mutations")
