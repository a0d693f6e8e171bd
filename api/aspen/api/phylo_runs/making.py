"""The creation of a run: its row and its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.authz import Access, Action
from aspen.api.errors import ApiError
from aspen.api.samples.finding import named, strains
from aspen.api.samples.naming import GENBANK
from aspen.api.schemas.phylo_runs import PhyloRunRequest, TemplateArgsRequest
from aspen.database.models import (
    AlignedRepositoryData,
    Location,
    Pathogen,
    PhyloRun,
    PublicRepository,
    Sample,
    TreeType,
    UploadedPathogenGenome,
    Workflow,
    WorkflowInput,
    WorkflowStatus,
)

_UPLOADED = UploadedPathogenGenome.__table__
_RUNS, _WORKFLOWS = PhyloRun.__table__, Workflow.__table__


async def make(
    db: AsyncSession, access: Access, pathogen: Pathogen, wanted: PhyloRunRequest
) -> int:
    """Insert the row and the inputs of a run that is about to start; the caller commits.

    Args:
        db: A writable session.
        access: The user's permissions; the run belongs to the group in the path.
        pathogen: The pathogen of the run.
        wanted: The request.

    Returns:
        The run's ID.

    Raises:
        ApiError: 400 with the invalid values; nothing was written.
    """
    names = list(dict.fromkeys(wanted.samples))
    genomes = await _genomes(db, access, pathogen, names)
    public = await strains(db, pathogen, [name for name in names if name not in genomes])
    if missing := [name for name in names if name not in genomes and name not in public]:
        raise ApiError(400, "missing ids", ids=missing)
    if bare := [name for name in names if None in genomes.get(name, ())]:
        raise ApiError(400, "some samples have no sequence", ids=bare)
    arguments = await _arguments(db, wanted.template_args)
    dump, repository = await _newest_dump(db, pathogen)
    taken = {genome for some in genomes.values() for genome in some if genome is not None}
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
    # An INSERT treats parameters as columns, so the values are part of the statement.
    entities = sa.literal([*{dump, *taken}], ARRAY(sa.Integer))
    inputs = sa.select(sa.func.unnest(entities), sa.literal(run.id))
    await db.execute(sa.insert(WorkflowInput).from_select(["entity_id", "workflow_id"], inputs))
    return run.id


async def _arguments(db: AsyncSession, given: TemplateArgsRequest | None) -> dict[str, Any]:
    if given is None:
        return {}
    location = given.location_id
    if location is not None and await db.get(Location, location) is None:
        raise ApiError(400, f"location_id {location} not found")
    return given.model_dump(mode="json", exclude_none=True)


async def _newest_dump(db: AsyncSession, pathogen: Pathogen) -> tuple[int, int]:
    """Return the IDs of the newest data to compare samples with, and of its repository.

    GenBank takes precedence if it has the pathogen.
    """
    source = AlignedRepositoryData
    ended = _WORKFLOWS.c.end_datetime
    query = (
        sa.select(source.entity_id, source.public_repository_id)
        .join(_WORKFLOWS, _WORKFLOWS.c.id == source.producing_workflow_id)
        .where(source.pathogen_id == pathogen.id)
        .join(PublicRepository, PublicRepository.id == source.public_repository_id)
        .order_by(
            (PublicRepository.name == GENBANK).desc(),
            source.public_repository_id,
            ended.desc().nulls_last(),
            source.entity_id.desc(),
        )
        .limit(1)
    )
    found = (await db.execute(query)).one_or_none()
    if found is None:
        raise ApiError(400, "No aligned upstream dump for run", pathogen=pathogen.slug)
    return found[0], found[1]


async def _genomes(
    db: AsyncSession, access: Access, pathogen: Pathogen, names: Sequence[str]
) -> dict[str, set[int | None]]:
    """Return the IDs of the sequences that each name refers to; None for a sample without one.

    Several groups may use the same public identifier. The samples are locked against deletion and
    renaming until the run has their sequences as its inputs.
    """
    private = sa.case((access.samples(Action.READ_PRIVATE), Sample.private_identifier))
    query = (
        sa.select(Sample.public_identifier, private, _UPLOADED.c.pathogen_genome_id)
        .outerjoin(_UPLOADED, _UPLOADED.c.sample_id == Sample.id)
        .where(named(access, pathogen))
        .order_by(Sample.id)
        .with_for_update(of=Sample, read=True, key_share=True)
    )
    given, found = {*names}, dict[str, set[int | None]]()
    for *identifiers, genome in await db.execute(query, {"names": names}):
        for name in given.intersection(identifiers):
            found.setdefault(name, set()).add(genome)
    return found
