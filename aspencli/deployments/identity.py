"""The credentials for the Management API of a deployment's identity provider."""

from __future__ import annotations

import os

from aspen.identity.management import Credentials, provider_url
from aspencli.config import Target
from aspencli.deployments.aws import Aws

_NAMES = tuple(f"AUTH0_MANAGEMENT_{word}" for word in ("DOMAIN", "CLIENT_ID", "CLIENT_SECRET"))
_LOGIN = "AUTH0_CLIENT_ID"


def management_credentials(target: Target, aws: Aws) -> Credentials:
    """Return the credentials from the environment or the secret; incomplete if there are none.

    Raises:
        AspenError: The secret cannot be read.
    """
    given = [os.environ.get(name, "") for name in _NAMES]
    if all(given):
        login = target.auth_client_id or os.environ.get(_LOGIN, "")
    elif target.secret_name is None:
        return Credentials("", "", "", "")
    else:
        given = [aws.secret.get(name) or "" for name in _NAMES]
        login = aws.secret.get(_LOGIN) or target.auth_client_id or ""
    domain, client_id, secret = given
    return Credentials(provider_url(domain), client_id, secret, login)
