"""Reading a dump: checking its parts, and their rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aspencli.copies.dump import zstd
from aspencli.copies.manifest import Manifest, Part
from aspencli.copies.places import Place, Source
from aspencli.errors import AspenError, BadInputError, CredentialsError, NotFoundError

if TYPE_CHECKING:
    from aspencli.copies.sealing import Vault

_PIECE = 1 << 18
_AGAIN = "Copy the dump again from where it was made, or make a new one."


@dataclass(frozen=True)
class Checked:
    """The result of checking a part."""

    table: str
    part: Part
    problem: str = ""  # empty if it is intact


def check_parts(
    place: Place, manifest: Manifest, tick: Callable[[int], None] = lambda _done: None
) -> Iterator[Checked]:
    """Check the size and the checksum of each part."""
    done = 0
    for table, part in manifest.parts:
        yield Checked(table, part, _problem(place, part))
        done += part.size
        tick(done)


def _problem(place: Place, part: Part) -> str:
    digest, size = hashlib.sha256(), 0
    try:
        with place.open(part.file) as file:
            while data := file.read(_PIECE):
                digest.update(data)
                size += len(data)
                if size > part.size:
                    break
    except NotFoundError:
        return "missing"
    if size != part.size:
        return f"{'longer' if size > part.size else 'shorter'} than {part.size:,} bytes"
    return "" if digest.hexdigest() == part.sha256 else "changed since it was written"


def require_intact(
    place: Place, manifest: Manifest, tick: Callable[[int], None] = lambda _done: None
) -> None:
    """Check all parts.

    Raises:
        BadInputError: Some are damaged; all of them are listed.
    """
    damaged = [one for one in check_parts(place, manifest, tick) if one.problem]
    if damaged:
        raise BadInputError(
            f"The dump in {place.name} is damaged; nothing was written.",
            hint=_AGAIN,
            details=[f"{one.part.file}: {one.problem}" for one in damaged],
        )


class RowReader:
    """The rows of a part as the server expects them; the checksum is checked at the end."""

    def __init__(self, source: Source, part: Part, place: Place, vault: Vault | None):
        self._part = part
        self._place = place
        self._decompressor = zstd().ZstdDecompressor()
        self._hashing = _Hashing(source)
        self._pieces = vault.open(part.file, self._hashing) if vault else _pieces(self._hashing)
        self._is_over = False

    def read(self, size: int = _PIECE, /) -> bytes:
        """Return up to that number of bytes of rows; none at the end.

        Raises:
            BadInputError: The part is damaged.
        """
        while not self._is_over:
            try:
                data = self._more(size)
            except zstd().ZstdError as error:
                raise self._damaged() from error
            if data:
                return data
        return b""

    def _more(self, size: int) -> bytes:
        if self._decompressor.eof:
            self._end()
            return b""
        piece = b""
        if self._decompressor.needs_input:
            piece = next(self._pieces, b"")
            if not piece:
                raise self._damaged()
        data: bytes = self._decompressor.decompress(piece, max_length=size)
        return data

    def _end(self) -> None:
        self._is_over = True
        rest = b"".join(self._pieces)
        is_same = self._hashing.digest.hexdigest() == self._part.sha256
        if rest or self._decompressor.unused_data or not is_same:
            raise self._damaged()

    def _damaged(self) -> BadInputError:
        return BadInputError(
            f"The dump in {self._place.name} is damaged: {self._part.file} changed since it was "
            "checked; nothing was written.",
            hint=_AGAIN,
        )


class _Hashing:
    def __init__(self, source: Source):
        self._source = source
        self.digest = hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self.digest.update(data)
        return data


def _pieces(source: Any) -> Iterator[bytes]:
    while data := source.read(_PIECE):
        yield data


@contextmanager
def open_rows(place: Place, part: Part, vault: Vault | None) -> Iterator[RowReader]:
    """Open the rows of a part."""
    with place.open(part.file) as source:
        yield RowReader(source, part, place, vault)


def require_passphrase(place: Place, manifest: Manifest, vault: Vault | None) -> None:
    """Check a passphrase with the smallest part, before anything is written.

    Raises:
        CredentialsError: It is wrong.
    """
    if vault is None:
        return
    smallest = min((part for _, part in manifest.parts), key=_size)
    try:
        with open_rows(place, smallest, vault) as rows:
            while rows.read():
                pass
    except CredentialsError:
        raise
    except AspenError as error:
        raise BadInputError(error.message, hint=error.hint) from error


def _size(part: Part) -> int:
    return part.size
