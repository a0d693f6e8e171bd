"""Fixtures shared by the tests of recorders and hooks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine


@pytest.fixture
def engine(empty_db: str) -> Iterator[Engine]:
    engine = sa.create_engine(empty_db)
    yield engine
    engine.dispose()
