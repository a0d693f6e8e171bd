"""Sequences of samples as FASTA, sent as they are read: each has some 30,000 letters."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import IO

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from api.admission import give_back
from api.authz import Access, Action
from api.aws import Aws
from api.samples.finding import named
from api.samples.naming import public_names
from api.settings import Settings
from api.streaming import fetch_parts
from db.models import Pathogen, PathogenGenome, Sample, UploadedPathogenGenome

_ROWS = 50  # 1.5 MB of a coronavirus
_IN_MEMORY = 8 << 20
_LINK_S = 3600
USHER = "USHER"
"""The consumer that reads a name only up to its first blank."""

_UPLOADED = UploadedPathogenGenome.__table__
_GENOME = PathogenGenome.__table__


async def fasta(
    db: AsyncSession,
    access: Access,
    pathogen: Pathogen,
    names: Sequence[str],
    *,
    repository: str | None = None,
    consumer: str | None = None,
) -> AsyncIterator[bytes]:
    """The sequences of those of the samples that the user may have, in the order of their ids.

    A sequence is called by the private identifier of its sample where that is of the group whose
    path is used, else by the public one. What is meant for a public repository holds public
    identifiers only, as the repository writes them.

    Args:
        db: A session, which has to live as long as is read.
        access: Who asks.
        pathogen: Whose samples are looked at.
        names: Identifiers, of either kind.
        repository: The public repository that it is meant for.
        consumer: Who reads it.

    Raises:
        ApiError: 400, when the repository does not have the pathogen.
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
    parts = await fetch_parts(db, query, {"names": names}, rows=_ROWS)

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
    own = Sample.submitting_group_id == access.group.id
    return sa.case((own, Sample.private_identifier), else_=Sample.public_identifier)


async def link_to_fasta(
    db: AsyncSession, aws: Aws, settings: Settings, group: str, parts: AsyncIterator[bytes]
) -> str:
    """Put sequences where anybody who has the link can fetch them, for an hour.

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
    # Threads would each hold a part or two in memory, and this is one already.
    s3.upload_fileobj(file, bucket, key, Config=TransferConfig(use_threads=False))
    place = {"Bucket": bucket, "Key": key}
    link: str = s3.generate_presigned_url("get_object", Params=place, ExpiresIn=_LINK_S)
    return link
