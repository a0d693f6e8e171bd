"""The quality of samples' sequences, and their mutations."""

from __future__ import annotations

from fastapi import APIRouter, Response

from aspen.api.deps import CurrentPathogen, Db, OrgAccess
from aspen.api.errors import documented
from aspen.api.limits import NAMES_MIB, accepts
from aspen.api.samples.sequences import findings
from aspen.api.schemas.sequences import QcMutationsRequest
from aspen.api.streaming import Streamed, attachment

router = APIRouter(tags=["qc_mutations"])


@router.post("/", response_class=Response, responses=documented(404))
@accepts(mebibytes=NAMES_MIB)
async def get_qc_mutations(
    wanted: QcMutationsRequest, db: Db, access: OrgAccess, pathogen: CurrentPathogen
) -> Response:
    """Download the quality and mutations of samples (TSV)."""
    body = await findings(db, access, pathogen, wanted.sample_ids)
    return Streamed(db, body, headers=attachment("sample_mutation.tsv", "text/tsv"))
