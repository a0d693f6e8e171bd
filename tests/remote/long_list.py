"""A list of samples of any length, as the API sends it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from tests.remote.naughty import Reply, Wire


def sample(number: int) -> dict[str, Any]:
    """Return a sample of group 1 as the API lists it."""
    return {
        "id": number,
        "collection_date": "2021-05-06",
        "collection_location": {
            "id": 5,
            "region": "North America",
            "country": "USA",
            "division": "California",
            "location": None,
        },
        "gisaid": None,
        "pathogen": {"id": 1, "slug": "SC2", "name": "SARS-CoV-2"},
        "private": False,
        "private_identifier": f"RCPHL-{number:07}",
        "public_identifier": f"hCoV-19/USA/CA-RCPHL-{number:07}/2020",
        "sequencing_date": None,
        "submitting_group": {"id": 1, "name": "Redwood County Public Health Laboratory"},
        "uploaded_by": {"id": 3, "name": "Somebody"},
        "upload_date": None,
        "lineages": [],
        "qc_metrics": [],
    }


def long_list(count: int) -> Iterator[bytes]:
    """Yield the list as text, 100 samples at a time."""
    rest = json.dumps(sample(0)).removeprefix('{"id": 0')
    yield b'{"samples":['
    for first in range(1, count + 1, 100):
        some = [
            f'{{"id":{number}' + rest.replace("0000000", f"{number:07}")
            for number in range(first, min(first + 100, count + 1))
        ]
        yield (("," if first > 1 else "") + ",".join(some)).encode()
    yield b"]}"


def stream(pieces: Callable[[], Iterator[bytes]], ending: bytes = b"0\r\n\r\n") -> Reply:
    """Return a reply of unknown length; without the ending, it is incomplete."""

    def write(wire: Wire) -> None:
        head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
        wire.send(head.encode() + b"\r\n")
        for piece in pieces():
            wire.send(b"%x\r\n" % len(piece) + piece + b"\r\n")
        if not ending:
            wire.close()
        wire.send(ending)

    return write
