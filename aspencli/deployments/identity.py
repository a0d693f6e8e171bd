"""The credentials for the Management API of a deployment's identity provider."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from aspencli.config import Target

if TYPE_CHECKING:
    from aspen.identity.management import Credentials
    from aspencli.deployments.aws import Aws

NAMES = tuple(f"AUTH0_MANAGEMENT_{word}" for word in ("DOMAIN", "CLIENT_ID", "CLIENT_SECRET"))
"""The names of the credentials, in the environment and in the secret."""
_LOGIN = "AUTH0_CLIENT_ID"


def management_source(target: Target) -> str | None:
    """Return where the credentials come from, or None if nothing says; nothing is read.

    It is ``environment`` or ``secret``, followed by names. The secret may still lack them.
    """
    if not unset_variables() and os.environ.get(NAMES[0], "").strip():
        return f"environment {', '.join(NAMES)}"
    return f"secret {target.secret_name}" if target.secret_name else None


def unset_variables() -> list[str]:
    """Return the variables that are not set although others are: then none of them is used."""
    unset = [name for name in NAMES if not os.environ.get(name, "").strip()]
    return [] if len(unset) == len(NAMES) else unset


def management_credentials(target: Target, aws: Aws) -> Credentials:
    """Return the credentials from the environment or the secret; incomplete if there are none.

    Raises:
        AspenError: The secret cannot be read.
    """
    from aspen.identity.management import Credentials, provider_url  # it imports httpx

    given = [os.environ.get(name, "").strip() for name in NAMES]
    if all(given):
        login = target.auth_client_id or os.environ.get(_LOGIN, "")
    elif target.secret_name is None:
        return Credentials("", "", "", "")
    else:
        given = [(aws.secret.get(name) or "").strip() for name in NAMES]
        login = aws.secret.get(_LOGIN) or target.auth_client_id or ""
    domain, client_id, secret = given
    return Credentials(provider_url(domain), client_id, secret, login)
