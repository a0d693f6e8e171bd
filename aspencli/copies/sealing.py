"""Encryption of dumps with a passphrase.

The key comes from the passphrase by scrypt. Each part is encrypted under a key of its own (HKDF of
its name), in pieces with AES-256-GCM. The nonce of a piece is its number and a mark of the last
one, so pieces cannot be left out, repeated, or moved. This is the STREAM construction (Hoang,
Reyhanitabar, Rogaway, Vizár, 2015), as age and Tink use it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterator
from typing import Protocol

from aspencli.copies.manifest import Encryption
from aspencli.errors import CredentialsError

METHOD = "scrypt, AES-256-GCM STREAM"
COST = 1 << 16  # of scrypt: 64 MB, 0.2 s
SHORTEST = 12
"""The fewest characters of a passphrase."""
_PIECE = 1 << 18
_TAG = 16


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Vault:
    """The key of a dump's parts.

    Args:
        passphrase: The passphrase.
        encryption: The parameters of an existing dump; by default those of a new one.
    """

    def __init__(self, passphrase: str, encryption: Encryption | None = None):
        self.encryption = encryption or Encryption(METHOD, secrets.token_hex(16), COST)
        if self.encryption.method != METHOD or not 1 < self.encryption.cost <= 1 << 18:
            raise CredentialsError(
                "This dump is encrypted in a way that this version of aspencli does not know.",
                hint="Update aspencli, then try again.",
            )
        self._key = hashlib.scrypt(
            passphrase.encode(),
            salt=bytes.fromhex(self.encryption.salt),
            n=self.encryption.cost,
            r=8,
            p=1,
            maxmem=256 * 8 * self.encryption.cost + (1 << 20),
            dklen=32,
        )

    def sealer(self, name: str) -> Sealer:
        """Return what encrypts the part with a name."""
        return Sealer(self._part_key(name))

    def open(self, name: str, source: _Reader) -> Iterator[bytes]:
        """Yield the decrypted pieces of a part.

        Raises:
            CredentialsError: The passphrase is wrong, or the part was changed.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        cipher, number = AESGCM(self._part_key(name)), 0
        piece = _read_exactly(source, _PIECE + _TAG)
        while True:
            following = _read_exactly(source, _PIECE + _TAG)
            try:
                yield cipher.decrypt(_nonce(number, is_last=not following), piece, None)
            except InvalidTag as error:
                raise CredentialsError(
                    "The dump cannot be decrypted: the passphrase is wrong, or the dump was "
                    "changed; nothing was written.",
                    hint="Check the passphrase.",
                ) from error
            if not following:
                return
            piece, number = following, number + 1

    def _part_key(self, name: str) -> bytes:
        # HKDF's expand step for one block; the output of scrypt needs no extraction.
        return hmac.digest(self._key, b"aspencli dump part\0" + name.encode() + b"\x01", "sha256")


class Sealer:
    """A stream that encrypts one part."""

    def __init__(self, key: bytes):
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM(key)
        self._pending = bytearray()
        self._number = 0

    def update(self, data: bytes) -> bytes:
        """Add data; return what is encrypted by now."""
        self._pending += data
        sealed = []
        while len(self._pending) > _PIECE:
            sealed.append(self._seal(bytes(self._pending[:_PIECE]), is_last=False))
            del self._pending[:_PIECE]
        return b"".join(sealed)

    def finish(self) -> bytes:
        """Return the rest, with the mark of the end."""
        return self._seal(bytes(self._pending), is_last=True)

    def _seal(self, piece: bytes, *, is_last: bool) -> bytes:
        sealed = self._cipher.encrypt(_nonce(self._number, is_last=is_last), piece, None)
        self._number += 1
        return sealed


def _nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([is_last])


def _read_exactly(source: _Reader, size: int) -> bytes:
    found = bytearray()
    while len(found) < size and (data := source.read(size - len(found))):
        found += data
    return bytes(found)
