"""Our API documentation compared with the live service's."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import Api
from tests.api.contract_facts import operations

SHARED = Path(os.environ.get("ASPEN_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data")
CONTRACT = SHARED.parent / "contract" / "openapi.json"

Document = dict[str, Any]


@pytest.fixture(scope="module")
def ours(shared_api: Api) -> Document:
    document: Document = shared_api("GET", "/v2/openapi.json").json()
    return document


@pytest.fixture(scope="module")
def theirs() -> Document:
    if not CONTRACT.exists():
        pytest.skip(f"needs {CONTRACT}")
    document: Document = json.loads(CONTRACT.read_text())
    return document


def all_of(document: Document) -> dict[tuple[str, str], Document]:
    return {
        (method.upper(), path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def schema_of(document: Document, schema: Document) -> Document:
    """Return the schema itself, with references resolved and null removed."""
    while True:
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            continue
        choices = schema.get("allOf") or schema.get("anyOf") or []
        chosen = [choice for choice in choices if choice.get("type") != "null"]
        if len(chosen) != 1:
            return schema
        schema = chosen[0]


def success_of(document: Document, operation: Document) -> Document:
    content = operation["responses"].get("200", {}).get("content", {})
    return schema_of(document, content.get("application/json", {}).get("schema", {}))


def body_of(document: Document, operation: Document) -> Document:
    content = operation.get("requestBody", {}).get("content", {})
    return schema_of(document, content.get("application/json", {}).get("schema", {}))


def test_openapi_lists_exactly_the_contract_operations(ours: Document) -> None:
    assert set(all_of(ours)) == set(operations())


def test_docs_page_shows_all_43_paths(shared_api: Api) -> None:
    address = re.search("url: '(.+?)'", shared_api("GET", "/v2/docs").text)
    assert address is not None
    shown = shared_api("GET", address[1]).json()["paths"]
    assert set(shown) == {path for _, path in operations()}
    assert len(shown) == 43


def test_success_responses_require_all_contract_fields(ours: Document) -> None:
    for key, operation in all_of(ours).items():
        schema = success_of(ours, operation)
        assert operations()[key] <= set(schema.get("required", [])), key


def test_contract_facts_match_live_service(theirs: Document) -> None:
    found = {
        (method.upper(), path): frozenset(success_of(theirs, operation).get("required", []))
        for path, methods in theirs["paths"].items()
        for method, operation in methods.items()
    }
    assert found == operations()


def test_response_schemas_include_all_live_service_fields(ours: Document, theirs: Document) -> None:
    known = all_of(theirs)
    for key, operation in all_of(ours).items():
        their_schema = success_of(theirs, known[key])
        if their_schema:
            _holds(ours, success_of(ours, operation), theirs, their_schema, str(key))


def test_request_schemas_require_no_more_than_live_service(
    ours: Document, theirs: Document
) -> None:
    known = all_of(theirs)
    for key, operation in all_of(ours).items():
        their_body, our_body = body_of(theirs, known[key]), body_of(ours, operation)
        if their_body:
            _holds(ours, our_body, theirs, their_body, str(key), request=True)


def _holds(
    ours: Document,
    our_schema: Document,
    theirs: Document,
    their_schema: Document,
    where: str,
    *,
    request: bool = False,
) -> None:
    """Check that ours has every field of theirs with the same type, and requires no others."""
    our_schema, their_schema = schema_of(ours, our_schema), schema_of(theirs, their_schema)
    if "type" in their_schema:
        assert our_schema.get("type") == their_schema["type"], where
    if their_schema.get("type") == "array":
        _holds(
            ours, our_schema["items"], theirs, their_schema["items"], f"{where}[]", request=request
        )
    properties = our_schema.get("properties", {})
    if request:
        extra = set(our_schema.get("required", [])) - set(their_schema.get("required", []))
        assert not extra, where
    for name, field in their_schema.get("properties", {}).items():
        assert name in properties, f"{where}.{name}"
        _holds(ours, properties[name], theirs, field, f"{where}.{name}", request=request)
