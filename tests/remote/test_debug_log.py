"""The output of --debug, which never shows a secret."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO

import pytest

from aspencli.remote.downloads import StreamLanding
from aspencli.remote.http import masked_body, masked_headers, masked_text, masked_url
from tests.remote.conftest import Client
from tests.remote.naughty import reply, reply_json

MakeClient = Callable[..., Client]
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhdXRoMHx4In0.c2lnbmF0dXJl"


def test_debug_log_shows_requests_and_responses_without_secrets(client: MakeClient) -> None:
    made = client(
        reply_json(
            {"url": f"https://s3.example.org/b/k?X-Amz-Signature=sesame&token={TOKEN}"},
            headers={"Set-Cookie": "session=sesame", "X-Unheard-Of": "sesame"},
        ),
        tokens=[TOKEN],
        cookie="sesame",
    )
    made.api.samples.fasta_link(1, "SC2", ["a sample"])
    shown = "\n".join(made.log)
    assert "> POST http://127.0.0.1" in shown
    assert "/v2/orgs/1/pathogens/SC2/sequences/getfastaurl" in shown
    assert "a sample" in shown
    assert "< 200 after 0." in shown
    assert "> authorization: ***" in shown
    assert "https://s3.example.org/b/k?" in shown
    assert "sesame" not in shown
    assert TOKEN not in shown
    assert "eyJ" not in shown


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://x/v2?pathogen_slug=SC2&magic_link=abc", "pathogen_slug=SC2&magic_link=***"),
        ("https://x/b?X-Amz-Credential=AKIA&X-Amz-Signature=abc", "X-Amz-Signature=***"),
        ("https://x/v2/orgs/1/auspice/access/abc.def", "/auspice/access/***"),
        ("https://user:abc@x/v2", "https://x/v2"),
        ("https://x/cb?code=abc#access_token=abc", "https://x/cb?code=***"),
    ],
)
def test_secrets_in_urls_are_masked(address: str, shown: str) -> None:
    masked = masked_url(address)
    assert shown in masked
    assert "abc" not in masked
    assert "AKIA" not in masked


def test_unknown_headers_are_masked() -> None:
    masked = masked_headers({"X-Api-Key": "abc", "Date": "today", "Location": "https://x/?t=abc"})
    assert masked == {"X-Api-Key": "***", "Date": "today", "Location": "https://x/?t=***"}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (json.dumps({"id_token": "abc", "a": [{"device_code": "abc"}]}), "application/json"),
        (json.dumps({"url": "host/v2/orgs/1/auspice/access/abc"}), "application/json"),
        ("refresh_token=abc&client_id=x", "application/x-www-form-urlencoded"),
        ("see https://x/y?key=abc", "text/plain; charset=utf-8"),
        ("abc", "application/octet-stream"),
        ('{"abc', "application/json"),
    ],
)
def test_secrets_in_bodies_are_masked(body: str, kind: str) -> None:
    shown = masked_body(body.encode(), kind)
    assert shown
    assert "abc" not in shown


def test_long_body_is_truncated() -> None:
    shown = masked_body(json.dumps(["x" * 5_000]).encode(), "application/json")
    assert len(shown) < 2_100
    assert shown.endswith("characters)")


def test_ordinary_text_is_not_masked() -> None:
    assert masked_text("sample hCoV-19/USA/CZI-4/2026 is new") == (
        "sample hCoV-19/USA/CZI-4/2026 is new"
    )


def test_downloaded_files_are_not_logged(client: MakeClient) -> None:
    made = client(reply(200, ">genome\nACGT", kind="application/binary"))
    made.api.samples.sequences(1, "SC2", ["x"], StreamLanding(BytesIO()), lambda *_: None)
    assert "ACGT" not in "\n".join(made.log)


def test_text_of_a_million_letters_is_masked() -> None:
    # Looking for an address from each of its letters would take hours.
    assert masked_text("ACGT" * 250_000) == "ACGT" * 250_000
    assert masked_text("eyJ" * 330_000) == "eyJ" * 330_000
    assert masked_text("eyJ-" * 250_000) == "eyJ-" * 250_000
    assert masked_text('a.b-xeyJh.eyJz.s-_ "eyJ.eyJq.w"') == 'a.b-x*** "eyJ.***"'
    assert masked_text("see https://h.example.org/p?ticket=s3cret") == (
        "see https://h.example.org/p?ticket=***"
    )
