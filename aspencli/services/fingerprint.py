"""The checksum of what is read, taken while it is read."""

from __future__ import annotations

import hashlib
import os

from aspencli import homes
from aspencli.services.runs import InputFile

_STDIN = "-"


class Fingerprint:
    """What identifies the bytes that a run has read.

    Args:
        given: The file's name as it was given; ``-`` for standard input.
    """

    def __init__(self, given: str):
        self._given = given
        self._size = 0
        self._digest = hashlib.sha256()

    def take(self, piece: bytes) -> None:
        """Count bytes in, in the order in which they are read."""
        self._size += len(piece)
        self._digest.update(piece)

    @property
    def file(self) -> InputFile:
        """The file, as far as it has been read."""
        path = None if self._given == _STDIN else _absolute(self._given)
        return InputFile(self._given, path, self._size, self._digest.hexdigest())


def _absolute(given: str) -> str:
    # Not resolved: where it is a link, the name that the operator knows is the better one.
    return os.path.abspath(homes.expand(given))  # noqa: PTH100 - Path leaves .. in
