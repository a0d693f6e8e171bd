"""Data for a local deployment: test users, made-up samples, and records from a metadata file."""

from __future__ import annotations

from local.seed.base import BaseResult, seed_base
from local.seed.metadata import MetadataResult, seed_metadata
from local.seed.records import RejectedRow
from local.seed.samples import SeedResult, seed_samples

__all__ = [
    "BaseResult",
    "MetadataResult",
    "RejectedRow",
    "SeedResult",
    "seed_base",
    "seed_metadata",
    "seed_samples",
]
