"""Data for a local deployment: test users, generated samples, and records from a metadata file."""

from __future__ import annotations

from local.seed.base import BaseResult, seed_base
from local.seed.metadata import MetadataResult, seed_metadata
from local.seed.objects import Objects
from local.seed.records import RejectedRow
from local.seed.roles import RolesResult, seed_roles
from local.seed.runs import RunsResult, seed_runs
from local.seed.samples import SeedResult, seed_samples

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
