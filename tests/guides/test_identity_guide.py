"""The guide to the identity provider: its commands run in their order, and its tables are right."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from aspen.database.engine import Database
from aspencli.cli.main import run
from aspencli.identity.comparison import Kind
from aspencli.identity.sync import PART_OF, Part
from tests.identity.population import population
from tests.identity.site import Site, running_provider

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "identity.md").read_text()
COMMANDS = [line.strip() for line in GUIDE.splitlines() if line.startswith("    aspen")]
DIFFERENT = 7


def _code(words: list[str]) -> int:
    return DIFFERENT if "diff" in words else 0


def test_commands_of_guide_work_in_their_order(
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with running_provider(tmp_path / "state") as identity:
        site = Site(identity, database)
        site.fill(population(60, 5, 3, seed=1))
        for name, value in site.environment.items():
            monkeypatch.setenv(name.replace("_LOCAL", "_STAGING"), value)
        for command in COMMANDS:
            words = shlex.split(command)[1:]
            code = run(words)
            shown = capsys.readouterr()
            assert code == _code(words), f"{command}\n{shown.err}"
            if "--dry-run" in words or "diff" in words:
                assert shown.out
        left = {kind for kind, _group, _person in site.unequal}
        assert left == {Kind.ORGANIZATION, Kind.UNKNOWN_ROLE}


def test_guide_shows_commands_of_both_directions() -> None:
    assert {word for line in COMMANDS for word in line.split()} >= {"db", "auth0", "sync_users"}


def test_table_of_kinds_is_complete() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| [^|]+ \| ([\w-]+) \|$", GUIDE, re.MULTILINE)
    assert [(Kind(kind), Part(part)) for kind, part in rows] == list(PART_OF.items())
