"""The running identity provider for the tests in this folder."""

from __future__ import annotations

from tests.local.auth0.fixtures import identity, identity_process

__all__ = ["identity", "identity_process"]
