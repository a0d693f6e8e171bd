"""Suggestions for a name that does not exist."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from aspencli.errors import NotFoundError


def not_found(noun: str, key: str, known: Iterable[str]) -> NotFoundError:
    """Return an error that suggests similar names and lists the existing ones."""
    names = sorted(known)
    near = nearest(key, names)
    lead = f"Did you mean {' or '.join(near)}? " if near else ""
    return NotFoundError(
        f"there is no {noun} {key!r}",
        hint=f"{lead}There are: {', '.join(names)}." if names else "There are none at all.",
    )


def nearest(key: str, names: Sequence[str]) -> list[str]:
    """Return the names that resemble the key, best first, then those that contain it."""
    folded = {name.lower(): name for name in names}
    near = get_close_matches(key.lower(), folded, n=3)
    near += [name for name in folded if key.lower() in name and name not in near][:3]
    return [folded[name] for name in near]
