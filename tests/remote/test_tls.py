"""TLS, certificates, and proxies from the environment."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from aspencli.errors import BadInputError, UnreachableError
from aspencli.remote.http import Http, Request
from aspencli.remote.retry import Caller, Patience, Persistence
from tests.remote.naughty import Naughty, Reply, drip_head, reply

DAY = dt.timedelta(days=1)
ServingTls = Callable[..., tuple[Naughty, Path]]


def _certificate(folder: Path, *, begins: dt.timedelta = -DAY) -> tuple[ssl.SSLContext, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "naughty")])
    start = dt.datetime.now(dt.UTC) + begins
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + 30 * DAY)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem, private = folder / "certificate.pem", folder / "key.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, private)
    return context, pem


@pytest.fixture
def serving_tls(tmp_path: Path) -> Iterator[ServingTls]:
    """Yield a function that starts a server and returns it with its self-signed certificate."""
    with ExitStack() as exits:

        def start(begins: dt.timedelta = -DAY, says: Reply | None = None) -> tuple[Naughty, Path]:
            context, pem = _certificate(tmp_path, begins=begins)
            replies = [says or reply(200, "hello")]
            return exits.enter_context(Naughty(replies, tls=context)), pem

        yield start


def _get(url: str, patience: Patience | None = None) -> bytes:
    http = Http(url, "the API")
    caller = Caller(http, "the x API", hint="", persistence=Persistence(sleep=lambda _: None))
    try:
        request = Request("GET", "/")
        return caller.call(lambda: request, lambda answer: answer.read(), patience or Patience())
    finally:
        http.close()


def test_untrusted_certificate_is_rejected_without_retry(serving_tls: ServingTls) -> None:
    server, _ = serving_tls()
    with pytest.raises(UnreachableError, match="certificate verification failed") as caught:
        _get(server.url)
    assert server.seen == []
    assert server.connections == 1  # it is not retried
    assert "SSL_CERT_FILE" in str(caught.value.hint)


def test_certificate_in_ssl_cert_file_is_accepted(
    serving_tls: ServingTls, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, pem = serving_tls()
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    assert _get(server.url) == b"hello"


def test_slow_response_head_over_tls_times_out(
    serving_tls: ServingTls, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, pem = serving_tls(says=drip_head(0.05))
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    since = time.monotonic()
    with pytest.raises(UnreachableError):
        _get(server.url, Patience(read=5, total=1))
    assert time.monotonic() - since < 30


def test_certificate_not_yet_valid_suggests_checking_clock(
    serving_tls: ServingTls, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, pem = serving_tls(begins=DAY)
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    with pytest.raises(UnreachableError, match="certificate is not yet valid") as caught:
        _get(server.url)
    assert "check this machine's clock" in str(caught.value.hint)


def test_missing_ssl_cert_file_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "no.pem"))
    with pytest.raises(BadInputError, match="SSL_CERT_FILE"):
        Http("https://api.example.org", "the API")


def test_unreachable_proxy_is_reported_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", "http://me:hunter2@127.0.0.1:9")
    with pytest.raises(UnreachableError, match=r"https://api\.example\.org failed: ") as caught:
        _get("https://api.example.org")
    assert caught.value.details == ("Sent through the proxy 127.0.0.1:9",)
