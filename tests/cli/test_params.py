"""The choice between the database and the API for commands that support both."""

from __future__ import annotations

from pathlib import Path

import pytest

from aspencli.cli.context import AppContext, Backend
from aspencli.errors import BadInputError

LAB = '[targets.mylab]\nsafety = "shared"\n'
API = 'api_url = "https://api.example.org"\n'
DATABASE = 'database_url = "postgresql://me@db.example.org/aspen_db"\n'


@pytest.mark.parametrize(
    ("env", "text", "backend"),
    [
        ("local", "", Backend.DB),
        ("prod", "", Backend.API),
        ("mylab", LAB + API, Backend.API),
        ("mylab", LAB + API + DATABASE, Backend.API),
        ("mylab", LAB + DATABASE, Backend.DB),
        ("mylab", LAB, Backend.API),
    ],
)
def test_default_backend_is_database_locally_and_api_elsewhere(
    env: str, text: str, backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = _context(env, text, tmp_path, monkeypatch)
    assert context.choose_backend(None) is backend
    for given in Backend:
        assert context.choose_backend(given) is given


def test_via_setting_overrides_default_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = _context("local", '[defaults]\nvia = "api"\n', tmp_path, monkeypatch)
    assert context.choose_backend(None) is Backend.API
    monkeypatch.setenv("ASPEN_VIA", "db")
    assert context.choose_backend(None) is Backend.DB


def test_command_can_have_its_own_default_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = _context("prod", "", tmp_path, monkeypatch)
    assert context.choose_backend(None, usual=Backend.DB) is Backend.DB
    assert context.choose_backend(Backend.API, usual=Backend.DB) is Backend.API
    monkeypatch.setenv("ASPEN_VIA", "api")
    assert context.choose_backend(None, usual=Backend.DB) is Backend.API


def test_invalid_backend_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASPEN_VIA", "sea")
    with pytest.raises(BadInputError, match="Invalid value for ASPEN_VIA: 'sea'"):
        _context("local", "", tmp_path, monkeypatch).choose_backend(None)


def test_target_line_names_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = _context("prod", "", tmp_path, monkeypatch)
    assert context.describe_target(Backend.API) == "Target: prod (API)"
    assert context.describe_target(Backend.DB) == "Target: prod (database)"


def _context(env: str, text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AppContext:
    path = folder / "config.toml"
    path.write_text(text)
    monkeypatch.setenv("ASPEN_CONFIG", str(path))
    context = AppContext()
    context.options.give("env", env)
    return context
