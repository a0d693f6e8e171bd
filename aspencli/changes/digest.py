"""Digests of plans: the same plan always has the same one."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest_of(plan: Any) -> str:
    """Return the SHA-256 of a plan in a canonical form: JSON with sorted keys, without spaces."""
    text = json.dumps(plan, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
