"""Checksums of objects in S3, as far as it has any, to verify a download with.

The ETag is the MD5 of an object that was uploaded in one part. Of one in several parts, it is the
MD5 of the parts' MD5s; with encryption by a key of KMS or of the customer, it is neither:
https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from aspencli.errors import UnreachableError

_ETAG = re.compile(r'"?(?P<md5>[0-9a-f]{32})(?:-(?P<parts>\d{1,5}))?"?')
_CHUNK = 1_048_576


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


class _Crc32:
    """CRC-32 in the form of a digest."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


class _Parts:
    """The digest that S3 makes of an object in several parts."""

    def __init__(self, part_size: int):
        self._part_size, self._in_part = part_size, 0
        self._part, self._whole, self._count = _md5(), _md5(), 0

    def update(self, data: bytes, /) -> None:
        while data:
            taken = data[: self._part_size - self._in_part]
            self._part.update(taken)
            self._in_part += len(taken)
            data = data[len(taken) :]
            if self._in_part == self._part_size:
                self._end_part()

    def _end_part(self) -> None:
        self._whole.update(bytes.fromhex(self._part.hexdigest()))
        self._part, self._in_part, self._count = _md5(), 0, self._count + 1

    def hexdigest(self) -> str:
        if self._in_part:
            self._end_part()
        return f"{self._whole.hexdigest()}-{self._count}"


def _md5() -> _Digest:
    return hashlib.md5(usedforsecurity=False)


@dataclass(frozen=True)
class Checksum:
    """The checksum of an object.

    Attributes:
        kind: Its name: ``sha256``, ``crc32``, or ``md5``.
        value: Its value, in hexadecimal digits.
    """

    kind: str
    value: str
    _part_size: int | None = None

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"

    def follow(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yield all pieces of the object's content, and compare their checksum at the end.

        Raises:
            UnreachableError: They are not the object's content.
        """
        digest = self._digest()
        for piece in pieces:
            digest.update(piece)
            yield piece
        if digest.hexdigest() != self.value:
            raise UnreachableError(
                f"The downloaded bytes do not match the file's {self.kind} checksum, so the "
                "download was discarded.",
                hint="Run the command again. If this happens again, the stored file or the "
                "network is damaged.",
            )

    def verify(self, path: Path) -> None:
        """Compare a file with the checksum.

        Raises:
            UnreachableError: It is not the object's content.
        """
        with path.open("rb") as file:
            deque(self.follow(iter(lambda: file.read(_CHUNK), b"")), maxlen=0)

    def _digest(self) -> _Digest:
        if self.kind == "sha256":
            return hashlib.sha256()
        if self.kind == "crc32":
            return _Crc32()
        return _md5() if self._part_size is None else _Parts(self._part_size)


def checksum_of(head: Mapping[str, Any], part_size: Callable[[], int]) -> Checksum | None:
    """Return the best checksum in the description of an object, or None if there is none.

    Args:
        head: S3's answer to ``HeadObject`` with the mode for checksums.
        part_size: Asks S3 for the size of the first of several parts; called only if needed.
    """
    for name, kind in (("ChecksumSHA256", "sha256"), ("ChecksumCRC32", "crc32")):
        value = _decoded(head.get(name, ""))
        if value and head.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT":
            return Checksum(kind, value)
    is_plain = head.get("ServerSideEncryption", "AES256") == "AES256"
    found = _ETAG.fullmatch(head.get("ETag", ""))
    if found is None or not is_plain or head.get("SSECustomerAlgorithm"):
        return None
    if found["parts"] is None:
        return Checksum("md5", found["md5"])
    first, count = part_size(), int(found["parts"])
    # All parts but the last have one size, unless someone uploaded them in another way.
    if first and -(-head["ContentLength"] // first) == count:
        return Checksum("md5", f"{found['md5']}-{count}", first)
    return None


def _decoded(value: str) -> str:
    """Return a checksum in hexadecimal digits; empty for that of several parts."""
    try:
        return base64.b64decode(value, validate=True).hex()
    except binascii.Error:
        return ""
