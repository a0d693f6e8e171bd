"""A generated sample, and its rows in the tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

from sqlalchemy.orm import Session

from db.models import AccessionType, EntityType, LineageType, MutationsCaller, QCMetricCaller
from local.seed.lineages import lineage_named
from local.seed.records import ORGANISM, Owner, copy_rows, next_ids

_PANGOLIN, _NEXTCLADE = "4.3.1", "2.14.0"
REFERENCE = "MN908947"
"""The accession of the reference genome for SARS-CoV-2."""
_GOOD_QC, _MEDIOCRE_QC = 30, 100  # Nextclade's thresholds for its overall score
_SAMPLE_COLUMNS = (
    "id submitting_group_id private_identifier public_identifier original_submission"
    " sample_collected_by authors collection_date organism host purpose_of_sampling"
    " private uploaded_by_id location_id pathogen_id"
)
_LINEAGE_COLUMNS = (
    "sample_id lineage_type lineage lineage_software_version lineage_probability last_updated"
    " raw_lineage_output"
)
_MUTATION_COLUMNS = (
    "sample_id mutations_caller substitutions insertions deletions"
    " aa_substitutions aa_insertions aa_deletions reference_sequence_accession"
)


@dataclass(frozen=True)
class Made:
    """A generated sample, before it has an ID."""

    private_identifier: str
    public_identifier: str
    day: date
    place: int
    private: bool
    host: str
    purpose: str | None
    author: str
    sequence: str
    missing: int
    substitutions: str
    sequenced: date
    uploaded: date
    depth: float
    lineage: str | None
    accession: str | None
    score: float

    @property
    def quality(self) -> str:
        """Return Nextclade's word for the score."""
        if self.score < _GOOD_QC:
            return "good"
        return "mediocre" if self.score < _MEDIOCRE_QC else "bad"

    def pangolin_output(self, entity: int) -> dict[str, str]:
        """Return the columns of Pangolin's report that are not empty."""
        report = {
            "taxon": str(entity),
            "lineage": self.lineage or "",
            "conflict": "0.0",
            "ambiguity_score": "1.0",
            "scorpio_call": lineage_named(self.lineage).scorpio_call if self.lineage else "",
            "version": f"PUSHER-v{_PANGOLIN}",
            "pangolin_version": _PANGOLIN,
            "is_designated": "False",
            "qc_status": "pass",
            "qc_notes": f"Ambiguous_content:{self.missing / len(self.sequence):.2f}",
        }
        if report["scorpio_call"]:
            report |= {"scorpio_support": "0.92", "scorpio_conflict": "0.0"}
        return {column: value for column, value in report.items() if value}

    def nextclade_output(self, sample: int) -> dict[str, str]:
        """Return some of the columns of Nextclade's output."""
        count = len(self.substitutions.split(",")) if self.substitutions else 0
        return {
            "seqName": str(sample),
            "clade": lineage_named(self.lineage).clade if self.lineage else "",
            "Nextclade_pango": self.lineage or "",
            "qc.overallScore": str(self.score),
            "qc.overallStatus": self.quality,
            "totalSubstitutions": str(count),
            "totalMissing": str(self.missing),
            "substitutions": self.substitutions,
            "deletions": "",
            "insertions": "",
        }


def write(session: Session, owner: Owner, batch: list[Made]) -> None:
    """Write samples with all of their related rows."""
    samples = next_ids(session, "samples_id_seq", len(batch))
    entities = next_ids(session, "entities_id_seq", len(batch))
    keyed = list(zip(samples, entities, batch, strict=True))
    for table, columns, rows in _tables(owner, keyed):
        copy_rows(session, f"aspen.{table}", columns.split(), rows)


def _tables(
    owner: Owner, keyed: list[tuple[int, int, Made]]
) -> Iterator[tuple[str, str, Iterator[Sequence[object]]]]:
    """Yield each table with its columns and rows, referenced tables first."""
    yield (
        "samples",
        _SAMPLE_COLUMNS,
        (
            (
                key,
                owner.group,
                made.private_identifier,
                made.public_identifier,
                "{}",
                owner.laboratory,
                json.dumps([made.author]),
                made.day,
                ORGANISM,
                made.host,
                made.purpose,
                made.private,
                owner.uploader,
                made.place,
                owner.pathogen,
            )
            for key, _, made in keyed
        ),
    )
    yield (
        "entities",
        "id entity_type group_id",
        ((key, EntityType.UPLOADED_PATHOGEN_GENOME.value, owner.group) for _, key, _ in keyed),
    )
    yield (
        "pathogen_genomes",
        "entity_id sequence num_unambiguous_sites num_missing_alleles num_mixed sequencing_date",
        (
            (key, made.sequence, len(made.sequence) - made.missing, made.missing, 0, made.sequenced)
            for _, key, made in keyed
        ),
    )
    yield (
        "uploaded_pathogen_genomes",
        "pathogen_genome_id sample_id sequencing_depth upload_date",
        ((entity, key, made.depth, made.uploaded) for key, entity, made in keyed),
    )
    yield (
        "sample_lineages",
        _LINEAGE_COLUMNS,
        (
            (
                key,
                LineageType.PANGOLIN.value,
                made.lineage,
                _PANGOLIN,
                1.0,
                made.uploaded,
                json.dumps(made.pangolin_output(entity)),
            )
            for key, entity, made in keyed
            if made.lineage
        ),
    )
    yield (
        "sample_qc_metrics",
        "sample_id qc_caller qc_score qc_software_version qc_status raw_qc_output",
        (
            (
                key,
                QCMetricCaller.NEXTCLADE.value,
                made.score,
                _NEXTCLADE,
                made.quality,
                json.dumps(made.nextclade_output(key)),
            )
            for key, _, made in keyed
            if made.lineage
        ),
    )
    yield (
        "sample_mutations",
        _MUTATION_COLUMNS,
        (
            (key, MutationsCaller.NEXTCLADE.value, made.substitutions, *[""] * 5, REFERENCE)
            for key, _, made in keyed
            if made.lineage
        ),
    )
    yield (
        "accessions",
        "sample_id accession_type accession",
        (
            (key, AccessionType.GISAID_ISL.value, made.accession)
            for key, _, made in keyed
            if made.accession
        ),
    )
