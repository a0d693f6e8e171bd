"""The guides, compared with the output of their commands."""

from __future__ import annotations

from pathlib import Path

from aspen.database.engine import Database
from tests.conftest import cli_environment
from tests.guides.session import PROFILING, replayed, steady


def test_profiling_guide_matches_command_output(
    roles: Database, aspen_home: Path, tmp_path: Path
) -> None:
    work, text = tmp_path / "work", PROFILING.read_text(encoding="utf-8")
    work.mkdir()
    environment = {"ASPEN_HOME": str(aspen_home), **cli_environment(roles)}
    assert steady(replayed(text, work, environment)) == steady(text), "make guides writes it anew"
