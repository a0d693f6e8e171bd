"""The JSON of a tree, changed where the service departs from the format of Auspice.

The service keeps the public identifiers of samples that it shows by their private ones in a key of
its own, and gives a color to places without a name. Auspice shows such a tree, but
``augur validate export-v2`` and programs that check their input reject it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_FORMER = re.compile(r"[A-Z]+_ID")  # such as GISAID_ID


def conform(content: bytes) -> bytes:
    """Return a tree in the format of Auspice; one that is in it, or is no tree, stays as it is."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return content
    if not isinstance(document, dict) or not isinstance(document.get("meta"), dict):
        return content
    changes = sum([_keep_identifiers(node) for node in _nodes(document)])
    changes += _drop_unnamed(document)
    if not changes:
        return content
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _keep_identifiers(node: dict[str, Any]) -> int:
    """Move public identifiers to the attributes of their node; return their number."""
    former = [key for key in node if _FORMER.fullmatch(key)]
    for key in former:
        node.setdefault("node_attrs", {})[key] = {"value": node.pop(key)}
    return len(former)


def _drop_unnamed(document: Mapping[str, Any]) -> int:
    """Drop the colors of places without a name; return their number."""
    dropped = 0
    for coloring in document["meta"].get("colorings", ()):
        scale = coloring.get("scale", ())
        named = [entry for entry in scale if entry[0] is not None]
        if len(named) < len(scale):
            dropped += len(scale) - len(named)
            coloring["scale"] = named
    return dropped


def _nodes(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    roots = document.get("tree", [])
    waiting = [*roots] if isinstance(roots, list) else [roots]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(node.get("children", ()))
