"""Checksums in the lines of the journal, which show if a line was edited, added, or removed.

The last keys of a line are ``after``, the checksum of the line before it, and ``seal``, the
checksum of the line itself up to there. Lines that older versions wrote have neither.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

KEYS = ("after", "seal")
_LENGTH = 32  # hexadecimal digits of SHA-256
_SEAL = re.compile(
    rb'(?s)(?P<body>.*, "after": "(?P<after>[0-9a-f]*)"), "seal": "(?P<seal>[0-9a-f]+)"\}\n?'
)


@dataclass(frozen=True)
class LineFault:
    """A line of the journal that is not as it was written, or not where it was written."""

    line: int
    run: str  # empty if the line does not say
    reason: str


def sealed(text: bytes, after: str) -> bytes:
    """Return a line of the journal, without a line break, for the text of a JSON object."""
    body = text.removesuffix(b"}") + f', "after": "{after}"'.encode()
    return body + f', "seal": "{_checksum(body)}"}}'.encode()


def unsealed(line: bytes) -> bytes:
    """Return the text that a line was made from."""
    found = _SEAL.fullmatch(line)
    return line if found is None else found["body"].rpartition(b', "after": ')[0] + b"}"


def seal_of(line: bytes) -> str | None:
    """Return the checksum that a line states, or None if it has none."""
    found = _SEAL.fullmatch(line)
    return found["seal"].decode() if found else None


def is_intact(line: bytes) -> bool:
    """Return True if a line is as it was written."""
    found = _SEAL.fullmatch(line)
    return found is not None and found["seal"].decode() == _checksum(found["body"])


def faults(lines: Iterable[tuple[bytes, str | None]]) -> Iterator[LineFault]:
    """Yield what is wrong with lines, given each with its run, or None if it cannot be read.

    An edited line still states its checksum, so only that line is reported.
    """
    last: str | None = None
    for number, (line, run) in enumerate(lines, start=1):
        found = _SEAL.fullmatch(line)
        reason = _fault(line, found, last, is_readable=run is not None)
        if reason is not None:
            yield LineFault(number, run or "", reason)
        if found is not None:
            last = found["seal"].decode()


def _fault(
    line: bytes, found: re.Match[bytes] | None, last: str | None, *, is_readable: bool
) -> str | None:
    if not is_readable:
        return "edited, or cut short by a crash: it cannot be read"
    if found is None:
        added = "added by hand, or by an older aspencli: it has no checksum"
        return None if last is None else added
    if not is_intact(line):
        return "edited: its checksum is that of another content"
    if found["after"].decode() != (last or ""):
        return "lines before it were removed or added"
    return None


def _checksum(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:_LENGTH]
