"""Sequences of samples as FASTA, streamed, since a sequence has about 30,000 letters."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import IO, Any

import sqlalchemy as sa
from fastapi import APIRouter, Response
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.authz import Access, Action
from aspen.api.aws import Aws
from aspen.api.deps import AppSettings, AwsClients, CurrentPathogen, Db, OrgAccess
from aspen.api.limits import NAMES_MIB, accepts
from aspen.api.samples.naming import fasta_filename, named, own_names, public_names
from aspen.api.schemas.samples import FastaURLRequest, FastaURLResponse, SequenceRequest
from aspen.api.streaming import Streamed, attachment, fetch_parts
from aspen.database.models import Pathogen, PathogenGenome, Sample, UploadedPathogenGenome

router = APIRouter(tags=["sequences"])
_PER_PART = 50  # 1.5 MB of coronavirus sequences
_IN_MEMORY = 8 << 20
_LINK_S = 3600
_USHER = "USHER"
"""The consumer that reads a name only up to its first space."""
_UPLOADED = UploadedPathogenGenome.__table__
_GENOME = PathogenGenome.__table__


@router.post("/", response_class=Response)
@accepts(mebibytes=NAMES_MIB)
async def prepare_sequences_download(
    wanted: SequenceRequest, db: Db, access: OrgAccess, pathogen: CurrentPathogen
) -> Response:
    """Download sequences (FASTA), omitting those that the user is not allowed to read."""
    repository = wanted.public_repository_name
    body = await _fasta(db, access, pathogen, wanted.sample_ids, repository=repository)
    name = f"{access.group.name}_sample_sequences.fasta"
    name = name if repository is None else fasta_filename(repository)
    return Streamed(db, body, headers=attachment(name, "application/binary"))


@router.post("/getfastaurl")
@accepts(mebibytes=NAMES_MIB)
async def get_fasta_url(
    wanted: FastaURLRequest,
    db: Db,
    access: OrgAccess,
    pathogen: CurrentPathogen,
    aws: AwsClients,
    settings: AppSettings,
) -> FastaURLResponse:
    """Create a link to sequences that works for anyone for an hour."""
    consumer = wanted.downstream_consumer
    body = await _fasta(db, access, pathogen, wanted.samples, consumer=consumer)
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
        async for part in body:
            await asyncio.to_thread(file.write, part)
        await db.give_back()
        file.seek(0)
        key = f"fasta-url-files/{access.group.name}/{uuid.uuid4()}.fasta"
        url = await asyncio.to_thread(_publish, aws, settings.external_auspice_bucket, key, file)
    return FastaURLResponse(url=url)


async def _fasta(
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

    The session must stay open while they are read. `repository` is the public repository, and
    `consumer` the program, that the file is for.
    """
    title = own_names(access)
    if repository is not None:
        title = await public_names(db, pathogen, repository)
    query = _records(access, pathogen, _on_one_line(title, consumer))
    return _encoded(await fetch_parts(db, query, {"names": names}, rows=_PER_PART))


def _on_one_line(title: sa.ColumnElement[str], consumer: str | None) -> sa.ColumnElement[str]:
    usher = (consumer or "").upper() == _USHER
    blanks, instead = (r"\s+", "_") if usher else (r"[\r\n]+", " ")
    return sa.func.regexp_replace(title, blanks, instead, "g")


def _records(access: Access, pathogen: Pathogen, title: sa.ColumnElement[str]) -> sa.Select[Any]:
    return (
        sa.select(sa.func.concat(">", title, "\n", _GENOME.c.sequence, "\n"))
        .select_from(Sample)
        .join(_UPLOADED, _UPLOADED.c.sample_id == Sample.id)
        .join(_GENOME, _GENOME.c.entity_id == _UPLOADED.c.pathogen_genome_id)
        .where(named(access, pathogen), access.samples(Action.SEQUENCES))
        .order_by(Sample.id)
    )


async def _encoded(parts: AsyncIterator[Sequence[str]]) -> AsyncIterator[bytes]:
    async for part in parts:
        yield "".join(part).encode()


def _publish(aws: Aws, bucket: str, key: str, file: IO[bytes]) -> str:
    """Upload a file, and return a link with which anyone can download it for an hour."""
    from boto3.s3.transfer import TransferConfig

    s3 = aws.client("s3")
    # Upload threads would each hold a part or two in memory, and this already runs in a thread.
    s3.upload_fileobj(file, bucket, key, Config=TransferConfig(use_threads=False))
    place = {"Bucket": bucket, "Key": key}
    link: str = s3.generate_presigned_url("get_object", Params=place, ExpiresIn=_LINK_S)
    return link
