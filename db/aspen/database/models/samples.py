"""Samples: accession numbers, sequences, and Nextclade's results for the sequences."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from aspen.database.models.base import (
    AccessionType,
    Base,
    EntityType,
    MutationsCaller,
    QCMetricCaller,
    dependents,
    lookup_column,
)
from aspen.database.models.workflows import Entity

if TYPE_CHECKING:
    from aspen.database.models.accounts import Group, User
    from aspen.database.models.reference import Location, Pathogen, SampleLineage
    from aspen.database.models.workflows import PhyloTree


class Sample(Base):
    """A specimen that a group submitted; both identifiers are unique within the group."""

    __tablename__ = "samples"
    __table_args__ = (
        sa.UniqueConstraint("submitting_group_id", "private_identifier"),
        sa.UniqueConstraint("submitting_group_id", "public_identifier"),
    )
    repr_fields = {
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
    accessions: Mapped[list[Accession]] = dependents("sample")
    lineages: Mapped[list[SampleLineage]] = dependents("sample")
    qc_metrics: Mapped[list[SampleQCMetric]] = dependents("sample")
    mutations: Mapped[list[SampleMutation]] = dependents("sample")
    uploaded_pathogen_genome: Mapped[UploadedPathogenGenome | None] = dependents("sample")
    aligned_pathogen_genome: Mapped[AlignedPathogenGenome | None] = dependents("sample")
    aligned_peptides: Mapped[list[AlignedPeptides]] = dependents("sample")
    phylo_trees: Mapped[list[PhyloTree]] = relationship(
        secondary="aspen.phylo_tree_samples", back_populates="samples"
    )


class Accession(Base):
    """A sample's accession number in a public repository.

    The table has no primary key; its unique constraint allows one accession per sample and type.
    """

    __tablename__ = "accessions"
    __table_args__ = (sa.UniqueConstraint("sample_id", "accession_type"),)
    repr_fields = {"accession": "accession", "type": "accession_type", "sample": "sample_id"}

    sample_id: Mapped[int] = mapped_column(sa.ForeignKey("samples.id"))
    accession_type: Mapped[AccessionType] = lookup_column(AccessionType)
    accession: Mapped[str]

    __mapper_args__ = {"primary_key": [sample_id, accession_type]}

    sample: Mapped[Sample] = relationship(back_populates="accessions")


class PathogenGenome(Entity):
    """A consensus sequence, with counts of its sites."""

    __tablename__ = "pathogen_genomes"
    __mapper_args__ = {"polymorphic_abstract": True}

    entity_id: Mapped[int] = mapped_column(sa.ForeignKey("entities.id"), primary_key=True)
    sequence: Mapped[str]
    num_unambiguous_sites: Mapped[int]
    """The number of sites that are A, C, G or T."""
    num_missing_alleles: Mapped[int]
    """The number of sites that are N."""
    num_mixed: Mapped[int]
    """The number of sites that are another IUPAC ambiguity code."""
    sequencing_date: Mapped[date | None]


class UploadedPathogenGenome(PathogenGenome):
    """The sequence uploaded with a sample."""

    __tablename__ = "uploaded_pathogen_genomes"
    __mapper_args__ = {"polymorphic_identity": EntityType.UPLOADED_PATHOGEN_GENOME}
    repr_fields = {"sample": "sample_id", "uploaded": "upload_date"}

    pathogen_genome_id: Mapped[int] = mapped_column(
        sa.ForeignKey("pathogen_genomes.entity_id"), primary_key=True
    )
    sequencing_depth: Mapped[float | None]
    sample_id: Mapped[int] = mapped_column(sa.ForeignKey("samples.id"), unique=True)
    upload_date: Mapped[datetime] = mapped_column(server_default=sa.func.now())

    sample: Mapped[Sample] = relationship(back_populates="uploaded_pathogen_genome")


class AlignedPathogenGenome(PathogenGenome):
    """A sample's sequence, aligned to a reference."""

    __tablename__ = "aligned_pathogen_genome"
    __mapper_args__ = {"polymorphic_identity": EntityType.ALIGNED_PATHOGEN_GENOME}
    repr_fields = {"sample": "sample_id", "reference": "reference_name"}

    pathogen_genome_id: Mapped[int] = mapped_column(
        sa.ForeignKey("pathogen_genomes.entity_id"), primary_key=True
    )
    sample_id: Mapped[int] = mapped_column(sa.ForeignKey("samples.id"), unique=True)
    aligned_date: Mapped[datetime] = mapped_column(server_default=sa.func.now())
    reference_name: Mapped[str]

    sample: Mapped[Sample] = relationship(back_populates="aligned_pathogen_genome")


class AlignedPeptides(Base):
    """The S3 location of a sample's translated sequences.

    The table has no primary key, and nothing makes its `id` unique; the S3 location is unique.
    """

    __tablename__ = "aligned_peptides"
    __table_args__ = (
        sa.UniqueConstraint("s3_bucket", "s3_key", name="uq_aligned_peptides_s3_bucket_key"),
    )
    repr_fields = {"id": "id", "sample": "sample_id", "s3_bucket": "s3_bucket", "s3_key": "s3_key"}

    id: Mapped[int]
    sample_id: Mapped[int | None] = mapped_column(sa.ForeignKey("samples.id"))
    s3_bucket: Mapped[str] = mapped_column()
    s3_key: Mapped[str] = mapped_column()

    __mapper_args__ = {"primary_key": [s3_bucket, s3_key]}

    sample: Mapped[Sample | None] = relationship(back_populates="aligned_peptides")


class SampleQCMetric(Base):
    """The quality of a sample's sequence."""

    __tablename__ = "sample_qc_metrics"
    __table_args__ = (sa.UniqueConstraint("sample_id", "qc_caller"),)
    repr_fields = {"status": "qc_status", "score": "qc_score", "sample": "sample_id"}

    id: Mapped[int] = mapped_column(primary_key=True)
    sample_id: Mapped[int] = mapped_column(sa.ForeignKey("samples.id"), unique=True)
    qc_score: Mapped[str | None]
    qc_software_version: Mapped[str]
    qc_status: Mapped[str]
    raw_qc_output: Mapped[dict[str, Any] | None]
    reference_dataset_name: Mapped[str | None]
    reference_sequence_accession: Mapped[str | None]
    reference_dataset_tag: Mapped[str | None]
    qc_caller: Mapped[QCMetricCaller] = lookup_column(QCMetricCaller)

    sample: Mapped[Sample] = relationship(back_populates="qc_metrics")


class SampleMutation(Base):
    """Differences of a sample's sequence from the reference, as comma-separated lists."""

    __tablename__ = "sample_mutations"
    __table_args__ = (sa.UniqueConstraint("sample_id", "mutations_caller"),)
    repr_fields = {"caller": "mutations_caller", "sample": "sample_id"}

    id: Mapped[int] = mapped_column(primary_key=True)
    sample_id: Mapped[int] = mapped_column(sa.ForeignKey("samples.id"), unique=True)
    substitutions: Mapped[str | None]
    insertions: Mapped[str | None]
    deletions: Mapped[str | None]
    aa_substitutions: Mapped[str | None]
    aa_insertions: Mapped[str | None]
    aa_deletions: Mapped[str | None]
    reference_sequence_accession: Mapped[str | None]
    mutations_caller: Mapped[MutationsCaller] = lookup_column(MutationsCaller)

    sample: Mapped[Sample] = relationship(back_populates="mutations")
