"""The credentials for the identity provider, as ``config show`` and ``target check`` show them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from aspen.local.auth0.store import Client, seed
from aspencli.deployments.identity import NAMES
from aspencli.remote.identity import ONBOARDING_SCOPES
from tests.conftest import CliRunner
from tests.local.auth0.fixtures import identity, identity_process
from tests.local.auth0.lab import MANAGEMENT, MANAGEMENT_SECRET, PRINCIPALS, Identity
from tests.moto import running_moto
from tests.remote.conftest import Serving, serving
from tests.remote.naughty import reply_json

__all__ = ["identity", "identity_process", "serving"]

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
_MANAGER = next(client for client in PRINCIPALS.clients if client.client_id == MANAGEMENT)


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    """Yield the address of an AWS."""
    with running_moto() as address:
        yield address


@pytest.fixture
def config(tmp_path: Path, aws: str) -> Callable[..., dict[str, str]]:
    """Return a function that writes the config file of a target, and returns the environment."""

    def write(secret: dict[str, str] | None = None, *, name: str = "mylab") -> dict[str, str]:
        lines = [f"[targets.{name}]", 'safety = "shared"', 'api_url = "http://127.0.0.1:9"']
        lines += ['auth_url = "http://127.0.0.1:9"', 'auth_client_id = "x"']
        if secret is not None:
            client = boto3.client(
                "secretsmanager",
                endpoint_url=aws,
                region_name="us-west-2",
                aws_access_key_id="testing",
                aws_secret_access_key="testing",
            )
            made = client.create_secret(
                Name=f"{tmp_path.name}/genepi-config", SecretString=json.dumps(secret)
            )
            lines += [f'secret_name = "{made["Name"]}"', f'aws_endpoint_url = "{aws}"']
            lines += ['aws_region = "us-west-2"', 'database_url = "postgresql://u@127.0.0.1:9/x"']
        path = tmp_path / "config.toml"
        path.write_text("\n".join(lines))
        return {**KEYS, "ASPEN_CONFIG": str(path), "ASPEN_ENV": name}

    return write


def _credentials(identity: Identity, **changes: str) -> dict[str, str]:
    values = (identity.issuer.rstrip("/"), MANAGEMENT, MANAGEMENT_SECRET)
    return {**dict(zip(NAMES, values, strict=True)), **changes}


def _part(run_cli: CliRunner, env: dict[str, str]) -> dict[str, Any]:
    """Return the row of the identity provider, after checking that no secret is shown."""
    result = run_cli("target", "check", "-o", "json", "--debug", env=env)
    assert MANAGEMENT_SECRET not in result.out + result.err
    assert "eyJ" not in result.out + result.err
    rows = json.loads(result.out)
    (found,) = (row for row in rows if row["part"] == "Identity provider")
    return dict(found)


def _source(run_cli: CliRunner, env: dict[str, str]) -> tuple[str | None, str]:
    result = run_cli("config", "show", "-o", "json", env=env)
    assert result.code == 0, result.err
    assert MANAGEMENT_SECRET not in result.out + result.err
    row = next(row for row in json.loads(result.out) if row["name"] == "management_credentials")
    return row["value"], row["source"]


# The source


def test_config_show_names_environment_without_values(
    run_cli: CliRunner, config: Callable[..., dict[str, str]], identity: Identity
) -> None:
    env = {**config({"DB_address": "x"}), **_credentials(identity)}
    assert _source(run_cli, env) == ("***", f"environment {', '.join(NAMES)}")
    shown = run_cli("config", "show", "-o", "table", env=env).out
    assert f"*** (environment {', '.join(NAMES)})" in shown


def test_config_show_names_secret_without_reading_it(
    run_cli: CliRunner, config: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    env = {**config({}), "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    source = f"secret {tmp_path.name}/genepi-config"
    assert _source(run_cli, env) == (None, source)
    shown = run_cli("config", "show", "-o", "table", env=env).out
    assert f"read when needed ({source})" in shown


def test_config_show_names_local_deployment(run_cli: CliRunner) -> None:
    assert _source(run_cli, {}) == (None, "local deployment")


def test_config_show_reports_that_there_are_no_credentials(
    run_cli: CliRunner, config: Callable[..., dict[str, str]]
) -> None:
    env = config()
    assert _source(run_cli, env) == (None, "default")
    shown = run_cli("config", "show", "-o", "table", env=env).out
    (line,) = (line for line in shown.splitlines() if line.startswith("management_credentials"))
    assert line.split(maxsplit=1)[1] == "not set (default)"


def test_config_show_warns_of_ignored_variables(
    run_cli: CliRunner, config: Callable[..., dict[str, str]]
) -> None:
    env = {**config(), NAMES[0]: "tenant.example.org"}
    assert _source(run_cli, env) == (None, "default")
    result = run_cli("config", "show", env=env)
    words = f"{NAMES[0]} will be ignored unless you also set {NAMES[1]} and {NAMES[2]}."
    assert words in result.err
    assert "tenant.example.org" not in result.out + result.err


# The check


@pytest.mark.parametrize("place", ["environment", "secret"])
def test_accepted_credentials_name_tenant_and_missing_scopes(
    run_cli: CliRunner, config: Callable[..., dict[str, str]], identity: Identity, place: str
) -> None:
    granted = [scope for scope in ONBOARDING_SCOPES if scope != "create:organizations"]
    _grant(identity, granted)
    given = _credentials(identity)
    env = config(given) if place == "secret" else {**config(), **given}
    row = _part(run_cli, env)
    host = identity.issuer.removeprefix("http://").rstrip("/")
    assert row["state"] == "note"
    assert row["found"] == (
        f"{host}: token obtained, but onboarding also needs: create:organizations"
    )
    assert "Grant these scopes" in row["step"]
    assert row["seconds"] is not None


def test_credentials_with_all_scopes_are_ok(
    run_cli: CliRunner, config: Callable[..., dict[str, str]], identity: Identity
) -> None:
    _grant(identity, list(ONBOARDING_SCOPES))
    row = _part(run_cli, {**config(), **_credentials(identity)})
    assert (row["state"], row["step"]) == ("ok", None)
    assert row["found"].endswith("token obtained, with all scopes that onboarding needs")


def _grant(identity: Identity, scopes: list[str]) -> None:
    client: Client = replace(_MANAGER, management_scopes=tuple(scopes))
    seed(identity.folder, replace(PRINCIPALS, clients=[client]))


def test_rejected_credentials_fail_with_next_step(
    run_cli: CliRunner, config: Callable[..., dict[str, str]], identity: Identity
) -> None:
    env = {**config(), **_credentials(identity, AUTH0_MANAGEMENT_CLIENT_SECRET="wrong-secret")}
    row = _part(run_cli, env)
    assert row["state"] == "failed"
    assert "rejected the management credentials: cannot get a token: 401" in row["found"]
    assert "AUTH0_MANAGEMENT_CLIENT_SECRET" in row["step"]
    assert "wrong-secret" not in json.dumps(row)


def test_unreachable_provider_fails_with_next_step(
    run_cli: CliRunner, config: Callable[..., dict[str, str]], identity: Identity
) -> None:
    env = {**config(), **_credentials(identity, AUTH0_MANAGEMENT_DOMAIN="http://127.0.0.1:9")}
    row = _part(run_cli, env)
    assert row["state"] == "failed"
    assert "The identity provider 127.0.0.1:9 did not respond" in row["found"]
    assert row["step"]


def test_scopes_that_provider_does_not_name_are_noted(
    run_cli: CliRunner,
    config: Callable[..., dict[str, str]],
    identity: Identity,
    serving: Serving,
) -> None:
    provider = serving(reply_json({"access_token": "x", "expires_in": 60}))
    env = {**config(), **_credentials(identity, AUTH0_MANAGEMENT_DOMAIN=provider.url)}
    row = _part(run_cli, env)
    assert row["state"] == "note"
    assert "its scopes are not known" in row["found"]
    assert len(provider.seen) == 1


@pytest.mark.parametrize("secret", [None, {"AUTH0_MANAGEMENT_DOMAIN": "tenant.example.org"}])
def test_check_is_skipped_without_credentials(
    run_cli: CliRunner, config: Callable[..., dict[str, str]], secret: dict[str, str] | None
) -> None:
    row = _part(run_cli, config(secret))
    assert (row["state"], row["seconds"]) == ("skipped", None)
    reason = "not configured" if secret is None else "not in the secret "
    assert row["found"].startswith(f"no management credentials: {reason}")
    assert all(name in row["step"] for name in NAMES)


def test_check_is_skipped_if_local_deployment_is_not_running(run_cli: CliRunner) -> None:
    row = _part(run_cli, {})
    assert row["state"] == "skipped"
    assert row["found"].startswith("Not running in the local deployment: ")
    assert row["step"] == "Start it: aspencli local up"
