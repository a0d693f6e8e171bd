"""The keys that sign tokens, and their rotation."""

from __future__ import annotations

import json
import sqlite3
from functools import lru_cache
from typing import Any

from joserfc.jwk import KeySet, RSAKey

ALGORITHM = "RS256"


OVERLAP_SECONDS = 2 * 86400
"""The time that a retired key stays published: longer than the life of any token it signed."""


def ensure_key(db: sqlite3.Connection, now: float) -> None:
    """Create the first key if there is none."""
    if not db.execute("SELECT 1 FROM signing_keys WHERE retired_at IS NULL").fetchone():
        _add_key(db, now)


def rotate(db: sqlite3.Connection, now: float) -> str:
    """Create a new signing key, retire the current one, and return the new key's ID."""
    db.execute("UPDATE signing_keys SET retired_at = ? WHERE retired_at IS NULL", (now,))
    db.execute("DELETE FROM signing_keys WHERE retired_at < ?", (now - OVERLAP_SECONDS,))
    return _add_key(db, now)


def revoke(db: sqlite3.Connection, kid: str, now: float) -> bool:
    """Stop publishing a key, even if it signed valid tokens; return False if it does not exist."""
    row = db.execute("SELECT retired_at FROM signing_keys WHERE kid = ?", (kid,)).fetchone()
    if row is None:
        return False
    if row["retired_at"] is None:
        rotate(db, now)
    db.execute(
        "UPDATE signing_keys SET revoked_at = coalesce(revoked_at, ?) WHERE kid = ?", (now, kid)
    )
    return True


def signing_key(db: sqlite3.Connection) -> RSAKey:
    """Return the current signing key."""
    row = db.execute("SELECT private_key FROM signing_keys WHERE retired_at IS NULL").fetchone()
    return _imported(row["private_key"])


def published_keys(db: sqlite3.Connection, now: float) -> KeySet:
    """Return the keys that may have signed a valid token: the current and recently retired ones."""
    rows = db.execute(
        "SELECT private_key FROM signing_keys WHERE revoked_at IS NULL"
        " AND (retired_at IS NULL OR retired_at > ?) ORDER BY made_at DESC, rowid DESC",
        (now - OVERLAP_SECONDS,),
    )
    return KeySet([_imported(row["private_key"]) for row in rows])


def public_documents(db: sqlite3.Connection, now: float) -> list[dict[str, Any]]:
    """Return the public halves of the published keys, in JWKS format."""
    return [dict(key.as_dict(private=False)) for key in published_keys(db, now).keys]


def make_key() -> RSAKey:
    """Create a key."""
    return RSAKey.generate_key(2048, {"use": "sig", "alg": ALGORITHM}, auto_kid=True)


def _add_key(db: sqlite3.Connection, now: float) -> str:
    key = make_key()
    db.execute(
        "INSERT INTO signing_keys (kid, private_key, made_at) VALUES (?, ?, ?)",
        (key.kid, json.dumps(key.as_dict(private=True)), now),
    )
    return str(key.kid)


@lru_cache(maxsize=16)
def _imported(private_key: str) -> RSAKey:
    return RSAKey.import_key(json.loads(private_key))
