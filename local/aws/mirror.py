"""A copy of moto's in-memory S3 in a folder, so that objects survive a restart of the stand-in."""

from __future__ import annotations

from threading import Lock
from typing import Any

from moto.s3.models import FakeKey

from local.aws.objects import ObjectFolder


class Mirror:
    """A mirror that keeps a folder in sync with moto's S3.

    After each request that may have changed something, the differences are written. This covers
    every way to create and delete objects (copies, multipart uploads, lists of keys).

    Args:
        backend: moto's S3 backend.
        folder: The folder for the objects.
        region: The region of the buckets.
    """

    def __init__(self, backend: Any, folder: ObjectFolder, region: str):
        self._backend, self._folder, self._region = backend, folder, region
        self._kept: dict[str, dict[str, FakeKey]] = {}
        self._lock = Lock()

    def load(self) -> None:
        """Load the folder's objects into moto's S3."""
        for bucket in self._folder.buckets():
            self._make(bucket)
        for one in self._folder.stored():
            made = self._backend.put_object(one.bucket, one.key, one.body)
            made.set_metadata(dict(one.metadata))
            self._kept[one.bucket][one.key] = made

    def save(self) -> None:
        """Write the changes since the last call to the folder.

        Raises:
            OSError: The changes cannot be written.
        """
        with self._lock:
            buckets = dict(self._backend.buckets)
            for name in self._kept.keys() - buckets.keys():
                self._folder.delete_bucket(name)
                del self._kept[name]
            for name, bucket in buckets.items():
                if name not in self._kept:
                    self._folder.make_bucket(name)
                    self._kept[name] = {}
                self._save(name, bucket)

    def _save(self, name: str, bucket: Any) -> None:
        kept = self._kept[name]
        now = {key: one for key, one in list(bucket.keys.items()) if isinstance(one, FakeKey)}
        for key in kept.keys() - now.keys():
            self._folder.delete(name, key)
            del kept[key]
        for key, one in now.items():
            if kept.get(key) is not one:
                self._folder.put(name, key, one.value, dict(one.metadata))
                kept[key] = one

    def _make(self, bucket: str) -> None:
        if bucket not in self._backend.buckets:
            self._backend.create_bucket(bucket, self._region)
        self._kept.setdefault(bucket, {})
