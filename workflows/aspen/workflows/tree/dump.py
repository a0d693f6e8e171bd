"""Streams over a repository's dump: sequences and metadata, plain or compressed.

A dump can have millions of records, so each file is read once, and nothing of it is kept.
"""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import re
import sys
import zlib
from calendar import monthrange
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import IO, Any

from aspen.workflows.steps import StepError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_MAGIC: dict[bytes, Any] = {
    b"\x1f\x8b": gzip.open,
    b"\xfd7zXZ\0": lzma.open,
    b"\x28\xb5\x2f\xfd": zstd.open,
}
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstd.ZstdError)
_HEAD, _BUFFER = 8, 1 << 20
_CELL = 1 << 20  # characters; the module's own limit of 128 KB is less than some lists of authors
_MISSING = frozenset({"", "?", "NA", "N/A"})
_DATE = re.compile(r"(\d{4})(?:-(\d{2}|XX|\?\?)(?:-(\d{2}|XX|\?\?))?)?", re.IGNORECASE)


@contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, unpacking it while it is read.

    Raises:
        StepError: It is damaged or incomplete.
    """
    with path.open("rb") as stored:
        head = stored.read(_HEAD)
        stored.seek(0)
        opener = next((one for magic, one in _MAGIC.items() if head.startswith(magic)), None)
        try:
            if opener is None:
                yield stored
                return
            with opener(stored, "rb") as file, io.BufferedReader(file, _BUFFER) as buffered:
                yield buffered
        except _DAMAGE as error:
            raise StepError(f"{path.name} is damaged or incomplete: {error}.") from error


def sequences(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the letters, in upper case, of each sequence of a FASTA file.

    Raises:
        StepError: It is damaged, or not FASTA.
    """
    with unpacked(path) as file:
        name: str | None = None
        parts: list[bytes] = []
        for line in file:
            if line.startswith(b">"):
                if name is not None:
                    yield name, b"".join(parts).upper()
                name, parts = line[1:].strip().decode("utf-8", "replace"), []
            elif name is not None:
                parts.append(line.strip())
            elif line.strip():
                raise StepError(f"{path.name} is not a FASTA file: it does not begin with >.")
        if name is not None:
            yield name, b"".join(parts).upper()


def rows(path: Path) -> Iterator[Mapping[str, str]]:
    """Yield each row of a metadata file, tab-separated with a header; missing values are empty.

    Raises:
        StepError: It is damaged, not UTF-8, or has no header.
    """
    csv.field_size_limit(_CELL)
    with unpacked(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        try:
            table = csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
            header = next(table, [])
            if not header:
                raise StepError(f"{path.name} is empty; a metadata file begins with a header row.")
            for cells in table:
                if len(cells) > len(header):
                    raise StepError(
                        f"{path.name}, line {table.line_num}: {len(cells)} columns, but the header"
                        f" has {len(header)}."
                    )
                yield {
                    name: "" if cell in _MISSING else cell
                    for name, cell in zip(header, cells, strict=False)
                }
        except csv.Error as error:
            raise StepError(f"{path.name}, line {table.line_num}: {error}.") from error
        except UnicodeDecodeError as error:
            raise StepError(f"{path.name} is not UTF-8 text.") from error


def period(text: str) -> tuple[date | None, date | None, str, str]:
    """Return the first and last day that a date may mean, and its year and month, if it has them.

    Dates of repositories may be incomplete: ``2021``, ``2021-03``, ``2021-03-XX``.
    """
    found = _DATE.fullmatch(text)
    if found is None:
        return None, None, "", ""
    year, month, day = (int(part) if part and part.isdigit() else 0 for part in found.groups())
    try:
        if not month:
            return date(year, 1, 1), date(year, 12, 31), str(year), ""
        last = date(year, month, day or monthrange(year, month)[1])
        return date(year, month, day or 1), last, str(year), f"{month:02}"
    except ValueError:  # such as month 13
        return None, None, "", ""
