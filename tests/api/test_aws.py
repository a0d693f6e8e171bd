"""Clients of AWS, which are kept as long as the process lives."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.exceptions import NoCredentialsError

from api.aws import AccessKey, Aws


def test_a_client_without_credentials_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """It never gets any, and those of a machine may be late."""
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


def test_the_credentials_that_were_checked_are_those_of_the_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What changes the environment between the two must not make a client without any."""
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


def test_given_credentials_do_not_depend_on_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "of the environment")
    aws = Aws("us-west-2", "http://127.0.0.1:9", AccessKey("given", "secret"))
    assert aws.client("ssm")._request_signer._credentials.access_key == "given"
    assert "secret" not in repr(AccessKey("given", "secret"))
