"""Bulk deletion of samples with everything derived from them: all or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.arrays import integers
from aspen.api.authz import Access, Action
from aspen.api.errors import ApiError
from aspen.database.models import Sample

_GENOMES = """
SELECT pathogen_genome_id FROM aspen.uploaded_pathogen_genomes WHERE sample_id = ANY(:ids)
UNION ALL
SELECT pathogen_genome_id FROM aspen.aligned_pathogen_genome WHERE sample_id = ANY(:ids)
"""
# The lock keeps jobs of any program from taking the genomes as inputs.
_LOCK_GENOMES = "SELECT FROM aspen.entities WHERE id = ANY(:ids) ORDER BY id FOR UPDATE"
_OF_SAMPLES = (
    "DELETE FROM aspen.phylo_tree_samples WHERE sample_id = ANY(:ids)",
    "DELETE FROM aspen.accessions WHERE sample_id = ANY(:ids)",
    "DELETE FROM aspen.sample_lineages WHERE sample_id = ANY(:ids)",
    "DELETE FROM aspen.sample_mutations WHERE sample_id = ANY(:ids)",
    "DELETE FROM aspen.sample_qc_metrics WHERE sample_id = ANY(:ids)",
    # The row is the only record of the file's location.
    "UPDATE aspen.aligned_peptides SET sample_id = NULL WHERE sample_id = ANY(:ids)",
    "DELETE FROM aspen.uploaded_pathogen_genomes WHERE sample_id = ANY(:ids)",
    "DELETE FROM aspen.aligned_pathogen_genome WHERE sample_id = ANY(:ids)",
    "DELETE FROM aspen.samples WHERE id = ANY(:ids)",
)
_OF_GENOMES = (
    "DELETE FROM aspen.workflow_inputs WHERE entity_id = ANY(:ids)",
    "DELETE FROM aspen.pathogen_genomes WHERE entity_id = ANY(:ids)",
    "DELETE FROM aspen.entities WHERE id = ANY(:ids)",
)


async def remove(db: AsyncSession, access: Access, ids: Sequence[int], missing: str) -> None:
    """Delete samples with their genomes, lineages, metrics, and tree entries; the caller commits.

    Args:
        db: A writable session.
        access: The user's permissions.
        ids: The IDs of the samples.
        missing: The error message if a sample cannot be deleted.

    Raises:
        ApiError: 404 with the IDs of those samples; nothing was deleted.
    """
    query = (
        sa.select(Sample.id)
        .where(access.samples(Action.WRITE), Sample.id == sa.any_(integers("ids")))
        .order_by(Sample.id)
        .with_for_update(of=Sample)
    )
    found = set(await db.scalars(query, {"ids": ids}))
    # As in the live service, duplicate IDs are an error: one may be a typo for another sample.
    repeated = [number for number, times in Counter(ids).items() if times > 1]
    if blamed := sorted({*ids} - found | {*repeated}):
        raise ApiError(404, missing, ids=blamed)
    genomes = list(await db.scalars(_statement(_GENOMES), {"ids": ids}))
    await db.execute(_statement(_LOCK_GENOMES), {"ids": genomes})
    for statement in _OF_SAMPLES:
        await db.execute(_statement(statement), {"ids": ids})
    for statement in _OF_GENOMES:
        await db.execute(_statement(statement), {"ids": genomes})


def _statement(text: str) -> sa.TextClause:
    return sa.text(text).bindparams(integers("ids"))
