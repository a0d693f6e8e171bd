"""Names of samples within the files of the tree programs.

Names are free text, but these programs cut them at spaces and read parentheses, commas, colons, and
quotes as parts of a tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_SAFE = re.compile(r"(?!NODE_)[\w./|#=+@~^%&*-]+", re.ASCII)
_PREFIX = re.compile(r"hcov-19/", re.IGNORECASE)


def labels(names: Iterable[str]) -> dict[str, str]:
    """Return the label of each name: the name itself if every program reads it as it is."""
    given = list(names)
    taken = set(given)
    found = {}
    for number, name in enumerate(given, 1):
        label = name
        if not _SAFE.fullmatch(name):
            label = f"sample_{number}"
            while label in taken:
                label += "_"
            taken.add(label)
        found[name] = label
    return found


def bare(name: str) -> str:
    """Return a public identifier without the prefix of GISAID."""
    return _PREFIX.sub("", name, count=1) if _PREFIX.match(name) else name


def listed(names: Iterable[str], limit: int = 3) -> str:
    """Return the first names in words, and how many more there are."""
    given = list(names)
    if len(given) <= 1:
        return "".join(given)
    if len(given) <= limit:
        return f"{', '.join(given[:-1])} and {given[-1]}"
    return f"{', '.join(given[:limit])}, and {len(given) - limit} more"
