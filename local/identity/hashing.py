"""Random secrets, and how they are kept."""

from __future__ import annotations

import hashlib
import secrets

_LETTERS_AND_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def new_secret() -> str:
    """Something that cannot be guessed: 256 random bits."""
    return secrets.token_urlsafe(32)


def hashed(secret: str) -> str:
    """What is kept of a secret; it is random and long, so that it needs no salt."""
    return hashlib.sha256(secret.encode()).hexdigest()


def matches(secret: str, kept: str) -> bool:
    """Whether a secret is the one that was kept, in a time that tells nothing."""
    return secrets.compare_digest(hashed(secret), kept)


def new_identifier(prefix: str, length: int = 16) -> str:
    """An identifier such as Auth0 makes them: ``org_`` and 16 letters and digits."""
    return prefix + "".join(secrets.choice(_LETTERS_AND_DIGITS) for _ in range(length))
