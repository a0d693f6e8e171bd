"""The service's settings, from the environment or else the secret in AWS Secrets Manager."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from sqlalchemy.engine import URL, make_url

from aspen.api.aws import AccessKey, make_client
from aspen.identity.management import Credentials, provider_url

DRIVER = "postgresql+asyncpg"
_GALAGO = ("https://galago.czgenepi.org", "https://galago-labs.czgenepi.org")


class JobsEngine(StrEnum):
    """A service that runs compute jobs."""

    STEP_FUNCTIONS = "step-functions"
    LOCAL = "local"
    """The queue in the service's own database, and workers on the same machine."""


class SettingsError(Exception):
    """A configuration error that keeps the service from starting; it names the settings."""


class Settings(BaseModel):
    """The settings; an alias is the setting's name in the environment and in the secret."""

    # Invalid values are often secrets.
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    deployment_stage: str = Field("local", alias="DEPLOYMENT_STAGE")
    stack_prefix: str = Field("", alias="REMOTE_DEV_PREFIX")
    """The stack of an rdev deployment, such as ``/mystack``; its database has the same name."""
    api_url: str = Field("http://127.0.0.1:3000", alias="API_URL")
    frontend_url: str = Field("http://127.0.0.1:3000", alias="FRONTEND_URL")
    aws_region: str = Field("us-west-2", alias="AWS_REGION")
    boto_endpoint_url: str | None = Field(None, alias="BOTO_ENDPOINT_URL")
    """The URL of AWS, if it is not Amazon's."""
    aws_access_key_id: str | None = Field(None, alias="AWS_ACCESS_KEY_ID")
    aws_secret_access_key: SecretStr | None = Field(None, alias="AWS_SECRET_ACCESS_KEY")
    aws_session_token: SecretStr | None = Field(None, alias="AWS_SESSION_TOKEN")

    jobs_engine: JobsEngine = Field(JobsEngine.STEP_FUNCTIONS, alias="JOBS_ENGINE")
    """The service that runs compute jobs; in the cloud, always Step Functions."""

    given_dsn: SecretStr | None = Field(None, alias="DB_DSN")
    given_uri: SecretStr | None = Field(None, alias="DB_URI")
    db_address: str | None = Field(None, alias="DB_address")
    db_username: str | None = Field(None, alias="DB_rw_username")
    db_password: SecretStr | None = Field(None, alias="DB_rw_password")

    flask_secret: SecretStr = Field(alias="FLASK_SECRET")
    """The key that signs the session cookie."""
    auspice_mac_key: SecretStr = Field(alias="AUSPICE_MAC_KEY")
    """The key that signs magic links, in URL-safe base64."""

    auth0_client_id: str = Field(alias="AUTH0_CLIENT_ID")
    auth0_client_secret: SecretStr = Field(alias="AUTH0_CLIENT_SECRET")
    auth0_domain: str = Field(alias="AUTH0_DOMAIN")
    auth0_metadata_url: str | None = Field(None, alias="AUTH0_SERVER_METADATA_URL")
    auth0_authorize_url: str | None = Field(None, alias="AUTH0_AUTHORIZE_URL")
    auth0_token_url: str | None = Field(None, alias="AUTH0_ACCESS_TOKEN_URL")
    auth0_client_kwargs: dict[str, Any] = Field({}, alias="AUTH0_CLIENT_KWARGS")
    management_client_id: str = Field("", alias="AUTH0_MANAGEMENT_CLIENT_ID")
    management_client_secret: SecretStr = Field(
        SecretStr(""), alias="AUTH0_MANAGEMENT_CLIENT_SECRET"
    )
    management_domain: str = Field("", alias="AUTH0_MANAGEMENT_DOMAIN")

    db_bucket: str = Field("", alias="S3_db_bucket")
    external_auspice_bucket: str = Field(alias="S3_external_auspice_bucket")

    @field_validator("auspice_mac_key")
    @classmethod
    def _decodes(cls, value: SecretStr) -> SecretStr:
        try:
            key = base64.urlsafe_b64decode(value.get_secret_value())
        except (ValueError, binascii.Error) as error:
            raise ValueError("not URL-safe base64") from error
        if not key:
            raise ValueError("the key is empty")
        return value

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Load the settings of this process; the environment takes precedence over the secret.

        If ``GENEPI_CONFIG_SECRET_NAME`` is set to an empty value, no secret is read.

        Raises:
            SettingsError: The secret cannot be read, or a setting is missing or invalid.
        """
        given = os.environ if environment is None else environment
        secret = given.get("GENEPI_CONFIG_SECRET_NAME", "genepi-config")
        values = {**(_read_secret(secret, given) if secret else {}), **_present(given)}
        kwargs = values.get("AUTH0_CLIENT_KWARGS")
        try:
            if isinstance(kwargs, str):
                values["AUTH0_CLIENT_KWARGS"] = json.loads(kwargs)
            return cls.model_validate(values)
        except (ValidationError, json.JSONDecodeError) as error:
            raise SettingsError(_explain(error, secret)) from error

    @cached_property
    def database_url(self) -> URL:
        """Return the URL of the database with this program's driver."""
        given = self.given_dsn or self.given_uri
        if given:
            return make_url(given.get_secret_value()).set(drivername=DRIVER)
        if not (self.db_address and self.db_username and self.db_password):
            raise SettingsError(
                "no database configured; set DB_DSN, or DB_address, DB_rw_username,"
                " and DB_rw_password"
            )
        host, _, port = self.db_address.partition(":")
        return URL.create(
            DRIVER,
            username=self.db_username,
            password=self.db_password.get_secret_value(),
            host=host,
            port=int(port) if port else None,
            database=self.stack_prefix.strip("/") or "aspen_db",
        )

    @property
    def access_key(self) -> AccessKey | None:
        """Return the explicit AWS credentials; None to use the default credential chain."""
        if not (self.aws_access_key_id and self.aws_secret_access_key):
            return None
        token = self.aws_session_token.get_secret_value() if self.aws_session_token else None
        return AccessKey(
            self.aws_access_key_id, self.aws_secret_access_key.get_secret_value(), token
        )

    @property
    def auth0_url(self) -> str:
        """Return the URL of the identity provider, without a trailing slash."""
        return provider_url(self.auth0_domain)

    @property
    def management(self) -> Credentials:
        """Return the credentials for the provider's Management API; empty if there are none."""
        return Credentials(
            provider_url(self.management_domain),
            self.management_client_id,
            self.management_client_secret.get_secret_value(),
            self.auth0_client_id,
        )

    @property
    def mac_key(self) -> bytes:
        """Return the key that signs magic links."""
        return base64.urlsafe_b64decode(self.auspice_mac_key.get_secret_value())

    @property
    def parameters_path(self) -> str:
        """Return the path of the deployment's parameters in AWS SSM, with a trailing slash."""
        stack = self.stack_prefix or f"/{self.deployment_stage}stack"
        return f"/genepi/{self.deployment_stage}{stack}/"

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """Return the origins whose scripts may read responses."""
        return (*_GALAGO, self.frontend_url.rstrip("/"))


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are not empty; an empty one counts as missing."""
    return {name: value for name, value in values.items() if value}


def _read_secret(name: str, environment: Mapping[str, str]) -> dict[str, Any]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client = make_client(
            "secretsmanager",
            environment.get("AWS_REGION") or "us-west-2",
            environment.get("BOTO_ENDPOINT_URL") or None,
            _access_key(environment),
        )
        document = json.loads(client.get_secret_value(SecretId=name)["SecretString"])
    except (BotoCoreError, ClientError) as error:
        raise SettingsError(f"cannot read the secret {name}: {error}") from error
    except (ValueError, KeyError) as error:
        raise SettingsError(f"the secret {name} is not valid JSON") from error
    if not isinstance(document, dict):
        raise SettingsError(f"the secret {name} is not a JSON object")
    return _present(document)


def _access_key(environment: Mapping[str, str]) -> AccessKey | None:
    key, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    return AccessKey(key, secret, environment.get("AWS_SESSION_TOKEN")) if key and secret else None


def _explain(error: ValidationError | json.JSONDecodeError, secret: str) -> str:
    where = f"the environment or the secret {secret}" if secret else "the environment"
    if isinstance(error, json.JSONDecodeError):
        return f"AUTH0_CLIENT_KWARGS is not a JSON object (looked in {where})"
    found = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    return f"missing or invalid settings in {where}: {found}"
