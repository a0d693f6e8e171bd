"""Random secrets and their hashes."""

from __future__ import annotations

import hashlib
import secrets

_LETTERS_AND_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def new_secret() -> str:
    """Return a secret of 256 random bits."""
    return secrets.token_urlsafe(32)


def hashed(secret: str) -> str:
    """Return the hash to store for a secret; secrets are long and random, so they need no salt."""
    return hashlib.sha256(secret.encode()).hexdigest()


def matches(secret: str, kept: str) -> bool:
    """Return True if a secret matches a stored hash; the comparison takes constant time."""
    return secrets.compare_digest(hashed(secret), kept)


def new_identifier(prefix: str, length: int = 16) -> str:
    """Return an identifier in Auth0's format, such as ``org_`` and 16 letters and digits."""
    return prefix + "".join(secrets.choice(_LETTERS_AND_DIGITS) for _ in range(length))
