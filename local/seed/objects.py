"""Where the files of seeded entities go: what the service keeps in S3."""

from __future__ import annotations

from typing import Protocol

DB_BUCKET = "genepi-db-data"
"""The bucket of trees and of repositories' dumps."""


class Objects(Protocol):
    """Files by bucket and key."""

    def has(self, bucket: str, key: str) -> bool:
        """Whether there is such a file."""
        ...

    def put(self, bucket: str, key: str, body: bytes) -> None:
        """Write a file, in place of the one that is there."""
        ...
