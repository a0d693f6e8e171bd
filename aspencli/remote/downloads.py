"""Downloads, written to a partial file that is moved into place when it is complete."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from aspencli import files
from aspencli.errors import AspenError, UnreachableError
from aspencli.remote.retry import SetbackError

Progress = Callable[[int, int | None], None]
"""Called with the bytes so far and the total, which is None if the server does not give it."""
BEYOND_END = 416
"""The status for a requested range that does not exist; a `Landing` handles it."""
_PARTIAL = 206
_STRONG = re.compile(r'"[^"]*"')  # a strong ETag, which identifies the exact bytes


@dataclass(frozen=True)
class Downloaded:
    """A finished download."""

    path: Path | None  # the file; None if it went to a stream
    size: int  # the number of bytes


class Incoming(Protocol):
    """A response whose body has not been read yet, such as `aspencli.remote.http.Answer`."""

    @property
    def status(self) -> int:
        """Return the HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the headers; their names are in lower case."""

    def chunks(self, *, forever: bool = False) -> Iterator[bytes]:
        """Yield the body as it arrives."""


class Landing(Protocol):
    """A destination for a download."""

    def headers(self) -> Mapping[str, str]:
        """Return the request headers to send; called for each try."""

    def take(self, answer: Incoming, progress: Progress) -> Downloaded:
        """Write the response; the download is complete when this returns."""


class FileLanding:
    """A file that appears at its path only when it is complete.

    If the server sends a strong ETag, a download that breaks off leaves a partial file next to the
    path, and the next download, in this run or a later one, resumes from there.

    Args:
        path: The path; an existing file is replaced.
        source: What is downloaded, so that a partial file of something else is not resumed.
        verify: Called with the complete file before it is moved into place; if it raises an
            `AspenError`, the file is discarded.
    """

    def __init__(self, path: Path, source: str, verify: Callable[[Path], None] | None = None):
        self._path = path
        self._verify = verify
        self._source = source
        self._part = path.with_name(f".{path.name}.part")
        self._mark = path.with_name(f".{path.name}.part.etag")

    def headers(self) -> Mapping[str, str]:
        """Return a request for only the rest, if there is a partial file with an ETag."""
        etag = self._etag()
        if etag is None:
            return {}
        return {"range": f"bytes={self._size()}-", "if-range": etag}

    def take(self, answer: Incoming, progress: Progress) -> Downloaded:
        """Write the response to the partial file, and move that into place.

        Raises:
            SetbackError: The download broke off.
        """
        size = self._write(answer, progress)
        self._check()
        self._part.replace(self._path)
        self._mark.unlink(missing_ok=True)
        return Downloaded(self._path, size)

    def _write(self, answer: Incoming, progress: Progress) -> int:
        """Write the response to the partial file, and return the size of the whole file."""
        start = self._start(answer)
        total = _total(answer, start)
        try:
            files.check_own(self._part)
            how = os.O_APPEND if start else os.O_TRUNC
            with os.fdopen(files.open_own(self._part, flags=os.O_WRONLY | how), "wb") as file:
                self._remember(answer)
                size = _copy(answer, file, start, lambda done: progress(done, total))
                file.flush()
                os.fsync(file.fileno())
        except BaseException as error:
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(self._part)
            if self._etag() is None:
                self._discard()
            raise
        return size

    def _check(self) -> None:
        if self._verify is not None:
            try:
                self._verify(self._part)
            except AspenError:
                self._discard()
                raise

    def _discard(self) -> None:
        self._mark.unlink(missing_ok=True)
        self._part.unlink(missing_ok=True)

    def _start(self, answer: Incoming) -> int:
        """Return the offset in the partial file at which the response continues."""
        if answer.status == BEYOND_END:
            raise self._mismatch("the partial file does not match the server's file")
        if answer.status != _PARTIAL:
            return 0
        size = self._size()
        if not answer.headers.get("content-range", "").startswith(f"bytes {size}-"):
            raise self._mismatch("the server sent a different range than requested")
        return size

    def _mismatch(self, reason: str) -> SetbackError:
        self._discard()
        return SetbackError(reason, perhaps_done=False)

    def _remember(self, answer: Incoming) -> None:
        etag = answer.headers.get("etag", "")
        if answer.headers.get("accept-ranges") == "bytes" and _STRONG.fullmatch(etag):
            files.write_whole(self._mark, f"{self._source}\n{etag}")
        elif answer.status != _PARTIAL:
            self._mark.unlink(missing_ok=True)

    def _etag(self) -> str | None:
        if not self._size():
            return None
        with contextlib.suppress(FileNotFoundError):
            source, _, etag = self._mark.read_text().rpartition("\n")
            return etag if source == self._source else None
        return None

    def _size(self) -> int:
        try:
            return self._part.stat().st_size
        except FileNotFoundError:
            return 0


class StreamLanding:
    """A stream, such as stdout; bytes written to it cannot be taken back."""

    def __init__(self, stream: IO[bytes]):
        self._stream = stream
        self._written = 0

    def headers(self) -> Mapping[str, str]:
        """Return no headers, to request the whole file."""
        return {}

    def take(self, answer: Incoming, progress: Progress) -> Downloaded:
        """Copy the response to the stream.

        Raises:
            UnreachableError: The download broke off after some bytes were written.
            SetbackError: It broke off before that.
        """
        total = _total(answer, 0)

        def passed(done: int) -> None:
            self._written = done
            progress(done, total)

        try:
            size = _copy(answer, self._stream, 0, passed)
        except SetbackError as error:
            if not self._written:
                raise
            raise UnreachableError(
                f"The download was interrupted after {self._written:,} bytes, which were already "
                f"written: {error}",
                hint="Run it again. To avoid incomplete output, download to a file: --out FILE",
            ) from error
        self._stream.flush()
        return Downloaded(None, size)


class MemoryLanding:
    """A destination in memory, for something that must not be written to a file."""

    def __init__(self) -> None:
        self.content = b""

    def headers(self) -> Mapping[str, str]:
        """Return no headers, to request all of it."""
        return {}

    def take(self, answer: Incoming, progress: Progress) -> Downloaded:
        """Keep the whole response, in place of that of an earlier try."""
        body, total = io.BytesIO(), _total(answer, 0)
        size = _copy(answer, body, 0, lambda done: progress(done, total))
        self.content = body.getvalue()
        return Downloaded(None, size)


def _copy(answer: Incoming, file: IO[bytes], start: int, passed: Callable[[int], None]) -> int:
    done = start
    for chunk in answer.chunks(forever=True):
        file.write(chunk)
        done += len(chunk)
        passed(done)
    return done


def _total(answer: Incoming, start: int) -> int | None:
    length = answer.headers.get("content-length", "")
    return start + int(length) if length.isdecimal() else None
