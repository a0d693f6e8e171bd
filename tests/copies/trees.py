"""Trees in the source's bucket, with a canary in everything that may be personal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests.copies.lab import MARK, Storage, connected

_TREES = """
SELECT t.entity_id, t.s3_key, t.name, e.group_id, g.name AS lab
  FROM aspen.phylo_trees t JOIN aspen.entities e ON e.id = t.entity_id
  JOIN aspen.groups g ON g.id = e.group_id ORDER BY 1
"""
_LINKED = """
SELECT s.public_identifier, s.private_identifier, a.accession, s.collection_date
  FROM aspen.phylo_tree_samples l JOIN aspen.samples s ON s.id = l.sample_id
  LEFT JOIN aspen.accessions a ON a.sample_id = s.id
 WHERE l.phylo_tree_id = %s ORDER BY s.id
"""
_OTHERS = """
SELECT s.public_identifier, s.private_identifier, NULL, s.collection_date FROM aspen.samples s
 WHERE s.submitting_group_id = %s AND s.id NOT IN (SELECT sample_id FROM aspen.phylo_tree_samples)
 ORDER BY s.id LIMIT 2
"""
_PUBLIC = "SELECT strain, isl FROM aspen.public_repository_metadata ORDER BY strain LIMIT 4"
_PREFIX = "hCoV-19/"


def plant_trees(address: str, storage: Storage) -> dict[int, bytes]:
    """Write the files of all trees, and return them by the ID of their tree."""
    found = {}
    with connected(address) as cursor:
        cursor.execute("UPDATE aspen.phylo_trees SET s3_bucket = %s", (storage.source,))
        cursor.execute(_TREES)
        for tree, key, name, group, lab in cursor.fetchall():
            cursor.execute(_LINKED, (tree,))
            own = cursor.fetchall()
            cursor.execute(_OTHERS, (group,))
            own += cursor.fetchall()
            cursor.execute(_PUBLIC)
            document = document_of(tree, name, lab, own, cursor.fetchall())
            found[tree] = json.dumps(document).encode()
            storage.put(key, found[tree], storage.source)
    return found


def document_of(
    tree: int, name: str, lab: str, own: list[Any], public: list[tuple[str, str]]
) -> dict[str, Any]:
    """Return a tree with a canary in everything that may be personal."""

    def canary(what: str) -> str:
        return f"{MARK}-tree-{what}-{tree}"

    tips = []
    for number, (public_id, private_id, accession, day) in enumerate(own):
        shown = public_id.removeprefix(_PREFIX) if number % 2 else public_id
        if number == len(own) - 1:
            shown = private_id
        year = day.year + (day.timetuple().tm_yday - 1) / (366 if day.year % 4 == 0 else 365)
        tips.append(
            {
                "name": shown,
                "node_attrs": {
                    "div": number,
                    "num_date": {"value": round(year, 4), "raw_value": canary("raw")},
                    "gisaid_epi_isl": {"value": accession or canary("isl")},
                    "submitting_lab": {"value": lab},
                    "originating_lab": {"value": canary("lab")},
                    "author": {"value": canary("author"), "author": canary("author")},
                    "division": {"value": "California"},
                    "location": {"value": canary("location")},
                    "pango_lineage": {"value": "BA.2"},
                    "patient": {"value": canary("patient")},
                    "accession": canary("accession"),
                    "url": f"https://example.org/{canary('url')}",
                    canary("key"): {"value": 1},
                },
                "branch_attrs": {
                    "mutations": {"nuc": ["A1C", canary("nuc")], canary("gene"): ["A1C"]},
                    "labels": {"clade": "22B", "aa": canary("aa"), "note": canary("label")},
                },
                "GISAID_ID": public_id,
            }
        )
    for number, (strain, isl) in enumerate(public):
        tips.append(
            {
                "node_attrs": {
                    "num_date": {"value": 2021.5},
                    "gisaid_epi_isl": {"value": isl},
                    "author": {"value": canary("public-author")},
                },
                "name": _PREFIX + strain if number % 2 else strain,
                canary("member"): canary("member"),
            }
        )
    tips.append({"name": canary("unheard-of"), "node_attrs": {"num_date": {"value": 2021.5}}})
    half = len(tips) // 2
    return {
        "version": "v2",
        "meta": {
            "title": name,
            "updated": "2023-01-09",
            "description": canary("description"),
            "maintainers": [{"name": canary("maintainer"), "url": "https://example.org"}],
            "data_provenance": [{"name": canary("provenance")}],
            "build_url": f"https://example.org/{canary('build')}",
            "panels": ["tree", canary("panel")],
            "colorings": [
                {"key": "num_date", "title": "Date", "type": "continuous"},
                {
                    "key": "submitting_lab",
                    "title": canary("title"),
                    "type": "categorical",
                    "scale": [[lab, "#111111"], [canary("color"), canary("color")]],
                    "legend": [{"value": canary("legend")}],
                },
                {"key": "patient", "title": canary("title"), "type": "categorical"},
            ],
            "filters": ["submitting_lab", "patient", canary("filter")],
            "geo_resolutions": [
                {
                    "key": "division",
                    "title": canary("geo"),
                    "demes": {
                        "California": {"latitude": 1.0, "longitude": 2.0},
                        canary("deme"): {"latitude": 1.0, "longitude": 2.0},
                    },
                }
            ],
            "display_defaults": {
                "color_by": canary("default"),
                "distance_measure": "num_date",
                "layout": canary("layout"),
            },
            "extensions": {"note": canary("extension")},
            "genome_annotations": {
                "nuc": {"start": 1, "end": 9, "strand": "+", "seqid": canary("seqid")},
                canary("gene"): {"start": 1, "end": 9},
            },
        },
        "tree": {
            "node_attrs": {
                "div": 0,
                "num_date": {"value": 2019.9836, "confidence": [2019.9, 2020.0]},
                "location": {"value": canary("place"), "confidence": {canary("place"): 1.0}},
            },
            "children": [
                {"name": "NODE_0000001", "children": tips[:half], "node_attrs": {"div": 1}},
                {"children": tips[half:], "name": canary("inner"), "branch_attrs": {}},
            ],
            "name": "NODE_0000000",
        },
        "root_sequence": {"nuc": "ACGT", "S": canary("sequence")},
        canary("top"): canary("top"),
    }


def nodes(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the nodes of a tree."""
    waiting = [document["tree"]]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += node.get("children", ())
