"""Settings: where each value comes from, and what a config file may not contain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aspencli import files
from aspencli.cli.main import run
from aspencli.config import Config, Safety
from aspencli.errors import BadInputError

if TYPE_CHECKING:
    from tests.conftest import CliRunner

Configured = Callable[..., Config]


@pytest.fixture
def configured(tmp_path: Path) -> Configured:
    """Return a function that builds settings from a config file's text, flags, and variables."""

    def make(
        text: str = "",
        *,
        flags: dict[str, str | None] | None = None,
        environ: dict[str, str] | None = None,
    ) -> Config:
        path = tmp_path / "config.toml"
        path.write_text(text)
        return Config(flags or {}, {"ASPEN_CONFIG": str(path), **(environ or {})})

    return make


# Precedence


@pytest.mark.parametrize(
    ("name", "variable", "option", "default"),
    [
        ("env", "ASPEN_ENV", "--env", "local"),
        ("stack", "ASPEN_STACK", "--stack", None),
        ("api", "ASPEN_API", "--api", None),
        ("org", "CZGE_ORG", "--org", None),
        ("pathogen_slug", "CZGE_PATHOGEN", "--pathogen-slug", "SC2"),
    ],
)
def test_setting_precedence_is_flag_variable_file_default(
    configured: Configured, name: str, variable: str, option: str, default: str | None
) -> None:
    text = f'[defaults]\n{name} = "filed"\n'
    flags, environ = {name: "flagged"}, {variable: "environed"}
    found = configured(text, flags=flags, environ=environ).setting(name)
    assert (found.value, found.source) == ("flagged", f"flag {option}")
    found = configured(text, environ=environ).setting(name)
    assert (found.value, found.source) == ("environed", f"environment {variable}")
    config = configured(text)
    found = config.setting(name)
    assert (found.value, found.source) == ("filed", f"config {config.path}")
    found = configured().setting(name)
    assert (found.value, found.source) == (default, "default")


def test_account_precedence_is_flag_variable_and_file_may_not_set_it(
    configured: Configured,
) -> None:
    environ = {"ASPEN_ACCOUNT": "environed"}
    found = configured(flags={"account": "flagged"}, environ=environ).setting("account")
    assert (found.value, found.source) == ("flagged", "flag --account")
    found = configured(environ=environ).setting("account")
    assert (found.value, found.source) == ("environed", "environment ASPEN_ACCOUNT")
    with pytest.raises(BadInputError, match=r"Unknown key .*defaults\.account"):
        configured('[defaults]\naccount = "filed"\n').setting("account")


def test_empty_environment_variable_counts_as_unset(configured: Configured) -> None:
    assert configured(environ={"ASPEN_ENV": ""}).value("env") == "local"


def test_number_in_config_file_is_read_as_text(configured: Configured) -> None:
    assert configured("[defaults]\norg = 3\n").value("org") == "3"


@pytest.mark.parametrize("where", ["flag", "environment", "file"])
def test_unknown_output_format_is_refused_from_any_source(
    configured: Configured, where: str
) -> None:
    config = configured(
        '[defaults]\noutput = "xml"\n' if where == "file" else "",
        flags={"output": "xml"} if where == "flag" else {},
        environ={"ASPEN_OUTPUT": "xml"} if where == "environment" else {},
    )
    with pytest.raises(BadInputError, match=r"Invalid value for \S.*: 'xml' \(choose") as caught:
        config.value("output")
    named = {"flag": "--output:", "environment": "ASPEN_OUTPUT:", "file": "output in "}
    assert f"for {named[where]}" in caught.value.message
    assert "jsonl" in caught.value.message


def test_config_file_is_read_from_aspen_home(aspen_home: Path, run_cli: CliRunner) -> None:
    path = aspen_home / "config" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text('[defaults]\norg = "7"\n')
    result = run_cli("config", "show", "-o", "tsv")
    assert f"org\t7\tconfig {path}\n" in result.out
    assert f"config_file\t{path}\tread\n" in result.out


# Targets


def test_four_targets_are_built_in(configured: Configured) -> None:
    targets = configured().targets
    assert {name: target.safety for name, target in targets.items()} == {
        "local": Safety.LOCAL,
        "rdev": Safety.SHARED,
        "staging": Safety.SHARED,
        "prod": Safety.PRODUCTION,
    }


def test_config_file_can_redefine_target(configured: Configured) -> None:
    text = '[targets.staging]\ndatabase_url = "postgresql://db.example.org/aspen_db"\n'
    target = configured(text, flags={"env": "staging"}).target
    assert target.database_url == "postgresql://db.example.org/aspen_db"
    assert target.secret_name == "gestaging/genepi-config"
    assert target.safety is Safety.SHARED


def test_config_file_can_add_target(configured: Configured) -> None:
    text = '[targets.demo]\nsafety = "shared"\napi_url = "https://demo.example.org/"\n'
    target = configured(text, flags={"env": "demo"}).target
    assert (target.label, target.safety) == ("demo", Safety.SHARED)
    assert target.api_url == "https://demo.example.org"


def test_target_without_safety_counts_as_production(configured: Configured) -> None:
    text = '[targets.demo]\napi_url = "https://demo.example.org"\n'
    assert configured(text, flags={"env": "demo"}).target.is_production


@pytest.mark.parametrize(
    ("name", "word"), [("prod", "shared"), ("prod", "local"), ("staging", "local")]
)
def test_target_safety_cannot_be_lowered(configured: Configured, name: str, word: str) -> None:
    config = configured(f'[targets.{name}]\nsafety = "{word}"\n', flags={"env": name})
    with pytest.raises(BadInputError, match="lowers the safety"):
        _ = config.target


def test_target_safety_can_be_raised(configured: Configured) -> None:
    config = configured('[targets.staging]\nsafety = "production"\n', flags={"env": "staging"})
    assert config.target.is_production


def test_unknown_target_safety_is_refused(configured: Configured) -> None:
    with pytest.raises(BadInputError) as caught:
        _ = configured('[targets.demo]\nsafety = "none"\n', flags={"env": "demo"}).target
    assert "local, shared, production" in str(caught.value.hint)


def test_production_cannot_be_default_target(configured: Configured) -> None:
    with pytest.raises(BadInputError, match="sets prod as the default"):
        _ = configured('[defaults]\nenv = "prod"\n').target
    assert configured('[defaults]\nenv = "prod"\n', flags={"env": "local"}).target.name == "local"
    assert configured('[defaults]\nenv = "staging"\n').target.name == "staging"
    assert configured(flags={"env": "prod"}).target.is_production


def test_added_production_target_cannot_be_default_target(configured: Configured) -> None:
    text = '[defaults]\nenv = "live"\n[targets.live]\napi_url = "https://live.example.org"\n'
    with pytest.raises(BadInputError, match="sets live as the default"):
        _ = configured(text).target


def test_environment_variable_overrides_database_url(configured: Configured) -> None:
    text = '[targets.my-lab]\nsafety = "local"\ndatabase_url = "postgresql://filed/db"\n'
    environ = {"ASPEN_DATABASE_URL_MY_LAB": "postgresql://environed/db"}
    config = configured(text, flags={"env": "my-lab"}, environ=environ)
    assert config.target.database_url == "postgresql://environed/db"
    assert configured(text, flags={"env": "my-lab"}).target.database_url == "postgresql://filed/db"


def test_api_flag_overrides_api_url(configured: Configured) -> None:
    config = configured(flags={"env": "prod", "api": "http://localhost:8000/"})
    assert config.target.api_url == "http://localhost:8000"


def test_stack_flag_is_required_for_rdev_and_refused_elsewhere(configured: Configured) -> None:
    with pytest.raises(BadInputError, match="requires a stack"):
        _ = configured(flags={"env": "rdev"}).target
    assert configured(flags={"env": "rdev", "stack": "mine"}).target.label == "rdev/mine"
    with pytest.raises(BadInputError, match="--stack is valid only with --env rdev"):
        _ = configured(flags={"env": "staging", "stack": "mine"}).target
    # A stack set permanently has no effect on other targets.
    environ = {"ASPEN_STACK": "mine"}
    assert configured(flags={"env": "staging"}, environ=environ).target.stack is None


def test_unknown_target_gets_suggestion(configured: Configured) -> None:
    with pytest.raises(BadInputError, match=r"Unknown target: 'stagin' \(from --env\)") as caught:
        _ = configured(flags={"env": "stagin"}).target
    assert "Did you mean staging?" in str(caught.value.hint)


# Safety depends on the address


@pytest.mark.parametrize(
    "address",
    [
        "https://api.czgenepi.org",
        "HTTPS://API.CZGENEPI.ORG/",
        "https://api.czgenepi.org:443",
        "http://api.czgenepi.org",
        "http://api.czgenepi.org:80/",
        "https://api.czgenepi.org./v2",
        "https://me@api.czgenepi.org",
        "https://api%2Eczgenepi.org",
        "https://\uff41pi.czgenepi.org",
        " https://api.czgenepi.org",
    ],
)
@pytest.mark.parametrize("name", ["local", "staging", "rdev"])
def test_any_spelling_of_production_api_counts_as_production(
    configured: Configured, address: str, name: str
) -> None:
    flags = {"env": name, "stack": "mine" if name == "rdev" else None}
    given: list[dict[str, Any]] = [
        {"flags": {**flags, "api": address}},
        {"flags": flags, "environ": {"ASPEN_API": address}},
        {"text": f'[targets.{name}]\napi_url = "{address}"\n', "flags": flags},
        {"flags": flags, "environ": {f"ASPEN_API_URL_{name.upper()}": address}},
    ]
    for settings in given:
        target = configured(**settings).safest_target
        assert (target.is_production, target.belongs_to) == (True, "prod")
        assert target.confirmed_by == "prod"


@pytest.mark.parametrize(
    "address",
    [
        "https://api.other.czgenepi.org",
        "http://127.0.0.1:8000",
        "https://api.czgenepi.org:8443",
        "https://api.czgenepi.org.example.org",
    ],
)
def test_another_api_is_not_production(configured: Configured, address: str) -> None:
    found = configured(flags={"env": "local", "api": address}).safest_target
    assert (found.safety, found.belongs_to) == (Safety.LOCAL, None)


def test_builtin_production_address_stays_protected_after_move(configured: Configured) -> None:
    text = '[targets.prod]\napi_url = "https://prod.example.org"\n'
    for address in ("https://prod.example.org", "https://api.czgenepi.org"):
        found = configured(text, flags={"env": "local", "api": address}).safest_target
        assert found.belongs_to == "prod"


def test_api_address_of_any_stack_counts_as_shared(configured: Configured) -> None:
    text = '[targets.rdev]\napi_url = "https://{stack}-api.rdev.example.org"\n'
    address = "https://mine-api.rdev.example.org"
    found = configured(text, flags={"env": "local", "api": address}).safest_target
    assert (found.safety, found.belongs_to) == (Safety.SHARED, "rdev")


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:word@db.example.org/aspen_db",
        "postgres://other@DB.example.org.:5432/aspen_db?sslmode=require",
        "postgresql+psycopg2://me@10.0.0.1,db.example.org:5432/aspen_db",
        "postgresql://me@/aspen_db?host=db.example.org",
        "postgresql://me@/aspen_db?host=one.example.org:1&host=db.example.org:5432",
        "postgresql://me@nowhere.example.org/aspen_db?host=db.example.org",
        "postgresql://me@db.example.org/other?dbname=aspen_db",
        "postgresql://me@db.example.org/aspen%5Fdb",
        "host=db.example.org dbname='aspen_db'",
    ],
)
def test_any_spelling_of_production_database_counts_as_production(
    configured: Configured, address: str
) -> None:
    production = {"ASPEN_DATABASE_URL_PROD": "postgresql://me:word@db.example.org:5432/aspen_db"}
    environ = {**production, "ASPEN_DATABASE_URL_LOCAL": address}
    assert configured(environ=environ).safest_target.belongs_to == "prod"
    text = f'[targets.qa]\nsafety = "local"\ndatabase_url = "{address}"\n'
    found = configured(text, flags={"env": "qa"}, environ=production).safest_target
    assert found.belongs_to == "prod"


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me@db.example.org/other_db",
        "postgresql://me@db.example.org:5433/aspen_db",
        "postgresql://me@db2.example.org/aspen_db",
    ],
)
def test_another_database_is_not_production(configured: Configured, address: str) -> None:
    environ = {
        "ASPEN_DATABASE_URL_PROD": "postgresql://me@db.example.org/aspen_db",
        "ASPEN_DATABASE_URL_LOCAL": address,
    }
    assert configured(environ=environ).safest_target.belongs_to is None


# A file that cannot be used


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[default]\n", ": default (did you mean defaults?)", "Valid keys here: defaults"),
        ('[defaults]\nenvv = "local"\n', "defaults.envv (did you mean env?)", "env, stack"),
        ('[targets.demo]\napi = "x"\n', "targets.demo.api (did you mean api_url?)", "safety"),
        ("[defaults]\norg = [1]\n", "defaults.org", "quotes"),
        ("[defaults\n", "not valid TOML", "Fix that line"),
        ("targets = 3\n", "targets in", r"[targets]"),
        ("[targets]\ndemo = 3\n", "targets.demo in", "[targets.demo]"),
    ],
)
def test_invalid_config_file_is_refused_with_hint(
    configured: Configured, text: str, message: str, hint: str
) -> None:
    with pytest.raises(BadInputError) as caught:
        configured(text).value("env")
    assert message in caught.value.message
    assert hint in str(caught.value.hint)


def test_config_file_not_in_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b'[defaults]\norg = "\xff"\n')
    with pytest.raises(BadInputError, match="not valid TOML"):
        Config({}, {"ASPEN_CONFIG": str(path)}).value("org")


def test_directory_as_config_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="Cannot read"):
        Config({}, {"ASPEN_CONFIG": str(tmp_path)}).value("org")


def test_invalid_config_file_exits_with_2(
    aspen_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = aspen_home / "config" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text("[defaults\n")
    assert run(["config", "show"]) == 2
    assert "not valid TOML" in capsys.readouterr().err


# Secrets


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:hunter2@db.example.org/aspen_db",
        "postgresql://me:hunter2@odd@db.example.org/aspen_db",
        "postgresql://me:hunter2?odd@db.example.org/aspen_db",
        "postgresql://db.example.org/aspen_db?user=me&password=hunter2",
        "postgresql://me@db.example.org/aspen_db?sslpassword=hunter2&sslmode=require",
        "host=db.example.org user=me password=hunter2",
        "hunter2",
    ],
)
@pytest.mark.parametrize("form", ["table", "json"])
def test_config_show_masks_passwords(
    address: str, form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ASPEN_DATABASE_URL_LOCAL", address)
    assert run(["config", "show", "-o", form]) == 0
    out, err = capsys.readouterr()
    assert "hunter2" not in out + err
    assert "***" in out


def test_config_show_prints_address_without_password_in_full(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    address = "postgresql://me@db.example.org:5433/aspen_db?sslmode=require"
    monkeypatch.setenv("ASPEN_DATABASE_URL_LOCAL", address)
    run(["config", "show", "-o", "tsv"])
    assert address in capsys.readouterr().out


def test_a_setting_is_shown_whole_with_its_source(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"postgresql://me@{'db' * 60}.example.org:5433/aspen_db?sslmode=require"
    monkeypatch.setenv("ASPEN_DATABASE_URL_LOCAL", address)
    assert run(["config", "show", "-o", "table", "--org", "3"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["database_url", f"{address} (environment ASPEN_DATABASE_URL_LOCAL)"] in lines
    assert ["org", "3 (flag --org)"] in lines
    assert ["stack", "not set (default)"] in lines


def test_target_repr_omits_password(configured: Configured) -> None:
    environ = {"ASPEN_DATABASE_URL_LOCAL": "postgresql://me:hunter2@db/aspen_db"}
    config = configured(environ=environ)
    assert "hunter2" not in repr(config.target)
    assert "hunter2" not in str(config.targets)


# Signing in


def test_sign_in_settings_come_from_file_and_environment(configured: Configured) -> None:
    text = '[targets.staging]\nauth_url = "https://a.example.org"\nauth_client_id = "from-file"\n'
    environ = {"ASPEN_AUTH_CLIENT_ID_STAGING": "from-environment"}
    target = configured(text, flags={"env": "staging"}, environ=environ).target
    assert (target.auth_url, target.auth_client_id) == ("https://a.example.org", "from-environment")
    assert target.auth_audience is None


def test_stack_placeholder_in_api_url_is_filled_in(configured: Configured) -> None:
    text = '[targets.rdev]\napi_url = "https://{stack}-api.rdev.example.org/"\n'
    target = configured(text, flags={"env": "rdev", "stack": "mine"}).target
    assert target.api_url == "https://mine-api.rdev.example.org"


def test_config_file_named_by_variable_must_exist(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="does not exist"):
        Config({}, {"ASPEN_CONFIG": str(tmp_path / "missing.toml")}).value("org")


@pytest.mark.parametrize("path", ["~no-such-user/config.toml", "/dev/zero"])
def test_invalid_config_path_is_refused(path: str) -> None:
    with pytest.raises(BadInputError):
        Config({}, {"ASPEN_CONFIG": path}).value("org")


def test_aspen_home_of_unknown_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASPEN_HOME", "~no-such-user/aspen")
    with pytest.raises(BadInputError, match="~no-such-user"):
        files.state_dir()


@pytest.mark.parametrize(
    "text",
    [
        '[targets.mine.api_url]\nx = "y"',
        "[targets.mine]\napi_url = true",
        "[defaults.output]\nkind = 1",
        "[defaults]\norg = false",
    ],
)
def test_table_or_boolean_as_config_value_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(BadInputError, match="must be a string"):
        Config({}, {"ASPEN_CONFIG": str(path)}).value("org")
