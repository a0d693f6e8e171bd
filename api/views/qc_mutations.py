"""Quality of samples' sequences, and their mutations."""

from __future__ import annotations

from fastapi import APIRouter, Response
from starlette.responses import StreamingResponse

from api.context import CurrentPathogen, OrgAccess
from api.deps import Db
from api.errors import documented
from api.samples.findings import findings
from api.schemas.sequences import QcMutationsRequest
from api.streaming import attachment

router = APIRouter(tags=["qc_mutations"])


@router.post("/", response_class=Response, responses=documented(404))
async def get_qc_mutations(
    wanted: QcMutationsRequest, db: Db, access: OrgAccess, pathogen: CurrentPathogen
) -> Response:
    """Quality and mutations of samples (TSV), a file to download."""
    body = await findings(db, access, pathogen, wanted.sample_ids)
    return StreamingResponse(body, headers=attachment("sample_mutation.tsv", "text/tsv"))
