"""AWS clients, which are kept as long as the process runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import boto3
import pytest
from botocore.exceptions import NoCredentialsError

from aspen.api.aws import AccessKey, Aws


@contextmanager
def http_server() -> Iterator[tuple[int, list[str]]]:
    """Yield the port of a server that answers HEAD, and the list of requests it received."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(f"HEAD {self.path}")
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, asked
        server.shutdown()


def test_aws_client_without_credentials_is_not_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client without credentials never gets any, and a machine's may arrive late."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    aws = Aws("us-west-2", "http://127.0.0.1:9")
    with pytest.raises(NoCredentialsError):
        aws.client("ssm")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    assert aws.client("ssm") is aws.client("ssm")


def test_aws_client_uses_the_credentials_that_were_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A change of the environment after the check must not yield a client without credentials."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    for name in names:
        monkeypatch.setenv(name, "local")
    make = boto3.session.Session.client

    def late(*arguments: Any, **options: Any) -> Any:
        for name in names:
            monkeypatch.delenv(name)
        return make(*arguments, **options)

    monkeypatch.setattr(boto3.session.Session, "client", late)
    client = Aws("us-west-2", "http://127.0.0.1:9").client("ssm")
    assert client._request_signer._credentials.access_key == "local"


def test_given_aws_credentials_override_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "of the environment")
    aws = Aws("us-west-2", "http://127.0.0.1:9", AccessKey("given", "secret"))
    assert aws.client("ssm")._request_signer._credentials.access_key == "given"
    assert "secret" not in repr(AccessKey("given", "secret"))


@pytest.mark.parametrize("proxy", ["ftp://127.0.0.1:1", "http://[::1", "http://127.0.0.1:9"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_aws_client_bypasses_proxy_for_local_endpoint(
    monkeypatch: pytest.MonkeyPatch, proxy: str, host: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with http_server() as (port, asked):
        aws = Aws("us-west-2", f"http://{host}:{port}", AccessKey("given", "secret"))
        aws.client("s3").head_bucket(Bucket="one")
    assert asked == ["HEAD /one"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_PROFILE", "nosuch"),
        ("AWS_CONFIG_FILE", "/etc/passwd"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/etc/passwd"),
        ("AWS_MAX_ATTEMPTS", "many"),
        ("AWS_DEFAULTS_MODE", "nonsense"),
        ("AWS_REQUEST_CHECKSUM_CALCULATION", "nonsense"),
        ("AWS_S3_US_EAST_1_REGIONAL_ENDPOINT", "nonsense"),
    ],
)
def test_aws_client_with_given_credentials_ignores_aws_cli_settings(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with http_server() as (port, asked):
        aws = Aws("us-west-2", f"http://127.0.0.1:{port}", AccessKey("given", "secret"))
        aws.client("s3").head_bucket(Bucket="one")
    assert asked == ["HEAD /one"]
