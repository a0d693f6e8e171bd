"""Fixtures for tests of the server for assistants: a real client, server, and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

pytest.importorskip("mcp", reason="the extra mcp is not installed")

from aspen.database.engine import Database
from tests.cli.assistant.lab import Assistant
from tests.conftest import cli_environment


@pytest.fixture
def assistant(seeded: Database, aspen_home: Path) -> Assistant:
    """Return an assistant whose server's target ``local`` is the seeded database."""
    return Assistant(cli_environment(seeded), aspen_home)


@pytest.fixture
def new_assistant(aspen_home: Path) -> Callable[[Mapping[str, str]], Assistant]:
    """Return a function that returns an assistant whose server has other variables."""
    return lambda variables: Assistant(variables, aspen_home)
