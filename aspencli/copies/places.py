"""The places of dumps: a folder, or a prefix in a bucket of S3.

A dump is complete or not there. In a folder, its files are written to a hidden folder beside it,
which is renamed at the end. In S3, the manifest is written last, and nothing counts without it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeVar

from aspencli import files
from aspencli.copies import manifest
from aspencli.copies.manifest import Manifest
from aspencli.errors import (
    AspenError,
    BadInputError,
    ConflictError,
    NotFoundError,
    UnreachableError,
)

if TYPE_CHECKING:
    from aspencli.deployments.aws import Aws

S3 = "s3://"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PART = 8 << 20  # bytes of a request to S3, which takes 5 MiB or more
_LOCK = ".lock"
_PAUSE_S = 1.0
T = TypeVar("T")


class Sink(Protocol):
    """A file that is being written."""

    def write(self, data: bytes, /) -> object:
        """Write data."""


class Source(Protocol):
    """A file that is being read."""

    def read(self, size: int, /) -> bytes:
        """Return up to that number of bytes; none at the end."""


class Place(ABC):
    """A place that holds a dump, or will.

    Attributes:
        name: The place as the operator gave it.
    """

    name: str

    @abstractmethod
    def require_free(self) -> None:
        """Check that a dump can be written here.

        Raises:
            ConflictError: There is something already.
        """

    @abstractmethod
    def writing(self) -> Any:
        """Return a context manager with which a dump is written; see `Writer`.

        Raises:
            ConflictError: There is something already.
        """

    @abstractmethod
    def open(self, file: str) -> Any:
        """Return a context manager with a file of the dump, as a `Source`.

        Raises:
            NotFoundError: The dump does not have the file.
        """

    def manifest(self) -> Manifest:
        """Return the manifest of the dump.

        Raises:
            NotFoundError: There is no complete dump.
            BadInputError: The manifest is damaged.
        """
        with self.open(manifest.NAME) as file:
            found = bytearray()
            while data := file.read(1 << 20):
                found += data
                if len(found) > manifest.MOST_BYTES:
                    raise BadInputError(f"The manifest of the dump in {self.name} is too large.")
        return manifest.decode(bytes(found), self.name)


class Writer(Protocol):
    """A dump that is being written."""

    def file(self, name: str) -> Any:
        """Return a context manager with a new file of the dump, as a `Sink`."""

    def finish(self, text: bytes) -> None:
        """Write the manifest, which makes the dump complete."""


def find_place(name: str, aws: Callable[[], Aws]) -> Place:
    """Return the place that an operator named.

    Raises:
        BadInputError: The name of a bucket is not valid.
    """
    if not name.startswith(S3):
        return Folder(name)
    bucket, _, prefix = name.removeprefix(S3).partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise BadInputError(
            f"Invalid S3 address: {name!r}", hint="Use the form s3://bucket/folder."
        )
    return Objects(name, aws(), bucket, prefix.strip("/"))


# Folders


class Folder(Place):
    """A folder on this machine."""

    def __init__(self, name: str):
        self.name = name
        self.path = files.expand(name).absolute()

    def require_free(self) -> None:
        """Check that the folder does not exist, or is empty."""
        if self.path.is_symlink() or (self.path.exists() and not self._is_empty()):
            raise ConflictError(
                f"{self.name} exists; nothing was written.",
                hint="Name a folder that does not exist yet. To check a dump: "
                "aspencli db dumps verify FOLDER",
            )

    @contextmanager
    def writing(self) -> Iterator[_FolderWriter]:
        """Write to a new folder, which becomes this one when the dump is complete."""
        self.require_free()
        try:
            files.make_folder(self.path.parent)
            self._remove_leftovers()
            with self._filling() as writer:
                yield writer
        except OSError as error:
            raise _unwritable(self.name, error) from error

    @contextmanager
    def _filling(self) -> Iterator[_FolderWriter]:
        folder = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.partial")
        files.make_folder(folder)
        lock = files.create(folder / _LOCK)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            writer = _FolderWriter(folder, self.path)
            yield writer
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            os.close(lock)

    def _is_empty(self) -> bool:
        return self.path.is_dir() and next(self.path.iterdir(), None) is None

    def _remove_leftovers(self) -> None:
        """Remove what was left by dumps to this folder that were killed."""
        for folder in self.path.parent.glob(f".{_escaped(self.path.name)}.*.partial"):
            try:
                lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
            except OSError:  # killed before it was locked, or being removed
                with suppress(OSError):
                    folder.rmdir()
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            except BlockingIOError:
                pass  # another dump is being written
            finally:
                os.close(lock)

    @contextmanager
    def open(self, file: str) -> Iterator[IO[bytes]]:
        """Open a file of the dump."""
        if "/" in file or file.startswith("."):
            raise BadInputError(f"The manifest of the dump in {self.name} is damaged.")
        try:
            with (self.path / file).open("rb") as opened:
                yield opened
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _missing(self.name, file) from error
        except OSError as error:
            raise AspenError(
                f"Cannot read the dump in {self.name}: {error.strerror}",
                hint="Check the folder and its permissions.",
            ) from error


class _FolderWriter:
    def __init__(self, folder: Path, path: Path):
        self._folder = folder
        self._path = path

    @contextmanager
    def file(self, name: str) -> Iterator[IO[bytes]]:
        """Write a file, which only its owner can read."""
        with os.fdopen(files.create(self._folder / name), "wb", buffering=0) as file:
            yield file
            os.fsync(file.fileno())

    def finish(self, text: bytes) -> None:
        """Write the manifest, and rename the folder."""
        files.write_whole(self._folder / manifest.NAME, text)
        (self._folder / _LOCK).unlink()
        files.sync_folder(self._folder)
        self._folder.rename(self._path)
        files.sync_folder(self._path.parent)


def _escaped(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)


def _unwritable(name: str, error: OSError) -> AspenError:
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    return AspenError(
        f"Cannot write the dump to {name}: {error.strerror or error}. Nothing is left of it.",
        hint="Free some space, or choose another place."
        if full
        else "Check the folder and its permissions, or choose another place.",
    )


def _missing(name: str, file: str) -> NotFoundError:
    if file == manifest.NAME:
        return NotFoundError(
            f"No complete dump found in {name}.",
            hint="Check the place. A dump that was interrupted has no manifest; make it again.",
        )
    return NotFoundError(
        f"The dump in {name} lacks the file {file}.",
        hint="Copy the dump again from where it was made, or make a new one.",
    )


# S3


class Objects(Place):
    """A prefix in a bucket, with the credentials of a target."""

    def __init__(self, name: str, aws: Aws, bucket: str, prefix: str):
        self.name = name
        self._aws = aws
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""

    def require_free(self) -> None:
        """Check that there are no objects but those of an interrupted dump."""
        found = self._keys()
        if self._prefix + manifest.NAME in found or any(map(self._is_foreign, found)):
            raise ConflictError(
                f"{self.name} is not empty; nothing was written.",
                hint="Name a folder of the bucket that does not exist yet.",
            )

    @contextmanager
    def writing(self) -> Iterator[ObjectsWriter]:
        """Write objects; the manifest comes last."""
        self.require_free()
        self._remove(self._keys())
        writer = ObjectsWriter(self._aws, self._bucket, self._prefix)
        try:
            yield writer
        except BaseException:
            with suppress(AspenError):
                self._remove(self._keys())
            raise

    def _is_foreign(self, key: str) -> bool:
        return not key.endswith(PART_SUFFIX)

    def _keys(self) -> list[str]:
        return keys_under(self._aws, self._bucket, self._prefix)

    def _remove(self, keys: list[str]) -> None:
        """Remove what is left of dumps that were interrupted."""
        remove_objects(self._aws, self._bucket, self._prefix, keys)

    @contextmanager
    def open(self, file: str) -> Iterator[Source]:
        """Open an object."""
        from aspencli.deployments.aws import code_of

        try:
            yield ObjectReader(self._aws, self._bucket, self._prefix + file)
        except AspenError as error:
            if code_of(error) in {"NoSuchKey", "404"}:
                raise _missing(self.name, file) from error
            raise


def use_s3(aws: Aws, what: str, work: Callable[[Any], T], *, tries: int = 4) -> T:
    """Return the result of calls to S3, which are repeated a few times if it does not answer.

    One of thousands of requests must not end a copy.

    Args:
        aws: The account.
        what: The purpose, as the rest of "Could not ...".
        work: Makes the calls.
        tries: The number of times to make them.

    Raises:
        AspenError: They failed.
    """
    for left in reversed(range(tries)):
        try:
            return aws.use(what, "s3", work)
        except UnreachableError:
            if not left:
                raise
            time.sleep(_PAUSE_S)
    raise AssertionError


def keys_under(aws: Aws, bucket: str, prefix: str) -> list[str]:
    """Return all keys of a bucket that begin with a prefix."""

    def pages(client: Any) -> list[str]:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [each["Key"] for page in pages for each in page.get("Contents", ())]

    return use_s3(aws, f"list s3://{bucket}/{prefix}", pages)


def remove_objects(aws: Aws, bucket: str, prefix: str, keys: list[str]) -> None:
    """Remove objects, and what was sent of others with a prefix that are not complete."""
    what = f"remove objects from s3://{bucket}/{prefix}"
    for key in keys:  # one request each, as a request has a time limit
        use_s3(aws, what, partial(_delete, {"Bucket": bucket, "Key": key}))

    def abort(client: Any) -> None:
        found = client.list_multipart_uploads(Bucket=bucket, Prefix=prefix)
        for one in found.get("Uploads", ()):
            client.abort_multipart_upload(Bucket=bucket, Key=one["Key"], UploadId=one["UploadId"])

    use_s3(aws, what, abort)


def _delete(at: dict[str, str], client: Any) -> None:
    client.delete_object(**at)


PART_SUFFIX = ".part"
"""The end of the names of parts."""


class ObjectsWriter:
    """Objects that are written under a prefix of a bucket."""

    def __init__(self, aws: Aws, bucket: str, prefix: str):
        self._aws = aws
        self._bucket = bucket
        self._prefix = prefix

    @contextmanager
    def file(self, name: str) -> Iterator[_ObjectWriter]:
        """Write an object, in pieces."""
        writer = _ObjectWriter(self._aws, self._bucket, self._prefix + name)
        try:
            yield writer
        except BaseException:
            with suppress(AspenError):
                writer.abort()
            raise
        writer.close()

    def finish(self, text: bytes) -> None:
        """Write the manifest."""
        with self.file(manifest.NAME) as file:
            file.write(text)


class _ObjectWriter:
    def __init__(self, aws: Aws, bucket: str, key: str):
        self._aws = aws
        self._at = {"Bucket": bucket, "Key": key}
        self._pending = bytearray()
        self._upload: str | None = None
        self._parts: list[dict[str, Any]] = []

    def write(self, data: bytes) -> None:
        """Add data; send it once there is enough."""
        self._pending += data
        while len(self._pending) >= _PART:
            self._send(bytes(self._pending[:_PART]))
            del self._pending[:_PART]

    def _send(self, body: bytes) -> None:
        if self._upload is None:
            self._upload = self._use(lambda s3: s3.create_multipart_upload(**self._at))["UploadId"]
        number = len(self._parts) + 1
        answer = self._use(
            lambda s3: s3.upload_part(
                **self._at, UploadId=self._upload, PartNumber=number, Body=body
            )
        )
        self._parts.append({"ETag": answer["ETag"], "PartNumber": number})

    def close(self) -> None:
        """Complete the object."""
        if self._upload is None:
            self._use(lambda s3: s3.put_object(**self._at, Body=bytes(self._pending)))
            return
        if self._pending:
            self._send(bytes(self._pending))
        self._use(
            lambda s3: s3.complete_multipart_upload(
                **self._at, UploadId=self._upload, MultipartUpload={"Parts": self._parts}
            )
        )

    def abort(self) -> None:
        """Discard what was sent."""
        if self._upload is not None:
            self._use(lambda s3: s3.abort_multipart_upload(**self._at, UploadId=self._upload))

    def _use(self, work: Callable[[Any], Any]) -> Any:
        return use_s3(self._aws, f"write to the bucket {self._at['Bucket']}", work)


class ObjectReader:
    """An object that is read in pieces, all of them of one version.

    Args:
        what: The purpose, as the rest of "Could not ..."; by default it names the key.
        piece: The number of bytes to request at a time.
        tag: The version to read; by default the newest.

    Attributes:
        tag: The version that is read, once anything was.
    """

    def __init__(
        self,
        aws: Aws,
        bucket: str,
        key: str,
        *,
        what: str | None = None,
        piece: int = _PART,
        tag: str | None = None,
    ):
        self._aws = aws
        self._at = {"Bucket": bucket, "Key": key}
        self._what = what or f"read {key}"
        self._piece = piece
        self._position = 0
        self._pending = memoryview(b"")
        self.tag = tag
        self._is_over = False

    def read(self, size: int, /) -> bytes:
        """Return up to that number of bytes, read in larger pieces."""
        if not self._pending and not self._is_over:
            self._pending = memoryview(self._fetch())
        data = bytes(self._pending[:size])
        self._pending = self._pending[len(data) :]
        return data

    def _fetch(self) -> bytes:
        from aspencli.deployments.aws import code_of

        def get(s3: Any) -> tuple[bytes, str]:
            last = self._position + self._piece - 1
            same = {"IfMatch": self.tag} if self.tag else {}
            answer = s3.get_object(**self._at, Range=f"bytes={self._position}-{last}", **same)
            return answer["Body"].read(), answer["ETag"]

        try:
            body, self.tag = use_s3(self._aws, self._what, get)
        except AspenError as error:
            if code_of(error) not in {"InvalidRange", "416"}:
                raise
            body = b""
        self._is_over = len(body) < self._piece
        self._position += len(body)
        return body
