"""Sequences of samples as FASTA, streamed since each has about 30,000 letters."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import IO

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.admission import give_back
from aspen.api.authz import Access, Action
from aspen.api.aws import Aws
from aspen.api.samples.finding import named
from aspen.api.samples.naming import public_names
from aspen.api.settings import Settings
from aspen.api.streaming import fetch_parts
from aspen.database.models import Pathogen, PathogenGenome, Sample, UploadedPathogenGenome

_ROWS = 50  # 1.5 MB of coronavirus sequences
_IN_MEMORY = 8 << 20
_LINK_S = 3600
USHER = "USHER"
"""The consumer that reads a name only up to its first space."""

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
