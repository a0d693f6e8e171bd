"""Long lists, read item by item."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aspencli.errors import UnreachableError
from aspencli.remote.http import items
from aspencli.remote.types import Sample
from tests.remote.conftest import Client
from tests.remote.naughty import reply, reply_json

OBJECTS = st.lists(
    st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.booleans())
)


def _pieces(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def _ids(samples: Iterable[Sample]) -> list[int]:
    return [sample["id"] for sample in samples]


@given(OBJECTS, st.integers(1, 50), st.sampled_from([None, 1]), st.booleans())
def test_items_are_parsed_from_chunks_of_any_size(
    value: list[Any], size: int, indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps({"samples": value, "more": 1}, indent=indent, ensure_ascii=ascii_only)
    data = text.encode("utf-8", "surrogatepass")
    if "\\ud" in text or b"\xed" in data:
        data = json.dumps({"samples": value}, indent=indent).encode()
    assert list(items(_pieces(data, size), "samples")) == value


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", '{"samples"', '{"samples": [', '{"samples": [{}', '{"samples": [{},'),
        *('{"samples": [{"a": 1', '{"other": []}', "[]", '{"samples": {}}'),
        *('{"samples": [{} {}]}', '{"samples": [nonsense]}'),
    ],
)
def test_incomplete_or_invalid_list_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|early"):
        list(items([text.encode()], "samples"))


def test_invalid_item_is_rejected_long_before_end_of_list() -> None:
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        yield b'{"samples": [{"id": 1}, {"id": <html>'
        while True:
            read += 1
            yield b" " * 100_000

    found = items(endless(), "samples")
    assert next(found) == {"id": 1}
    with pytest.raises(ValueError, match="Expecting value"):
        next(found)
    assert read < 100


def test_read_returns_what_is_taken(client: Callable[..., Client]) -> None:
    samples = [{"id": n, "public_identifier": f"s{n}"} for n in range(1000)]
    made = client(reply_json({"samples": samples}))
    assert made.api.samples.read(1, "SC2", _ids) == list(range(1000))


def test_incomplete_list_is_read_again_from_start(
    client: Callable[..., Client],
) -> None:
    whole = json.dumps({"samples": [{"id": n} for n in range(1000)]})
    made = client(
        reply(200, whole[:9000], kind="application/json", length=len(whole)),
        reply(200, whole[:9000], kind="application/json"),
        reply(200, whole, kind="application/json"),
    )
    assert made.api.samples.read(1, "SC2", _ids) == list(range(1000))
    assert len(made.server.seen) == 3


def test_html_response_instead_of_list_is_rejected(client: Callable[..., Client]) -> None:
    with pytest.raises(UnreachableError, match="is not from the"):
        client(reply(200, "<html>", kind="text/html")).api.samples.read(1, "SC2", list)
