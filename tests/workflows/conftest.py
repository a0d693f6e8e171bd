"""Fixtures for the steps of jobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aspen.local.aws.content import standard_content
from tests.local.test_aws import AROUND, StandIn, running


@pytest.fixture(scope="session")
def aws_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    """Yield an AWS emulator with the service's buckets."""
    folder = tmp_path_factory.mktemp("aws")
    standard_content(folder, AROUND).write(folder)
    with running(folder) as emulator:
        yield emulator


@pytest.fixture
def aws(aws_emulator: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Return the emulator, with its access key in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", aws_emulator.credentials.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", aws_emulator.credentials.secret)
    return aws_emulator


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the only folder on the PATH, which is empty."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder
