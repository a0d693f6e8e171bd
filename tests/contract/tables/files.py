"""Trees, sequences, quality, and mutations: who gets which, and what is refused."""

from __future__ import annotations

from typing import Any

from tests.api.conftest import PRINCIPALS
from tests.contract.asking import Ask, begins, error, finding, keys

_ORG = "/v2/orgs/{}/pathogens/SC2/"
_TREE = _ORG.format(1) + "phylo_trees/{tree}/"
_FASTA, _LINK = _ORG.format(1) + "sequences/", _ORG.format(1) + "sequences/getfastaurl"
_FOUND = _ORG.format(1) + "qc_mutations/"
_REFUSED = error("Not authorized")
_IN_1 = ("gadmin", "member", "viewer", "sysmember", "multi")
_OUTSIDERS = [who for who in PRINCIPALS if who not in _IN_1]
_NOBODY = {"sample_ids": ["nobody"]}
_TABLE = "Sample Identifier\tSelected\r\n"


def _refusals(method: str, path: str, body: Any = None) -> list[Ask]:
    return [Ask(who, method, path, 403, _REFUSED, json=body) for who in _OUTSIDERS]


ASKS = [
    # Trees
    *(Ask(who, "GET", _TREE + "download", 200, lambda body: "tree" in body) for who in _IN_1),
    Ask("member", "GET", _TREE + "download?id_style=public", 200, lambda body: "tree" in body),
    *(
        Ask(who, "GET", _TREE + "sample_ids", 200, lambda body: body.startswith(_TABLE))
        for who in _IN_1
    ),
    *_refusals("GET", _TREE + "download"),
    *(
        Ask(
            "member", "GET", _ORG.format(1) + f"phylo_trees/{tree}/{what}", 400, begins("PhyloTree")
        )
        for tree in ("{tree_of_2}", "999999")
        for what in ("download", "sample_ids")
    ),
    Ask(
        "member",
        "GET",
        _ORG.format(1) + "phylo_trees/x/download",
        422,
        finding("path", "item_id"),
    ),
    # Sequences, quality, and mutations
    *(Ask(who, "POST", _FASTA, 200, "", json=_NOBODY) for who in _IN_1),
    *_refusals("POST", _FASTA, _NOBODY),
    Ask("member", "POST", _FASTA, 422, finding("body", "sample_ids"), json={}),
    Ask(
        "member",
        "POST",
        _FASTA,
        400,
        begins("no prefix found for given pathogen_slug"),
        differs="for a repository without the pathogen",
        json={**_NOBODY, "public_repository_name": "ENA"},
    ),
    *(Ask(who, "POST", _LINK, 200, keys("url"), json={"samples": []}) for who in _IN_1),
    *_refusals("POST", _LINK, {"samples": []}),
    Ask("member", "POST", _LINK, 422, finding("body", "samples"), json={}),
    *(
        Ask(who, "POST", _FOUND, 404, error("No associated QC/Mutation data found"), json=_NOBODY)
        for who in _IN_1
    ),
    *_refusals("POST", _FOUND, _NOBODY),
    Ask("member", "POST", _FOUND, 422, finding("body", "sample_ids"), json={}),
]
