"""A database with the test groups, and the AWS emulator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aspen.database.engine import Database
from tests.api.conftest import Cloud, running_cloud
from tests.workflows.sub.lab import Lab, use_short_genomes


@pytest.fixture(autouse=True)
def _has_extra() -> None:
    for name in ("numpy", "yaml"):
        pytest.importorskip(name, reason="the extra 'workflows' is not installed")


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    with running_cloud([]) as cloud:
        yield cloud


@pytest.fixture
def whole_lab(
    seeded: Database, cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Lab:
    """Return a lab with genomes of the usual length."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", cloud.credentials.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", cloud.credentials.secret)
    return Lab(seeded, cloud, tmp_path / f"job {tmp_path.name}")


@pytest.fixture
def lab(whole_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Return a lab with short genomes."""
    use_short_genomes(monkeypatch)
    return whole_lab
