"""Storage for the files of seeded entities, which the service keeps in S3."""

from __future__ import annotations

from typing import Protocol

DB_BUCKET = "genepi-db-data"
"""The bucket for trees and for dumps of repositories."""


class Objects(Protocol):
    """Files by bucket and key."""

    def has(self, bucket: str, key: str) -> bool:
        """Return True if the file exists."""
        ...

    def put(self, bucket: str, key: str, body: bytes) -> None:
        """Write a file, replacing any existing one."""
        ...
