"""A fixture with the whole service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aspen.database.engine import Database
from tests.api.conftest import (
    Api,
    ApiFactory,
    Cloud,
    _cloud,
    aws,
    make_api,
    provider,
)
from tests.contract.site import UNLIMITED, surroundings
from tests.local.auth0.lab import running_identity

__all__ = ["_cloud", "aws", "make_api", "provider"]


@pytest.fixture
def whole(make_api: ApiFactory, roles: Database, aws: Cloud, tmp_path: Path) -> Iterator[Api]:
    """Yield the service with every role, a provider without limits, and AWS."""
    with running_identity(tmp_path / "identity", *UNLIMITED) as identity:
        yield make_api(roles, **surroundings(roles, identity, aws))
