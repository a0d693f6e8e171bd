"""Sequences of samples."""

from __future__ import annotations

from fastapi import APIRouter, Response

from aspen.api.deps import AppSettings, AwsClients, CurrentPathogen, Db, OrgAccess
from aspen.api.limits import NAMES_MIB, accepts
from aspen.api.samples.naming import fasta_filename
from aspen.api.samples.sequences import fasta, link_to_fasta
from aspen.api.schemas.sequences import FastaURLRequest, FastaURLResponse, SequenceRequest
from aspen.api.streaming import Streamed, attachment

router = APIRouter(tags=["sequences"])


@router.post("/", response_class=Response)
@accepts(mebibytes=NAMES_MIB)
async def prepare_sequences_download(
    wanted: SequenceRequest, db: Db, access: OrgAccess, pathogen: CurrentPathogen
) -> Response:
    """Download sequences (FASTA), omitting those that the user is not allowed to read."""
    repository = wanted.public_repository_name
    body = await fasta(db, access, pathogen, wanted.sample_ids, repository=repository)
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
    body = await fasta(db, access, pathogen, wanted.samples, consumer=consumer)
    return FastaURLResponse(url=await link_to_fasta(db, aws, settings, access.group.name, body))
