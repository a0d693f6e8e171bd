"""Input files of jobs: from a path or a URL, plain or compressed, read as a stream.

A file that is damaged, cut short, or not what it should be ends the step with a reason that names
it.
"""

from __future__ import annotations

import bz2
import gzip
import http.client
import io
import lzma
import shutil
import sys
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from aspen.workflows.programs import say
from aspen.workflows.steps import StepError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_ATTEMPTS, _PAUSE_S, _TIMEOUT_S = 3, 2.0, 60
_SERVER_ERROR = 500
_PIECE = 1 << 20
_HEAD = 1 << 10

_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstd.ZstdError)
_OPENERS: tuple[tuple[bytes, Callable[[Any], Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\0", lzma.open),
    (b"\x28\xb5\x2f\xfd", zstd.open),
)


def is_address(place: str) -> bool:
    """Return True if a place is a URL that `fetch` downloads."""
    return urlsplit(place).scheme in {"http", "https"}


def fetch(place: str, folder: Path) -> Path:
    """Copy a file, or download it, into a folder; return the copy, which has the same name.

    Raises:
        StepError: It does not exist or cannot be read, or the download is incomplete.
    """
    if is_address(place):
        path = folder / (Path(unquote(urlsplit(place).path)).name or "download")
        _download(place, path)
        return path
    source = local_file(place)
    path = folder / source.name
    try:
        shutil.copyfile(source, path)
    except OSError as error:
        raise StepError(f"Cannot read {source}: {error.strerror}.") from error
    return path


def local_file(place: str) -> Path:
    """Return the path of an existing file.

    Raises:
        StepError: The path is relative, or there is no such file.
    """
    path = Path(place)
    if not path.is_absolute():
        raise StepError(f"Give the full path of {place}; the worker runs in another folder.")
    if not path.is_file():
        raise StepError(f"{path} does not exist, or is not a file.")
    return path


def _download(address: str, path: Path) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _download_once(address, path)
        except urllib.error.HTTPError as error:
            reason = f"the server answered {error.code} {error.reason}"
            if error.code < _SERVER_ERROR:
                break
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", None) or error)
        say(f"Download of {address} failed (attempt {attempt} of {_ATTEMPTS}): {reason}")
        if attempt < _ATTEMPTS:
            time.sleep(_PAUSE_S * attempt)
    raise StepError(f"Cannot download {address}: {reason}.")


def _download_once(address: str, path: Path) -> None:
    request = urllib.request.Request(address, headers={"Accept-Encoding": "identity"})  # noqa: S310 - http(s) only
    with (
        urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer,  # noqa: S310 - same
        path.open("wb") as file,
    ):
        shutil.copyfileobj(answer, file, _PIECE)
        expected, got = answer.headers.get("Content-Length"), file.tell()
    if expected is not None and int(expected) != got:
        raise OSError(f"the connection ended after {got:,} of {int(expected):,} bytes")


@contextmanager
def reading(path: Path) -> Iterator[IO[str]]:
    """Open a text file, unpacking it while it is read if it is compressed.

    Raises:
        StepError: It is empty, damaged, cut short, not UTF-8, or a web page.
    """
    try:
        with path.open("rb") as stored:
            head = stored.read(_HEAD)
            stored.seek(0)
            opener = next((one for magic, one in _OPENERS if head.startswith(magic)), None)
            data = opener(stored) if opener else stored
            with io.TextIOWrapper(data, encoding="utf-8-sig", newline=None) as file:
                _check_beginning(path, file)
                yield file
    except _DAMAGE as error:
        raise StepError(f"{path.name} is damaged or incomplete: {error}.") from error
    except UnicodeDecodeError as error:
        raise StepError(f"{path.name} is not a text file in UTF-8.") from error


def _check_beginning(path: Path, file: IO[str]) -> None:
    beginning = file.read(_HEAD).lstrip()
    if not beginning:
        raise StepError(f"{path.name} is empty.")
    if beginning.startswith("<"):
        raise StepError(f"{path.name} is a web page or XML, not the file that was expected.")
    file.seek(0)


@contextmanager
def packing(path: Path) -> Iterator[IO[str]]:
    """Open a text file for writing; its name says how it is compressed (.xz, .zst, or plain)."""
    with _packer(path) as opened, io.TextIOWrapper(opened, encoding="utf-8", newline="") as file:
        yield file


def _packer(path: Path) -> Any:
    if path.suffix == ".xz":
        return lzma.open(path, "wb", preset=1)  # three times as fast as the default
    if path.suffix == ".zst":
        return zstd.open(path, "wb", level=3)
    return path.open("wb")


def records(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the header and the letters, in upper case, of each sequence of a FASTA file.

    Raises:
        StepError: The file is not FASTA, or a sequence has no letters.
    """
    with reading(path) as file:
        header, parts = "", list[str]()
        for number, line in enumerate(file, start=1):
            text = line.strip()
            if text.startswith(">"):
                if header:
                    yield header, _letters(path, header, parts)
                header, parts = text[1:].strip(), []
                if not header:
                    raise StepError(f"{path.name}, line {number}: a sequence has no name.")
            elif text and not header:
                raise StepError(f"{path.name} is not a FASTA file: line {number} has no header.")
            elif text:
                parts.append(text)
        if header:
            yield header, _letters(path, header, parts)


def _letters(path: Path, header: str, parts: list[str]) -> str:
    if not parts:
        raise StepError(f"{path.name} is incomplete: the sequence {header!r} has no letters.")
    return "".join(parts).upper()


def sequences(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the name, which ends at the first space, and the letters of each sequence.

    Raises:
        StepError: The file is not FASTA, or a sequence has no letters.
    """
    return ((header.partition(" ")[0], letters) for header, letters in records(path))
