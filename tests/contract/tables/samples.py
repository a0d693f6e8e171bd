"""Samples: who sees, creates, changes, and deletes which, and what is refused."""

from __future__ import annotations

import hashlib
from typing import Any

from tests.api.conftest import PRINCIPALS
from tests.contract.asking import Ask, Facts, begins, error, finding, items, keys

_ALL, _MPX = "/v2/orgs/{}/samples/", "/v2/orgs/1/pathogens/MPX/samples/"
_REFUSED = error("Not authorized")
_SHOWN = (
    *("id", "collection_date", "collection_location", "gisaid", "pathogen", "private"),
    *("private_identifier", "public_identifier", "sequencing_date", "submitting_group"),
    *("uploaded_by", "upload_date", "lineages", "qc_metrics"),
)
_WRITERS = {"gadmin", "member", "sysmember", "multi"}
_IN_1 = _WRITERS | {"viewer"}
_VALIDATE, _FORM = _ALL.format(1) + "validate_ids/", _ALL.format(1) + "submission_template"
_KNOWN = {"sample_ids": ["nobody"]}
_LONG = "".join(hashlib.sha256(bytes([n])).hexdigest() for n in range(200))
"""A long text without repetition, which PostgreSQL would compress."""


def _count(number: int) -> Any:
    return lambda body: len(body["samples"]) == number


def _new(name: str, **changes: Any) -> Any:
    def made(facts: Facts) -> list[dict[str, Any]]:
        sample = {
            "private_identifier": name,
            "public_identifier": f"hCoV-19/USA/{name}/2023",
            "collection_date": "2023-02-01",
            "location_id": facts["place"],
            "private": True,
        }
        genome = {"sequence": "ACGT" * 250, **changes.pop("genome", {})}
        return [{"sample": {**sample, **changes}, "pathogen_genome": genome}]

    return made


def _whole(**changes: Any) -> Any:
    """Return a request body with a whole sample of group 1."""

    def made(facts: Facts) -> dict[str, Any]:
        whole = {
            "id": facts["sample_of_1"],
            "private_identifier": "table",
            "public_identifier": "hCoV-19/USA/table/2023",
            "collection_date": "2023-02-01",
            "collection_location": 0,
            "private": False,
        }
        given = {**whole, **changes}
        return {"samples": [{k: v for k, v in given.items() if v is not ...}]}

    return made


def _ids(*names: str, more: tuple[Any, ...] = ()) -> Any:
    return lambda facts: {"ids": [*(facts[name] for name in names), *more]}


def _list(who: str) -> Ask:
    if who in _IN_1:
        return Ask(who, "GET", _ALL.format(1), 200, items("samples", *_SHOWN))
    return Ask(who, "GET", _ALL.format(1), 403, _REFUSED)


def _gated(method: str, path: str, who: str, body: Any) -> Ask:
    return Ask(who, method, path, 403, _REFUSED, json=body)


_OUTSIDERS = [who for who in PRINCIPALS if who not in _IN_1]

ASKS = [
    *map(_list, PRINCIPALS),
    Ask(None, "GET", _ALL.format(1), 401, error("Login failure")),
    Ask("g2admin", "GET", _ALL.format(2), 200, _count(820)),
    Ask("g3member", "GET", _ALL.format(3), 200, _count(25)),
    Ask("viewer", "GET", _ALL.format(1), 200, _count(800)),
    Ask("member", "GET", _ALL.format(1) + "?limit=1", 200, _count(1000)),
    Ask("member", "GET", _ALL.format(1) + "?pathogen_slug=HCV", 200, {"samples": []}),
    Ask("member", "GET", _ALL.format(1).rstrip("/"), 307),
    # Creating
    *(_gated("POST", _ALL.format(1), who, _new("gate")) for who in _OUTSIDERS),
    Ask("viewer", "POST", _ALL.format(1), 403, error("access denied"), json=_new("viewer")),
    *(Ask(who, "POST", _ALL.format(1), 200, _count(1), json=_new(who)) for who in _WRITERS),
    Ask("member", "POST", _MPX, 200, _count(1), json=_new("pox")),
    Ask("member", "POST", _ALL.format(1), 200, {"samples": []}, json=[]),
    Ask(
        "member",
        "POST",
        _ALL.format(1),
        400,
        begins("Error inserting data, private_identifiers ['member']"),
        json=_new("member"),
    ),
    Ask(
        "member",
        "POST",
        _ALL.format(1),
        400,
        begins("Error processing data, either duplicate"),
        json=lambda facts: _new("twice")(facts) * 2,
    ),
    Ask(
        "member",
        "POST",
        _ALL.format(1),
        400,
        begins("Invalid location id for sample"),
        json=_new("nowhere", location_id=999_999),
    ),
    Ask("member", "POST", _ALL.format(1), 422, finding("body"), json={}),
    Ask(
        "member",
        "POST",
        _ALL.format(1),
        422,
        finding("body", 0, "pathogen_genome", "sequence"),
        json=_new("short", genome={"sequence": "ACGT"}),
    ),
    Ask(
        "member",
        "POST",
        _ALL.format(1),
        422,
        finding("body", 0, "sample", "private_identifier"),
        differs="A NUL character in a string",
        json=_new("n\0l"),
    ),
    Ask(
        "member",
        "POST",
        _ALL.format(1),
        400,
        error("a value is too long"),
        differs="A name of thousands of letters",
        json=_new(_LONG),
    ),
    # Changing
    *(_gated("PUT", _ALL.format(1), who, _whole()) for who in _OUTSIDERS),
    Ask("viewer", "PUT", _ALL.format(1), 404, begins("some samples cannot be"), json=_whole()),
    Ask("multi", "PUT", _ALL.format(2), 404, begins("some samples cannot be"), json=_whole()),
    *(Ask(who, "PUT", _ALL.format(1), 200, _count(1), json=_whole()) for who in _WRITERS),
    Ask(
        "member",
        "PUT",
        _ALL.format(1),
        400,
        begins("location is invalid"),
        json=_whole(collection_location=999_999),
    ),
    Ask(
        "member",
        "PUT",
        _ALL.format(1),
        400,
        begins("All private and public identifiers must be unique"),
        json=_whole(public_identifier="hCoV-19/USA/member/2023"),
    ),
    Ask(
        "member",
        "PUT",
        _ALL.format(1),
        400,
        begins("collection_date is required"),
        differs="without a collection date",
        json=_whole(collection_date=...),
    ),
    Ask(
        "member",
        "PUT",
        _ALL.format(1),
        422,
        finding("body", "samples", 0, "private_identifier"),
        json=_whole(private_identifier=...),
    ),
    Ask("member", "PUT", _ALL.format(1), 422, finding("body", "samples"), json={}),
    Ask("member", "PUT", _ALL.format(1), 200, {"samples": []}, json={"samples": []}),
    # Looking up
    *(_gated("POST", _VALIDATE, who, _KNOWN) for who in _OUTSIDERS),
    *(
        Ask(who, "POST", _VALIDATE, 200, {"missing_sample_ids": ["nobody"]}, json=_KNOWN)
        for who in sorted(_IN_1)
    ),
    Ask("member", "POST", _VALIDATE, 422, finding("body", "sample_ids"), json={}),
    Ask("member", "POST", _VALIDATE.rstrip("/"), 405, json=_KNOWN),
    Ask(
        "member",
        "POST",
        _FORM,
        200,
        lambda body: body.startswith("submitter,fn,covv_virus_name"),
        json={**_KNOWN, "public_repository_name": "GISAID"},
    ),
    Ask(
        "member",
        "POST",
        _FORM,
        200,
        lambda body: body.startswith("Sequence_ID\t"),
        json={**_KNOWN, "public_repository_name": "GenBank"},
    ),
    Ask(
        "member",
        "POST",
        _FORM,
        400,
        begins("public_repository_name is unknown"),
        differs="submission_template`, unknown repository",
        json={**_KNOWN, "public_repository_name": "gisaid"},
    ),
    Ask("member", "POST", _FORM, 422, finding("body", "public_repository_name"), json=_KNOWN),
    # Deleting
    *(_gated("DELETE", _ALL.format(1), who, _ids("sample_of_1")) for who in _OUTSIDERS),
    Ask(
        "viewer",
        "DELETE",
        _ALL.format(1),
        404,
        begins("samples not found"),
        json=_ids("sample_of_1"),
    ),
    Ask("viewer", "DELETE", _ALL.format(1) + "{sample_of_1}", 404, begins("sample not found")),
    Ask(
        "member",
        "DELETE",
        _ALL.format(1),
        404,
        begins("samples not found"),
        json=_ids("sample_of_1", more=(999_999,)),
    ),
    Ask(
        "member",
        "DELETE",
        _ALL.format(1),
        404,
        begins("samples not found"),
        json=_ids("sample_of_1", "sample_of_1"),
    ),
    Ask("member", "DELETE", _ALL.format(1), 200, {"ids": []}, json={"ids": []}),
    Ask("member", "DELETE", _ALL.format(1) + "x", 422, finding("path", "sample_id")),
    Ask("member", "DELETE", _ALL.format(1) + "{sample_of_1}", 200, keys("id")),
    Ask("member", "DELETE", _ALL.format(1) + "{sample_of_1}", 404, begins("sample not found")),
    Ask("g3member", "DELETE", _ALL.format(3), 200, keys("ids"), json=_ids("sample_of_2")),
]
