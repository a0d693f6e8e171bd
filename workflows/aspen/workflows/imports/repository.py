"""A public repository's dump in the database: entities, workflows, metadata, places, accessions.

Everything is written in one transaction, after the objects: readers see the old dump or the new
one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import sqlalchemy as sa

from aspen.database.bulk.staging import copy_in, copy_line
from aspen.database.engine import Database
from aspen.database.models import (
    AccessionType,
    AlignedRepositoryData,
    ProcessedRepositoryData,
    RawRepositoryData,
    RepositoryAlignmentWorkflow,
    RepositoryDownloadWorkflow,
    Workflow,
    WorkflowStatus,
)
from aspen.database.sessions import Reader, WriteSession
from aspen.workflows.access import find_pathogen
from aspen.workflows.genomes import batches
from aspen.workflows.imports.coordinates import Coordinates
from aspen.workflows.imports.dump import Dump
from aspen.workflows.imports.locations import Added, add_places
from aspen.workflows.imports.metadata import COLUMNS, read_metadata
from aspen.workflows.programs import say
from aspen.workflows.steps import StepError
from aspen.workflows.store import DumpKeys

_BATCH = 20_000  # rows
_REPOSITORY = """
SELECT repository.id, config.prefix FROM aspen.public_repositories repository
  LEFT JOIN aspen.pathogen_repo_configs config
    ON config.public_repository_id = repository.id AND config.pathogen_id = :pathogen
 WHERE lower(repository.name) = lower(:name)
"""
_NAMES = "SELECT string_agg(name, ', ' ORDER BY name) FROM aspen.public_repositories"
# Two imports of one source take turns; the number is "ASPN" and tells this lock from others.
_TURN = "SELECT pg_advisory_xact_lock(1095979086, :pathogen * 1000 + :repository)"
_STAGE = f"""
CREATE TEMPORARY TABLE aspen_import ON COMMIT DROP AS
SELECT {", ".join(COLUMNS)} FROM aspen.public_repository_metadata LIMIT 0
"""  # noqa: S608 - our own constants
_DELETE = """
DELETE FROM aspen.public_repository_metadata
 WHERE pathogen_id = :pathogen AND public_repository_id = :repository
"""
_INSERT = f"""
INSERT INTO aspen.public_repository_metadata
       (pathogen_id, public_repository_id, {", ".join(COLUMNS)})
SELECT :pathogen, :repository, {", ".join(COLUMNS)} FROM pg_temp.aspen_import
"""  # noqa: S608 - same
# The prefix is dropped in any case. A sample gets the accession of the strain of its name.
_ACCESSIONS = """
INSERT INTO aspen.accessions (sample_id, accession_type, accession)
SELECT samples.id, :kind, metadata.isl
  FROM aspen.samples
  JOIN aspen.public_repository_metadata metadata
    ON metadata.strain = CASE
           WHEN starts_with(lower(samples.public_identifier), lower(:prefix) || '/')
           THEN substr(samples.public_identifier, length(:prefix) + 2)
           ELSE samples.public_identifier END
 WHERE samples.pathogen_id = :pathogen AND metadata.pathogen_id = :pathogen
   AND metadata.public_repository_id = :repository AND metadata.isl IS NOT NULL
 ORDER BY samples.id
    ON CONFLICT (sample_id, accession_type) DO UPDATE SET accession = EXCLUDED.accession
 WHERE accessions.accession <> EXCLUDED.accession
"""
_KINDS = {"GISAID": AccessionType.GISAID_ISL, "GenBank": AccessionType.GENBANK}


@dataclass(frozen=True)
class Source:
    """A repository and a pathogen, as the database knows them.

    Attributes:
        name: The repository's name.
        prefix: Its prefix for the pathogen's public identifiers, if there is one.
    """

    pathogen: int
    repository: int
    name: str
    prefix: str | None


@dataclass(frozen=True)
class Imported:
    """The result of an import."""

    rows: int
    accessions: int
    places: Added


def find_source(reader: Reader, pathogen: str, repository: str) -> Source:
    """Return a repository of a pathogen.

    Raises:
        StepError: The database does not have the one or the other.
    """
    pathogen_id, _ = find_pathogen(reader, pathogen)
    values = {"pathogen": pathogen_id, "name": repository}
    found = reader.execute(sa.text(_REPOSITORY), values).one_or_none()
    if found is None:
        known = reader.execute(sa.text(_NAMES)).scalar()
        raise StepError(f"There is no public repository {repository!r} (known: {known}).")
    return Source(pathogen_id, found[0], repository, found[1])


def is_saved(reader: Reader, bucket: str, dump: Dump) -> bool:
    """Return True if a dump has its rows, because an earlier attempt wrote them."""
    key = DumpKeys(dump.pathogen, dump.repository, dump.time).aligned_sequences
    found = sa.select(
        sa.exists().where(
            AlignedRepositoryData.s3_bucket == bucket,
            AlignedRepositoryData.sequences_s3_key == key,
        )
    )
    return bool(reader.execute(found).scalar())


def save(
    database: Database,
    bucket: str,
    dump: Dump,
    aligned_since: str,
    metadata: Path,
    coordinates: Coordinates | None,
) -> Imported:
    """Write all rows of a dump whose objects are in the bucket.

    Args:
        database: The database.
        bucket: The bucket.
        dump: The dump.
        aligned_since: The beginning of the alignment, in UTC.
        metadata: The processed metadata.
        coordinates: Positions of places.

    Raises:
        StepError: The metadata cannot be read; nothing was written.
    """
    with database.begin() as session:
        source = find_source(session, dump.pathogen, dump.repository)
        ids = {"pathogen": source.pathogen, "repository": source.repository}
        session.execute(sa.text(_TURN), ids)
        rows = _replace(session, metadata, dump.repository, ids)
        values = {**ids, "kind": _kind(dump.repository).value, "prefix": source.prefix or ""}
        result = session.execute(sa.text(_ACCESSIONS), values)
        assert isinstance(result, sa.CursorResult)  # noqa: S101 - an INSERT has no other
        accessions = result.rowcount
        places = add_places(session, **ids, coordinates=coordinates)
        _add_entities(session, bucket, dump, source, aligned_since)
    return Imported(rows, accessions, places)


def _kind(repository: str) -> AccessionType:
    for name, kind in _KINDS.items():
        if name.lower() == repository.lower():
            return kind
    raise StepError(f"Accessions of {repository} have no type; known are {', '.join(_KINDS)}.")


def _replace(session: WriteSession, metadata: Path, repository: str, ids: Mapping[str, int]) -> int:
    session.execute(sa.text(_STAGE))
    lines = _lines(read_metadata(metadata, repository))
    count = copy_in(session.connection(), "pg_temp.aspen_import", lines)
    session.execute(sa.text(_DELETE), ids)
    session.execute(sa.text(_INSERT), ids)
    return count


def _lines(rows: Iterator[list[str | None]]) -> Iterator[str]:
    count = 0
    for some in batches(rows, _BATCH):
        yield from (copy_line(*row) for row in some)
        count += len(some)
        say(f"{count:,} rows of metadata sent to the database")


def _add_entities(
    session: WriteSession, bucket: str, dump: Dump, source: Source, aligned_since: str
) -> None:
    ids = {"pathogen_id": source.pathogen, "public_repository_id": source.repository}
    versions = software_versions()
    raw, processed, aligned = _objects(bucket, dump, ids)
    download = RepositoryDownloadWorkflow(
        start_datetime=datetime.fromisoformat(dump.started),
        end_datetime=datetime.fromisoformat(dump.ended),
        workflow_status=WorkflowStatus.COMPLETED,
        software_versions=versions,
        inputs=[raw],
        outputs=[processed],
        **ids,
    )
    alignment = RepositoryAlignmentWorkflow(
        start_datetime=datetime.fromisoformat(aligned_since),
        end_datetime=datetime.now(UTC).replace(tzinfo=None),
        workflow_status=WorkflowStatus.COMPLETED,
        software_versions={**versions, "aligned_by": dump.aligned_by},
        inputs=[processed],
        outputs=[aligned],
        **ids,
    )
    session.add_all([raw, processed, aligned, download, alignment])
    session.flush()


def _objects(
    bucket: str, dump: Dump, ids: Mapping[str, int]
) -> tuple[RawRepositoryData, ProcessedRepositoryData, AlignedRepositoryData]:
    """Return the entities of a dump's objects in the bucket."""
    keys = DumpKeys(dump.pathogen, dump.repository, dump.time)
    raw = RawRepositoryData(
        download_date=datetime.fromisoformat(dump.started),
        s3_bucket=bucket,
        s3_key=keys.raw(dump.metadata),
        **ids,
    )
    processed = ProcessedRepositoryData(
        s3_bucket=bucket,
        sequences_s3_key=keys.sequences,
        metadata_s3_key=keys.metadata,
        **ids,
    )
    aligned = AlignedRepositoryData(
        s3_bucket=bucket,
        sequences_s3_key=keys.aligned_sequences,
        metadata_s3_key=keys.aligned_metadata,
        **ids,
    )
    return raw, processed, aligned


def software_versions() -> dict[str, str]:
    """Return the versions that a workflow's row records."""
    return {"aspen_workflow": version("aspencli")}


def record_failure(
    database: Database,
    kind: type[RepositoryDownloadWorkflow | RepositoryAlignmentWorkflow],
    pathogen: str,
    repository: str,
    started: datetime,
) -> None:
    """Add the row of a workflow that failed.

    Raises:
        StepError: The database does not have the pathogen or the repository.
    """
    with database.begin() as session:
        source = find_source(session, pathogen, repository)
        row: Workflow = kind(
            pathogen_id=source.pathogen,
            public_repository_id=source.repository,
            start_datetime=started,
            end_datetime=datetime.now(UTC).replace(tzinfo=None),
            workflow_status=WorkflowStatus.FAILED,
            software_versions=software_versions(),
        )
        session.add(row)
