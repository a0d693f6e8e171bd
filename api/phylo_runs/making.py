"""A run: what it takes in, its row, and the job that does the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from api.authz import Access
from api.errors import ApiError
from api.samples.finding import sample_names, strains
from api.samples.updating import integers
from api.schemas.phylo_runs import PhyloRunRequest, TemplateArgsRequest
from db.models import (
    AlignedRepositoryData,
    Location,
    Pathogen,
    PhyloRun,
    Sample,
    TreeType,
    UploadedPathogenGenome,
    Workflow,
    WorkflowInput,
    WorkflowStatus,
)

_UPLOADED = UploadedPathogenGenome.__table__
_WORKFLOWS = Workflow.__table__


async def make(
    db: AsyncSession, access: Access, pathogen: Pathogen, wanted: PhyloRunRequest
) -> int:
    """Write the row of a run that is about to start, and what goes into it; the caller commits.

    Args:
        db: A session that may write.
        access: Who asks; the run belongs to the group whose path is used.
        pathogen: Of which pathogen it is.
        wanted: What was asked for.

    Returns:
        The run's id.

    Raises:
        ApiError: 400, with what is to blame; nothing was written.
    """
    samples = await sample_names(db, access, pathogen, wanted.samples)
    public = await strains(db, pathogen, [name for name in wanted.samples if name not in samples])
    missing = [name for name in wanted.samples if name not in samples and name not in public]
    if missing:
        raise ApiError(400, "missing ids", ids=list(dict.fromkeys(missing)))
    arguments = await _arguments(db, wanted.template_args)
    dump, repository = await _newest_dump(db, pathogen)
    genomes = await _genomes(db, samples)
    run = PhyloRun(
        user_id=access.user.id,
        group_id=access.group.id,
        pathogen_id=pathogen.id,
        contextual_repository_id=repository,
        name=wanted.name,
        tree_type=TreeType(wanted.tree_type),
        template_args=arguments,
        gisaid_ids=sorted({*public.values()}),
        workflow_status=WorkflowStatus.STARTED,
        start_datetime=datetime.now(UTC).replace(tzinfo=None),  # the column is naive UTC
    )
    db.add(run)
    await db.flush()
    taken = sa.select(sa.func.unnest(integers([dump, *genomes])), sa.literal(run.id))
    await db.execute(sa.insert(WorkflowInput).from_select(["entity_id", "workflow_id"], taken))
    return run.id


async def _arguments(db: AsyncSession, given: TemplateArgsRequest | None) -> dict[str, Any]:
    if given is None:
        return {}
    location = given.location_id
    if location is not None and await db.get(Location, location) is None:
        raise ApiError(400, f"location_id {location} not found")
    return given.model_dump(mode="json", exclude_none=True)


async def _newest_dump(db: AsyncSession, pathogen: Pathogen) -> tuple[int, int]:
    """What a run compares the samples with, and from which repository that is.

    Of several repositories it is the first, which is GISAID wherever that has the pathogen.
    """
    source = AlignedRepositoryData
    ended = _WORKFLOWS.c.end_datetime
    query = (
        sa.select(source.entity_id, source.public_repository_id)
        .join(_WORKFLOWS, _WORKFLOWS.c.id == source.producing_workflow_id)
        .where(source.pathogen_id == pathogen.id)
        .order_by(source.public_repository_id, ended.desc().nulls_last(), source.entity_id.desc())
        .limit(1)
    )
    found = (await db.execute(query)).one_or_none()
    if found is None:
        raise ApiError(400, "No aligned upstream dump for run", pathogen=pathogen.slug)
    return found[0], found[1]


async def _genomes(db: AsyncSession, samples: Mapping[str, int]) -> Sequence[int]:
    """The sequences of samples, which nobody deletes before the run has them as its inputs."""
    query = (
        sa.select(Sample.id, _UPLOADED.c.pathogen_genome_id)
        .outerjoin(_UPLOADED, _UPLOADED.c.sample_id == Sample.id)
        .where(Sample.id == sa.any_(integers({*samples.values()})))
        .order_by(Sample.id)
        .with_for_update(of=Sample, read=True, key_share=True)
    )
    found: dict[int, int | None] = dict((await db.execute(query)).all())
    if bare := [name for name, number in samples.items() if found.get(number) is None]:
        raise ApiError(400, "some samples have no sequence", ids=bare)
    return [genome for genome in found.values() if genome is not None]
