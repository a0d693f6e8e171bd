"""Quality, mutations, lineages, and aligned genomes of samples, stored together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from aspen.database.engine import Database
from aspen.database.models import (
    AlignedPathogenGenome,
    LineageType,
    MutationsCaller,
    QCMetricCaller,
    SampleLineage,
    SampleMutation,
    SampleQCMetric,
)
from aspen.database.sessions import WriteSession
from aspen.workflows.genomes import batches, lock
from aspen.workflows.programs import say
from aspen.workflows.qc.nextclade import Prepared
from aspen.workflows.qc.results import Result

_BATCH = 200  # samples to a transaction
_SC2 = "SC2"  # its lineages come from pangolin
_ALIGNED = """
SELECT aligned.sample_id, aligned.pathogen_genome_id, aligned.reference_name, genome.sequence
  FROM aspen.aligned_pathogen_genome aligned
  JOIN aspen.pathogen_genomes genome ON genome.entity_id = aligned.pathogen_genome_id
 WHERE aligned.sample_id = ANY(:ids)
"""
_REPLACE_SEQUENCE = """
UPDATE aspen.pathogen_genomes
   SET sequence = :sequence, num_unambiguous_sites = :num_unambiguous_sites,
       num_missing_alleles = :num_missing_alleles, num_mixed = :num_mixed
 WHERE entity_id = :id
"""
_REPLACE_REFERENCE = """
UPDATE aspen.aligned_pathogen_genome
   SET reference_name = :reference_name, aligned_date = :aligned_date
 WHERE pathogen_genome_id = :id
"""


def save(
    database: Database, prepared: Prepared, sums: Mapping[int, str], results: Iterable[Result]
) -> int:
    """Store results, replacing those of earlier runs; return the number of samples.

    All rows of a sample are written in one transaction, so a run that ends early leaves each sample
    with its old results or the new ones.

    Args:
        database: The database.
        prepared: The program and dataset that the results are from.
        sums: The checksum of each sample's genome, as it was given to the program.
        results: The results.
    """
    count = 0
    for some in batches(results, _BATCH):
        with database.begin() as session:
            kept = lock(session, {one.sample: sums[one.sample] for one in some})
            found = [one for one in some if one.sample in kept]
            if found:
                _save(session, prepared, found, kept)
        count += len(found)
        say(f"{count:,} of {len(sums):,} samples stored")
    return count


def _save(
    session: WriteSession, prepared: Prepared, results: list[Result], groups: Mapping[int, int]
) -> None:
    now = datetime.now(UTC).replace(tzinfo=None)
    metrics = [_metric(prepared, one) for one in results]
    _upsert(session, SampleQCMetric, metrics, ["sample_id"])
    mutations = [
        {
            "sample_id": one.sample,
            "mutations_caller": MutationsCaller.NEXTCLADE,
            "reference_sequence_accession": prepared.dataset.accession,
            **one.mutations,
        }
        for one in results
    ]
    _upsert(session, SampleMutation, mutations, ["sample_id"])
    if prepared.pathogen != _SC2:
        lineages = [_lineage(prepared, one, now) for one in results]
        _upsert(session, SampleLineage, lineages, ["sample_id", "lineage_type"])
    _save_aligned(session, prepared.dataset.accession, results, groups, now)


def _metric(prepared: Prepared, one: Result) -> dict[str, Any]:
    return {
        "sample_id": one.sample,
        "qc_caller": QCMetricCaller.NEXTCLADE,
        "qc_score": one.score,
        "qc_status": one.status,
        "qc_software_version": prepared.version,
        "raw_qc_output": one.raw,
        **_dataset(prepared),
    }


def _lineage(prepared: Prepared, one: Result, now: datetime) -> dict[str, Any]:
    return {
        "sample_id": one.sample,
        "lineage_type": LineageType.NEXTCLADE,
        "lineage": one.lineage,
        "lineage_software_version": prepared.version,
        "raw_lineage_output": one.raw,
        "last_updated": now,
        **_dataset(prepared),
    }


def _dataset(prepared: Prepared) -> dict[str, str]:
    return {
        "reference_dataset_name": prepared.dataset.name,
        "reference_sequence_accession": prepared.dataset.accession,
        "reference_dataset_tag": prepared.dataset.tag,
    }


def _upsert(
    session: WriteSession, model: type[Any], rows: list[dict[str, Any]], key: list[str]
) -> None:
    statement = insert(model).values(rows)
    changed = {name: statement.excluded[name] for name in rows[0] if name not in key}
    session.execute(statement.on_conflict_do_update(index_elements=key, set_=changed))


def _save_aligned(
    session: WriteSession,
    reference: str,
    results: list[Result],
    groups: Mapping[int, int],
    now: datetime,
) -> None:
    known = {
        row.sample_id: row
        for row in session.execute(sa.text(_ALIGNED), {"ids": [one.sample for one in results]})
    }
    replaced = []
    for one in results:
        if one.aligned is None:
            continue
        row = {
            **_counted(one.aligned),
            "reference_name": reference,
            "aligned_date": now,
        }
        old = known.get(one.sample)
        if old is None:
            group = groups[one.sample]
            session.add(AlignedPathogenGenome(sample_id=one.sample, group_id=group, **row))
        elif (old.reference_name, old.sequence) != (reference, one.aligned):
            replaced.append({"id": old.pathogen_genome_id, **row})
    if replaced:
        session.execute(sa.text(_REPLACE_SEQUENCE), replaced)
        session.execute(sa.text(_REPLACE_REFERENCE), replaced)
    session.flush()


def _counted(sequence: str) -> dict[str, Any]:
    """Return a sequence with its sites counted; gaps count as neither."""
    unambiguous = sum(sequence.count(base) for base in "ACGT")
    missing = sequence.count("N")
    return {
        "sequence": sequence,
        "num_unambiguous_sites": unambiguous,
        "num_missing_alleles": missing,
        "num_mixed": len(sequence) - unambiguous - missing - sequence.count("-"),
    }
