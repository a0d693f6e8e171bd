"""Data for a local deployment: test users, generated samples, and records from a metadata file."""

from __future__ import annotations

from aspen.local.seed.base import BaseResult, RolesResult, seed_base, seed_roles
from aspen.local.seed.nextstrain import MetadataResult, seed_metadata
from aspen.local.seed.phylo import RunsResult, seed_runs
from aspen.local.seed.samples import Objects, RejectedRow, SeedResult, seed_samples

__all__ = [
    "BaseResult",
    "MetadataResult",
    "Objects",
    "RejectedRow",
    "RolesResult",
    "RunsResult",
    "SeedResult",
    "seed_base",
    "seed_metadata",
    "seed_roles",
    "seed_runs",
    "seed_samples",
]
