"""Proxies from the environment: servers that bypass them, and errors for invalid addresses."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from aspencli.addresses import is_bypassed, origin_of, proxy_for
from aspencli.errors import BadInputError
from aspencli.remote.http import Http, Request
from aspencli.remote.retry import Deadline, Patience
from tests.remote.conftest import Serving
from tests.remote.naughty import reply

SECRET = "s3cr3t-horse"
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("no_proxy", "server", "bypassed"),
    [
        ("*", "https://api.example.org", True),
        ("example.org", "https://api.example.org", True),
        (".example.org", "https://api.example.org", True),
        ("*.example.org", "https://api.example.org", True),
        ("API.Example.ORG.", "https://api.example.org", True),
        ("ample.org", "https://api.example.org", False),
        ("example.org:8443", "https://api.example.org", False),
        ("example.org:443", "https://api.example.org", True),
        ("https://api.example.org", "https://api.example.org", True),
        ("a.test, example.org", "https://example.org", True),
        ("a.test example.org", "https://example.org", True),
        ("10.0.0.0/8", "http://10.1.2.3", True),
        ("10.0.0.0/8", "http://11.1.2.3", False),
        ("10.1.2.3/8", "http://10.9.9.9", True),
        ("fe80::/10", "http://[fe80::1]", True),
        ("fe80::/10", "http://[2001:db8::1]", False),
        ("[2001:db8::1]", "http://[2001:db8::1]", True),
        ("[2001:db8::1]:81", "http://[2001:db8::1]", False),
        ("[2001:db8::1]:80", "http://[2001:db8:0::1]", True),
        ("2001:db8::1", "http://[2001:db8::1]:8000", True),
        ("[::1]", "https://api.example.org", False),
        ("[fe80::1%eth0]", "http://[fe80::1]", True),
        ("[", "https://api.example.org", False),
        ("http://[::1", "https://api.example.org", False),
        ("10.0.0.0/99,::/x", "http://10.1.2.3", False),
        (",, ,", "https://api.example.org", False),
        ("", "https://api.example.org", False),
    ],
)
def test_no_proxy_entries_match_servers(no_proxy: str, server: str, bypassed: bool) -> None:
    assert is_bypassed(origin_of(server, "the server"), no_proxy) is bypassed


@pytest.mark.parametrize(
    "address",
    [
        "ftp://proxy.test:1",
        "socks4://proxy.test:1",
        "not a proxy",
        "http://[::1",
        "http://proxy.test:99999",
        "http://proxy.test:0",
        "http://proxy.test:x",
        "http://",
    ],
)
def test_invalid_proxy_address_is_reported_without_its_password(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    scheme, _, place = address.rpartition("://")
    secret = f"{scheme or 'http'}://user:{SECRET}@{place}"
    monkeypatch.setenv("HTTPS_PROXY", secret)
    with pytest.raises(BadInputError) as caught:
        proxy_for(origin_of("https://api.example.org", "the API"))
    assert "HTTPS_PROXY" in caught.value.message
    assert SECRET not in f"{caught.value.message}{caught.value.hint}{caught.value.details}"


def test_proxy_for_scheme_takes_precedence_over_all_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5h://all.test:1080")
    monkeypatch.setenv("https_proxy", "secure.test:3128")
    assert proxy_for(origin_of("https://x.test", "it")) == "http://secure.test:3128"
    assert proxy_for(origin_of("http://x.test", "it")) == "socks5h://all.test:1080"
    assert proxy_for(origin_of("http://127.0.0.1:3000", "it")) is None


@pytest.mark.parametrize(
    "no_proxy", ["[::1]", "fe80::/10", "http://[::1]:80,,*.x", "[", "10.0.0.0/99"]
)
def test_client_accepts_any_no_proxy_value(
    monkeypatch: pytest.MonkeyPatch, serving: Serving, no_proxy: str
) -> None:
    monkeypatch.setenv("NO_PROXY", no_proxy)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    http = Http(serving(reply(200, b"{}")).url, "the API")
    with http.open(Request("GET", "/"), Deadline(5), Patience()) as answer:
        assert answer.status == 200
    http.close()


def test_request_is_sent_through_socks_proxy(
    monkeypatch: pytest.MonkeyPatch, serving: Serving
) -> None:
    server = serving(reply(200, b"{}"))
    with _socks(urlsplit(server.url).port or 0) as (port, asked):
        monkeypatch.setenv("ALL_PROXY", f"socks5h://127.0.0.1:{port}")
        http = Http("http://api.behind-the-proxy.test", "the API")
        with http.open(Request("GET", "/v2/health"), Deadline(5), Patience()) as answer:
            assert answer.status == 200
        http.close()
    assert asked == ["api.behind-the-proxy.test"]


@contextlib.contextmanager
def _socks(port: int) -> Iterator[tuple[int, list[str]]]:
    """Run a SOCKS5 proxy (RFC 1928) for one connection, to a port of this machine."""
    asked: list[str] = []

    def serve() -> None:
        client, _ = listener.accept()
        with client, socket.create_connection(("127.0.0.1", port)) as server:
            client.recv(2 + client.recv(2)[1])
            client.sendall(b"\x05\x00")
            client.recv(4)
            asked.append(client.recv(client.recv(1)[0]).decode())
            client.recv(2)
            client.sendall(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
            server.sendall(client.recv(65_536))
            with contextlib.suppress(ConnectionError):
                while data := server.recv(65_536):
                    client.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], asked
    thread.join(5)
