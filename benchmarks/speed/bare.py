"""The baseline for lists: JSON built by PostgreSQL in one piece, sent by a bare ASGI app.

``GET /<group>`` returns all samples of a group. ``BARE_DSN`` is the database's address.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import asyncpg

_SAMPLES = """
SELECT '{"samples":' || coalesce(json_agg(row_to_json(made)), '[]') || '}' FROM (
    SELECT s.id, s.collection_date,
        (SELECT row_to_json(x) FROM (SELECT l.id, l.region, l.country, l.division, l.location) x)
            AS collection_location,
        (SELECT row_to_json(x) FROM (SELECT a.accession AS gisaid_id,
            CASE WHEN a.accession IS NULL THEN 'Not Found' ELSE 'Accepted' END AS status) x)
            AS gisaid,
        (SELECT row_to_json(x) FROM (SELECT p.id, p.slug, p.name) x) AS pathogen,
        s.private, s.private_identifier, s.public_identifier, g.sequencing_date,
        (SELECT row_to_json(x) FROM (SELECT o.id, o.name) x) AS submitting_group,
        (SELECT row_to_json(x) FROM (SELECT u.id, u.name) x) AS uploaded_by,
        date_trunc('second', g.upload_date) AT TIME ZONE 'UTC' AS upload_date,
        coalesce((SELECT json_agg(row_to_json(x)) FROM (
            SELECT lineage_type, lineage, lineage_software_version,
                last_updated::date AS last_updated, lineage_probability, reference_dataset_name,
                reference_sequence_accession, reference_dataset_tag,
                raw_lineage_output ->> 'scorpio_call' AS scorpio_call,
                raw_lineage_output ->> 'scorpio_support' AS scorpio_support,
                (SELECT qc_status FROM aspen.sample_qc_metrics WHERE sample_id = s.id) AS qc_status
              FROM aspen.sample_lineages WHERE sample_id = s.id) x), '[]') AS lineages,
        coalesce((SELECT json_agg(row_to_json(x)) FROM (
            SELECT qc_score, qc_software_version, qc_status, qc_caller, reference_dataset_name,
                reference_sequence_accession, reference_dataset_tag
              FROM aspen.sample_qc_metrics WHERE sample_id = s.id) x), '[]') AS qc_metrics
      FROM aspen.samples s
      JOIN aspen.locations l ON l.id = s.location_id
      JOIN aspen.pathogens p ON p.id = s.pathogen_id
      JOIN aspen.groups o ON o.id = s.submitting_group_id
      JOIN aspen.users u ON u.id = s.uploaded_by_id
      JOIN (aspen.uploaded_pathogen_genomes
            JOIN aspen.pathogen_genomes ON entity_id = pathogen_genome_id) g ON g.sample_id = s.id
      LEFT JOIN aspen.accessions a ON a.sample_id = s.id AND a.accession_type = 'GISAID_ISL'
     WHERE s.submitting_group_id = $1
     ORDER BY s.id
) made
"""

Message = MutableMapping[str, Any]
_pool: asyncpg.Pool | None = None


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Serve the samples of a group."""
    global _pool  # noqa: PLW0603 - the app is just this function
    del receive
    if scope["type"] != "http":
        return
    if _pool is None:
        settings = {"jit": "off", "timezone": "UTC"}
        _pool = await asyncpg.create_pool(os.environ["BARE_DSN"], server_settings=settings)
    group = int(scope["path"].removeprefix("/") or 0)
    body = (await _pool.fetchval(_SAMPLES, group)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
