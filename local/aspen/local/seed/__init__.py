"""Data for a local deployment: test users, generated samples, and records from a metadata file."""

from __future__ import annotations

from aspen.local.seed.base import has_groups, seed_base, seed_roles
from aspen.local.seed.nextstrain import MetadataResult, RejectedRow, seed_metadata
from aspen.local.seed.phylo import seed_runs
from aspen.local.seed.samples import Seeded, SeedResult, seed_samples

__all__ = [
    "MetadataResult",
    "RejectedRow",
    "SeedResult",
    "Seeded",
    "has_groups",
    "seed_base",
    "seed_metadata",
    "seed_roles",
    "seed_runs",
    "seed_samples",
]
