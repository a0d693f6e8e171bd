"""Encryption of parts: what was sealed opens again, and nothing else does."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from aspencli.copies.manifest import Encryption
from aspencli.copies.sealing import METHOD, Vault
from aspencli.errors import CredentialsError

CHEAP = Encryption(METHOD, "00" * 16, 2)
PIECE = (1 << 18) + 16


@pytest.fixture
def vault() -> Vault:
    return Vault("four random words", CHEAP)


def seal(vault: Vault, data: bytes, name: str = "users.0000.part") -> bytes:
    sealer = vault.sealer(name)
    steps = [data[start : start + 100_000] for start in range(0, len(data), 100_000)]
    return b"".join(map(sealer.update, steps)) + sealer.finish()


def unseal(vault: Vault, data: bytes, name: str = "users.0000.part") -> bytes:
    return b"".join(vault.open(name, io.BytesIO(data)))


@pytest.mark.parametrize("size", [0, 1, (1 << 18) - 1, 1 << 18, (1 << 18) + 1, 900_000])
def test_sealed_data_opens_again(vault: Vault, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    assert unseal(vault, seal(vault, data[:size])) == data[:size]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:PIECE],  # without the pieces after the first
        lambda data: data[:-1],
        lambda data: data[PIECE:],
        lambda data: data[:PIECE] + data,
        lambda data: data[PIECE : 2 * PIECE] + data[:PIECE] + data[2 * PIECE :],
        lambda data: bytes([data[0] ^ 1]) + data[1:],
        lambda data: b"",
    ],
)
def test_damaged_data_never_opens(vault: Vault, damage: Callable[[bytes], bytes]) -> None:
    sealed = seal(vault, b"x" * 700_000)
    with pytest.raises(CredentialsError, match="cannot be decrypted"):
        unseal(vault, damage(sealed))


def test_part_opens_under_its_own_name_and_passphrase_only(vault: Vault) -> None:
    sealed = seal(vault, b"rows")
    with pytest.raises(CredentialsError):
        unseal(vault, sealed, "roles.0000.part")
    with pytest.raises(CredentialsError):
        unseal(Vault("four other words", CHEAP), sealed)


def test_unknown_method_is_refused() -> None:
    with pytest.raises(CredentialsError, match="does not know"):
        Vault("four random words", Encryption("rot13", "00", 2))
