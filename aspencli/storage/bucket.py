"""Objects in a bucket of S3: list, describe, and download them.

A download resumes where an earlier one ended, and is verified when it is complete.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from aspencli.deployments.aws import code_of
from aspencli.errors import AspenError, NotFoundError, UnreachableError
from aspencli.remote.downloads import Downloaded, Landing, Progress
from aspencli.remote.retry import SetbackError
from aspencli.storage.checksums import Checksum, checksum_of

if TYPE_CHECKING:
    from aspencli.deployments.aws import Aws

PAGE = 1_000
"""The most objects that S3 lists at a time."""
_CHUNK = 262_144
_OK, _PARTIAL = 200, 206
_CHANGED, _BEYOND = "PreconditionFailed", "InvalidRange"
# A HEAD request has no body, so its code is the status.
_MISSING = frozenset({"404", "NoSuchKey"})
_TRIES = 5  # without a byte of progress
_PAUSE_S = 0.5  # doubles with each further try


@dataclass(frozen=True)
class StoredObject:
    """An object as a list shows it."""

    bucket: str
    key: str
    size: int
    modified: dt.datetime
    etag: str


@dataclass(frozen=True)
class DescribedObject(StoredObject):
    """An object with everything that S3 tells about it without its content."""

    content_type: str | None
    storage_class: str
    checksum: Checksum | None


@dataclass(frozen=True)
class _Incoming:
    """A response from S3 in the form that a landing takes."""

    status: int
    headers: Mapping[str, str]
    _pieces: Callable[[], Iterator[bytes]] = field(repr=False)

    def chunks(self, *, forever: bool = False) -> Iterator[bytes]:  # noqa: ARG002 - the landing's
        """Yield the body as it arrives."""
        return self._pieces()


class Bucket:
    """A bucket, with the credentials to list and read its objects.

    Args:
        aws: The account.
        name: The bucket's name.
    """

    def __init__(self, aws: Aws, name: str):
        self._aws = aws
        self.name = name

    def objects(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield the objects whose keys begin with a prefix, in the order of their keys.

        Each request returns up to `PAGE` objects; there are no others.

        Raises:
            AspenError: They cannot be listed.
        """
        options = {"Bucket": self.name, "Prefix": prefix, "MaxKeys": PAGE}
        while True:
            request = partial(_page, options)
            page = self._use(f"list the bucket {self.name}", request)
            for each in page.get("Contents", ()):
                yield StoredObject(
                    self.name, each["Key"], each["Size"], each["LastModified"], each["ETag"]
                )
            if not page.get("IsTruncated"):
                return
            options["ContinuationToken"] = page["NextContinuationToken"]

    def describe(self, key: str) -> DescribedObject:
        """Return the description of an object.

        Raises:
            NotFoundError: It does not exist.
            AspenError: It cannot be read.
        """
        head = self._head(key, ChecksumMode="ENABLED")
        return DescribedObject(
            bucket=self.name,
            key=key,
            size=head["ContentLength"],
            modified=head["LastModified"],
            etag=head["ETag"],
            content_type=head.get("ContentType"),
            storage_class=head.get("StorageClass", "STANDARD"),
            checksum=checksum_of(head, lambda: self._head(key, PartNumber=1)["ContentLength"]),
        )

    def _head(self, key: str, **options: Any) -> Mapping[str, Any]:
        try:
            found: Mapping[str, Any] = self._use(
                f"read s3://{self.name}/{key}",
                lambda s3: s3.head_object(Bucket=self.name, Key=key, **options),
            )
        except AspenError as error:
            if code_of(error) in _MISSING:
                raise self._missing(key) from error
            raise
        return found

    def _missing(self, key: str) -> NotFoundError:
        return NotFoundError(
            f"No such file: s3://{self.name}/{key}", hint="List the files: aspencli files list"
        )

    def download(
        self,
        found: DescribedObject,
        landing: Landing,
        progress: Progress,
        *,
        verify_here: bool,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Downloaded:
        """Download an object, continuing after interruptions of the connection.

        Args:
            found: The object.
            landing: The destination.
            progress: Called with the bytes so far and the total.
            verify_here: True to compare the bytes with the checksum while they arrive, for a
                landing that always takes the whole object and does not verify it.
            sleep: Waits before another try.

        Raises:
            NotFoundError: The object was deleted in the meantime.
            UnreachableError: The connection broke off too often, or the bytes are not those that
                were stored.
        """
        best, failures = 0, 0

        def seen(done: int, total: int | None) -> None:
            nonlocal best, failures
            if done > best:
                best, failures = done, 0
            progress(done, total)

        while True:
            try:
                return landing.take(self._open(found, landing.headers(), verify_here), seen)
            except SetbackError as error:
                failures += 1
                if failures >= _TRIES:
                    raise UnreachableError(
                        f"The download of s3://{self.name}/{found.key} was interrupted: "
                        f"{error.reason}.",
                        hint="Run the command again; it continues where this one stopped.",
                    ) from error
                sleep(_PAUSE_S * 2 ** (failures - 1))

    def _open(
        self, found: DescribedObject, asked: Mapping[str, str], verify_here: bool
    ) -> _Incoming:
        """Request an object, or the rest of it if the landing asks for that."""
        start = 0
        if asked.get("if-range") == found.etag:
            start = int(asked["range"].removeprefix("bytes=").removesuffix("-"))
        if start > found.size:  # a partial file of something else
            start = 0
        status = _PARTIAL if start else _OK
        headers = {
            "etag": found.etag,
            "accept-ranges": "bytes",
            "content-length": str(found.size - start),
            "content-range": f"bytes {start}-{found.size - 1}/{found.size}",
        }
        if start == found.size and start:  # complete, but not verified yet
            return _Incoming(status, headers, lambda: iter(()))
        body = self._get(found, {"Range": f"bytes={start}-"} if start else {})

        def pieces() -> Iterator[bytes]:
            arriving = _read(body, found.size - start)
            return found.checksum.follow(arriving) if verify_here and found.checksum else arriving

        return _Incoming(status, headers, pieces)

    def _get(self, found: DescribedObject, options: Mapping[str, str]) -> Any:
        try:
            return self._use(
                f"read s3://{self.name}/{found.key}",
                lambda s3: s3.get_object(
                    Bucket=self.name, Key=found.key, IfMatch=found.etag, **options
                )["Body"],
            )
        except AspenError as error:
            code = code_of(error)
            if code in _MISSING:
                raise self._missing(found.key) from error
            if code in {_CHANGED, _BEYOND}:
                raise UnreachableError(
                    f"s3://{self.name}/{found.key} was replaced during the download.",
                    hint="Run the command again to download the new file.",
                ) from error
            if isinstance(error, UnreachableError):
                raise SetbackError(error.message.rstrip("."), perhaps_done=False) from error
            raise

    def _use(self, what: str, work: Callable[[Any], Any]) -> Any:
        return self._aws.use(what, "s3", work)


def _page(options: Mapping[str, Any], s3: Any) -> Any:
    return s3.list_objects_v2(**options)


def _read(body: Any, size: int) -> Iterator[bytes]:
    """Yield the pieces of a body.

    Raises:
        SetbackError: It breaks off.
    """
    from botocore.exceptions import BotoCoreError

    left = size
    pieces = body.iter_chunks(_CHUNK)
    while True:
        try:
            piece = next(pieces, None)
        except (BotoCoreError, OSError) as error:
            raise SetbackError("the connection broke off", perhaps_done=False) from error
        if piece is None:
            break
        left -= len(piece)
        yield piece
    if left:
        raise SetbackError("the connection broke off", perhaps_done=False)
