"""A remote deployment, which all tests of a module share; each test has its own operator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployments.rig import Deployment, Servers, missing, operator, running


@pytest.fixture(scope="module")
def _servers(server_folder: Path) -> Iterator[Servers]:
    if reason := missing():
        pytest.skip(reason)
    with running(server_folder) as servers:
        yield servers


@pytest.fixture
def deployment(_servers: Servers, aspen_home: Path, tmp_path: Path) -> Deployment:
    """Return a deployment whose config file has nothing but where AWS is, and the CA."""
    return operator(_servers, tmp_path)
