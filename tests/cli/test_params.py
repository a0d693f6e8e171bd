"""The choice between the database and the API for commands that support both."""

from __future__ import annotations

from pathlib import Path

import pytest

from aspencli.cli.context import AppContext
from aspencli.cli.params import Road, chosen_road, road_words
from aspencli.errors import BadInputError

LAB = '[targets.mylab]\nsafety = "shared"\n'
API = 'api_url = "https://api.example.org"\n'
DATABASE = 'database_url = "postgresql://me@db.example.org/aspen_db"\n'


@pytest.mark.parametrize(
    ("env", "text", "road"),
    [
        ("local", "", Road.DB),
        ("prod", "", Road.API),
        ("mylab", LAB + API, Road.API),
        ("mylab", LAB + API + DATABASE, Road.API),
        ("mylab", LAB + DATABASE, Road.DB),
        ("mylab", LAB, Road.API),
    ],
)
def test_local_goes_to_the_database_and_others_through_the_api(
    env: str, text: str, road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = _context(env, text, tmp_path, monkeypatch)
    assert chosen_road(context, None) is road
    for given in Road:
        assert chosen_road(context, given) is given


def test_what_is_set_counts_before_the_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = _context("local", '[defaults]\nvia = "api"\n', tmp_path, monkeypatch)
    assert chosen_road(context, None) is Road.API
    monkeypatch.setenv("ASPEN_VIA", "db")
    assert chosen_road(context, None) is Road.DB


def test_a_command_may_have_a_usual_road_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = _context("prod", "", tmp_path, monkeypatch)
    assert chosen_road(context, None, usual=Road.DB) is Road.DB
    assert chosen_road(context, Road.API, usual=Road.DB) is Road.API
    monkeypatch.setenv("ASPEN_VIA", "api")
    assert chosen_road(context, None, usual=Road.DB) is Road.API


def test_a_road_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASPEN_VIA", "sea")
    with pytest.raises(BadInputError, match="Invalid value for ASPEN_VIA: 'sea'"):
        chosen_road(_context("local", "", tmp_path, monkeypatch), None)


def test_the_road_is_told_with_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = _context("prod", "", tmp_path, monkeypatch)
    assert road_words(context, Road.API) == "Target: prod (API)"
    assert road_words(context, Road.DB) == "Target: prod (database)"


def _context(env: str, text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AppContext:
    path = folder / "config.toml"
    path.write_text(text)
    monkeypatch.setenv("ASPEN_CONFIG", str(path))
    context = AppContext()
    context.options.give("env", env)
    return context
