"""The deployment whose screens are compared with the pictures and the README."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.screens.scenes import Stage, stage


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.getbasetemp().parent / "whole.lock") as running:
        yield running
