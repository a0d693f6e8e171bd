"""Fixtures of a running identity provider, for any folder of tests.

Another folder's ``conftest.py`` imports them:
``from tests.local.auth0.fixtures import identity, identity_process``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.local.auth0.lab import Identity, running_identity


@pytest.fixture(scope="module")
def identity_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Identity]:
    """Yield one provider for the tests of a module."""
    folder = tmp_path_factory.mktemp("identity") / "state"
    # Tests send requests faster than any of Auth0's limits allows.
    with running_identity(folder, "--trial", "--burst", "10000") as running:
        yield running


@pytest.fixture
def identity(identity_process: Identity) -> Identity:
    """Return the module's provider, with every knob reset."""
    identity_process.reset()
    return identity_process
