"""Several accounts on one target: signing in, choosing, listing, and signing out."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pexpect
import pytest

from aspencli.changes.runs import Counts, InputFile, Place, Subject
from aspencli.cli.changes.execute import signed
from aspencli.cli.context import AppContext
from tests import zygote
from tests.auth.conftest import Lab
from tests.local.auth0.lab import claims_of
from tests.remote.conftest import Serving
from tests.remote.naughty import reply_json

MEMBER, ADMIN, OTHER = "member@example.org", "gadmin@example.org", "viewer@example.org"
PRODUCTION = {"ASPEN_ENV": "live"}


def _listed(lab: Lab, *arguments: str, **env: str | None) -> dict[str, dict[str, Any]]:
    """Return the accounts that are listed, by name."""
    result = lab.run("auth", "list", *arguments, "-o", "json", env=env)
    assert result.code == 0, result.err
    rows = json.loads(result.out)
    assert len({row["account"] for row in rows}) == len(rows)
    return {row["account"]: row for row in rows}


def _active(lab: Lab, **env: str | None) -> str | None:
    active = [name for name, row in _listed(lab, **env).items() if row["active"]]
    assert len(active) <= 1
    return active[0] if active else None


def _token(lab: Lab, *arguments: str, **env: str | None) -> str:
    result = lab.run(*arguments, "auth", "token", env=env)
    assert result.code == 0, result.err
    return result.out.strip()


def _user(lab: Lab, *arguments: str, **env: str | None) -> str:
    """Return the user whose token a command gets."""
    return str(claims_of(_token(lab, *arguments, **env))["email"])


def _sign_in(lab: Lab, email: str, *arguments: str, **env: str | None) -> None:
    result = lab.login(email, *arguments, env=env)
    assert result.code == 0, result.err


@pytest.fixture
def two(lab: Lab) -> Lab:
    """Return a lab that is signed in as a member, and as an administrator, which is active."""
    lab.keep(MEMBER)
    lab.keep(ADMIN, "admin")
    return lab


@pytest.fixture
def live(lab: Lab) -> Lab:
    """Return a lab with the same target as a production target, ``live``, and two accounts."""
    config = Path(lab.env["ASPEN_CONFIG"])
    text = config.read_text().replace("[targets.mylab]", "[targets.live]")
    config.write_text(text.replace('safety = "shared"\n', ""))
    lab.keep(MEMBER, target="live")
    lab.keep(ADMIN, "admin", target="live")
    return lab


def _change(lab: Lab, email: str, **changes: Any) -> dict[str, Any]:
    """Change the stored sign-in of a user in the keyring, and return it as it was."""
    path = Path(lab.env["KEYRING_FILE"])
    kept = json.loads(path.read_text())
    for key, text in kept.items():
        document = json.loads(text)
        if document["sign_in"]["email"] == email:
            before = dict(document["sign_in"])
            document["sign_in"].update(changes)
            kept[key] = json.dumps(document)
    path.write_text(json.dumps(kept))
    return before


def _expire(lab: Lab, email: str, **changes: Any) -> dict[str, Any]:
    return _change(lab, email, expires_at=time.time() - 10, **changes)


def _is_revoked(lab: Lab, refresh_token: str) -> bool:
    answer = lab.identity.token(grant_type="refresh_token", refresh_token=refresh_token)
    return bool(answer.json().get("error") == "invalid_grant")


# Signing in


def test_account_is_named_after_its_email_address(lab: Lab) -> None:
    _sign_in(lab, MEMBER)
    (row,) = _listed(lab).values()
    assert (row["account"], row["email"], row["active"]) == (MEMBER, MEMBER, True)
    assert (row["target"], row["state"], row["renewable"]) == ("mylab", "signed in", True)
    assert row["stored"] == "keyring (testkeyring Keyring)"
    assert row["expires_at"] > "20"


def test_login_with_new_name_adds_account_and_makes_it_active(lab: Lab) -> None:
    lab.keep(MEMBER)
    result = lab.login(ADMIN, "--as", "admin")
    assert result.code == 0, result.err
    assert f"Active account on mylab: admin ({ADMIN}). To go back to {MEMBER}: " in result.err
    assert f"aspencli --env mylab auth switch {MEMBER}" in result.err
    listed = _listed(lab)
    assert {name: row["email"] for name, row in listed.items()} == {MEMBER: MEMBER, "admin": ADMIN}
    assert _active(lab) == "admin"
    assert len(lab.kept()) == 2
    assert _user(lab) == ADMIN
    status = json.loads(lab.run("auth", "status", "-o", "json").out)[0]
    assert (status["account"], status["active"]) == ("admin", True)
    assert (status["subject"], status["email"]) == ("auth0|gadmin", ADMIN)


def test_login_with_name_of_valid_account_only_makes_it_active(two: Lab) -> None:
    asked = two.events("device.requested")
    result = two.run("auth", "login", "--as", MEMBER.upper())
    assert result.code == 0, result.err
    assert "Already signed in to mylab as Member Example" in result.err
    assert two.events("device.requested") == asked
    assert _active(two) == MEMBER


def test_login_without_name_replaces_sign_in_of_active_account(two: Lab) -> None:
    before = _change(two, ADMIN)
    _sign_in(two, OTHER, "--force")
    listed = _listed(two)
    assert {name: row["email"] for name, row in listed.items()} == {MEMBER: MEMBER, "admin": OTHER}
    assert _is_revoked(two, before["refresh_token"])
    assert len(two.kept()) == 2


def test_login_of_another_user_renames_account_without_chosen_name(lab: Lab) -> None:
    lab.keep(MEMBER)
    _expire(lab, MEMBER, refresh_token=None)
    _sign_in(lab, OTHER)
    assert list(_listed(lab)) == [OTHER]
    assert len(lab.kept()) == 1


def test_login_as_user_of_another_account_keeps_both(lab: Lab) -> None:
    lab.keep(MEMBER)
    _sign_in(lab, ADMIN, "--as", ADMIN)
    assert lab.run("auth", "switch", MEMBER).code == 0
    before = _change(lab, ADMIN)
    _sign_in(lab, ADMIN, "--force")
    assert list(_listed(lab)) == [ADMIN, MEMBER]
    assert _active(lab) == ADMIN
    assert _user(lab, "--account", MEMBER) == MEMBER
    assert _is_revoked(lab, before["refresh_token"])
    assert len(lab.kept()) == 2


def test_named_account_refuses_sign_in_of_another_user(two: Lab) -> None:
    _expire(two, ADMIN, refresh_token=None)
    before = two.kept()
    for arguments in ((), ("--as", "admin")):
        revoked = two.events("token.revoked")
        result = two.login(OTHER, *arguments)
        assert result.code == 4
        words = f"Account admin on mylab is for {ADMIN}, but Viewer Example <{OTHER}> signed in."
        assert words in result.err
        assert "Nothing was changed." in result.err
        assert "--force" in result.err
        assert two.kept() == before
        assert two.events("token.revoked") == revoked + 1
    _sign_in(two, OTHER, "--as", "admin", "--force")
    assert _user(two) == OTHER


def test_login_uses_name_from_variable(lab: Lab) -> None:
    _sign_in(lab, ADMIN, ASPEN_ACCOUNT="admin")
    assert list(_listed(lab)) == ["admin"]
    _sign_in(lab, MEMBER, "--as", "me", ASPEN_ACCOUNT="admin")
    assert list(_listed(lab)) == ["admin", "me"]


@pytest.mark.parametrize("name", ["", " ", "-x", "a\x1b[31m", "a\nb", "x" * 101])
def test_invalid_account_name_is_refused(lab: Lab, name: str) -> None:
    result = lab.run("auth", "login", f"--as={name}")
    assert result.code == 2
    assert "Invalid account name: " in result.err
    assert "\x1b" not in result.err
    assert lab.events("device.requested") == 0


def test_two_names_for_one_login_are_refused(lab: Lab) -> None:
    result = lab.run("--account", "one", "auth", "login", "--as", "two")
    assert result.code == 2
    assert "Two accounts were given: two (--as) and one (--account)" in result.err


def test_denied_login_of_another_account_changes_nothing(two: Lab) -> None:
    before = two.kept()
    assert two.login(OTHER, "--as", "third", approve=False).code == 4
    assert two.kept() == before
    assert _active(two) == "admin"


def test_login_with_store_moves_only_its_account(two: Lab) -> None:
    assert two.run("auth", "login", "--store", "file").code == 0
    listed = _listed(two)
    assert listed["admin"]["stored"].startswith("file ")
    assert listed[MEMBER]["stored"].startswith("keyring ")
    assert len(two.kept()) == 1
    assert [_user(two, "--account", name) for name in ("admin", MEMBER)] == [ADMIN, MEMBER]


# Switching


def test_switch_without_name_toggles_between_two_accounts(two: Lab) -> None:
    for name, email in ((MEMBER, MEMBER), ("admin", ADMIN), (MEMBER, MEMBER)):
        result = two.run("auth", "switch")
        assert (result.code, result.out) == (0, ""), result.err
        title = name if name == email else f"{name} ({email})"
        assert f"Switched to account {title} on mylab" in result.err
        assert _user(two) == email


def test_switch_with_name_changes_active_account(two: Lab) -> None:
    assert two.run("auth", "switch", MEMBER).code == 0
    assert _active(two) == MEMBER
    result = two.run("auth", "switch", "ADMIN")
    assert (result.code, _active(two)) == (0, "admin")
    result = two.run("auth", "switch", "admin")
    assert result.code == 0
    assert f"admin ({ADMIN}) is already the active account on mylab" in result.err


@pytest.mark.parametrize("count", [1, 3])
def test_switch_without_name_lists_choices_unless_there_are_two(lab: Lab, count: int) -> None:
    names = ["first", "second", "third"][:count]
    for name in names:
        lab.keep(MEMBER, name)
    result = lab.run("auth", "switch")
    assert (result.code, result.out) == (2, "")
    for name in names:
        assert f"  {name} ({MEMBER}){', active' if name == names[-1] else ''}\n" in result.err
    assert _active(lab) == names[-1]


def test_switch_without_accounts_suggests_login(lab: Lab) -> None:
    for arguments in ((), ("admin",)):
        result = lab.run("auth", "switch", *arguments)
        assert result.code == 4
        assert "aspencli --env mylab auth login" in result.err


def test_switch_to_unknown_account_names_the_known_ones(two: Lab) -> None:
    result = two.run("auth", "switch", "amdin")
    assert result.code == 4
    assert 'No account "amdin" is signed in to mylab.' in result.err
    assert f"  admin ({ADMIN}), active\n  {MEMBER}\n" in result.err
    assert "aspencli --env mylab auth login --as amdin" in result.err
    assert _active(two) == "admin"


def test_switch_sends_no_request(two: Lab) -> None:
    two.identity.stop()
    try:
        assert two.run("auth", "switch").code == 0
    finally:
        two.identity.start()


def test_switch_to_expired_account_warns(two: Lab) -> None:
    _expire(two, MEMBER, refresh_token=None)
    result = two.run("auth", "switch")
    assert result.code == 0
    assert f"The sign-in of {MEMBER} expired at 20" in result.err
    assert f"aspencli --env mylab auth login --as {MEMBER}" in result.err


def test_switch_warns_of_variables_that_take_precedence(two: Lab) -> None:
    result = two.run("auth", "switch", MEMBER, env={"ASPEN_ACCOUNT": "admin"})
    assert result.code == 0
    assert "ASPEN_ACCOUNT=admin takes precedence over the active account" in result.err
    result = two.run("auth", "switch", "admin", env={"ASPEN_ACCOUNT": "admin"})
    assert "takes precedence" not in result.err
    result = two.run("auth", "switch", MEMBER, env={"ASPEN_TOKEN": "x"})
    assert "ASPEN_TOKEN is set and takes precedence" in result.err


# Choosing an account for one command


def test_account_option_precedes_variable_precedes_active_account(two: Lab) -> None:
    two.keep(OTHER, "third")
    assert _user(two) == OTHER
    assert _user(two, ASPEN_ACCOUNT="admin") == ADMIN
    assert _user(two, "--account", MEMBER, ASPEN_ACCOUNT="admin") == MEMBER
    assert _active(two) == "third"
    result = two.run("users", "me", "--account", "admin", "-o", "json")
    assert json.loads(result.out)[0]["name"] == "Gale Admin", result.err


@pytest.mark.parametrize("way", ["option", "variable"])
def test_unknown_account_is_refused_without_request(two: Lab, serving: Serving, way: str) -> None:
    api = serving(reply_json({}))
    words = ("--account", "nope") if way == "option" else ()
    env = {"ASPEN_ACCOUNT": "nope"} if way == "variable" else {}
    for command in (("auth", "token"), ("auth", "status"), ("users", "me"), ("auth", "logout")):
        result = two.run(*words, *command, env=env)
        assert (result.code, result.out) == (4, "")
        assert 'No account "nope" is signed in to mylab.' in result.err
        assert "auth login --as nope" in result.err
    assert api.seen == []
    assert len(two.kept()) == 2


def test_account_option_with_aspen_token_is_refused(two: Lab) -> None:
    given = two.identity.tokens(OTHER)["id_token"]
    result = two.run("--account", "admin", "users", "me", env={"ASPEN_TOKEN": given})
    assert result.code == 2
    assert "--account admin was given, but ASPEN_TOKEN is set" in result.err
    assert _user(two, ASPEN_TOKEN=given, ASPEN_ACCOUNT="admin") == OTHER


def test_suggested_login_repeats_chosen_account(two: Lab) -> None:
    _expire(two, ADMIN, refresh_token=None)
    result = two.run("--account", "admin", "auth", "token")
    assert result.code == 4
    assert "Your sign-in to mylab (account admin) expired at" in result.err
    assert "aspencli --env mylab auth login --as admin" in result.err


def test_suggested_commands_repeat_account_option(aspen_home: Path) -> None:
    with AppContext() as context:
        context.options.give("account", "the admin")
        assert context.command("db", "status") == (
            "aspencli --env local --account 'the admin' db status"
        )


def test_config_show_names_source_of_account(two: Lab) -> None:
    result = two.run("config", "show", "-o", "tsv", env={"ASPEN_ACCOUNT": "admin"})
    assert "account\tadmin\tenvironment ASPEN_ACCOUNT\n" in result.out


def test_account_in_config_file_is_refused(lab: Lab) -> None:
    config = Path(lab.env["ASPEN_CONFIG"])
    config.write_text(f'[defaults]\naccount = "admin"\n{config.read_text()}')
    result = lab.run("auth", "status")
    assert result.code == 2
    assert "defaults.account" in result.err


# Signing in by a command


def test_command_refuses_sign_in_of_another_user(two: Lab, serving: Serving) -> None:
    api = serving(reply_json({"id": 1, "name": "x", "groups": []}))
    _expire(two, ADMIN, refresh_token=None)
    before = two.kept()
    child = zygote.at_terminal(
        ("auth", "token"),
        env=two.environment(),
        encoding="utf-8",
        timeout=120,
        dimensions=(40, 200),
    )
    child.expect(r"\(account admin\) expired at .* Signing in")
    child.expect(r"shows the code (\S+)")
    two.identity.decide(str(child.match[1]).replace("\x1b[0m", "").strip(), OTHER)
    child.expect(f"Account admin on mylab is for {ADMIN}")
    child.expect("Nothing was changed")
    assert child.expect(["eyJ", pexpect.EOF]) == 1
    child.close()
    assert child.exitstatus == 4
    assert two.kept() == before
    assert api.seen == []


def test_command_signs_in_to_chosen_account_without_switching(two: Lab) -> None:
    _expire(two, MEMBER, refresh_token=None)
    child = zygote.at_terminal(
        ("--account", MEMBER, "auth", "token"),
        env=two.environment(),
        encoding="utf-8",
        timeout=120,
        dimensions=(40, 200),
    )
    child.expect(r"shows the code (\S+)")
    two.identity.decide(str(child.match[1]).replace("\x1b[0m", "").strip(), MEMBER)
    child.expect(r"(eyJ\S+)")
    assert claims_of(child.match[1])["email"] == MEMBER
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert _active(two) == "admin"
    assert sorted(_listed(two)) == ["admin", MEMBER]


# Listing


def test_list_shows_state_of_each_account(two: Lab) -> None:
    _sign_in(two, OTHER, "--as", "third", "--store", "file")
    _expire(two, MEMBER, refresh_token=None)
    _expire(two, ADMIN)
    listed = _listed(two)
    assert {name: row["state"] for name, row in listed.items()} == {
        MEMBER: "expired",
        "admin": "signed in",  # it can be renewed
        "third": "signed in",
    }
    path = Path(listed["third"]["stored"].removeprefix("file "))
    path.write_text("broken")
    result = two.run("auth", "list", "-o", "json")
    assert result.code == 0
    states = {row["account"]: row["state"] for row in json.loads(result.out)}
    assert states["third"] == "unreadable"
    assert "mylab: Could not read the sign-in stored in" in result.err


def test_list_table_names_target_account_and_store(two: Lab) -> None:
    shown = two.run("auth", "list", "-o", "table").out
    rows = [line.split() for line in shown.splitlines()]
    assert rows[0][:4] == ["Target", "Account", "Active", "E-mail"]
    assert any(row[:4] == ["mylab", "admin", "true", ADMIN] for row in rows), shown


def test_list_covers_selected_target_or_all(two: Lab) -> None:
    config = Path(two.env["ASPEN_CONFIG"])
    other = config.read_text().replace("[targets.mylab]", "[targets.other]")
    config.write_text(config.read_text() + other)
    two.keep(OTHER, target="other")
    assert sorted(_listed(two)) == ["admin", MEMBER]
    everything = _listed(two, "--all")
    assert {name: (row["target"], row["active"]) for name, row in everything.items()} == {
        OTHER: ("other", True),
        "admin": ("mylab", True),
        MEMBER: ("mylab", False),
    }
    assert list(_listed(two, ASPEN_ENV="other")) == [OTHER]


def test_list_without_accounts_points_to_other_targets(lab: Lab) -> None:
    result = lab.run("auth", "list", "-o", "json")
    assert (result.code, json.loads(result.out)) == (0, [])
    assert "No account is signed in to mylab." in result.err
    assert "auth list --all" in result.err


def test_status_names_account_and_mentions_others(two: Lab) -> None:
    result = two.run("auth", "status", "-o", "table")
    assert result.code == 0
    assert f"Other accounts on mylab: {MEMBER}" in result.err
    row = json.loads(two.run("--account", MEMBER, "auth", "status", "-o", "json").out)[0]
    assert (row["account"], row["active"], row["email"]) == (MEMBER, False, MEMBER)
    rows = json.loads(two.run("auth", "status", "--all", "-o", "json").out)
    assert {row["account"]: row["active"] for row in rows} == {"admin": True, MEMBER: False}


# Signing out


def test_logout_makes_only_other_account_active_and_says_so(two: Lab) -> None:
    before = _change(two, ADMIN)
    result = two.run("auth", "logout")
    assert result.code == 0
    assert "Signed out of mylab (account admin)" in result.err
    assert f"Active account on mylab is now {MEMBER}." in result.err
    assert _is_revoked(two, before["refresh_token"])
    assert list(_listed(two)) == [MEMBER]
    assert _user(two) == MEMBER
    assert len(two.kept()) == 1


def test_logout_with_several_others_activates_none(two: Lab) -> None:
    two.keep(OTHER, "third")
    result = two.run("auth", "logout")
    assert result.code == 0
    assert f"Still signed in to mylab: admin, {MEMBER}. None of them is active." in result.err
    assert "aspencli --env mylab auth switch NAME" in result.err
    assert _active(two) is None


def test_logout_on_production_activates_no_other_account(live: Lab) -> None:
    result = live.run("auth", "logout", env=PRODUCTION)
    assert result.code == 0
    assert "Signed out of live (account admin)" in result.err
    assert f"Still signed in to live: {MEMBER}. None of them is active." in result.err
    assert f"aspencli --env live auth switch {MEMBER}" in result.err
    assert _active(live, **PRODUCTION) is None
    for command in (("auth", "token"), ("users", "me"), ("auth", "status"), ("auth", "logout")):
        refused = live.run(*command, env=PRODUCTION)
        assert (refused.code, refused.out) == (4, "")
        assert "No account is active on live." in refused.err
        assert f"  {MEMBER}\n" in refused.err
    assert len(live.kept()) == 1
    assert _user(live, "--account", MEMBER, **PRODUCTION) == MEMBER
    refused = live.run("auth", "switch", env=PRODUCTION)
    assert refused.code == 2
    assert f"  {MEMBER}\n" in refused.err
    assert live.run("auth", "switch", MEMBER, env=PRODUCTION).code == 0
    assert _user(live, **PRODUCTION) == MEMBER


def test_login_without_active_account_adds_one(live: Lab) -> None:
    live.run("auth", "logout", env=PRODUCTION)
    _sign_in(live, OTHER, **PRODUCTION)
    assert sorted(_listed(live, **PRODUCTION)) == [MEMBER, OTHER]
    assert _active(live, **PRODUCTION) == OTHER


def test_logout_of_inactive_account_keeps_active_one(two: Lab) -> None:
    before = _change(two, MEMBER)
    result = two.run("auth", "logout", "--account", MEMBER)
    assert result.code == 0
    assert f"Signed out of mylab (account {MEMBER})" in result.err
    assert "Still signed in to mylab: admin." in result.err
    assert _is_revoked(two, before["refresh_token"])
    assert _active(two) == "admin"
    assert _user(two) == ADMIN


def test_logout_of_last_account_reports_signed_out(lab: Lab) -> None:
    lab.keep(MEMBER)
    result = lab.run("auth", "logout")
    assert result.err.strip().endswith("Signed out of mylab")
    assert _listed(lab) == {}


def test_logout_forget_with_unavailable_keyring_changes_nothing(two: Lab) -> None:
    fail = {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    before = two.kept()
    assert two.run("auth", "logout", "--forget", env=fail).code == 4
    assert two.kept() == before
    assert _active(two) == "admin"


# Sign-ins of older versions


def _make_old(lab: Lab) -> str:
    """Rewrite the only stored sign-in as a version with one account per target stored it."""
    path = lab.home / "state" / "sign-ins" / "ledger.json"
    ledger = json.loads(path.read_text())
    ((key, entry),) = ledger["sign_ins"].items()
    old = str(key).rpartition(".")[0]
    kept = {"place": entry["place"], "store": entry["store"]}
    path.write_text(json.dumps({"sign_ins": {old: kept}}))
    keyring = Path(lab.env["KEYRING_FILE"])
    keyring.write_text(json.dumps({f"aspencli/{old}": lab.kept()[f"aspencli/{key}"]}))
    return old


def test_sign_in_of_older_version_is_listed_and_used(lab: Lab) -> None:
    lab.keep(MEMBER)
    old = _make_old(lab)
    (row,) = _listed(lab).values()
    assert (row["account"], row["email"], row["active"]) == (MEMBER, MEMBER, True)
    assert _user(lab) == _user(lab, "--account", MEMBER) == MEMBER
    assert lab.run("auth", "login").code == 0
    assert list(lab.kept()) == [f"aspencli/{old}"]


def test_sign_in_of_older_version_is_renewed_in_place(lab: Lab) -> None:
    lab.keep(MEMBER)
    old = _make_old(lab)
    _expire(lab, MEMBER)
    assert _user(lab) == MEMBER
    assert list(lab.kept()) == [f"aspencli/{old}"]
    entry = json.loads((lab.home / "state/sign-ins/ledger.json").read_text())["sign_ins"][old]
    assert (entry["account"], entry["email"]) == (MEMBER, MEMBER)


def test_account_is_added_to_sign_in_of_older_version(lab: Lab) -> None:
    lab.keep(MEMBER)
    _make_old(lab)
    _sign_in(lab, ADMIN, "--as", "admin")
    assert sorted(_listed(lab)) == ["admin", MEMBER]
    assert lab.run("auth", "switch").code == 0
    assert _user(lab) == MEMBER
    assert lab.run("auth", "logout").code == 0
    assert list(_listed(lab)) == ["admin"]
    assert len(lab.kept()) == 1


def test_sign_in_of_older_version_is_replaced(lab: Lab) -> None:
    lab.keep(MEMBER)
    _make_old(lab)
    before = _change(lab, MEMBER)
    _sign_in(lab, OTHER, "--force")
    assert list(_listed(lab)) == [OTHER]
    assert len(lab.kept()) == 1
    assert _is_revoked(lab, before["refresh_token"])


def test_unreadable_sign_in_of_older_version_hides_no_other(lab: Lab) -> None:
    lab.keep(MEMBER)
    _make_old(lab)
    _sign_in(lab, ADMIN, "--as", "admin", "--store", "file")
    env = {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    rows = json.loads(lab.run("auth", "list", "-o", "json", env=env).out)
    assert {row["account"]: row["state"] for row in rows} == {
        None: "unreadable",
        "admin": "signed in",
    }
    assert _user(lab, **env) == ADMIN
    assert lab.run("auth", "switch", MEMBER, env=env).code == 4


def test_sign_in_of_old_tool_is_listed(lab: Lab) -> None:
    server = lab.identity.issuer.removeprefix("http://").rstrip("/")
    left = {"id_token": lab.identity.tokens(MEMBER)["id_token"]}
    path = Path(lab.env["KEYRING_FILE"])
    path.write_text(json.dumps({f"aspencli/devicetoken-{server}": json.dumps(left)}))
    (row,) = _listed(lab).values()
    assert (row["account"], row["active"], row["state"]) == (MEMBER, True, "signed in")
    assert row["stored"].endswith(", from the old tool")
    _sign_in(lab, ADMIN, "--as", "admin")
    assert list(_listed(lab)) == ["admin"]


# Secrets


def test_no_command_about_accounts_shows_a_token(two: Lab) -> None:
    _expire(two, MEMBER)
    secrets = [_change(two, email)[key] for email in (MEMBER, ADMIN) for key in ("id_token",)]
    secrets += [_change(two, email)["refresh_token"] for email in (MEMBER, ADMIN)]
    said = ""
    for words in (
        ("auth", "list", "-o", "json"),
        ("auth", "list", "--all", "-o", "table"),
        ("auth", "status", "--all", "-o", "csv"),
        ("auth", "switch"),
        ("auth", "status"),
        ("--account", "nope", "auth", "status"),
        ("auth", "switch", "nope"),
        ("auth", "logout"),
        ("auth", "logout"),
    ):
        result = two.run(*words, "--debug")
        said += result.out + result.err
    assert "POST" in said
    assert "Traceback" in said
    assert not re.search(r"eyJ[\w-]*\.[\w-]+\.", said)  # a token; a key may contain the letters
    assert not [secret for secret in secrets if secret in said]
    ledger = (two.home / "state" / "sign-ins" / "ledger.json").read_text()
    assert not [secret for secret in secrets if secret in ledger]


# The account that a command acts as


def _acting(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, **more: str
) -> tuple[str | None, ...] | None:
    """Return what a command knows about the account that it acts as, without any server."""
    for name, value in {**lab.env, "ASPEN_HOME": str(lab.home), **more}.items():
        monkeypatch.setenv(name, value)
    with AppContext() as context:
        if account := more.get("option"):
            context.options.give("account", account)
        found = context.acting_account
    for name in more:
        monkeypatch.delenv(name)
    return None if found is None else (found.name, found.email, found.subject)


def test_acting_account_is_known_without_request_or_keyring(
    two: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = two.identity.tokens(OTHER)["id_token"]
    Path(two.env["KEYRING_FILE"]).unlink()
    admin = ("admin", ADMIN, "auth0|gadmin")
    member = (MEMBER, MEMBER, "auth0|member")
    two.identity.stop()
    try:
        assert _acting(two, monkeypatch) == admin
        assert _acting(two, monkeypatch, ASPEN_ACCOUNT=MEMBER) == member
        assert _acting(two, monkeypatch, option=MEMBER, ASPEN_ACCOUNT="admin") == member
        assert _acting(two, monkeypatch, ASPEN_TOKEN=given) == (None, OTHER, "auth0|viewer")
        assert _acting(two, monkeypatch, ASPEN_TOKEN="nonsense") is None
        assert _acting(two, monkeypatch, ASPEN_ACCOUNT="nope") is None
        assert _acting(two, monkeypatch, ASPEN_ENV="staging") is None
    finally:
        two.identity.start()


def test_history_names_the_account_that_a_command_acts_as(
    two: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject("users update-me", "mylab", Place(), None, None, InputFile(), Counts())
    for name, value in {**two.env, "ASPEN_HOME": str(two.home)}.items():
        monkeypatch.setenv(name, value)
    found = {}
    for chosen in (None, MEMBER):
        with AppContext() as context:
            if chosen:
                context.options.give("account", chosen)
            for via in ("api", "db"):
                known = signed(context, replace(subject, via=via))
                found[chosen, via] = known.account_name, known.account_id
    assert found == {
        (None, "api"): ("admin", "auth0|gadmin"),  # the active one
        (None, "db"): (None, None),
        (MEMBER, "api"): (MEMBER, "auth0|member"),
        (MEMBER, "db"): (None, None),
    }
