"""The client's retries: when it tries again, how long it waits, and when it must not."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from aspencli.errors import AspenError, UncertainError, UnreachableError
from aspencli.remote.api import under, whole
from aspencli.remote.http import Http, Request
from aspencli.remote.retry import Caller, Patience, Persistence, http_date, retry_after
from aspencli.remote.types import Me, SampleRecord
from tests.remote.conftest import Client, Serving
from tests.remote.naughty import Reply, drip, drip_head, hang_up, reply, reply_json, reset, stall

MakeClient = Callable[..., Client]
ME = {"id": 1, "name": "Ada", "groups": []}
RECORD: SampleRecord = {
    "id": 1,
    "collection_location": 1,
    "private": False,
    "private_identifier": "p",
    "public_identifier": "q",
    "collection_date": "2024-01-01",
    "sequencing_date": None,
}


@pytest.mark.parametrize(
    "first",
    [reset, hang_up, reply(502), reply(503), reply(504), reply(429), reply(200, "{", length=9)],
)
def test_read_request_is_retried_after_temporary_failure(client: MakeClient, first: Reply) -> None:
    made = client(reply_json(ME), first, reply_json(ME))
    assert made.api.users.me()["name"] == "Ada"
    assert made.api.users.me()["name"] == "Ada"
    assert len(made.server.seen) == 3
    assert len(made.slept) == 1


def test_retry_pauses_grow_with_jitter(client: MakeClient) -> None:
    made = client(*[reply(503)] * 7, reply_json(ME))
    made.api.users.me()
    limits = [0.5, 1, 2, 4, 8, 16, 20]
    assert all(limit / 2 <= slept <= limit for slept, limit in zip(made.slept, limits, strict=True))
    assert made.told[-1].startswith("Waiting for the mylab API: HTTP 503; retrying in ")


def test_retry_waits_as_long_as_retry_after(client: MakeClient) -> None:
    made = client(reply(429, headers={"Retry-After": "7"}), reply_json(ME))
    made.api.users.me()
    assert made.slept == [7]
    assert made.told == ["Waiting for the mylab API: HTTP 429; retrying in 7 s ..."]


def test_long_retry_after_ends_retries(client: MakeClient) -> None:
    made = client(reply(503, headers={"Retry-After": "86400"}))
    with pytest.raises(UnreachableError) as caught:
        made.api.users.me()
    assert made.slept == []
    assert caught.value.answer is not None
    assert caught.value.answer.status == 503
    assert "86,400 s" in (caught.value.hint or "")


def test_server_that_never_responded_is_retried_only_twice() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    slept: list[float] = []
    http = Http(f"http://127.0.0.1:{port}", "the API")
    caller = Caller(http, "the x API", hint="start it", persistence=Persistence(sleep=slept.append))
    with pytest.raises(UnreachableError, match="connection refused") as caught:
        caller.call(lambda: Request("GET", "/"), lambda answer: answer.read(), Patience())
    http.close()
    assert len(slept) == 2
    assert caught.value.hint == "start it"


def test_unresolvable_host_is_reported() -> None:
    http = Http("https://no-such-host.invalid", "the API")
    caller = Caller(http, "the x API", hint="", persistence=Persistence(sleep=lambda _: None))
    with pytest.raises(
        UnreachableError, match=r"at https://no-such-host\.invalid failed: could not resolve"
    ):
        caller.call(lambda: Request("GET", "/"), lambda answer: answer.read(), Patience())
    http.close()


# Changes


def _change(made: Client, **more: object) -> list[object]:
    return made.api.samples.replace(1, "SC2", [RECORD], **more)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("lost", [reset, hang_up, reply(502), reply(503), reply(504)])
def test_write_with_lost_response_is_not_repeated(client: MakeClient, lost: Reply) -> None:
    made = client(lost)
    with pytest.raises(UncertainError, match="may or may not have been made") as caught:
        _change(made)
    assert len(made.server.seen) == 1
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("lost", [reset, reply(504)])
def test_write_confirmed_as_made_is_not_repeated(client: MakeClient, lost: Reply) -> None:
    made = client(lost)
    assert _change(made, settle=lambda: ["found"]) == ["found"]
    assert len(made.server.seen) == 1


def test_write_confirmed_as_not_made_is_repeated(client: MakeClient) -> None:
    made = client(reset, reply(502), reply_json({"samples": ["done"]}))
    looked = []

    def settle() -> None:
        looked.append(len(made.server.seen))

    assert _change(made, settle=settle) == ["done"]
    assert looked == [1, 2]


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422])
def test_rejected_repetition_of_a_lost_write_is_uncertain(client: MakeClient, status: int) -> None:
    made = client(reply(504), reply_json({"detail": "no such samples"}, status=status))
    with pytest.raises(UncertainError, match="may or may not have been made") as caught:
        _change(made, settle=lambda: None)
    assert not caught.value.is_rejection
    assert len(made.server.seen) == 2


def test_rejected_repetition_of_a_write_found_made_is_a_success(client: MakeClient) -> None:
    made = client(reply(504), reply_json({"detail": "already exists"}, status=409))
    answers = iter([None, ["found"]])
    assert _change(made, settle=lambda: next(answers)) == ["found"]


def test_rejection_without_an_earlier_attempt_is_a_rejection(client: MakeClient) -> None:
    made = client(reply_json({"detail": "no such samples"}, status=404))
    with pytest.raises(AspenError) as caught:
        _change(made, settle=lambda: None)
    assert caught.value.is_rejection


def test_failed_outcome_check_leaves_write_uncertain(client: MakeClient) -> None:
    made = client(reset)

    def settle() -> None:
        raise UnreachableError("no list")

    with pytest.raises(UncertainError, match="checking the outcome failed too: no list"):
        _change(made, settle=settle)
    assert len(made.server.seen) == 1


def test_outcome_of_write_is_checked_before_giving_up(client: MakeClient) -> None:
    made = client(reply(504, headers={"Retry-After": "86400"}))
    assert _change(made, settle=lambda: ["found"]) == ["found"]
    with pytest.raises(UncertainError):
        _change(made, settle=lambda: None)


def test_write_rejected_with_429_is_repeated(client: MakeClient) -> None:
    made = client(reply(429, headers={"Retry-After": "2"}), reply_json({"samples": []}))
    assert _change(made) == []
    assert len(made.server.seen) == 2


def test_http_500_is_not_retried(client: MakeClient) -> None:
    made = client(reply(500, "Internal Server Error"))
    with pytest.raises(AspenError):
        made.api.users.me()
    assert len(made.server.seen) == 1


# Timeouts


def test_response_that_never_begins_times_out(serving: Serving) -> None:
    server = serving(stall(20))
    http = Http(server.url, "the API")
    caller = Caller(http, "x", hint="", persistence=Persistence(sleep=lambda _: None))
    since = time.monotonic()
    with pytest.raises(UnreachableError, match="timed out waiting for a response"):
        caller.call(
            lambda: Request("GET", "/"),
            lambda answer: answer.read(),
            Patience(read=0.2, strangers=2),
        )
    http.close()
    assert len(server.seen) == 2
    assert time.monotonic() - since < 30


def test_slow_response_body_times_out(serving: Serving) -> None:
    server = serving(drip(b"x" * 1000, 0.05))
    http = Http(server.url, "the API")
    caller = Caller(http, "x", hint="", persistence=Persistence(sleep=lambda _: None))
    since = time.monotonic()
    with pytest.raises(UnreachableError, match=r"not complete after 1 s"):
        caller.call(
            lambda: Request("GET", "/"), lambda answer: answer.read(), Patience(read=5, total=1)
        )
    http.close()
    assert time.monotonic() - since < 30


def test_slow_response_head_times_out(serving: Serving) -> None:
    server = serving(reply(200, "x"), drip_head(0.05))
    http = Http(server.url, "the API")
    caller = Caller(http, "x", hint="", persistence=Persistence(sleep=lambda _: None))
    patience = Patience(read=5, total=1)
    caller.call(lambda: Request("GET", "/"), lambda answer: answer.read(), patience)
    since = time.monotonic()
    with pytest.raises(UnreachableError):
        caller.call(lambda: Request("GET", "/"), lambda answer: answer.read(), patience)
    http.close()
    assert server.connections == 1  # a reused connection is monitored, too
    assert time.monotonic() - since < 30


def test_retries_end_at_total_time_limit(serving: Serving) -> None:
    server = serving(reply(503))
    http = Http(server.url, "the API")
    caller = Caller(http, "x", hint="")
    since = time.monotonic()
    with pytest.raises(UnreachableError, match="HTTP 503"):
        caller.call(lambda: Request("GET", "/"), lambda answer: answer.read(), Patience(total=2))
    http.close()
    assert time.monotonic() - since < 60
    assert 2 <= len(server.seen) <= 5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        ("1.5", 1.5),
        ("0", 0),
        ("-3", 0),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("Wed, 99 Foo 2099", None),
    ],
)
def test_retry_after_is_parsed_as_seconds(text: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": text}) == seconds


def test_retry_after_date_is_relative_to_server_clock() -> None:
    theirs = datetime(2001, 1, 1, tzinfo=UTC)
    until = format_datetime(theirs + timedelta(seconds=90), usegmt=True)
    assert retry_after({"retry-after": until, "date": format_datetime(theirs, usegmt=True)}) == 90
    assert retry_after({"retry-after": until}) == 0
    assert http_date("no date") is None


# Connections


def test_connection_is_reused_for_all_requests_of_client(client: MakeClient) -> None:
    made = client(reply_json(ME))
    for _ in range(5):
        made.api.users.me()
    assert made.server.connections == 1


def test_connection_closed_by_server_is_reopened_without_pause(client: MakeClient) -> None:
    def then_close(wire: object) -> None:
        reply_json({"samples": []}, headers={"Connection": "close"})(wire)  # type: ignore[arg-type]

    made = client(then_close)
    _change(made)
    _change(made)
    assert made.slept == []
    assert made.server.connections == 2


def test_response_of_wrong_shape_is_rejected(client: MakeClient) -> None:
    made = client(reply_json(["no object"]))
    with pytest.raises(UnreachableError, match="is not from the mylab API"):
        made.api.users.me()
    assert dict(whole(Me)({"id": 1})) == {"id": 1}
    with pytest.raises(TypeError):
        under("id", int)({"id": "one"})
