"""The files that S3 holds from the start, kept in a folder: one folder a bucket."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

OBJECTS = "objects"
"""The name of that folder, in the folder of the stand-in."""


class ObjectFolder:
    """Files by bucket and key, in a folder that outlives the stand-in.

    Args:
        folder: The folder; made when something is put.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def has(self, bucket: str, key: str) -> bool:
        """Whether there is such a file."""
        return self._path(bucket, key).is_file()

    def put(self, bucket: str, key: str, body: bytes) -> None:
        """Write a file, whole or not at all."""
        path = self._path(bucket, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._folder / f".{secrets.token_hex(6)}"
        unfinished.write_bytes(body)
        unfinished.replace(path)

    def __iter__(self) -> Iterator[tuple[str, str, bytes]]:
        """Bucket, key and content of every file."""
        for path in sorted(self._folder.glob("*/**/*")):
            if path.is_file():
                bucket, *key = path.relative_to(self._folder).parts
                yield bucket, "/".join(key), path.read_bytes()

    def _path(self, bucket: str, key: str) -> Path:
        path = self._folder / bucket / key
        assert path.resolve().is_relative_to(self._folder.resolve() / bucket)  # noqa: S101 - keys are our own
        return path
