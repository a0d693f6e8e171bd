"""`config get`, `config set`, and `config unset`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CliRunner

FILE = """\
# Settings of the night shift.
[defaults]
output = 'json'   # for jq
env = "staging"
# org = "1"

# Our own deployment.
[targets.mylab]
  safety = "shared" # ours
way = "direct"

# A copy.
[targets."my lab.2"]
safety = "local"

[queries]
long = '''
SELECT 1
[defaults]
output = "x"
'''
"""


@pytest.fixture
def path(aspen_home: Path) -> Path:
    """Return the config file, with some settings."""
    path = aspen_home / "config" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(FILE)
    return path


@pytest.mark.parametrize(
    ("name", "value", "old", "new"),
    [
        ("output", "csv", "output = 'json'   # for jq", 'output = "csv"   # for jq'),
        ("org", "7", 'env = "staging"\n', 'env = "staging"\norg = "7"\n'),
        (
            "targets.mylab.safety",
            "local",
            '  safety = "shared" # ours',
            '  safety = "local" # ours',
        ),
        ("targets.mylab.bastion", "jump", 'way = "direct"\n', 'way = "direct"\nbastion = "jump"\n'),
        ("targets.my lab.2.way", "ssh", 'safety = "local"\n', 'safety = "local"\nway = "ssh"\n'),
        ("targets.qa.safety", "shared", FILE, FILE + '\n[targets.qa]\nsafety = "shared"\n'),
        ("queries.long", "SELECT 2", FILE[FILE.index("long") :], 'long = "SELECT 2"\n'),
        ("queries.n", 'SELECT "a"', "[queries]\n", "[queries]\n"),
    ],
)
def test_set_changes_one_line_and_keeps_the_rest(
    run_cli: CliRunner, path: Path, name: str, value: str, old: str, new: str
) -> None:
    done = run_cli("config", "set", name, value)
    assert (done.code, done.out) == (0, "")
    assert f"Set {name} in {path}" in done.err
    if name != "queries.n":
        assert path.read_text() == FILE.replace(old, new, 1)
    else:
        assert path.read_text() == FILE + 'n = "SELECT \\"a\\""\n'
    assert run_cli("config", "get", name).out == f"{value}\n"
    again = run_cli("config", "set", name, value)
    assert (again.code, "Nothing to change" in again.err) == (0, True)


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("output", "output = 'json'   # for jq\n"),
        ("targets.mylab.way", 'way = "direct"\n'),
        ("targets.mylab", '[targets.mylab]\n  safety = "shared" # ours\nway = "direct"\n\n'),
        ("targets.my lab.2", '[targets."my lab.2"]\nsafety = "local"\n\n'),
    ],
)
def test_unset_removes_only_what_is_named(
    run_cli: CliRunner, path: Path, name: str, gone: str
) -> None:
    assert run_cli("config", "unset", name).code == 0
    assert path.read_text() == FILE.replace(gone, "", 1)
    again = run_cli("config", "unset", name)
    assert again.code == (2 if name.endswith(".2") else 6)  # the dot is in the name of a target


def test_first_setting_creates_private_file(run_cli: CliRunner, aspen_home: Path) -> None:
    assert run_cli("config", "set", "output", "json").code == 0
    path = aspen_home / "config" / "config.toml"
    assert path.read_text() == '[defaults]\noutput = "json"\n'
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("outptu json", 2, "Unknown setting: outptu (did you mean output?)"),
        ("output xml", 2, "Invalid value for output: 'xml' (choose table, json"),
        ("targets.mylab.wya ssh", 2, "Unknown setting: targets.mylab.wya (did you mean way?)"),
        ("targets.mylab.way boat", 2, "choose direct, ssh, ssm, command"),
        ("targets.mylab x", 2, "targets.mylab is not one setting."),
        ("targets.mylab.safety none", 2, "Choose one of: local, shared, production."),
        ("targets.staging.safety local", 2, "lowers the safety of staging"),
        ("targets.MyLab.way ssh", 2, "looks like 'mylab'"),
        ("targets.mylab.api_url ftp://x", 2, "Invalid URL for targets.mylab.api_url"),
        ("targets.mylab.database_url mysql://x", 2, "Invalid database URL"),
        ("env prod", 2, "Production cannot be the default target"),
        ("env nowhere", 2, "Unknown target: 'nowhere'"),
        ("stack -x-", 2, "Invalid stack name"),
        ("account me", 2, "Unknown setting: account"),
        ("targets.mylab.database_url postgresql://u:secret@h/d", 3, "contains a password"),
        ("targets.mylab.database_url postgresql://u@h/d?password=secret", 3, "contains a password"),
        ("api https://u:secret@h", 3, "contains a password"),
    ],
)
def test_invalid_setting_is_refused_and_nothing_is_written(
    run_cli: CliRunner, path: Path, words: str, code: int, message: str
) -> None:
    name, value = words.split()
    done = run_cli("config", "set", "--", name, value)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert "u:secret" not in done.err
    assert path.read_text() == FILE


def test_default_target_cannot_be_removed_or_made_production(
    run_cli: CliRunner, path: Path
) -> None:
    assert run_cli("config", "set", "env", "mylab").code == 0
    for words in ("unset targets.mylab", "unset targets.mylab.safety"):
        done = run_cli("config", *words.split())
        assert done.code == 2
        assert "default target" in done.err
    assert "[targets.mylab]" in path.read_text()


@pytest.mark.parametrize(
    "text",
    [
        'defaults.env = "staging"\n',
        'defaults = { env = "staging" }\n',
    ],
)
def test_file_in_unusual_form_is_refused_unchanged(
    run_cli: CliRunner, path: Path, text: str
) -> None:
    path.write_text(text)
    done = run_cli("config", "set", "org", "7")
    assert done.code == 1
    assert "Edit the file by hand." in done.err
    assert path.read_text() == text


def test_file_that_is_not_valid_is_refused_unchanged(run_cli: CliRunner, path: Path) -> None:
    path.write_text("[defaults\n")
    done = run_cli("config", "set", "org", "7")
    assert (done.code, "is not valid TOML" in done.err) == (2, True)
    assert path.read_text() == "[defaults\n"


def test_mode_line_ends_and_link_are_kept(run_cli: CliRunner, path: Path, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.toml"
    real.write_bytes(b'[defaults]\r\norg = "1"\r\n')
    real.chmod(0o644)
    path.unlink()
    path.symlink_to(real)
    assert run_cli("config", "set", "output", "json").code == 0
    assert real.read_bytes() == b'[defaults]\r\norg = "1"\r\noutput = "json"\r\n'
    assert real.stat().st_mode & 0o777 == 0o644
    assert path.is_symlink()


def test_changes_at_the_same_time_are_all_kept(path: Path) -> None:
    names = [f"lab{number}" for number in range(12)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "aspencli", "config", "set", f"targets.{name}.safety", "shared"],
            stderr=subprocess.DEVNULL,
        )
        for name in names
    ]
    assert [process.wait() for process in processes] == [0] * len(names)
    text = path.read_text()
    assert text.startswith(FILE)
    assert all(f"[targets.{name}]" in text for name in names)


def test_get_shows_value_in_effect_and_its_source(run_cli: CliRunner, path: Path) -> None:
    def shown(name: str, env: dict[str, str] | None = None) -> list[dict[str, str]]:
        done = run_cli("config", "get", name, "--source", "-o", "json", env=env)
        found: list[dict[str, str]] = json.loads(done.out)
        return found

    assert run_cli("config", "get", "env").out == "staging\n"
    found = shown("env")
    assert found == [{"name": "env", "value": "staging", "source": f"config {path}"}]
    env = {"ASPEN_ENV": "local"}
    found = shown("env", env)
    assert found[0]["source"] == "environment ASPEN_ENV"
    done = run_cli("config", "set", "env", "rdev", env=env)
    assert "ASPEN_ENV is set, and takes precedence over the config file." in done.err
    found = shown("targets.prod.safety")
    assert found == [{"name": "targets.prod.safety", "value": "production", "source": "built-in"}]


def test_get_masks_password_and_exits_with_6_if_not_set(run_cli: CliRunner, path: Path) -> None:
    path.write_text('[targets.a]\ndatabase_url = "postgresql://u:secret@h/d"\n')
    done = run_cli("config", "get", "targets.a.database_url")
    assert done.out == "postgresql://u:***@h/d\n"
    done = run_cli("config", "get", "stack")
    assert (done.code, done.out) == (6, "")
    assert "stack is not set." in done.err
    for name in ("targets.nowhere.way", "nothing"):
        assert run_cli("config", "get", name).code == 2
