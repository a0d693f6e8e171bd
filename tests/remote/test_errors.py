"""The error for each refusal by the service: kind, exit code, message, and hint."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from aspencli.errors import AspenError, BadInputError, CredentialsError, UnreachableError
from aspencli.remote.http import Http, SlashWarning
from tests.remote.conftest import Client, Serving
from tests.remote.naughty import Reply, Seen, reply, reply_json

MakeClient = Callable[..., Client]
ME = {"id": 1, "name": "Ada", "groups": [{"id": 2, "name": "Lab", "roles": ["viewer"]}]}


def _failure(made: Client, ask: Callable[[], Any] | None = None) -> AspenError:
    with pytest.raises(AspenError) as caught:
        (ask or made.api.pathogens)()
    return caught.value


# The service's own messages


@pytest.mark.parametrize(
    ("status", "text", "code"),
    [
        (400, "All private and public identifiers must be unique", 7),
        (400, "Error inserting data, private_identifiers ['a'] already exist in our database", 7),
        (400, "Error processing data, either duplicate private_identifiers", 2),
        (400, "Can't modify an in-progress phylo run", 7),
        (400, "Invalid pathogen slug", 6),
        (400, "location is invalid", 6),
        (400, "location_id 999 not found", 6),
        (400, "Invalid location id for sample", 6),
        (400, "missing ids", 6),
        (400, "Not found", 6),
        (400, "PhyloTree with id 7 not viewable by user", 6),
        (400, "No phylo run found for user", 6),
        (400, "email address mismatch", 2),
        (404, "some samples cannot be updated", 6),
        (404, "phylo run not found", 6),
        (409, "taken", 7),
        (413, "too long", 2),
        (500, "no prefix found for given pathogen_slug and public_repository combination", 1),
    ],
)
def test_service_error_is_reported_with_its_exit_code(
    client: MakeClient, status: int, text: str, code: int
) -> None:
    error = _failure(client(reply_json({"error": text}, status)))
    assert error.exit_code == code
    assert text in error.message
    assert error.answer is not None
    assert (error.answer.status, error.answer.text) == (status, text)


def test_ids_in_service_error_are_listed(client: MakeClient) -> None:
    body = {"error": "missing ids", "ids": [f"s{n}" for n in range(50)]}
    error = _failure(client(reply_json(body, 400)))
    assert error.details[:2] == ("s0", "s1")
    assert error.details[-1] == "... and 30 more"
    assert error.answer is not None
    assert error.answer.extra["ids"] == body["ids"]


def test_validation_errors_name_the_fields(client: MakeClient) -> None:
    wrong = {"loc": ["body", "samples", 3, "private_identifier"], "msg": "too long", "type": "x"}
    error = _failure(client(reply_json({"detail": [wrong, wrong, {"loc": ["body"]}]}, 422)))
    assert isinstance(error, BadInputError)
    assert error.details == ("samples[3].private_identifier: too long", "the request: invalid")


def test_unsupported_path_is_not_reported_as_not_found(
    client: MakeClient,
) -> None:
    error = _failure(client(reply_json({"detail": "Not Found"}, 404)))
    assert error.exit_code == 1
    assert "GET /v2/pathogens/ is not supported by the mylab API (HTTP 404)" in error.message
    assert "config show" in str(error.hint)


def test_http_500_without_reason_suggests_the_log(client: MakeClient) -> None:
    error = _failure(client(reply(500, "Internal Server Error")))
    assert error.exit_code == 1
    assert (
        "GET /v2/pathogens/ failed: the mylab API returned HTTP 500 without a reason"
        in error.message
    )
    assert "log" in str(error.hint)


@pytest.mark.parametrize(
    "odd",
    [
        reply(200, "<html>Sign in to the hotel's network</html>", kind="text/html"),
        reply(200, "no JSON", kind="application/json"),
        reply_json({"other": 1}),
        reply_json({"pathogens": "none"}),
        reply_json([]),
    ],
)
def test_response_not_from_api_is_reported(client: MakeClient, odd: Reply) -> None:
    error = _failure(client(odd))
    assert isinstance(error, UnreachableError)
    assert "is not from the mylab API" in error.message


def test_html_error_page_is_not_quoted(client: MakeClient) -> None:
    error = _failure(client(reply(403, "<html>nginx</html>", kind="text/html")))
    assert "<html>" not in error.message


# Sign-in and permissions


def test_rejected_token_is_renewed_once(client: MakeClient) -> None:
    made = client(
        reply_json({"error": "Login failure"}, 401),
        reply_json({"pathogens": []}),
        tokens=["old", "new"],
    )
    assert made.api.pathogens() == []
    sent = [seen.headers["authorization"] for seen in made.server.seen]
    assert sent == ["Bearer old", "Bearer new"]


@pytest.mark.parametrize("tokens", [["only"], ["old", "new"]])
def test_token_rejected_after_renewal_exits_with_4(client: MakeClient, tokens: list[str]) -> None:
    made = client(reply_json({"error": "Login failure"}, 401), tokens=list(tokens))
    error = _failure(made)
    assert error.exit_code == 4
    assert error.hint == "sign in again"
    assert len(made.server.seen) == len(tokens)


def test_rejected_token_reports_clock_skew(client: MakeClient) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)
    made = client(reply_json({"error": "Login failure"}, 401, {"Date": date}))
    assert _failure(made).details == (
        "this machine's clock is 2.0 hours behind the clock of the mylab API",
    )


def _me_or(status: int, text: str) -> Callable[[Seen], Reply]:
    def route(seen: Seen) -> Reply:
        me = seen.target == "/v2/users/me"
        return reply_json(ME) if me else reply_json({"error": text}, status)

    return route


def test_permission_error_shows_system_admin_how_to_join_group(client: MakeClient) -> None:
    made = client(route=_me_or(403, "Not authorized"))
    error = _failure(made, lambda: made.api.samples.read(7, "SC2", list))
    assert isinstance(error, CredentialsError)
    assert error.details == ("You are signed in as Ada, with these roles: Lab (2): viewer.",)
    assert "system administrators do not have access to every group's data" in str(error.hint)
    assert "aspencli groups invite --group 7 --role member" in str(error.hint)


def test_permission_error_explains_insufficient_role(client: MakeClient) -> None:
    made = client(route=_me_or(403, "access denied"))
    error = _failure(made, lambda: made.api.samples.create(2, "SC2", []))
    assert error.exit_code == 4
    assert "Your role in group 2 does not allow this" in str(error.hint)


def test_permission_error_names_system_admin_requirement(client: MakeClient) -> None:
    made = client(route=_me_or(403, "Not authorized"))
    group = {"name": "x", "prefix": "y", "default_tree_location_id": 1}
    error = _failure(made, lambda: made.api.groups.create(group))  # type: ignore[arg-type]
    assert "Only a system administrator can" in str(error.hint)


def test_permission_error_omits_unknown_user(client: MakeClient) -> None:
    made = client(reply_json({"error": "Not authorized"}, 403))
    error = _failure(made, lambda: made.api.samples.read(7, "SC2", list))
    assert error.details == ()
    assert "group 7" in str(error.hint)


# Redirects


def test_missing_trailing_slash_is_followed_with_warning(serving: Serving) -> None:
    def route(seen: Seen) -> Reply:
        if seen.target.startswith("/v2/pathogens?"):
            # As the service does behind its load balancer: absolute, and not encrypted.
            host = seen.headers["host"]
            return reply(307, headers={"Location": f"http://{host}/v2/pathogens/?a=1"})
        return reply_json({"method": seen.method, "body": seen.body.decode()})

    server = serving(route=route)
    with pytest.warns(SlashWarning, match="redirected /v2/pathogens to /v2/pathogens/"):
        found = _post(server.url, "/v2/pathogens?a=1")
    assert found == {"method": "POST", "body": "{}"}
    assert [seen.target for seen in server.seen] == ["/v2/pathogens?a=1", "/v2/pathogens/?a=1"]


@pytest.mark.filterwarnings("error")
def test_missing_trailing_slash_raises_slash_warning_in_tests(serving: Serving) -> None:
    server = serving(reply(307, headers={"Location": "/v2/pathogens/"}))
    with pytest.raises(SlashWarning):
        _post(server.url, "/v2/pathogens")


def test_missing_trailing_slash_fails_subprocess_only_in_tests(serving: Serving) -> None:
    def route(seen: Seen) -> Reply:
        whole = seen.target.endswith("/")
        return reply(200) if whole else reply(307, headers={"Location": f"{seen.target}/"})

    server = serving(route=route)
    script = (
        "from aspencli.remote.http import Http, Request\n"
        "from aspencli.remote.retry import Deadline, Patience\n"
        f"http = Http({server.url!r}, 'the API')\n"
        "with http.open(Request('GET', '/v2/x'), Deadline(9), Patience()) as answer:\n"
        "    print(answer.status)\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "SlashWarning: the service redirected /v2/x to /v2/x/" in done.stderr
    env = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "200\n", "")


def _post(url: str, path: str) -> Any:
    from aspencli.remote.http import Request
    from aspencli.remote.retry import Deadline, Patience

    http = Http(url, "the API")
    request = Request("POST", path, headers={"authorization": "Bearer x"}, body=b"{}")
    try:
        with http.open(request, Deadline(10), Patience()) as answer:
            return json.loads(answer.read())
    finally:
        http.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_token_is_not_sent_to_redirect_on_another_host(
    client: MakeClient, serving: Serving, status: int
) -> None:
    thief = serving(reply_json({"pathogens": []}))
    elsewhere = thief.url.replace("127.0.0.1", "localhost")
    made = client(reply(status, headers={"Location": f"{elsewhere}/v2/pathogens/?key=secret"}))
    error = _failure(made)
    assert isinstance(error, UnreachableError)
    assert (
        f"Unexpected redirect (HTTP {status}) from the mylab API to {elsewhere}/v2/pathogens/"
        in error.message
    )
    assert "secret" not in error.message
    assert thief.seen == []


def test_redirect_to_another_path_is_not_followed(client: MakeClient) -> None:
    made = client(reply(307, headers={"Location": "/oauth2/start"}))
    assert "OAUTH2_PROXY_COOKIE" in str(_failure(made).hint)
    assert len(made.server.seen) == 1


def test_proxy_cookie_is_sent_with_request(client: MakeClient) -> None:
    made = client(reply_json({"pathogens": []}), cookie="_oauth2_proxy=abc")
    made.api.pathogens()
    assert made.server.seen[0].headers["cookie"] == "_oauth2_proxy=abc"


# Addresses and proxies


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("api.example.org", "Invalid URL for"),
        ("ftp://api.example.org", "Invalid URL for"),
        ("https://", "Invalid URL for"),
        ("https://api.example.org:port", "Invalid URL for"),
        ("https://[::1", "Invalid URL for"),
        ("https://me:hunter2@api.example.org", "contains a user name or password"),
    ],
)
def test_invalid_api_url_is_rejected_without_its_password(address: str, words: str) -> None:
    with pytest.raises(BadInputError, match=words) as caught:
        Http(address, "the mylab API")
    assert "hunter2" not in caught.value.message


def test_local_server_is_reached_without_proxy(
    client: MakeClient, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serving(reply(502))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    made = client(reply_json({"pathogens": []}))
    made.api.pathogens()
    assert proxy.seen == []


def test_remote_server_is_reached_through_proxy(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serving(reply_json({"through": "the proxy"}))
    monkeypatch.setenv("http_proxy", proxy.url)
    assert _post("http://api.example.org", "/v2/x") == {"through": "the proxy"}
    assert proxy.seen[0].target == "http://api.example.org/v2/x"


def test_user_agent_names_tool_and_version(client: MakeClient) -> None:
    from aspencli import __version__

    made = client(reply_json({"pathogens": []}))
    made.api.pathogens()
    assert made.server.seen[0].headers["user-agent"].startswith(f"aspencli/{__version__} ")


def test_refused_connection_is_reported_with_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    from aspencli.remote.http import Request
    from aspencli.remote.retry import Caller, Patience

    http = Http(f"http://127.0.0.1:{port}/base/", "the API")
    caller = Caller(http, "the local API", hint="Start it: aspencli local up")
    with pytest.raises(UnreachableError) as caught:
        caller.call(lambda: Request("GET", "/"), lambda a: a.read(), Patience(strangers=1))
    http.close()
    assert caught.value.message == (
        f"Request to the local API at http://127.0.0.1:{port} failed: connection refused"
    )
