"""Checksums of objects: which one is used, and what it finds."""

from __future__ import annotations

import base64
import hashlib
import zlib
from pathlib import Path
from typing import Any

import pytest

from aspencli.errors import UnreachableError
from aspencli.storage.checksums import Checksum, checksum_of

CONTENT = bytes(range(256)) * 40  # 10,240 bytes
MD5 = hashlib.md5(CONTENT).hexdigest()


def encoded(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def in_parts(size: int) -> str:
    parts = [CONTENT[start : start + size] for start in range(0, len(CONTENT), size)]
    whole = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts)).hexdigest()
    return f"{whole}-{len(parts)}"


def head(**values: Any) -> dict[str, Any]:
    return {"ContentLength": len(CONTENT), "ETag": f'"{MD5}"', **values}


def never() -> int:
    pytest.fail("asked for the size of a part")


SHA256 = encoded(hashlib.sha256(CONTENT).digest())
CRC32 = encoded(zlib.crc32(CONTENT).to_bytes(4, "big"))


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (head(ChecksumSHA256=SHA256, ChecksumType="FULL_OBJECT"), "sha256"),
        (head(ChecksumSHA256=SHA256, ServerSideEncryption="aws:kms"), "sha256"),
        (head(ChecksumCRC32=CRC32, ChecksumType="FULL_OBJECT"), "crc32"),
        (head(ChecksumSHA256=f"{SHA256}-2", ChecksumType="COMPOSITE"), "md5"),
        (head(ChecksumCRC32=CRC32, ChecksumType="COMPOSITE"), "md5"),
        (head(), "md5"),
        (head(ServerSideEncryption="AES256"), "md5"),
    ],
)
def test_best_checksum_matches_content_and_nothing_else(
    found: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    checksum = checksum_of(found, never)
    assert checksum is not None
    assert checksum.kind == kind
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    checksum.verify(path)
    for wrong in (CONTENT[:-1], CONTENT + b"x", b"", CONTENT[:-1] + b"x"):
        path.write_bytes(wrong)
        with pytest.raises(UnreachableError, match="do not match"):
            checksum.verify(path)


@pytest.mark.parametrize("size", [1_000, 1_024, 5_120, 10_239])
def test_checksum_of_several_parts_matches_content(size: int) -> None:
    checksum = checksum_of(head(ETag=f'"{in_parts(size)}"'), lambda: size)
    assert checksum is not None
    for step in (7, 1_000, 20_000):
        pieces = [CONTENT[start : start + step] for start in range(0, len(CONTENT), step)]
        assert b"".join(checksum.follow(pieces)) == CONTENT
    with pytest.raises(UnreachableError):
        list(checksum.follow([CONTENT[1:]]))


@pytest.mark.parametrize(
    "found",
    [
        head(ServerSideEncryption="aws:kms"),
        head(SSECustomerAlgorithm="AES256"),
        head(ETag='"something-else"'),
        head(ETag=f'"{in_parts(1_000)}"', ServerSideEncryption="aws:kms"),
    ],
)
def test_etag_that_is_no_digest_is_not_compared(found: dict[str, Any]) -> None:
    assert checksum_of(found, never) is None


@pytest.mark.parametrize("first", [0, 900, 6_000])
def test_parts_of_unequal_size_are_not_compared(first: int) -> None:
    assert checksum_of(head(ETag=f'"{in_parts(1_000)}"'), lambda: first) is None


def test_checksum_is_shown_with_its_kind() -> None:
    assert str(Checksum("md5", MD5)) == f"md5:{MD5}"
