"""A running identity provider for the tests of this folder."""

from tests.local.auth0.fixtures import identity, identity_process

__all__ = ["identity", "identity_process"]
