"""Sequences of samples as FASTA, and Nextclade's results for them as TSV.

Both are streamed, since a sequence has about 30,000 letters.
"""

from __future__ import annotations

import asyncio
import csv
import io
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import IO, Any

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.admission import give_back
from aspen.api.authz import Access, Action
from aspen.api.aws import Aws
from aspen.api.errors import ApiError
from aspen.api.samples.finding import named
from aspen.api.samples.naming import public_names
from aspen.api.settings import Settings
from aspen.api.streaming import fetch_parts
from aspen.database.models import (
    Pathogen,
    PathogenGenome,
    Sample,
    SampleMutation,
    SampleQCMetric,
    UploadedPathogenGenome,
)

_SEQUENCES_PER_PART = 50  # 1.5 MB of coronavirus sequences
_RESULTS_PER_PART = 200
_IN_MEMORY = 8 << 20
_LINK_S = 3600
USHER = "USHER"
"""The consumer that reads a name only up to its first space."""

_UPLOADED = UploadedPathogenGenome.__table__
_GENOME = PathogenGenome.__table__
_NAME = "seqName"
_KEPT: dict[str, Any] = {
    "qc.overallScore": SampleQCMetric.qc_score,
    "qc.overallStatus": SampleQCMetric.qc_status,
    "substitutions": SampleMutation.substitutions,
    "deletions": SampleMutation.deletions,
    "insertions": SampleMutation.insertions,
    "aaSubstitutions": SampleMutation.aa_substitutions,
    "aaDeletions": SampleMutation.aa_deletions,
    "aaInsertions": SampleMutation.aa_insertions,
}
"""The stored values to use if the raw output is missing, by the names of Nextclade's columns."""


async def fasta(
    db: AsyncSession,
    access: Access,
    pathogen: Pathogen,
    names: Sequence[str],
    *,
    repository: str | None = None,
    consumer: str | None = None,
) -> AsyncIterator[bytes]:
    """Return the sequences of the samples that the user may download, in order of ID.

    A sequence is named by private identifier if its sample belongs to the group in the path,
    otherwise by public identifier. For a public repository, all sequences have public identifiers
    with the repository's prefix.

    Args:
        db: A session, which must stay open while the sequences are read.
        access: The user's permissions.
        pathogen: The pathogen of the samples.
        names: Private or public identifiers.
        repository: The public repository that the file is for.
        consumer: The program that the file is for.

    Raises:
        ApiError: 400 if the repository does not have the pathogen.
    """
    title = await _title(db, access, pathogen, repository)
    blanks, instead = (r"\s+", "_") if _is_usher(consumer) else (r"[\r\n]+", " ")
    title = sa.func.regexp_replace(title, blanks, instead, "g")
    query = (
        sa.select(sa.func.concat(">", title, "\n", _GENOME.c.sequence, "\n"))
        .select_from(Sample)
        .join(_UPLOADED, _UPLOADED.c.sample_id == Sample.id)
        .join(_GENOME, _GENOME.c.entity_id == _UPLOADED.c.pathogen_genome_id)
        .where(named(access, pathogen), access.samples(Action.SEQUENCES))
        .order_by(Sample.id)
    )
    parts = await fetch_parts(db, query, {"names": names}, rows=_SEQUENCES_PER_PART)

    async def body() -> AsyncIterator[bytes]:
        async for part in parts:
            yield "".join(part).encode()

    return body()


def _is_usher(consumer: str | None) -> bool:
    return consumer is not None and consumer.upper() == USHER


async def _title(
    db: AsyncSession, access: Access, pathogen: Pathogen, repository: str | None
) -> sa.ColumnElement[str]:
    if repository is not None:
        return await public_names(db, pathogen, repository)
    return _own_title(access)


def _own_title(access: Access) -> sa.ColumnElement[str]:
    own = Sample.submitting_group_id == access.group.id
    return sa.case((own, Sample.private_identifier), else_=Sample.public_identifier)


async def link_to_fasta(
    db: AsyncSession, aws: Aws, settings: Settings, group: str, parts: AsyncIterator[bytes]
) -> str:
    """Upload sequences so that anyone with the link can download them for an hour.

    Returns:
        The link.
    """
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
        async for part in parts:
            await asyncio.to_thread(file.write, part)
        await give_back(db)
        file.seek(0)
        key = f"fasta-url-files/{group}/{uuid.uuid4()}.fasta"
        return await asyncio.to_thread(_publish, aws, settings.external_auspice_bucket, key, file)


def _publish(aws: Aws, bucket: str, key: str, file: IO[bytes]) -> str:
    from boto3.s3.transfer import TransferConfig

    s3 = aws.client("s3")
    # Upload threads would each hold a part or two in memory, and this already runs in a thread.
    s3.upload_fileobj(file, bucket, key, Config=TransferConfig(use_threads=False))
    place = {"Bucket": bucket, "Key": key}
    link: str = s3.generate_presigned_url("get_object", Params=place, ExpiresIn=_LINK_S)
    return link


async def findings(
    db: AsyncSession, access: Access, pathogen: Pathogen, names: Sequence[str]
) -> AsyncIterator[bytes]:
    """Return Nextclade's output for the samples that the user may see, as TSV.

    Raises:
        ApiError: 404 if there is no output for any of them.
    """
    kept = [part for name, value in _KEPT.items() for part in (sa.literal(name), value)]
    output = sa.func.coalesce(
        SampleQCMetric.raw_qc_output, sa.func.jsonb_strip_nulls(sa.func.jsonb_build_object(*kept))
    )
    chosen = (
        sa.select(Sample.id, output.label("output"))
        .select_from(Sample)
        .outerjoin(SampleQCMetric, SampleQCMetric.sample_id == Sample.id)
        .outerjoin(SampleMutation, SampleMutation.sample_id == Sample.id)
        .where(
            named(access, pathogen),
            access.samples(Action.READ),
            sa.or_(SampleQCMetric.id.is_not(None), SampleMutation.id.is_not(None)),
        )
        .subquery("chosen")
    )
    columns = await _columns(db, chosen, names)
    title = _own_title(access)
    query = (
        sa.select(sa.cast(sa.func.jsonb_build_array(title, chosen.c.output), sa.Text))
        .join(chosen, chosen.c.id == Sample.id)
        .order_by(Sample.id)
    )
    parts = await fetch_parts(db, query, {"names": names}, rows=_RESULTS_PER_PART)
    first = await anext(parts, None)
    if first is None:
        raise ApiError(404, "No associated QC/Mutation data found")

    async def body() -> AsyncIterator[bytes]:
        yield _lines([[_NAME, *columns]])
        yield _lines(_cells(row, columns) for row in first)
        async for part in parts:
            yield _lines(_cells(row, columns) for row in part)

    return body()


async def _columns(db: AsyncSession, chosen: sa.Subquery, names: Sequence[str]) -> list[str]:
    """Return the columns of all outputs, ordered by their first position in any output."""
    key = (
        sa.func.jsonb_object_keys(chosen.c.output)
        .table_valued("name", with_ordinality="place", name="key")
        .render_derived()
    )
    query = (
        sa.select(key.c.name)
        .select_from(chosen)
        .join(key, sa.true())
        .where(key.c.name != _NAME)
        .group_by(key.c.name)
        .order_by(sa.func.min(key.c.place), sa.func.min(chosen.c.id))
    )
    return list(await db.scalars(query, {"names": names}))


def _cells(row: str, columns: Sequence[str]) -> list[str]:
    title, output = orjson.loads(row)
    return [title, *(_text(output.get(column)) for column in columns)]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _lines(rows: Iterable[Sequence[str]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, delimiter="\t").writerows(rows)  # lines end with CRLF
    return out.getvalue().encode()
