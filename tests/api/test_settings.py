"""Settings: where they come from, and the errors of a service that cannot start."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from aspen.api.settings import Settings, SettingsError
from tests.api.conftest import Cloud

COMPLETE = {
    "GENEPI_CONFIG_SECRET_NAME": "",
    "FLASK_SECRET": "flask",
    "AUSPICE_MAC_KEY": base64.urlsafe_b64encode(b"key").decode(),
    "AUTH0_CLIENT_ID": "client",
    "AUTH0_CLIENT_SECRET": "hidden",
    "AUTH0_DOMAIN": "example.auth0.com",
    "S3_external_auspice_bucket": "bucket",
}

SECRET_PATHS = (
    "/v2/orgs/1/auspice/access/hunter2.x?pathogen_slug=SC2",
    "/v2/auth/callback?code=hunter2&state=hunter2",
    "/v2/auth/process_invitation?organization=org_1&invitation=hunter2",
    "/v2/users/me?magic_link=hunter2",
)


def settings(**changes: Any) -> Settings:
    return Settings.load({**COMPLETE, **changes})


def test_auth0_domain_without_scheme_uses_https() -> None:
    assert settings().auth0_url == "https://example.auth0.com"
    assert settings(AUTH0_DOMAIN="http://127.0.0.1:3031/").auth0_url == "http://127.0.0.1:3031"


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({"DB_DSN": "postgresql://u:p@h:1/d"}, "postgresql+asyncpg://u:p@h:1/d"),
        ({"DB_URI": "postgresql+psycopg2://u:p@h/d"}, "postgresql+asyncpg://u:p@h/d"),
        (
            {"DB_address": "h:5433", "DB_rw_username": "u", "DB_rw_password": "p@:/"},
            "postgresql+asyncpg://u:p%40%3A%2F@h:5433/aspen_db",
        ),
        (
            {
                "DB_address": "h",
                "DB_rw_username": "u",
                "DB_rw_password": "p",
                "REMOTE_DEV_PREFIX": "/mystack",
            },
            "postgresql+asyncpg://u:p@h/mystack",
        ),
    ],
    ids=str,
)
def test_database_url_is_built_from_settings(changes: dict[str, str], url: str) -> None:
    assert settings(**changes).database_url.render_as_string(hide_password=False) == url


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({}, "/genepi/local/localstack/"),
        ({"DEPLOYMENT_STAGE": "gestaging"}, "/genepi/gestaging/gestagingstack/"),
        ({"DEPLOYMENT_STAGE": "dev", "REMOTE_DEV_PREFIX": "/mine"}, "/genepi/dev/mine/"),
    ],
    ids=str,
)
def test_job_parameters_path_is_built_from_stage_and_stack(
    changes: dict[str, str], path: str
) -> None:
    assert settings(**changes).parameters_path == path


def test_settings_error_names_settings_without_their_secrets() -> None:
    with pytest.raises(SettingsError) as caught:
        settings(FLASK_SECRET="", AUSPICE_MAC_KEY="hunter2hunter2!")
    assert "FLASK_SECRET" in str(caught.value)
    assert "AUSPICE_MAC_KEY" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "hidden" not in repr(settings())


def test_environment_overrides_aws_secret(aws: Cloud) -> None:
    name = f"mine-{uuid4().hex}"
    secret = {
        **{key: value for key, value in COMPLETE.items() if key.isupper()},
        "GENEPI_CONFIG_SECRET_NAME": "not read from here",
        "S3_external_auspice_bucket": "from-the-secret",
        "S3_db_bucket": "",
        "DB_address": "db.example.org",
        "DB_rw_username": "user_rw",
        "DB_rw_password": "pw",
        "AUTH0_CLIENT_KWARGS": {"scope": "openid"},
        "SENTRY_BACKEND_DSN": "unknown here",
    }
    aws.client("secretsmanager").create_secret(Name=name, SecretString=json.dumps(secret))
    environment = {
        **aws.settings,
        "GENEPI_CONFIG_SECRET_NAME": name,
        "AUTH0_CLIENT_ID": "from-the-environment",
        "FLASK_SECRET": "",
    }
    found = Settings.load(environment)
    assert found.external_auspice_bucket == "from-the-secret"
    assert found.auth0_client_id == "from-the-environment"
    assert found.flask_secret.get_secret_value() == "flask"
    assert found.auth0_client_kwargs == {"scope": "openid"}
    assert found.db_bucket == ""
    assert found.database_url.host == "db.example.org"


@pytest.mark.parametrize("text", ["no json", "[]"])
def test_aws_secret_that_is_not_an_object_is_named(aws: Cloud, text: str) -> None:
    name = f"bad-{uuid4().hex}"
    aws.client("secretsmanager").create_secret(Name=name, SecretString=text)
    with pytest.raises(SettingsError, match=f"the secret {name} is not"):
        Settings.load({**aws.settings, "GENEPI_CONFIG_SECRET_NAME": name})


def test_unreadable_aws_secret_is_named() -> None:
    away = {
        "GENEPI_CONFIG_SECRET_NAME": "genepi-config",
        "BOTO_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_REGION": "us-west-2",
    }
    with pytest.raises(SettingsError, match="cannot read the secret genepi-config"):
        settings(**away)


def test_service_runs_until_sigterm_and_logs_no_secrets(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", "aspen.api", "--port", str(port)],
            env={**os.environ, **COMPLETE, "DB_DSN": "postgresql://u:p@127.0.0.1:1/d"},
            stdout=subprocess.PIPE,
            stderr=log,
        ) as process,
    ):
        try:
            answer = _wait_for(f"http://127.0.0.1:{port}/v2/health/", process)
            assert answer.json() == {"healthy": True}
            for path in SECRET_PATHS:
                httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False)
            process.terminate()
            out, _ = process.communicate(timeout=120)
            assert out == b""
            assert process.returncode in {0, -signal.SIGTERM}
        finally:
            process.kill()
    said = (tmp_path / "log").read_text()
    assert said.count("***") == len(SECRET_PATHS) + 1
    assert "hunter2" not in said
    assert "organization=org_1" in said


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> httpx.Response:
    deadline = time.monotonic() + 120
    while True:
        try:
            return httpx.get(url, trust_env=False)
        except httpx.ConnectError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_service_that_cannot_start_names_invalid_setting() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "aspen.api"],
        env={**os.environ, **COMPLETE, "AUTH0_DOMAIN": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "The service cannot start" in done.stderr
    assert "AUTH0_DOMAIN" in done.stderr
    assert "Traceback" not in done.stderr
