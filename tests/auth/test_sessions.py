"""Staying signed in: renewal, tokens from outside, several targets, and signing out."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from tests.auth.conftest import Lab
from tests.local.auth0.lab import CLIENT, claims_of
from tests.remote.conftest import Serving
from tests.remote.naughty import reply_json


def _token(lab: Lab, **env: str | None) -> str:
    result = lab.run("auth", "token", env=env)
    assert result.code == 0, result.err
    return result.out.strip()


def _kept(lab: Lab) -> dict[str, Any]:
    (text,) = lab.kept().values()
    return dict(json.loads(text)["sign_in"])


def _make_it_lapse(lab: Lab) -> None:
    """Backdate the saved sign-in, as if hours had passed."""
    path = Path(lab.env["KEYRING_FILE"])
    kept = json.loads(path.read_text())
    for key, text in kept.items():
        document = json.loads(text)
        document["sign_in"]["expires_at"] = time.time() + 50  # renewed with less than a minute left
        kept[key] = json.dumps(document)
    path.write_text(json.dumps(kept))


# Renewal


def test_valid_token_is_reused_without_renewal(lab: Lab) -> None:
    lab.login()
    assert _token(lab) == _token(lab) == _kept(lab)["id_token"]
    assert lab.events("token.issued") == 1


def test_token_is_renewed_before_expiry(lab: Lab) -> None:
    lab.login()
    before = _kept(lab)
    _make_it_lapse(lab)
    time.sleep(1.1)  # two tokens issued in the same second are identical
    token = _token(lab)
    after = _kept(lab)
    assert token == after["id_token"] != before["id_token"]
    assert after["refresh_token"] != before["refresh_token"]
    assert claims_of(token)["sub"] == "auth0|member"


def test_concurrent_commands_renew_token_once(lab: Lab) -> None:
    lab.login()
    for _ in range(2):
        _make_it_lapse(lab)
        issued = lab.events("token.issued")
        processes = [lab.start("auth", "token") for _ in range(5)]
        ends = [process.communicate(timeout=60) for process in processes]
        assert [process.returncode for process in processes] == [0] * 5, ends
        assert len({out for out, _ in ends}) == 1
        assert lab.events("token.issued") == issued + 1
    assert lab.events("refresh.reused") == 0


def test_interrupted_renewal_keeps_sign_in_usable(lab: Lab) -> None:
    import signal

    lab.login()
    for _ in range(3):
        _make_it_lapse(lab)
        process = lab.start("auth", "token", "--debug")
        lab.until(process, "/oauth/token")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
        assert process.returncode in {0, 130}
    _make_it_lapse(lab)
    assert _token(lab)
    assert lab.events("refresh.reused") == 0


def test_revoked_sign_in_suggests_auth_login(lab: Lab) -> None:
    lab.login()
    with sqlite3.connect(lab.identity.folder / "identity.sqlite3") as database:
        database.execute("UPDATE refresh_tokens SET revoked_at = 1")
    _make_it_lapse(lab)
    result = lab.run("auth", "status")
    assert result.code == 4
    assert "signed out" in result.out
    result = lab.run("auth", "token")
    assert result.code == 4
    assert "Your sign-in to mylab expired at" in result.err
    assert "aspencli --env mylab auth login" in result.err


def test_sign_in_with_invalid_refresh_token_exits_with_4(lab: Lab) -> None:
    lab.login()
    path = Path(lab.env["KEYRING_FILE"])
    text = path.read_text().replace(_kept(lab)["refresh_token"], "revoked")
    path.write_text(text)
    _make_it_lapse(lab)
    result = lab.run("auth", "token")
    assert result.code == 4
    assert "Your sign-in to mylab has expired or was revoked" in result.err


def test_renewal_during_provider_outage_exits_with_5_and_keeps_sign_in(lab: Lab) -> None:
    lab.login()
    _make_it_lapse(lab)
    before = lab.kept()
    lab.identity.stop()
    try:
        result = lab.run("auth", "token")
    finally:
        lab.identity.start()
    assert result.code == 5
    assert "Request to the mylab identity provider at" in result.err
    assert lab.kept() == before
    assert _token(lab)


def _spoil(lab: Lab, **changes: Any) -> None:
    """Replace the saved token with one that the API refuses, issued an hour ago."""
    path = Path(lab.env["KEYRING_FILE"])
    kept = json.loads(path.read_text())
    for key, text in kept.items():
        document = json.loads(text)
        head, body, signature = document["sign_in"]["id_token"].split(".")
        document["sign_in"]["id_token"] = f"{head}.{body}.{signature[::-1]}"
        document["sign_in"]["issued_at"] -= 3600
        document["sign_in"].update(changes)
        kept[key] = json.dumps(document)
    path.write_text(json.dumps(kept))


def test_token_rejected_by_api_is_renewed(lab: Lab) -> None:
    lab.login()
    _spoil(lab)
    result = lab.run("auth", "status")
    assert result.code == 0, result.err


def test_rejected_sign_in_without_refresh_token_is_replaced_by_login(lab: Lab) -> None:
    lab.login()
    _spoil(lab, refresh_token=None)
    refused = lab.run("auth", "status")
    assert (refused.code, "auth login" in refused.err) == (4, True)
    again = lab.login()
    assert again.code == 0, again.err
    assert "Already signed in" not in again.err
    assert lab.run("auth", "status").code == 0


# Hosts that may receive a token


def test_saved_token_is_not_sent_to_another_host(lab: Lab, serving: Serving) -> None:
    lab.login()
    thief = serving(reply_json({"id": 1, "name": "x", "groups": []}))
    for arguments in (
        ("--api", thief.url),
        ("--api", lab.api_url.replace("127.0.0.1", "localhost")),
    ):
        result = lab.run(*arguments, "auth", "status")
        assert result.code == 4
        assert "signed out" in result.out
    assert thief.seen == []


def test_several_targets_can_be_signed_in_at_once(lab: Lab) -> None:
    config = Path(lab.env["ASPEN_CONFIG"])
    other = config.read_text().replace("[targets.mylab]", "[targets.other]")
    config.write_text(config.read_text() + other)
    lab.login()
    assert lab.login("viewer@example.org", env={"ASPEN_ENV": "other"}).code == 0
    rows = json.loads(lab.run("auth", "status", "--all", "-o", "json").out)
    assert {row["target"]: row["subject"] for row in rows} == {
        "mylab": "auth0|member",
        "other": "auth0|viewer",
    }
    assert {row["state"] for row in rows} == {"signed in"}
    lab.run("auth", "logout")
    (row,) = json.loads(lab.run("auth", "status", "--all", "-o", "json").out)
    assert row["target"] == "other"


def test_unreadable_sign_in_does_not_hide_others_in_status(lab: Lab) -> None:
    config = Path(lab.env["ASPEN_CONFIG"])
    other = config.read_text().replace("[targets.mylab]", "[targets.other]")
    config.write_text(config.read_text() + other)
    lab.login()
    lab.login("viewer@example.org", "--store", "file", env={"ASPEN_ENV": "other"})
    env = {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    result = lab.run("auth", "status", "--all", "-o", "json", env=env)
    assert result.code == 0
    states = {row["target"]: row["state"] for row in json.loads(result.out)}
    assert states == {"mylab": "unreadable", "other": "signed in"}
    assert "mylab: Could not use the system keyring: none found" in result.err


def test_status_of_all_targets_without_sign_ins_is_empty(lab: Lab) -> None:
    result = lab.run("auth", "status", "--all", "-o", "json")
    assert (result.code, json.loads(result.out)) == (0, [])


# ASPEN_TOKEN


def test_aspen_token_overrides_saved_sign_in(lab: Lab) -> None:
    lab.login()
    given = lab.identity.tokens("viewer@example.org")["id_token"]
    result = lab.run("auth", "status", "-o", "json", env={"ASPEN_TOKEN": f" {given}\n"})
    (row,) = json.loads(result.out)
    assert (row["subject"], row["stored"]) == ("auth0|viewer", "environment (ASPEN_TOKEN)")
    assert row["groups"][0]["roles"] == ["viewer"]
    assert _token(lab, ASPEN_TOKEN=given) == given


def test_aspen_token_needs_no_keyring_home_or_provider(lab: Lab) -> None:
    given = lab.identity.tokens("viewer@example.org")["id_token"]
    env = {
        "ASPEN_TOKEN": given,
        "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
        "ASPEN_HOME": "/dev/null/no",
    }
    issued = lab.events("token.issued")
    assert lab.run("auth", "status", env=env).code == 0
    assert lab.events("token.issued") == issued


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"id_token_seconds": 30}, "The token in ASPEN_TOKEN expired at 20"),
        ({"issuer": "https://other.example.org/"}, "it was issued by https://other.example.org"),
        ({"audience": "another"}, "is not valid for mylab and was not sent"),
    ],
)
def test_invalid_aspen_token_is_not_sent(
    lab: Lab, serving: Serving, knobs: dict[str, Any], words: str
) -> None:
    lab.identity.turn(**knobs)
    given = lab.identity.tokens("viewer@example.org")["id_token"]
    api = serving(reply_json({}))
    env = {"ASPEN_TOKEN": given, "ASPEN_API_URL_MYLAB": api.url}
    result = lab.run("auth", "status", env=env)
    assert result.code == 4
    assert words in result.err
    assert api.seen == []


@pytest.mark.parametrize(
    "words",
    [("--env", name, "--api", "{}") for name in ("mylab", "prod", "local")],
)
def test_aspen_token_is_not_sent_to_unconfigured_address(
    lab: Lab, serving: Serving, words: tuple[str, ...]
) -> None:
    given = lab.identity.tokens("viewer@example.org")["id_token"]
    stranger = serving(reply_json({}))
    env = {"ASPEN_TOKEN": given, "ASPEN_ENV": None}
    result = lab.run(*(word.format(stranger.url) for word in words), "users", "me", env=env)
    assert result.code in {4, 5}, result.err
    assert not any(given in str(seen.headers) for seen in stranger.seen)


def test_aspen_token_is_not_sent_to_api_that_only_claims_issuer(lab: Lab) -> None:
    given = lab.identity.tokens("viewer@example.org")["id_token"]
    env: dict[str, str | None] = {
        "ASPEN_TOKEN": given,
        "ASPEN_ENV": "staging",
        "ASPEN_API_URL_STAGING": lab.api_url,
        "ASPEN_CONFIG": None,  # it has a target with this address and issuer
    }
    result = lab.run("users", "me", env=env)
    assert result.code == 4
    assert "ASPEN_TOKEN was not sent" in result.err
    known = {
        "ASPEN_AUTH_URL_STAGING": lab.identity.issuer.rstrip("/"),
        "ASPEN_AUTH_CLIENT_ID_STAGING": CLIENT,
    }
    assert lab.run("users", "me", env={**env, **known}).code == 0


@pytest.mark.parametrize("given", ["nonsense", "a.b.c", "eyJhbGciOiJub25lIn0.W10.x", "ü.b.c"])
def test_malformed_aspen_token_is_reported_without_its_value(lab: Lab, given: str) -> None:
    result = lab.run("auth", "token", env={"ASPEN_TOKEN": given})
    assert (result.code, result.out) == (4, "")
    assert "ASPEN_TOKEN is not an id_token" in result.err
    assert given not in result.err


def test_login_with_aspen_token_set_is_refused(lab: Lab) -> None:
    given = lab.identity.tokens("viewer@example.org")["id_token"]
    result = lab.run("auth", "login", env={"ASPEN_TOKEN": given})
    assert result.code == 2
    assert "Unset it" in result.err


def test_rejected_aspen_token_is_reported_with_its_source(lab: Lab) -> None:
    given = lab.identity.tokens("viewer@example.org")["id_token"]
    head, body, signature = given.split(".")
    env = {"ASPEN_TOKEN": f"{head}.{body}.{signature[::-1]}"}
    result = lab.run("auth", "status", env=env)
    assert result.code == 4
    assert "The token is from ASPEN_TOKEN" in result.err


# Tokens of the old tool


def _leave(lab: Lab, token: str, **more: Any) -> str:
    server = lab.identity.issuer.removeprefix("http://").rstrip("/")
    left = json.dumps({"id_token": token, "expires_at": time.time() + 3600, **more})
    key = f"aspencli/devicetoken-{server}"
    Path(lab.env["KEYRING_FILE"]).write_text(json.dumps({key: left}))
    return key


def test_old_tool_sign_in_is_used_and_unchanged(lab: Lab) -> None:
    _leave(lab, lab.identity.tokens("member@example.org")["id_token"])
    before = lab.kept()
    result = lab.run("auth", "status", "-o", "json")
    (row,) = json.loads(result.out)
    assert row["subject"] == "auth0|member"
    assert row["stored"] == "keyring (testkeyring Keyring), from the old tool"
    assert lab.kept() == before


def test_login_and_logout_keep_old_tool_sign_in(lab: Lab) -> None:
    key = _leave(lab, lab.identity.tokens("member@example.org")["id_token"])
    left = lab.kept()[key]
    lab.login("viewer@example.org")
    assert lab.kept()[key] == left
    assert len(lab.kept()) == 2
    assert claims_of(_token(lab))["sub"] == "auth0|viewer"
    lab.run("auth", "logout")
    assert lab.kept() == {key: left}
    assert lab.run("auth", "token").code == 4  # signed out means signed out


def test_old_tool_token_is_not_sent_to_another_host(lab: Lab, serving: Serving) -> None:
    _leave(lab, lab.identity.tokens("member@example.org")["id_token"])
    thief = serving(reply_json({}))
    assert lab.run("--api", thief.url, "auth", "status").code == 4
    assert thief.seen == []


@pytest.mark.parametrize("left", ["no JSON", "{}", "[]", '{"id_token": "x"}', '{"id_token": 3}'])
def test_malformed_old_tool_sign_in_is_ignored(lab: Lab, left: str) -> None:
    key = _leave(lab, "x")
    Path(lab.env["KEYRING_FILE"]).write_text(json.dumps({key: left}))
    result = lab.run("auth", "token")
    assert result.code == 4
    assert "You are not signed in" in result.err


def test_old_tool_token_for_another_client_is_ignored(lab: Lab) -> None:
    lab.identity.turn(audience="another")
    _leave(lab, lab.identity.tokens("member@example.org")["id_token"])
    assert lab.run("auth", "token").code == 4


# Tokens for other programs


def test_auth_token_prints_authorization_header(lab: Lab) -> None:
    lab.login()
    result = lab.run("auth", "token", "--header")
    assert result.out == f"Authorization: Bearer {_kept(lab)['id_token']}\n"
    assert result.err == ""


# Signing out


def test_logout_revokes_and_deletes_sign_in(lab: Lab) -> None:
    lab.login()
    refresh_token = _kept(lab)["refresh_token"]
    result = lab.run("auth", "logout")
    assert (result.code, result.out) == (0, "")
    assert "Signed out of mylab" in result.err
    assert lab.kept() == {}
    again = lab.identity.token(grant_type="refresh_token", refresh_token=refresh_token)
    assert again.json()["error"] == "invalid_grant"
    result = lab.run("auth", "logout")
    assert result.code == 0
    assert "You are not signed in to mylab" in result.err


def test_logout_during_provider_outage_keeps_sign_in(lab: Lab) -> None:
    lab.login()
    before = lab.kept()
    env = {"ASPEN_AUTH_URL_MYLAB": None}
    lab.identity.stop()
    try:
        result = lab.run("auth", "logout", env=env)
        assert result.code == 5
        assert "could not be revoked and was kept" in result.err
        assert lab.kept() == before
        assert lab.run("auth", "logout", "--forget").code == 0
    finally:
        lab.identity.start()
    assert lab.kept() == {}


# Without the service


def test_status_without_api_shows_saved_sign_in(lab: Lab) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as unused:
        nowhere = f"http://127.0.0.1:{unused.getsockname()[1]}"
    config = Path(lab.env["ASPEN_CONFIG"])
    config.write_text(config.read_text().replace(lab.api_url, nowhere))
    result = lab.login()
    assert result.code == 0
    assert "The API did not return your roles" in result.err
    result = lab.run("auth", "status", "-o", "json")
    assert result.code == 5
    (row,) = json.loads(result.out)
    assert (row["subject"], row["groups"]) == ("auth0|member", None)
    assert "failed: connection refused" in result.err


def test_token_audience_is_configured_client_id(lab: Lab) -> None:
    lab.login()
    assert claims_of(_token(lab))["aud"] == CLIENT
