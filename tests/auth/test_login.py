"""``auth login``: every way in which a sign-in on another device can go."""

from __future__ import annotations

import json
import os
import signal
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pexpect
import pytest

from aspen.local.auth0.store import Seed, User, seed
from tests import zygote
from tests.auth.clock import wrong_clock
from tests.local.auth0.lab import claims_of
from tests.remote.naughty import reply

if TYPE_CHECKING:
    from tests.auth.conftest import Lab
    from tests.remote.conftest import Serving

FAIL = {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
NULL = {"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"}


def _status(lab: Lab, **env: str) -> dict[str, Any]:
    result = lab.run("auth", "status", "-o", "json", env=env)
    assert result.code == 0, result.err
    (row,) = json.loads(result.out)
    return dict(row)


# Approved


@pytest.mark.parametrize("dialect", ["auth0", "rfc"])
def test_approved_login_is_saved_and_used(lab: Lab, dialect: str) -> None:
    lab.identity.turn(dialect=dialect)
    result = lab.login()
    assert (result.code, result.out) == (0, "")
    assert "/activate?user_code=" in result.err
    assert "Signed in to mylab as Member Example <member@example.org> (expires 20" in result.err
    assert "auto-renews)" in result.err
    status = _status(lab)
    assert status["state"] == "signed in"
    assert status["subject"] == "auth0|member"
    assert [(group["id"], group["roles"]) for group in status["groups"]] == [(1, ["member"])]
    assert status["stored"] == "keyring (testkeyring Keyring)"
    assert status["renewable"] is True
    assert status["api_url"] == lab.api_url
    assert len(lab.kept()) == 1


def test_status_table_shows_groups_with_roles(lab: Lab) -> None:
    lab.login("multi@example.org")
    shown = lab.run("auth", "status", "-o", "table").out
    assert "Redwood County Public Health Laboratory (member)" in shown
    assert "Bayside Department of Public Health (admin)" in shown


def test_login_with_debug_shows_no_tokens(lab: Lab) -> None:
    lab.identity.turn(interval=1)
    result = lab.login("member@example.org", "--debug")
    assert result.code == 0
    assert "eyJ" not in result.err + result.out
    for secret in _secrets(lab):
        assert secret not in result.err
    assert '"device_code": "***"' in result.err
    assert "POST" in result.err


def _secrets(lab: Lab) -> list[str]:
    (text,) = (value for key, value in lab.kept().items())
    kept = json.loads(text)["sign_in"]
    return [kept["id_token"], kept["refresh_token"]]


def test_login_continues_after_throttled_poll(lab: Lab) -> None:
    process = lab.start("auth", "login")
    lines = lab.until(process, "shows the code")
    lab.identity.turn(throttled=1, retry_after=1)
    lab.identity.decide(lines[-1].split()[-1], "member@example.org")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err


def test_login_waits_for_throttled_provider_at_start(lab: Lab) -> None:
    lab.identity.turn(throttled=1, retry_after=1)
    result = lab.login()
    assert result.code == 0
    assert "HTTP 429; retrying in 1 s" in result.err


def test_login_obeys_slow_down(lab: Lab) -> None:
    lab.identity.turn(slow_down=1)
    assert lab.login().code == 0


# Not approved


def test_denied_login_exits_with_4(lab: Lab) -> None:
    result = lab.login(approve=False)
    assert result.code == 4
    assert "The sign-in was denied on the other device" in result.err
    assert lab.kept() == {}


@pytest.mark.parametrize("dialect", ["auth0", "rfc"])
def test_login_with_expired_code_exits_with_4(lab: Lab, dialect: str) -> None:
    lab.identity.turn(device_seconds=3, interval=2, dialect=dialect)
    result = lab.run("auth", "login")
    assert result.code == 4
    assert "expired" in result.err
    assert lab.kept() == {}


def test_ctrl_c_during_login_exits_with_130_and_saves_nothing(lab: Lab) -> None:
    process = lab.start("auth", "login")
    lab.until(process, "shows the code")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Interrupted" in err
    assert "Traceback" not in err
    assert lab.kept() == {}


def test_login_with_unreachable_provider_exits_with_5(lab: Lab) -> None:
    result = lab.run("auth", "login", env={"ASPEN_AUTH_URL_MYLAB": "http://127.0.0.1:9"})
    assert result.code == 5
    assert "Request to the mylab identity provider at http://127.0.0.1:9 failed" in result.err


def test_login_with_unknown_client_id_exits_with_4(lab: Lab) -> None:
    result = lab.run("auth", "login", env={"ASPEN_AUTH_CLIENT_ID_MYLAB": "nobody"})
    assert result.code == 4
    assert "Request rejected by" in result.err
    assert "Device Code" in result.err


def test_login_with_wrong_issuer_exits_with_4(lab: Lab) -> None:
    elsewhere = lab.identity.issuer.replace("127.0.0.1", "localhost")
    result = lab.run("auth", "login", env={"ASPEN_AUTH_URL_MYLAB": elsewhere})
    assert result.code == 4
    assert "Wrong issuer: " in result.err


def test_login_without_settings_asks_api_for_provider(lab: Lab) -> None:
    config = Path(lab.env["ASPEN_CONFIG"])
    config.write_text(f'[targets.mylab]\nsafety = "shared"\napi_url = "{lab.api_url}"\n')
    issuer = lab.identity.issuer.rstrip("/")
    result = lab.login()
    assert result.code == 0
    assert f"Sign-in page of the mylab API: {issuer}\n" in result.err
    result = lab.run("auth", "status", "-o", "json")
    assert result.code == 0
    assert json.loads(result.out)[0]["issuer"] == issuer
    assert "Sign-in page of" not in result.err  # it is remembered


def test_login_sends_oauth2_proxy_cookie_to_api(lab: Lab, serving: Serving) -> None:
    proxy = serving(reply(302, headers={"Location": "https://sso.example.org/oauth2/start"}))
    for given, sent in (
        ("abc|1|x", "_oauth2_proxy=abc|1|x"),
        ("YWJj==|1|x=", "_oauth2_proxy=YWJj==|1|x="),
        ("_oauth2_proxy_0=a; _oauth2_proxy_1=b", "_oauth2_proxy_0=a; _oauth2_proxy_1=b"),
    ):
        env = {"OAUTH2_PROXY_COOKIE": given, "ASPEN_ENV": "prod", "ASPEN_API_URL_PROD": proxy.url}
        result = lab.run("auth", "login", env=env)
        assert result.code == 4
        assert (
            "No identity provider is configured for prod, and its API does not name one"
            in result.err
        )
        assert "ASPEN_AUTH_URL_PROD" in result.err
        assert proxy.seen[-1].headers["cookie"] == sent
    bad = {**env, "OAUTH2_PROXY_COOKIE": "a\nb: c"}
    assert lab.run("auth", "login", env=bad).code == 2


def test_proxy_cookie_is_not_sent_to_unconfigured_address(lab: Lab, serving: Serving) -> None:
    stranger = serving(reply(404))
    env = {"OAUTH2_PROXY_COOKIE": "abc|1|x", "ASPEN_ENV": "prod"}
    result = lab.run("--api", stranger.url, "auth", "login", env=env)
    assert "OAUTH2_PROXY_COOKIE was not sent" in result.err
    assert stranger.seen
    assert not any("cookie" in seen.headers for seen in stranger.seen)


@pytest.mark.parametrize("key", ["api_url", "auth_url"])
def test_login_refuses_unencrypted_addresses(lab: Lab, key: str) -> None:
    text = Path(lab.env["ASPEN_CONFIG"]).read_text()
    lines = [
        f'{key} = "http://example.org"' if line.startswith(key) else line
        for line in text.splitlines()
    ]
    Path(lab.env["ASPEN_CONFIG"]).write_text("\n".join(lines))
    result = lab.run("auth", "login")
    assert result.code == 2
    server = {"api_url": "API", "auth_url": "identity provider"}[key]
    words = f"Refused to send tokens unencrypted to the mylab {server}: http://example.org"
    assert words in result.err


# Invalid tokens


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"signing": "wrong_key"}, "has an invalid signature (bad_signature)"),
        ({"signing": "unknown_key"}, "has an invalid signature (invalid_key_id)"),
        ({"issuer": "https://evil.example.org/"}, 'its iss is "https://evil.example.org/"'),
        ({"audience": "another-client"}, 'its aud is "another-client"'),
        ({"clock_offset": 7200}, "is not valid yet, although its clock and this machine's agree"),
        (
            {"clock_offset": -40_000},
            "has already expired, although its clock and this machine's agree",
        ),
    ],
)
def test_login_with_invalid_token_exits_with_4_and_saves_nothing(
    lab: Lab, knobs: dict[str, Any], words: str
) -> None:
    lab.identity.turn(**knobs)
    result = lab.login()
    assert result.code == 4
    assert words in result.err
    assert "Traceback" not in result.err
    assert lab.kept() == {}


@pytest.mark.parametrize(
    ("off", "words"),
    [
        (-7200, "is not valid yet: this machine's clock is 2.0 hours behind the clock of the"),
        (-300, "is not valid yet: this machine's clock is 5 minutes behind the clock of the"),
        (
            40_000,
            "has already expired: this machine's clock is 11.1 hours ahead of the clock of the",
        ),
    ],
)
def test_login_explains_wrong_local_clock(lab: Lab, off: int, words: str) -> None:
    result = lab.login(env=wrong_clock(lab, off))
    assert result.code == 4
    assert words in result.err
    assert "timedatectl" in result.err


def test_login_warns_of_harmless_clock_skew(lab: Lab) -> None:
    result = lab.login(env=wrong_clock(lab, 1200))
    assert result.code == 0
    assert "this machine's clock is 20 minutes ahead of the clock of" in result.err


# Users that only the provider knows


def test_login_of_user_unknown_to_api_exits_with_4(lab: Lab) -> None:
    seed(lab.identity.folder, Seed(users=[User("auth0|stranger", "stranger@example.org", "S.")]))
    result = lab.login("stranger@example.org")
    assert result.code == 4
    assert "Signed in to mylab as S. <stranger@example.org>" in result.err
    assert "Your sign-in was rejected by the mylab API" in result.err
    assert "(auth0|stranger), but the API may have no user with this ID" in result.err


def test_login_of_user_without_group_succeeds_and_says_so(lab: Lab) -> None:
    result = lab.login("nogroup@example.org")
    assert result.code == 0
    assert "Groups: none" in result.err


# Repeated sign-in


def test_login_when_already_signed_in_changes_nothing(lab: Lab) -> None:
    lab.login()
    before = lab.kept()
    result = lab.run("auth", "login")
    assert result.code == 0
    assert "Already signed in to mylab as Member Example" in result.err
    assert lab.kept() == before


def test_forced_login_as_different_user_revokes_old_sign_in(lab: Lab) -> None:
    lab.login()
    _, refresh_token = _secrets(lab)
    assert lab.login("viewer@example.org", "--force").code == 0
    assert _status(lab)["subject"] == "auth0|viewer"
    assert _refresh(lab, refresh_token).json()["error"] == "invalid_grant"


def _refresh(lab: Lab, refresh_token: str) -> httpx.Response:
    return lab.identity.token(grant_type="refresh_token", refresh_token=refresh_token)


# Storage


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        (FAIL, "Could not use the system keyring: none found"),
        (NULL, "a test value could not be read back"),
    ],
)
def test_missing_keyring_is_reported_before_login_starts(
    lab: Lab, backend: dict[str, str], words: str
) -> None:
    result = lab.run("auth", "login", env=backend)
    assert result.code == 4
    assert words in result.err
    assert "--store file" in result.err
    assert "ASPEN_TOKEN" in result.err
    assert lab.events("device.requested") == 0


def test_choice_of_file_store_is_remembered(lab: Lab) -> None:
    assert lab.login("member@example.org", "--store", "file", env=FAIL).code == 0
    status = _status(lab, **FAIL)
    path = Path(status["stored"].removeprefix("file "))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert lab.run("auth", "logout", env=FAIL).code == 0
    assert not path.exists()
    assert lab.login(env=FAIL).code == 0  # it is remembered
    assert Path(_status(lab, **FAIL)["stored"].removeprefix("file ")).parent == path.parent


def test_sign_in_file_readable_by_others_is_refused(lab: Lab) -> None:
    lab.login("member@example.org", "--store", "file")
    path = Path(_status(lab)["stored"].removeprefix("file "))
    path.chmod(0o644)
    result = lab.run("auth", "status")
    assert result.code == 4
    assert "is accessible to other users (mode 0644)" in result.err
    assert f"chmod 600 '{path}'" in result.err
    assert lab.run("auth", "logout", "--forget").code == 0
    assert not path.exists()


def test_login_with_store_moves_existing_sign_in(lab: Lab) -> None:
    lab.login()
    assert lab.run("auth", "login", "--store", "file").code == 0
    assert _status(lab)["stored"].startswith("file ")
    assert lab.kept() == {}


def _on_a_terminal(lab: Lab, *arguments: str, env: dict[str, str]) -> Any:
    surroundings = lab.environment(env)
    return zygote.at_terminal(
        arguments, env=surroundings, encoding="utf-8", timeout=120, dimensions=(40, 200)
    )


def test_login_asks_once_before_using_file_store(lab: Lab) -> None:
    child = _on_a_terminal(lab, "auth", "login", env=FAIL)
    child.expect("Store sign-ins in .* in files that only you can read")
    child.sendline("y")
    child.expect(r"shows the code (\S+)")
    lab.identity.decide(_plain(child.match), "member@example.org")
    child.expect("Signed in to mylab")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert lab.run("auth", "logout", env=FAIL).code == 0
    again = _on_a_terminal(lab, "auth", "login", env=FAIL)
    again.expect("shows the code")
    again.sendintr()
    again.expect(pexpect.EOF)
    again.close()


def test_declined_file_store_ends_login_with_4(lab: Lab) -> None:
    child = _on_a_terminal(lab, "auth", "login", env=FAIL)
    child.expect("Store sign-ins in .* in files")
    child.sendline("n")
    child.expect("Could not use the system keyring")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 4
    assert not list(lab.home.rglob("mylab-*.json"))


def _plain(match: Any) -> str:
    return str(match[1]).replace("\x1b[0m", "").strip()


# Automatic sign-in


def test_command_starts_login_on_terminal(lab: Lab) -> None:
    child = _on_a_terminal(lab, "auth", "token", env={})
    child.expect("[Yy]ou are not signed in to mylab. Signing in")
    child.expect(r"shows the code (\S+)")
    lab.identity.decide(_plain(child.match), "member@example.org")
    child.expect(r"Anyone who sees this token can act as you until")
    child.expect(r"(eyJ\S+)")
    assert claims_of(child.match[1])["sub"] == "auth0|member"
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_command_without_terminal_suggests_auth_login(lab: Lab) -> None:
    result = lab.run("auth", "token")
    assert (result.code, result.out) == (4, "")
    assert "You are not signed in to mylab" in result.err
    assert "Sign in: aspencli --env mylab auth login" in result.err


def test_suggested_login_command_repeats_given_options(lab: Lab) -> None:
    env = {
        "ASPEN_AUTH_URL_RDEV": lab.identity.issuer,
        "ASPEN_AUTH_CLIENT_ID_RDEV": "aspencli-local",
    }
    result = lab.run(
        *("--env", "rdev", "--stack", "my-stack", "--api", lab.api_url, "auth", "token"), env=env
    )
    assert result.code == 4
    wanted = f"aspencli --env rdev --stack my-stack --api {lab.api_url} auth login"
    assert wanted in result.err


def test_login_opens_browser_unless_disabled(lab: Lab, tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >> {opened}\necho noise\n')
    browser.chmod(0o755)
    assert lab.login(env={"BROWSER": str(browser)}).code == 0
    assert "/activate?user_code=" in opened.read_text()
    opened.unlink()
    result = lab.login(
        "member@example.org", "--force", "--no-browser", env={"BROWSER": str(browser)}
    )
    assert result.code == 0
    assert not opened.exists()
    assert "noise" not in result.out + result.err


def test_login_command_line_contains_no_secret(lab: Lab) -> None:
    process = lab.start("auth", "login")
    lab.until(process, "shows the code")
    command = Path(f"/proc/{process.pid}/cmdline")
    if command.exists():
        assert b"auth\0login" in command.read_bytes()
        assert b"device" not in command.read_bytes()
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 143
