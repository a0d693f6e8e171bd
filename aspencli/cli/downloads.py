"""Destinations of downloads: stdout, or a file that is either complete or absent."""

from __future__ import annotations

import csv
import io
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfileobj
from typing import IO, TYPE_CHECKING, cast

from aspencli import files
from aspencli.errors import BadInputError, ConflictError, NotFoundError
from aspencli.remote.downloads import (
    Downloaded,
    FileLanding,
    Landing,
    MemoryLanding,
    Progress,
    StreamLanding,
)
from aspencli.text import counted

if TYPE_CHECKING:
    from aspencli.cli.context import AppContext
    from aspencli.cli.params import OutOptions

STDOUT = "-"
CHUNK = 2_000
"""Identifiers per request; the service looks up each of them in several columns."""

_HEADER_LINES = 2  # at most

Fetch = Callable[[Sequence[str], Landing, Progress], Downloaded]
"""Downloads the data for some identifiers."""


@dataclass(frozen=True)
class Destination:
    """The file or, if the path is None, the stream that a download is written to."""

    path: Path | None
    stream: IO[bytes]

    def landing(self, source: str, verify: Callable[[Path], None] | None = None) -> Landing:
        """Return the receiver of the download.

        ``source`` describes what is downloaded, and ``verify`` checks a complete file.
        """
        if self.path is None:
            return StreamLanding(self.stream)
        return FileLanding(self.path, source, verify)


def destination(context: AppContext, given: OutOptions, usual: str) -> Destination:
    """Return the destination of a download, checked before any request is made.

    The usual file name is for where only a folder is given, or nothing on a terminal.

    Raises:
        BadInputError: If the folder does not exist.
        ConflictError: If the file already exists.
    """
    out = given.out
    if out == STDOUT or (out is None and not context.out.out.isatty()):
        return Destination(None, sys.stdout.buffer)
    path = files.expand(out or ".")
    if path.is_dir():
        path = path / usual
    if files.is_stream(path):
        return Destination(None, context.closing(files.open_stream(path)))
    files.check_own(path)
    if not path.parent.is_dir():
        raise BadInputError(f"Directory not found: {path.parent}", hint="Create it with mkdir -p.")
    if path.exists() and not given.force:
        raise ConflictError(
            f"{path} already exists; nothing was downloaded.",
            hint="Choose another file with --out, or add --force to overwrite it.",
        )
    return Destination(path, sys.stdout.buffer)


def run_download(
    context: AppContext,
    place: Destination,
    what: str,
    fetch: Callable[[Landing, Progress], Downloaded],
    verify: Callable[[Path], None] | None = None,
) -> int:
    """Download something with a progress bar, and return its size in bytes.

    The description ``what`` distinguishes it from other downloads. A file for which ``verify``
    raises an error is discarded.
    """
    with context.out.transfer(f"Downloading {what}") as progress:
        landing = place.landing(f"{what} of {context.target.label}", verify)
        return fetch(landing, progress).size


def download_changed(
    context: AppContext,
    place: Destination,
    what: str,
    fetch: Callable[[Landing, Progress], Downloaded],
    change: Callable[[bytes], bytes],
) -> int:
    """Download something, change it, and return the size of the result in bytes."""
    landing = MemoryLanding()
    with context.out.transfer(f"Downloading {what}") as progress:
        fetch(landing, progress)
    content = change(landing.content)
    if place.path is None:
        place.stream.write(content)
        place.stream.flush()
    else:
        with files.replacing(place.path) as target:
            target.write(content)
    return len(content)


def download_of(
    context: AppContext,
    place: Destination,
    what: str,
    ids: Sequence[str],
    fetch: Fetch,
    *,
    header: bool = False,
) -> int:
    """Download data for many identifiers in chunks, and return the size in bytes.

    With ``header``, each response begins with header lines, which are kept only once.
    """
    if len(ids) <= CHUNK:
        return run_download(context, place, what, lambda *landing: fetch(ids, *landing))
    with tempfile.TemporaryDirectory() as folder, context.out.progress(what, len(ids)) as tick:
        parts = []
        for start in range(0, len(ids), CHUNK):
            part = Path(folder, f"part-{start}")
            fetch(ids[start : start + CHUNK], FileLanding(part, what), lambda *_: None)
            parts.append(part)
            tick(min(start + CHUNK, len(ids)))
        whole = Path(folder, "whole")
        with os.fdopen(files.create(whole), "wb") as file:
            _join(parts, file, header=header)
        return _publish(whole, place)


def _join(parts: Sequence[Path], file: IO[bytes], *, header: bool) -> None:
    """Concatenate the parts; write header lines that all of them share only once.

    GISAID's form has two such lines. Tables with different columns, as from two versions of
    Nextclade, are merged into one table with the columns of both.
    """
    if header and len({_first_line(part) for part in parts}) > 1:
        _join_tables(parts, file)
        return
    with parts[0].open("rb") as first:
        above = [first.readline() for _ in range(_HEADER_LINES)]
    for part in parts:
        with part.open("rb") as some:
            for line in above if header and part is not parts[0] else ():
                start = some.tell()
                if some.readline() != line:
                    some.seek(start)
                    break
            copyfileobj(some, file)


def _join_tables(parts: Sequence[Path], file: IO[bytes]) -> None:
    columns: dict[str, None] = {}
    for part in parts:
        with part.open(encoding="utf-8", newline="") as text:
            columns.update(dict.fromkeys(next(csv.reader(text, delimiter="\t"), [])))
    out = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.DictWriter(out, columns, restval="", delimiter="\t")
    writer.writeheader()
    for part in parts:
        with part.open(encoding="utf-8", newline="") as text:
            writer.writerows(csv.DictReader(text, delimiter="\t"))
    out.detach()


def _first_line(part: Path) -> bytes:
    with part.open("rb") as file:
        return file.readline()


def _publish(whole: Path, place: Destination) -> int:
    with whole.open("rb") as file:
        if place.path is None:
            copyfileobj(file, place.stream)
            place.stream.flush()
        else:
            with files.replacing(place.path) as target:
                copyfileobj(file, target)
    return whole.stat().st_size


def report_saved(context: AppContext, place: Destination, size: int) -> None:
    """Print the destination and size of a download."""
    if place.path is not None:
        context.out.done(f"Saved {place.path} ({size:,} bytes).")


def demand_all(context: AppContext, place: Destination, wanted: int, came: int) -> None:
    """Report the number of downloaded sequences.

    Raises:
        NotFoundError: If there are fewer than expected.
    """
    if came >= wanted:
        if place.path is not None:
            context.out.done(f"Saved {place.path} ({counted(came, 'sequence')}).")
        return
    if place.path is not None and not came:
        place.path.unlink()
    raise NotFoundError(
        f"Received {counted(came, 'sequence')} for {counted(wanted, 'sample')}."
        + (f" Saved to {place.path}." if place.path is not None and came else ""),
        hint="The other samples have no sequence, or you do not have permission to see it (this "
        "requires the role member or admin).",
    )


class DownloadTally:
    """A counter of the sequences in a FASTA text, which passes the text on to a stream."""

    def __init__(self, stream: IO[bytes]):
        self.sequences = 0
        self._stream = stream
        self._last = b"\n"

    def write(self, data: bytes) -> int:
        """Count the sequences in a chunk, and pass it on."""
        text = self._last + data
        self.sequences += text.count(b"\n>")
        self._last = text[-1:]
        self._stream.write(data)
        return len(data)

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()


def download_fasta(
    context: AppContext, place: Destination, ids: Sequence[str], fetch: Fetch
) -> int:
    """Download the sequences of samples, and return their number."""
    tally = DownloadTally(place.stream)
    counting = Destination(place.path, cast("IO[bytes]", tally))
    download_of(context, counting, "sequences", ids, fetch)
    if place.path is None:
        return tally.sequences
    with place.path.open("rb") as file:
        return sum(line.startswith(b">") for line in file)
