"""Bulk creation and deletion of samples with everything that belongs to them: all or none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.authz import Access, Action
from aspen.api.database import integers, texts
from aspen.api.errors import ApiError
from aspen.api.samples.listing import read_written
from aspen.api.samples.naming import UNIQUE_VIOLATION, lock_countries, made_up, repository_prefix
from aspen.api.schemas.samples import CreateSampleRequest, CreateSamplesBaseRequest
from aspen.database.errors import sqlstate
from aspen.database.models import EntityType, Pathogen, Sample

_NAMES = (Sample.private_identifier, Sample.public_identifier)
_NUMBERS = (
    "SELECT nextval(pg_get_serial_sequence(:column_of, 'id')) FROM generate_series(1, :count)"
)

_SAMPLES = sa.text("""
INSERT INTO aspen.samples (id, private_identifier, public_identifier, collection_date, location_id,
    private, organism, authors, sample_collected_by, sample_collector_contact_email,
    sample_collector_contact_address, host, purpose_of_sampling, specimen_processing,
    original_submission, submitting_group_id, uploaded_by_id, pathogen_id)
SELECT n.*, '{}', :owner, :uploader, :pathogen
  FROM unnest(CAST(:id AS integer[]), CAST(:private_identifier AS varchar[]),
              CAST(:public_identifier AS varchar[]), CAST(:collection_date AS date[]),
              CAST(:location_id AS integer[]), CAST(:private AS boolean[]),
              CAST(:organism AS varchar[]), CAST(:authors AS jsonb[]),
              CAST(:sample_collected_by AS varchar[]),
              CAST(:sample_collector_contact_email AS varchar[]),
              CAST(:sample_collector_contact_address AS varchar[]), CAST(:host AS varchar[]),
              CAST(:purpose_of_sampling AS varchar[]), CAST(:specimen_processing AS varchar[])) AS n
""")
_ENTITIES = sa.text("""
INSERT INTO aspen.entities (id, entity_type, group_id)
SELECT n.id, :kind, :owner FROM unnest(CAST(:genome AS integer[])) AS n (id)
""")
_GENOMES = sa.text("""
INSERT INTO aspen.pathogen_genomes
    (entity_id, sequence, num_unambiguous_sites, num_missing_alleles, num_mixed, sequencing_date)
SELECT n.* FROM unnest(CAST(:genome AS integer[]), CAST(:sequence AS varchar[]),
    CAST(:unambiguous AS integer[]), CAST(:missing AS integer[]), CAST(:mixed AS integer[]),
    CAST(:sequencing_date AS date[])) AS n
""")
_UPLOADS = sa.text("""
INSERT INTO aspen.uploaded_pathogen_genomes (pathogen_genome_id, sample_id, sequencing_depth)
SELECT n.* FROM unnest(CAST(:genome AS integer[]), CAST(:id AS integer[]),
    CAST(:sequencing_depth AS double precision[])) AS n
""")

_GENOMES_OF_SAMPLES = """
SELECT pathogen_genome_id FROM aspen.uploaded_pathogen_genomes WHERE sample_id = ANY(:ids)
UNION ALL
SELECT pathogen_genome_id FROM aspen.aligned_pathogen_genome WHERE sample_id = ANY(:ids)
"""
# The lock keeps jobs of any program from taking the genomes as inputs.
_LOCK_GENOMES = "SELECT FROM aspen.entities WHERE id = ANY(:ids) ORDER BY id FOR UPDATE"
_DELETE_SAMPLES = (
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
_DELETE_GENOMES = (
    "DELETE FROM aspen.workflow_inputs WHERE entity_id = ANY(:ids)",
    "DELETE FROM aspen.pathogen_genomes WHERE entity_id = ANY(:ids)",
    "DELETE FROM aspen.entities WHERE id = ANY(:ids)",
)

_Names = tuple[str, str | None]
"""The private and the public identifier; None for the latter if it is to be generated."""


@dataclass(frozen=True, slots=True)
class _New:
    """A sample to be created."""

    id: int
    genome: int
    public: str
    wanted: CreateSampleRequest

    @property
    def names(self) -> _Names:
        return self.wanted.sample.private_identifier, self.public


async def create(
    db: AsyncSession, access: Access, pathogen: Pathogen, wanted: Sequence[CreateSampleRequest]
) -> tuple[dict[int, str], list[bytes]]:
    """Create samples in the path's group; the caller commits.

    Returns:
        The public identifiers by sample ID, and the created samples as JSON in pieces.

    Raises:
        ApiError: 400 with the invalid rows; nothing was created.
    """
    owner = access.group.id
    countries = await _countries(db, wanted)
    # Rejected requests must not consume IDs.
    given = [_names(one) for one in wanted]
    _check_repeated(given)
    await _check_held(db, owner, given)
    new = await _numbered(db, access, pathogen, wanted, countries)
    named = [one.names for one in new]
    if named != given:
        _check_repeated(named)
        await _check_held(db, owner, named)
    await _write_unique(db, access, pathogen, new)
    publics = {one.id: one.public for one in new}
    return publics, await read_written(db, publics, created=True)


async def _write_unique(
    db: AsyncSession, access: Access, pathogen: Pathogen, new: Sequence[_New]
) -> None:
    owner = access.group.id
    try:
        await _write(db, access, pathogen, new)
    except IntegrityError as error:
        if sqlstate(error) != UNIQUE_VIOLATION:
            raise
        # A concurrent request took a name.
        await db.rollback()
        await _check_held(db, owner, [one.names for one in new])
        raise


async def _countries(
    db: AsyncSession, wanted: Iterable[CreateSampleRequest]
) -> Mapping[int | None, str | None]:
    """Return the country of each given location; lock the locations against deletion."""
    given = {one.sample.location_id for one in wanted}
    countries = await lock_countries(db, given)
    if unknown := sorted(given - countries.keys()):
        rows = [n for n, one in enumerate(wanted) if one.sample.location_id in unknown]
        raise ApiError(400, "Invalid location id for sample", locations=unknown, rows=rows)
    return countries


async def _numbered(
    db: AsyncSession,
    access: Access,
    pathogen: Pathogen,
    wanted: Sequence[CreateSampleRequest],
    countries: Mapping[int | None, str | None],
) -> list[_New]:
    """Return the samples with IDs, and with generated public identifiers if none were given."""
    ids = await _numbers(db, "aspen.samples", len(wanted))
    genomes = await _numbers(db, "aspen.entities", len(wanted))
    prefix = ""
    if any(not one.sample.public_identifier for one in wanted):
        prefix = await repository_prefix(db, pathogen)
    new = []
    for number, genome, one in zip(ids, genomes, wanted, strict=True):
        public = one.sample.public_identifier or made_up(
            prefix, countries[one.sample.location_id], access.group.prefix, number
        )
        new.append(_New(number, genome, public, one))
    return new


async def _numbers(db: AsyncSession, table: str, count: int) -> list[int]:
    query = sa.text(_NUMBERS).bindparams(column_of=table, count=count)
    return list(await db.scalars(query))


def _names(wanted: CreateSampleRequest) -> _Names:
    return wanted.sample.private_identifier, wanted.sample.public_identifier or None


def _check_repeated(given: Sequence[_Names]) -> None:
    repeated = [
        [name for name, times in Counter(names).items() if name is not None and times > 1]
        for names in zip(*given, strict=True)
    ]
    if any(repeated):
        private, public = repeated
        raise ApiError(
            400,
            f"Error processing data, either duplicate private_identifiers: {private} or duplicate "
            f"public identifiers: {public} exist in the upload files, please rename duplicates "
            "before proceeding with upload.",
            rows=_rows(given, private, public),
        )


async def _check_held(db: AsyncSession, owner: int, given: Sequence[_Names]) -> None:
    held = []
    for column, names in zip(_NAMES, zip(*given, strict=True), strict=False):
        known = [name for name in names if name is not None]
        query = sa.select(column).where(
            Sample.submitting_group_id == owner, column == sa.any_(texts("names"))
        )
        held.append(sorted(await db.scalars(query, {"names": known})))
    if any(held):
        private, public = held
        raise ApiError(
            400,
            f"Error inserting data, private_identifiers {private} or public_identifiers: {public} "
            "already exist in our database, please remove these samples before proceeding with "
            "upload.",
            rows=_rows(given, private, public),
        )


def _rows(given: Iterable[_Names], private: Iterable[str], public: Iterable[str]) -> list[int]:
    """Return the indexes of the samples with these names in the request, starting at 0."""
    privates, publics = set(private), set(public)
    return [n for n, names in enumerate(given) if names[0] in privates or names[1] in publics]


async def _write(db: AsyncSession, access: Access, pathogen: Pathogen, new: Sequence[_New]) -> None:
    group = access.group
    samples = [one.wanted.sample for one in new]
    await db.execute(
        _SAMPLES,
        {
            **{
                name: [getattr(sample, name) for sample in samples]
                for name in CreateSamplesBaseRequest.model_fields
            },
            "id": [one.id for one in new],
            "public_identifier": [one.public for one in new],
            "authors": [json.dumps([] if s.authors is None else s.authors) for s in samples],
            "sample_collected_by": [s.sample_collected_by or group.name for s in samples],
            "sample_collector_contact_address": [
                s.sample_collector_contact_address or group.address for s in samples
            ],
            "owner": group.id,
            "uploader": access.user.id,
            "pathogen": pathogen.id,
        },
    )
    await _write_genomes(db, group.id, new)


async def _write_genomes(db: AsyncSession, owner: int, new: Sequence[_New]) -> None:
    genomes = [one.wanted.pathogen_genome for one in new]
    counts = [genome.counts() for genome in genomes]
    ids, numbers = [one.id for one in new], [one.genome for one in new]
    kind = EntityType.UPLOADED_PATHOGEN_GENOME.value
    await db.execute(_ENTITIES, {"genome": numbers, "kind": kind, "owner": owner})
    await db.execute(
        _GENOMES,
        {
            "genome": numbers,
            "sequence": [genome.sequence for genome in genomes],
            "unambiguous": [count.unambiguous for count in counts],
            "missing": [count.missing for count in counts],
            "mixed": [count.mixed for count in counts],
            "sequencing_date": [genome.sequencing_date for genome in genomes],
        },
    )
    depths = [genome.sequencing_depth for genome in genomes]
    await db.execute(_UPLOADS, {"genome": numbers, "id": ids, "sequencing_depth": depths})


async def remove(db: AsyncSession, access: Access, ids: Sequence[int], missing: str) -> None:
    """Delete samples with their genomes, lineages, metrics, and tree entries; the caller commits.

    Raises:
        ApiError: 404 with the message `missing` and the IDs of samples that cannot be deleted;
            nothing was deleted.
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
    genomes = list(await db.scalars(_statement(_GENOMES_OF_SAMPLES), {"ids": ids}))
    await db.execute(_statement(_LOCK_GENOMES), {"ids": genomes})
    for statement in _DELETE_SAMPLES:
        await db.execute(_statement(statement), {"ids": ids})
    for statement in _DELETE_GENOMES:
        await db.execute(_statement(statement), {"ids": genomes})


def _statement(text: str) -> sa.TextClause:
    return sa.text(text).bindparams(integers("ids"))
