"""A reader for FASTA files that yields one sequence at a time."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from aspencli.errors import BadInputError
from aspencli.tabular import compression
from aspencli.tabular.compression import ERRORS, ZIP, only_member, packing_of, unreadable

_GAPS = "-."
_LETTERS = re.compile(r"[A-Za-z.*-]+")


@dataclass(frozen=True)
class Genome:
    """A sequence, with counts of its sites.

    Attributes:
        name: The first word of its header.
        sequence: The sequence in upper case.
        unambiguous: The number of A, C, G, and T.
        missing: The number of N.
        mixed: The number of other ambiguity codes.
        header: The full header, without the ``>``.
    """

    name: str
    sequence: str
    unambiguous: int
    missing: int
    mixed: int
    header: str = ""


def genome(name: str, sequence: str, header: str = "") -> Genome:
    """Return a sequence with its sites counted."""
    letters = sequence.upper()
    unambiguous = sum(letters.count(base) for base in "ACGT")
    missing = letters.count("N")
    gaps = sum(letters.count(gap) for gap in _GAPS)
    mixed = len(letters) - unambiguous - missing - gaps
    return Genome(name, letters, unambiguous, missing, mixed, header)


def read_fasta(path: Path) -> Iterator[Genome]:
    """Yield every sequence of a FASTA file, plain or compressed.

    Raises:
        BadInputError: The file cannot be read or is not FASTA; the message gives the line.
    """
    with open_text(path) as file:
        name, header, parts = "", "", list[str]()
        for number, line in enumerate(file, start=1):
            text = line.strip()
            if text.startswith(">"):
                if name:
                    yield genome(name, "".join(parts), header)
                name, header, parts = _name(path, number, text), text[1:].strip(), []
            elif text and not name:
                raise _unfit(path, number, "a sequence before the first header")
            elif text and not _LETTERS.fullmatch(text):
                raise _unfit(path, number, "invalid characters")
            else:
                parts.append(text)
        if name:
            yield genome(name, "".join(parts), header)


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """Open a text file, unpacking it if it is compressed or the only file in a zip archive.

    Raises:
        BadInputError: The file cannot be read, or is not UTF-8.
    """
    tool = ""
    try:
        with ExitStack() as stack:
            stored = stack.enter_context(path.open("rb"))
            head = compression.sample(stored.read)
            stored.seek(0)
            file: IO[bytes] = stored
            packing = packing_of(head)
            found = only_member(str(path), stored) if head.startswith(ZIP) else None
            stored.seek(0)
            if head.startswith(ZIP) and found is None:
                raise BadInputError(
                    f"{path} is damaged, or contains no FASTA file.",
                    hint="Copy or download it again. To test it: unzip -t FILE",
                )
            if packing:
                tool = packing.tool
                compression.try_out(str(path), head, packing.unpack, compression.SEQUENCE_FLOOR)
                file = _bounded(path, packing.unpack(stored), stored.tell)
            elif found:
                archive, member = found
                stack.enter_context(archive)
                size = member.compress_size
                compression.check(str(path), member.file_size, size, compression.SEQUENCE_FLOOR)
                inner = cast("compression.Source", stack.enter_context(archive.open(member)))
                file = _bounded(path, inner, lambda: size)
            with io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
                yield text
    except (*ERRORS, EOFError) as error:
        raise unreadable(str(path), error, tool) from error
    except OSError as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadInputError(
            f"Cannot read {path}: {reason}", hint="Check the file's name and permissions."
        ) from error
    except UnicodeDecodeError as error:
        raise BadInputError(
            f"{path} is not UTF-8 text (byte {error.start})", hint="Save it as UTF-8."
        ) from error


def _bounded(path: Path, source: compression.Source, packed: Callable[[], int]) -> IO[bytes]:
    bounded = compression.Bounded(str(path), source, packed, compression.SEQUENCE_FLOOR)
    return cast("IO[bytes]", io.BufferedReader(bounded))


def _name(path: Path, number: int, header: str) -> str:
    words = header[1:].split()
    if not words:
        raise _unfit(path, number, "a header without a name")
    return words[0]


def _unfit(path: Path, number: int, what: str) -> BadInputError:
    return BadInputError(
        f"{path} is not a valid FASTA file: {what} on line {number}",
        hint="Give a FASTA file; it may be compressed.",
    )
