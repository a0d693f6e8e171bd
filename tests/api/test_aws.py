"""Clients of AWS, which are kept as long as the process lives."""

from __future__ import annotations

import pytest
from botocore.exceptions import NoCredentialsError

from api.aws import Aws


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
