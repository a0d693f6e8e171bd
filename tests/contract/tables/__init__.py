"""The requests, by noun; ``TABLES`` is the order in which they are sent."""

from __future__ import annotations

from tests.contract.asking import Ask
from tests.contract.tables import (
    auspice,
    files,
    frame,
    groups,
    orgs,
    phylo_runs,
    reference,
    samples,
    sessions,
    users,
)

TABLES: dict[str, list[Ask]] = {
    "frame": frame.ASKS,
    "sign-in": sessions.ASKS,
    "organizations": orgs.ASKS,
    "reference data": reference.ASKS,
    "groups": groups.ASKS,
    "users": users.ASKS,
    "magic links": auspice.ASKS,
    "phylogenetic runs": phylo_runs.ASKS,
    "trees, sequences": files.ASKS,
    "samples": samples.ASKS,
}
