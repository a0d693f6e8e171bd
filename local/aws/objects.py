"""S3 objects stored in a folder: one subfolder per bucket, one file per object."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from aspencli.files import make_folder, write_whole

OBJECTS = "s3"
"""The name of that folder, inside the stand-in's folder."""
EARLIER = "objects"
"""The folder in which earlier versions stored files, by bucket and key."""
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,62}")


@dataclass(frozen=True)
class Stored:
    """A stored object.

    Attributes:
        metadata: Its headers, such as ``Content-Type``, and the user-defined metadata.
    """

    bucket: str
    key: str
    body: bytes
    metadata: Mapping[str, str]


class ObjectFolder:
    """Objects by bucket and key, in a folder that outlives the stand-in.

    A key can be any text, unlike a file name, so each file is named by a hash of its key. Its first
    line is JSON with the key and the metadata; the rest is the object itself.

    Args:
        folder: The folder, which is created when needed.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def has(self, bucket: str, key: str) -> bool:
        """Return True if the object exists."""
        return self._path(bucket, key).is_file()

    def put(
        self, bucket: str, key: str, body: bytes, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write an object atomically."""
        self.make_bucket(bucket)
        head = json.dumps({"key": key, "metadata": dict(metadata or {})})
        write_whole(self._path(bucket, key), head.encode() + b"\n" + body)

    def delete(self, bucket: str, key: str) -> None:
        """Delete an object."""
        self._path(bucket, key).unlink(missing_ok=True)

    def make_bucket(self, bucket: str) -> None:
        """Create a bucket if it does not exist."""
        make_folder(self._place(bucket))

    def delete_bucket(self, bucket: str) -> None:
        """Delete a bucket and everything in it."""
        shutil.rmtree(self._place(bucket), ignore_errors=True)

    def buckets(self) -> list[str]:
        """Return the names of the buckets, including empty ones."""
        if not self._folder.exists():
            return []
        return sorted(one.name for one in self._folder.iterdir() if _BUCKET.fullmatch(one.name))

    def stored(self) -> Iterator[Stored]:
        """Yield every object with its metadata."""
        for bucket in self.buckets():
            for path in sorted(self._place(bucket).glob("[0-9a-f]*")):
                head, _, body = path.read_bytes().partition(b"\n")
                about = json.loads(head)
                yield Stored(bucket, about["key"], body, about["metadata"])

    def __iter__(self) -> Iterator[tuple[str, str, bytes]]:
        """Yield the bucket, key, and content of every object."""
        for one in self.stored():
            yield one.bucket, one.key, one.body

    def adopt(self, earlier: Path) -> None:
        """Import the files that an earlier version stored, then delete their folder."""
        for path in sorted(earlier.glob("*/**/*")):
            bucket, *parts = path.relative_to(earlier).parts
            key = "/".join(parts)
            if path.is_file() and not path.is_symlink() and not self.has(bucket, key):
                self.put(bucket, key, path.read_bytes())
        shutil.rmtree(earlier, ignore_errors=True)

    def _place(self, bucket: str) -> Path:
        if not _BUCKET.fullmatch(bucket):
            raise ValueError(f"not the name of a bucket: {bucket!r}")
        return self._folder / bucket

    def _path(self, bucket: str, key: str) -> Path:
        return self._place(bucket) / hashlib.sha256(key.encode()).hexdigest()
