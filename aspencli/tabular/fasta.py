"""A reader for FASTA files that yields one sequence at a time."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from aspencli.errors import BadInputError
from aspencli.tabular.source import unpack_sequences

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
    try:
        with ExitStack() as stack:
            file = unpack_sequences(str(path), stack.enter_context(path.open("rb")), stack)
            if file is None:
                raise BadInputError(
                    f"{path} is damaged, or contains no FASTA file.",
                    hint="Copy or download it again. To test it: unzip -t FILE",
                )
            buffer = cast("IO[bytes]", file)
            with io.TextIOWrapper(buffer, encoding="utf-8-sig", newline="") as text:
                yield text
    except OSError as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadInputError(
            f"Cannot read {path}: {reason}", hint="Check the file's name and permissions."
        ) from error
    except UnicodeDecodeError as error:
        raise BadInputError(
            f"{path} is not UTF-8 text (byte {error.start})", hint="Save it as UTF-8."
        ) from error


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
