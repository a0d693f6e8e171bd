"""Names for completion, stored for each target.

Commands that list things store their names as a by-product, and completion starts a refresh in the
background where that needs neither a sign-in, a tunnel, nor a secret. Names are never more than a
convenience: whatever goes wrong here is ignored.

Nothing personal is stored of production: no e-mail addresses, no samples, and of runs and jobs only
their IDs, because the names that people give them can tell of patients. A file is readable only by
its owner, and of limited size.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from aspencli import files

KINDS: Mapping[str, int] = {
    "groups": 500,
    "users": 1_000,
    "samples": 2_000,
    "jobs": 300,
    "phylo_runs": 300,
    "phylo_trees": 300,
    "pathogens": 50,
    "stacks": 300,
}
"""The kinds of names, and how many of each are stored for a target."""
PERSONAL = frozenset({"users", "samples"})
"""The kinds that are not stored for a production target."""
STALE_S = 300.0
"""The age in seconds from which completion refreshes names."""
_NAMED_BY_PEOPLE = frozenset({"jobs", "phylo_runs", "phylo_trees"})
_EXPIRE_S = 30 * 86_400.0  # names this old may be long gone
_LONGEST = 200  # characters of a name; longer ones are not offered
_MOST_BYTES = 1 << 20
_VERSION = 1

Name = tuple[str, str]
"""A value that can be typed, and words that explain it; either has no control characters."""


def cache_file(label: str) -> Path:
    """Return the file of a target, whose label can be ``rdev/mystack``."""
    safe = "".join(char if char.isalnum() or char in "-_" else f"%{ord(char):x}" for char in label)
    return files.cache_dir() / "completion" / f"{safe[:150]}.json"


def load(label: str) -> dict[str, Any]:
    """Return what is stored for a target: for each kind ``at`` and ``names``; empty if nothing."""
    with suppress(OSError, ValueError, TypeError, AttributeError):
        path = cache_file(label)
        if path.stat().st_size > _MOST_BYTES:
            return {}
        with path.open(encoding="utf-8") as file:
            found = json.load(file)
        if found.get("v") == _VERSION:
            oldest = time.time() - _EXPIRE_S
            kinds: dict[str, Any] = found["kinds"]
            return {kind: kept for kind, kept in kinds.items() if kept["at"] >= oldest}
    return {}


def store(
    label: str, kind: str, names: Iterable[Name], *, is_production: bool, whole: bool = False
) -> None:
    """Store names of a target, before those that are stored already.

    Args:
        label: The target's label.
        kind: One of `KINDS`.
        names: The names, the most useful first.
        is_production: True if the target is production, of which nothing personal is stored.
        whole: True if these are all of them, so that others are gone.
    """
    if is_production and kind in PERSONAL:
        return
    with suppress(OSError, ValueError):
        kinds = load(label)
        before = kinds.get(kind, {}).get("names", [])
        rest = [] if whole else before
        names = list(names)
        if is_production and kind in _NAMED_BY_PEOPLE:
            names = [(name, "") for name, _about in names]
        merged = dict.fromkeys(name for name, _about in (*names, *rest) if _is_usable(name))
        about = {**dict(map(tuple, rest)), **dict(names)}
        kept = [[name, _plain(about[name])] for name in list(merged)[: KINDS[kind]]]
        now = time.time()
        if kind in kinds and kept == before and now - kinds[kind]["at"] < STALE_S:
            return
        kinds[kind] = {"at": round(now), "names": kept}
        text = json.dumps({"v": _VERSION, "kinds": kinds})
        if len(text) <= _MOST_BYTES:
            files.write_private(cache_file(label), text)


def _is_usable(name: str) -> bool:
    return 0 < len(name) <= _LONGEST and name.isprintable()


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)[:_LONGEST]


def as_name(kind: str, row: Mapping[str, Any]) -> Iterable[Name]:
    """Yield the names by which an item of a list can be typed."""
    if kind == "groups":
        yield str(row.get("prefix") or row["id"]), str(row["name"])
    elif kind == "users":
        yield str(row["email"]), str(row["name"])
    elif kind == "samples":
        for key in ("public_identifier", "private_identifier"):
            if row.get(key):
                yield str(row[key]), key.replace("_", " ")
    elif kind == "pathogens":
        yield str(row["slug"]), str(row["name"])
    elif kind == "phylo_runs":
        words = (row.get("name"), row.get("workflow_status"), row.get("group"))
        yield str(row["id"]), ", ".join(str(word) for word in words if word)
    elif kind == "phylo_trees":
        if row.get("phylo_tree"):
            yield str(row["phylo_tree"]), str(row.get("name") or "")
    elif kind == "jobs":
        words = (row.get("kind"), row.get("state"), row.get("name"))
        yield str(row["id"]), ", ".join(str(word) for word in words if word)
    elif kind == "stacks":
        yield str(row["name"]), ""


def needs_refresh(label: str, kind: str) -> bool:
    """Return True if the names are missing or old, and no refresh began a moment ago."""
    kept = load(label).get(kind)
    if kept is not None and time.time() - kept["at"] < STALE_S:
        return False
    return _begin_refresh(cache_file(label).with_suffix(".refresh"))


def _begin_refresh(stamp: Path) -> bool:
    """Record that a refresh begins; return False if one began less than a minute ago."""
    with suppress(OSError):
        if time.time() - stamp.stat().st_mtime < 60:  # noqa: PLR2004 - a minute
            return False
    try:
        files.make_folder(stamp.parent)
        os.close(files.open_own(stamp))
        os.utime(stamp)
    except OSError:
        return False
    return True


def history_runs(limit: int = 300) -> Sequence[Name]:
    """Return the IDs of the newest runs in the history, the newest first, with their commands."""
    found: dict[str, str] = {}
    with suppress(OSError):
        path = files.state_dir() / "history" / "journal.jsonl"
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(0, size - (1 << 18)))
            lines = file.read().splitlines()
        for line in reversed(lines):
            if b'"started"' not in line:
                continue
            with suppress(ValueError, KeyError, TypeError):
                event = json.loads(line)
                command, target = event.get("command") or "", event.get("target") or ""
                found[str(event["run"])] = f"{command} on {target}".strip()
            if len(found) == limit:
                break
    return [(run, _plain(about)) for run, about in found.items() if _is_usable(run)]
