"""A phylogenetic tree in the format of Auspice (version 2 of its dataset format).

https://docs.nextstrain.org/projects/auspice/en/stable/releases/v2.html documents the fields.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from typing import Any

_ROOT_DAY = date(2019, 12, 26)
_COLOURINGS = (
    {"key": "pango_lineage", "title": "Lineage", "type": "categorical"},
    {"key": "country", "title": "Country", "type": "categorical"},
    {"key": "division", "title": "Division", "type": "categorical"},
)


@dataclass(frozen=True)
class Leaf:
    """A sample at the tip of a branch.

    Attributes:
        name: The public identifier.
        day: The collection date.
        lineage: The lineage; None if unknown.
        country: The country of collection.
        division: The state or province there; None if unknown.
        differences: The number of sites that differ from the root.
    """

    name: str
    day: date
    lineage: str | None
    country: str
    division: str | None
    differences: int


def tree_document(title: str, updated: date, leaves: Iterable[Leaf]) -> bytes:
    """Return the tree as JSON; samples of the same lineage share a branch."""
    ordered = sorted(leaves, key=lambda leaf: (leaf.lineage or "", leaf.day, leaf.name))
    clades = [
        _clade(number, list(members))
        for number, (_, members) in enumerate(groupby(ordered, lambda leaf: leaf.lineage), 1)
    ]
    document = {
        "version": "v2",
        "meta": {
            "title": title,
            "updated": updated.isoformat(),
            "panels": ["tree"],
            "colorings": list(_COLOURINGS),
            "filters": ["country", "pango_lineage"],
            "display_defaults": {"color_by": "pango_lineage", "distance_measure": "num_date"},
        },
        "tree": {
            "name": "NODE_0000000",
            "node_attrs": _attributes(0, _ROOT_DAY),
            "children": clades,
        },
    }
    return json.dumps(document, indent=1).encode()


def _clade(number: int, members: list[Leaf]) -> dict[str, Any]:
    differences = min(leaf.differences for leaf in members)
    first = min(leaf.day for leaf in members)
    return {
        "name": f"NODE_{number:07d}",
        "node_attrs": _attributes(differences, first, pango_lineage=members[0].lineage),
        "children": [
            {
                "name": leaf.name,
                "node_attrs": _attributes(
                    leaf.differences,
                    leaf.day,
                    pango_lineage=leaf.lineage,
                    country=leaf.country,
                    division=leaf.division,
                ),
            }
            for leaf in members
        ],
    }


def _attributes(differences: int, day: date, **traits: str | None) -> dict[str, Any]:
    year_begins = date(day.year, 1, 1)
    share = (day - year_begins).days / (date(day.year + 1, 1, 1) - year_begins).days
    told = {name: {"value": value} for name, value in traits.items() if value}
    return {"div": differences, "num_date": {"value": round(day.year + share, 4)}, **told}
