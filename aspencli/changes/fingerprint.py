"""The checksum of an input file, computed while it is read."""

from __future__ import annotations

import hashlib
import os

from aspencli import paths
from aspencli.changes.runs import InputFile

_STDIN = "-"


class Fingerprint:
    """The path, size, and SHA-256 of the bytes that a run has read.

    Args:
        given: The file name as given; ``-`` for standard input.
    """

    def __init__(self, given: str):
        self._given = given
        self._size = 0
        self._digest = hashlib.sha256()

    def take(self, piece: bytes) -> None:
        """Add bytes, in the order in which they are read."""
        self._size += len(piece)
        self._digest.update(piece)

    @property
    def file(self) -> InputFile:
        """Return the file's details, as far as it has been read."""
        path = None if self._given == _STDIN else _absolute(self._given)
        return InputFile(self._given, path, self._size, self._digest.hexdigest())


def _absolute(given: str) -> str:
    # Symbolic links are not resolved, because the operator knows the file by this name.
    return os.path.abspath(paths.expand(given))  # noqa: PTH100 - Path leaves .. in
