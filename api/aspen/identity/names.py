"""The names that the service and its scripts give things at the identity provider."""

from __future__ import annotations

import re

CONNECTION = "Username-Password-Authentication"
"""The connection that has the provider's own accounts."""
OWN_ACCOUNT = "auth0|"
"""The beginning of the IDs of the provider's own accounts; others come from elsewhere."""


def organization_name(prefix: str) -> str:
    """Return the name of the organization of a group with a prefix, such as ``group-czi``."""
    return "group-" + re.sub(r"[^a-z0-9]", "_", prefix.lower())
