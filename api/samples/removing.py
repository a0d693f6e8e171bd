"""Many samples deleted at once, with all that was made of them: all, or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from api.arrays import integers
from api.authz import Access, Action
from api.errors import ApiError
from db.models import Sample

_GENOMES = """
SELECT pathogen_genome_id FROM aspen.uploaded_pathogen_genomes WHERE sample_id = ANY(:ids)
UNION ALL
SELECT pathogen_genome_id FROM aspen.aligned_pathogen_genome WHERE sample_id = ANY(:ids)
"""
# No job, of whatever program, takes them as its inputs any more.
_LOCK_GENOMES = "SELECT FROM aspen.entities WHERE id = ANY(:ids) ORDER BY id FOR UPDATE"
_OF_SAMPLES = (
    "DELETE FROM aspen.phylo_tree_samples WHERE sample_id = ANY(:ids)",
    "DELETE FROM aspen.accessions WHERE sample_id = ANY(:ids)",
    "DELETE FROM aspen.sample_lineages WHERE sample_id = ANY(:ids)",
    "DELETE FROM aspen.sample_mutations WHERE sample_id = ANY(:ids)",
    "DELETE FROM aspen.sample_qc_metrics WHERE sample_id = ANY(:ids)",
    # The row is all that knows where the file lies.
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
    """Delete samples with their genomes, lineages and metrics, from trees too; the caller commits.

    Args:
        db: A session that may write.
        access: Who asks.
        ids: The samples.
        missing: What to say where one cannot be deleted.

    Raises:
        ApiError: 404, with the samples that are to blame; nothing was deleted.
    """
    query = (
        sa.select(Sample.id)
        .where(access.samples(Action.WRITE), Sample.id == sa.any_(integers("ids")))
        .order_by(Sample.id)
        .with_for_update(of=Sample)
    )
    found = set(await db.scalars(query, {"ids": ids}))
    # As the live service does: who names a sample twice may mean another one.
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
