"""Lineages of samples, stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.dialects.postgresql import insert

from aspen.database.engine import Database
from aspen.database.models import LineageType, SampleLineage
from aspen.workflows.genomes import batches, lock
from aspen.workflows.lineage.pangolin import Assignment
from aspen.workflows.programs import say

_BATCH = 500  # samples to a transaction
_KEY = ("sample_id", "lineage_type")


def save(database: Database, sums: Mapping[int, str], assignments: Iterable[Assignment]) -> int:
    """Store lineages, replacing those of earlier runs; return the number of samples.

    Args:
        database: The database.
        sums: The checksum of each sample's genome, as it was given to the program.
        assignments: The lineages.
    """
    count = 0
    for some in batches(assignments, _BATCH):
        with database.begin() as session:
            kept = lock(session, {one.sample: sums[one.sample] for one in some})
            now = datetime.now(UTC).replace(tzinfo=None)
            rows = [_row(one, now) for one in some if one.sample in kept]
            if rows:
                statement = insert(SampleLineage).values(rows)
                changed = {name: statement.excluded[name] for name in rows[0] if name not in _KEY}
                session.execute(statement.on_conflict_do_update(index_elements=_KEY, set_=changed))
        count += len(rows)
        say(f"{count:,} of {len(sums):,} samples stored")
    return count


def _row(one: Assignment, now: datetime) -> dict[str, Any]:
    return {
        "sample_id": one.sample,
        "lineage_type": LineageType.PANGOLIN,
        "lineage": one.lineage,
        "lineage_software_version": one.version,
        "lineage_probability": one.probability,
        "raw_lineage_output": one.raw,
        "last_updated": now,
    }
