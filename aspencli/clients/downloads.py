"""Answers that become files: written beside their place, and moved there when whole."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from aspencli import files
from aspencli.clients.http import Answer
from aspencli.clients.retrying import SetbackError
from aspencli.errors import UnreachableError

Progress = Callable[[int, int | None], None]
"""Told how many bytes there are by now, and of how many; None where the server does not say."""
BEYOND_END = 416
"""The status where a part is asked for that is not there; a `Landing` takes it."""
_PARTIAL = 206
_STRONG = re.compile(r'"[^"]*"')  # an ETag that names the very bytes, not merely their sense


@dataclass(frozen=True)
class Downloaded:
    """What was downloaded.

    Attributes:
        path: The file; None where it went to a stream.
        size: How many bytes.
        kind: Its media type.
        suggested: The file name that the server proposes, without any folder; None for none.
    """

    path: Path | None
    size: int
    kind: str
    suggested: str | None


class Landing(Protocol):
    """Where a download goes."""

    def headers(self) -> Mapping[str, str]:
        """What to ask for, in a further try too."""

    def take(self, answer: Answer, progress: Progress) -> Downloaded:
        """Write what comes; the download is finished when it returns."""


class FileLanding:
    """A file: nothing of it is seen at its place before it is whole.

    Where the server names the bytes (a strong ETag), what has come is kept beside it when the
    download breaks off, and the next one, in this run or a later one, goes on from there.

    Args:
        path: Its place; a file that is there is replaced.
        source: What is downloaded, so that a part of something else is not gone on with.
    """

    def __init__(self, path: Path, source: str):
        self._path = path
        self._source = source
        self._part = path.with_name(f".{path.name}.part")
        self._mark = path.with_name(f".{path.name}.part.etag")

    def headers(self) -> Mapping[str, str]:
        """Only the rest, where there is a part whose bytes have a name."""
        etag = self._etag()
        if etag is None:
            return {}
        return {"range": f"bytes={self._size()}-", "if-range": etag}

    def take(self, answer: Answer, progress: Progress) -> Downloaded:
        """Write the answer to the part, and move it to its place.

        Raises:
            SetbackError: It broke off.
        """
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
                self.discard()
            raise
        self._part.replace(self._path)
        self._mark.unlink(missing_ok=True)
        return Downloaded(self._path, size, answer.kind, suggested_name(answer))

    def discard(self) -> None:
        """Forget the part."""
        self._mark.unlink(missing_ok=True)
        self._part.unlink(missing_ok=True)

    def _start(self, answer: Answer) -> int:
        """How many bytes of the part the answer goes on from."""
        if answer.status == BEYOND_END:
            self.discard()
            raise SetbackError("the part that was there does not fit", perhaps_done=False)
        if answer.status != _PARTIAL:
            return 0
        size = self._size()
        if not answer.headers.get("content-range", "").startswith(f"bytes {size}-"):
            self.discard()
            raise SetbackError("it sent another part than it was asked for", perhaps_done=False)
        return size

    def _remember(self, answer: Answer) -> None:
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
    """A stream, such as stdout; what went there cannot be taken back.

    Args:
        stream: Takes the bytes.
    """

    def __init__(self, stream: IO[bytes]):
        self._stream = stream
        self._written = 0

    def headers(self) -> Mapping[str, str]:
        """Everything."""
        return {}

    def take(self, answer: Answer, progress: Progress) -> Downloaded:
        """Pass the answer on.

        Raises:
            UnreachableError: It broke off after the first bytes had gone.
            SetbackError: It broke off before.
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
                f"the download broke off after {self._written:,} bytes, which are written: {error}",
                hint="Run it again; into a file (--out FILE) a broken download leaves nothing.",
            ) from error
        self._stream.flush()
        return Downloaded(None, size, answer.kind, suggested_name(answer))


def suggested_name(answer: Answer) -> str | None:
    """The file name in Content-Disposition, without folders and without a leading dot."""
    header = answer.headers.get("content-disposition", "")
    found = re.search(r'filename="?([^";]+)"?', header)
    name = Path(found[1].strip().replace("\\", "/")).name.lstrip(".") if found else ""
    return name or None


def _copy(answer: Answer, file: IO[bytes], start: int, passed: Callable[[int], None]) -> int:
    done = start
    for chunk in answer.chunks(forever=True):
        file.write(chunk)
        done += len(chunk)
        passed(done)
    return done


def _total(answer: Answer, start: int) -> int | None:
    length = answer.headers.get("content-length", "")
    return start + int(length) if length.isdecimal() else None
