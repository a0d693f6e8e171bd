"""Samples, and their accession numbers in public repositories."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from aspen.database.models.base import Base
from aspen.database.models.lookups import AccessionType, LookupValue

if TYPE_CHECKING:
    from aspen.database.models.accounts import Group, User
    from aspen.database.models.genomes import (
        AlignedPathogenGenome,
        AlignedPeptides,
        SampleMutation,
        SampleQCMetric,
        UploadedPathogenGenome,
    )
    from aspen.database.models.lineages import SampleLineage
    from aspen.database.models.locations import Location
    from aspen.database.models.pathogens import Pathogen
    from aspen.database.models.phylo import PhyloTree


class Sample(Base):
    """A specimen that a group submitted; both identifiers are unique within the group."""

    __tablename__ = "samples"
    __table_args__ = (
        sa.UniqueConstraint("submitting_group_id", "private_identifier"),
        sa.UniqueConstraint("submitting_group_id", "public_identifier"),
    )
    repr_fields: ClassVar[Mapping[str, str]] = {
        "private": "private_identifier",
        "public": "public_identifier",
        "group": "submitting_group_id",
    }

    id: Mapped[int] = mapped_column(primary_key=True)
    submitting_group_id: Mapped[int] = mapped_column(sa.ForeignKey("groups.id"))
    private_identifier: Mapped[str]
    """The laboratory's own identifier, which only members of the group may see."""
    original_submission: Mapped[Any] = mapped_column(sa.JSON(none_as_null=True), default=dict)
    """The submission, verbatim."""
    public_identifier: Mapped[str]
    sample_collected_by: Mapped[str]
    sample_collector_contact_email: Mapped[str | None]
    sample_collector_contact_address: Mapped[str | None]
    authors: Mapped[list[str] | str] = mapped_column(
        JSONB(none_as_null=True), default=list, server_default=sa.text("'[]'::jsonb")
    )
    """A list, or a single string if the sample came through the API, which accepts that form."""
    collection_date: Mapped[date]
    organism: Mapped[str]
    host: Mapped[str | None]
    purpose_of_sampling: Mapped[str | None]
    specimen_processing: Mapped[str | None]
    private: Mapped[bool] = mapped_column(default=True)
    """True if other groups cannot see the sample; sharing is opt-in."""
    uploaded_by_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"))
    location_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("locations.id", name="fk_samples_locations")
    )
    pathogen_id: Mapped[int] = mapped_column(sa.ForeignKey("pathogens.id"))

    submitting_group: Mapped[Group] = relationship(back_populates="samples")
    uploaded_by: Mapped[User] = relationship(back_populates="uploaded_samples")
    collection_location: Mapped[Location | None] = relationship(back_populates="samples")
    pathogen: Mapped[Pathogen] = relationship(back_populates="samples")
    accessions: Mapped[list[Accession]] = relationship(
        back_populates="sample", passive_deletes="all"
    )
    lineages: Mapped[list[SampleLineage]] = relationship(
        back_populates="sample", passive_deletes="all"
    )
    qc_metrics: Mapped[list[SampleQCMetric]] = relationship(
        back_populates="sample", passive_deletes="all"
    )
    mutations: Mapped[list[SampleMutation]] = relationship(
        back_populates="sample", passive_deletes="all"
    )
    uploaded_pathogen_genome: Mapped[UploadedPathogenGenome | None] = relationship(
        back_populates="sample", passive_deletes="all"
    )
    aligned_pathogen_genome: Mapped[AlignedPathogenGenome | None] = relationship(
        back_populates="sample", passive_deletes="all"
    )
    aligned_peptides: Mapped[list[AlignedPeptides]] = relationship(
        back_populates="sample", passive_deletes="all"
    )
    phylo_trees: Mapped[list[PhyloTree]] = relationship(
        secondary="aspen.phylo_tree_samples", back_populates="samples"
    )


class Accession(Base):
    """A sample's accession number in a public repository.

    The table has no primary key; its unique constraint allows one accession per sample and type.
    """

    __tablename__ = "accessions"
    __table_args__ = (sa.UniqueConstraint("sample_id", "accession_type"),)
    repr_fields: ClassVar[Mapping[str, str]] = {
        "accession": "accession",
        "type": "accession_type",
        "sample": "sample_id",
    }

    sample_id: Mapped[int] = mapped_column(sa.ForeignKey("samples.id"))
    accession_type: Mapped[AccessionType] = mapped_column(
        LookupValue(AccessionType), sa.ForeignKey("accession_types.item_id")
    )
    accession: Mapped[str]

    __mapper_args__ = {"primary_key": [sample_id, accession_type]}

    sample: Mapped[Sample] = relationship(back_populates="accessions")
