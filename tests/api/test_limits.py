"""Limits on what one request may use; nothing is read before the user is known."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, cast

import httpx
import psutil
import pytest
import sqlalchemy as sa
import uvicorn
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import RequestResponseCycle
from uvicorn.server import ServerState

from aspen.api.limits import MAX_NAMES, MAX_SAMPLES, ServiceLimits
from aspen.api.protocol import ConnectionLimits, LimitedProtocol
from aspen.api.runtime import Turns
from aspen.database.engine import Database
from tests.api.conftest import Api, ApiFactory, Provider, starting
from tests.conftest import Server

SEARCH = "/v2/locations/search/"
SAMPLES = "/v2/orgs/1/pathogens/SC2/samples/"
MIB = 1 << 20


@contextmanager
def sending(
    api: Api, head: str, body: bytes = b"", principal: str | None = "member"
) -> Iterator[Any]:
    """Send a request, perhaps an incomplete one, and yield its answer as a file."""
    url = httpx.URL(api.url)
    with socket.create_connection((url.host, url.port or 80), timeout=30) as connection:
        lines = [head, f"Host: {url.host}"]
        if principal:
            lines.append(f"Authorization: Bearer {api.token(principal)}")
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        with connection.makefile("rb") as answer:
            yield answer


def status_of(answer: Any) -> int:
    return int(answer.readline().split()[1])


@pytest.mark.parametrize("framing", ["Content-Length: 62914560", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize(
    ("principal", "path", "status"),
    [(None, SAMPLES, 401), ("g2admin", SAMPLES, 403), (None, SEARCH, 401)],
)
def test_unauthorized_request_is_refused_before_body_is_sent(
    shared_api: Api, principal: str | None, path: str, status: int, framing: str
) -> None:
    method = "PUT" if path == SAMPLES else "POST"
    with sending(
        shared_api, f"{method} {path} HTTP/1.1\r\n{framing}", principal=principal
    ) as answer:
        assert status_of(answer) == status


def test_content_length_above_limit_is_refused_unread(shared_api: Api) -> None:
    for path, size in ((SEARCH, MIB), (SAMPLES + "validate_ids/", 8 * MIB)):
        head = f"POST {path} HTTP/1.1\r\nContent-Length: {size + 1}"
        with sending(shared_api, head) as answer:
            assert status_of(answer) == 413
    with sending(shared_api, f"PUT {SAMPLES} HTTP/1.1\r\nContent-Length: {32 * MIB + 1}") as answer:
        assert status_of(answer) == 413


def test_chunked_body_above_the_limit_is_refused(shared_api: Api) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(3):
            yield b" " * (MIB // 2)

    answer = shared_api("POST", SEARCH, "member", content=parts())
    assert (answer.status_code, answer.json()) == (
        413,
        {"error": "the request body is too large", "limit": MIB},
    )


def test_body_of_20_mb_is_accepted_for_sample_update(shared_api: Api) -> None:
    body = b'{"samples": [], "note": "%s"}' % (b"x" * (20 * MIB))
    answer = shared_api("PUT", SAMPLES, "member", content=body)
    assert (answer.status_code, answer.json()) == (200, {"samples": []})


def test_body_with_too_many_values_is_refused_before_parsing(shared_api: Api) -> None:
    body = b'{"samples": [], "more": [%s0]}' % (b"{}," * 250_000)
    answer = shared_api("PUT", SAMPLES, "member", content=body)
    assert (answer.status_code, answer.json()) == (
        413,
        {"error": "the request body has too many values", "limit": 500_000},
    )


@pytest.mark.parametrize(
    ("method", "path", "key", "most"),
    [
        ("PUT", SAMPLES, "samples", MAX_SAMPLES),
        ("DELETE", SAMPLES, "ids", MAX_NAMES),
        ("POST", SAMPLES + "validate_ids/", "sample_ids", MAX_NAMES),
        ("POST", "/v2/orgs/1/sequences/", "sample_ids", MAX_NAMES),
        ("POST", "/v2/orgs/1/sequences/getfastaurl", "samples", MAX_NAMES),
        ("POST", "/v2/orgs/1/qc_mutations/", "sample_ids", MAX_NAMES),
    ],
)
def test_list_above_maximum_length_is_refused(
    shared_api: Api, method: str, path: str, key: str, most: int
) -> None:
    answer = shared_api(method, path, "member", json={key: [0] * (most + 1)})
    assert answer.status_code == 422
    (finding,) = answer.json()["detail"]
    assert (finding["loc"], finding["type"]) == (["body", key], "too_long")
    assert finding["ctx"] == {"max_length": most, "actual_length": most + 1}


@pytest.mark.parametrize("deep", [33, 900])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_body_above_maximum_depth_is_refused(
    shared_api: Api, deep: int, opening: str, closing: str
) -> None:
    inner = opening * deep + "0" + closing * deep
    answer = shared_api("POST", SEARCH, "member", content=f'{{"more": {inner}}}')
    assert answer.status_code == 422
    assert [finding["type"] for finding in answer.json()["detail"]] == ["too_deep"]
    shallow = opening * 30 + "0" + closing * 30
    answer = shared_api(
        "POST", SEARCH, "member", content=f'{{"country": "usa", "more": {shallow}}}'
    )
    assert answer.status_code == 200


@pytest.mark.parametrize("count", [10_000, MAX_SAMPLES])
def test_errors_of_many_rows_are_listed_up_to_a_limit(shared_api: Api, count: int) -> None:
    answer = shared_api("PUT", SAMPLES, "viewer", json={"samples": [{}] * count})
    assert answer.status_code == 422
    assert len(answer.content) < MIB
    detail = answer.json()["detail"]
    assert len(detail) == 1_001
    assert detail[0] == {
        "loc": ["body", "samples"],
        "msg": "Items from index 500 on were not checked",
        "type": "not_checked",
        "ctx": {"first": 500},
    }
    assert detail[1]["loc"] == ["body", "samples", 0, "id"]
    assert detail[-1] == {
        "loc": ["body"],
        "msg": "1001 more errors are not listed",
        "type": "too_many_errors",
        "ctx": {"listed": 1_000, "not_listed": 1_001},
    }


def test_few_errors_among_many_rows_are_all_listed(shared_api: Api) -> None:
    good: dict[str, Any] = {
        "id": 1,
        "collection_location": 0,
        "private": False,
        "private_identifier": "a",
        "collection_date": "2021-01-01",
    }
    rows = [dict(good) for _ in range(3_000)]
    rows[0]["private"] = "maybe"
    rows[499]["private_identifier"] = "x" * 129
    rows[500]["collection_date"] = "yesterday"
    rows[2_999].pop("id")
    answer = shared_api("PUT", SAMPLES, "viewer", json={"samples": rows})
    assert answer.status_code == 422
    found = [(one["loc"][2:], one["type"], one.get("ctx")) for one in answer.json()["detail"]]
    assert found == [
        ([0, "private"], "bool_parsing", None),
        ([499, "private_identifier"], "string_too_long", {"max_length": 128}),
        ([500, "collection_date"], "value_error.date", None),
        ([2_999, "id"], "missing", None),
    ]


def test_long_keys_are_truncated_in_errors(shared_api: Api) -> None:
    body = json.dumps({"k" * 1_000_000: "\0", "\ud800": "\0"})
    answer = shared_api("PUT", SAMPLES, "viewer", content=body)
    assert answer.status_code == 422
    assert [finding["loc"] for finding in answer.json()["detail"]] == [
        ["body", "k" * 500 + "…"],
        ["body", "\\ud800"],
    ]


@pytest.fixture
def hasty(make_api: ApiFactory, seeded: Database) -> Api:
    return make_api(
        seeded, limits=ServiceLimits(body_seconds=0.2, body_rate=10 * MIB, pause_seconds=0.1)
    )


@pytest.mark.parametrize("sent", [b"", b'{"country": '])
def test_unfinished_body_is_answered_with_408(hasty: Api, sent: bytes) -> None:
    head = f"POST {SEARCH} HTTP/1.1\r\nContent-Length: 100"
    with sending(hasty, head, sent) as answer:
        assert status_of(answer) == 408
        assert b"the request body did not arrive in time" in answer.read()


# Slow readers do not hold a database connection


def unread(api: Api, stack: ExitStack, path: str, count: int) -> list[Any]:
    """Send that many requests, and read only the first line of each answer."""
    answers = []
    for _ in range(count):
        answer = stack.enter_context(sending(api, f"GET {path} HTTP/1.1"))
        assert status_of(answer) == 200
        answers.append(answer)
    return answers


def in_use(api: Api) -> int:
    """Return the number of the service's connections that are in a transaction."""
    query = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'aspen-api'"
        " AND datname = current_database() AND state <> 'idle'"
    )
    with api.database.reading() as session:
        return int(session.scalar(query) or 0)


def test_clients_that_do_not_read_hold_no_database_connection(
    make_api: ApiFactory, crowded: Database
) -> None:
    api = make_api(crowded, connections=ConnectionLimits(read_seconds=600))
    expected = api("GET", SAMPLES, "member").content
    with ExitStack() as stack:
        answers = unread(api, stack, SAMPLES, 25)  # more than the service has database connections
        deadline = time.monotonic() + 120
        while in_use(api):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert api("GET", "/v2/users/me", "g2admin").status_code == 200
        # An answer that is read late is still complete.
        assert _whole(answers[0]) == expected


def _whole(answer: Any) -> bytes:
    """Return the body of a chunked answer whose status line has been read."""
    while answer.readline() not in {b"\r\n", b""}:
        pass
    parts = []
    while size := int(answer.readline(), 16):
        parts.append(answer.read(size))
        answer.readline()
    return b"".join(parts)


# Users wait for their own requests, not for those of other users


@contextmanager
def locked_locations(database: Database) -> Iterator[None]:
    """Block everyone else from reading the locations."""
    with database.engine.begin() as connection:
        connection.execute(sa.text("LOCK TABLE aspen.locations IN ACCESS EXCLUSIVE MODE"))
        yield


def wait_for_blocked_request(api: Api) -> None:
    query = sa.text(
        "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database"
        " WHERE NOT granted AND datname = current_database()"
    )
    deadline = time.monotonic() + 120
    with api.database.reading() as session:
        while not session.scalar(query):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_user_with_too_many_requests_is_refused_and_others_are_answered(
    make_api: ApiFactory, seeded: Database
) -> None:
    api = make_api(seeded, limits=ServiceLimits(connections_per_user=1, turn_seconds=0.2))
    with ThreadPoolExecutor() as pool:
        with locked_locations(seeded):
            first = pool.submit(api, "POST", SEARCH, "member", json={"country": "x"})
            wait_for_blocked_request(api)
            refused = api("GET", "/v2/users/me", "member")
            assert (refused.status_code, refused.headers["Retry-After"]) == (429, "2")
            assert refused.json() == {"error": "too many requests at once"}
            assert api("GET", "/v2/users/me", "g2admin").status_code == 200
        assert first.result().status_code == 200
    assert api("GET", "/v2/users/me", "member").status_code == 200


@pytest.mark.parametrize(
    ("limits", "large"),
    [
        (ServiceLimits(large_bytes=100, turn_seconds=0.2), {"country": "x" * 100}),
        (ServiceLimits(large_values=100, turn_seconds=0.2), {"country": "x", "more": [0] * 100}),
    ],
    ids=["bytes", "values"],
)
def test_large_bodies_are_processed_one_at_a_time(
    make_api: ApiFactory, seeded: Database, limits: ServiceLimits, large: dict[str, Any]
) -> None:
    api = make_api(seeded, limits=limits)
    with ThreadPoolExecutor() as pool:
        with locked_locations(seeded):
            first = pool.submit(api, "POST", SEARCH, "member", json=large)
            wait_for_blocked_request(api)
            assert api("POST", SEARCH, "g2admin", json=large).status_code == 429
            small = api(
                "POST",
                "/v2/orgs/2/pathogens/SC2/samples/validate_ids/",
                "g2admin",
                json={"sample_ids": []},
            )
            assert small.status_code == 200
        assert first.result().status_code == 200
    assert api("POST", SEARCH, "g2admin", json=large).status_code == 200


def test_large_bodies_are_separated_by_a_pause() -> None:
    pause = 0.05

    async def times() -> list[float]:
        turns, loop = Turns(ServiceLimits(large_pause_seconds=pause)), asyncio.get_running_loop()
        found: list[float] = []

        async def take(user: str) -> None:
            async with turns.large(user):
                found.append(loop.time())
                await asyncio.sleep(0)
                found.append(loop.time())

        await asyncio.gather(take("a"), take("b"), take("b"))
        return found

    _, first_end, second, second_end, third, _ = asyncio.run(times())
    # A timer may fire one clock tick early.
    early = time.get_clock_info("monotonic").resolution
    assert min(second - first_end, third - second_end) >= pause - early


# Connections that the client leaves idle


@contextmanager
def connected(api: Api) -> Iterator[socket.socket]:
    url = httpx.URL(api.url)
    with socket.create_connection((url.host, url.port or 80), timeout=30) as connection:
        yield connection


def rest(connection: socket.socket) -> bytes:
    """Read until the service closes the connection."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass  # it had unread data
    return b"".join(parts)


HASTY = ConnectionLimits(
    head_seconds=0.3, rest_seconds=0.3, read_seconds=0.3, last_seconds=0.3, small_chunks=100
)


@pytest.fixture(scope="module")
def impatient(postgres: Server, _crowded_template: str, provider: Provider) -> Iterator[Api]:
    """Yield a service that closes slow connections early."""
    with postgres.cloned(_crowded_template) as database, starting(provider) as make:
        yield make(database, connections=HASTY)


def test_connection_without_a_request_is_closed(impatient: Api) -> None:
    with connected(impatient) as connection:
        assert rest(connection) == b""


@pytest.mark.parametrize("sent", [b"G", b"GET /v2/health/ HTTP/1.1\r\nHost: x\r\nX-A"])
def test_incomplete_request_head_is_answered_with_408(impatient: Api, sent: bytes) -> None:
    with connected(impatient) as connection:
        connection.sendall(sent)
        assert rest(connection).startswith(b"HTTP/1.1 408 ")


def test_slow_request_head_is_answered_with_408(impatient: Api) -> None:
    with connected(impatient) as connection:
        connection.settimeout(0.02)
        head = iter(b"GET /v2/health/ HTTP/1.1\r\n" + b"X-A: b\r\n" * 10_000)
        answer = b""
        while not answer:
            try:
                connection.sendall(bytes([next(head)]))
                answer = connection.recv(1 << 16)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_incomplete_second_request_is_answered_with_408(impatient: Api) -> None:
    with connected(impatient) as connection:
        connection.sendall(b"GET /v2/health/ HTTP/1.1\r\nHost: x\r\n\r\nGET /v2/health/ HT")
        answers = rest(connection)
        assert answers.startswith(b"HTTP/1.1 200 ")
        assert b"HTTP/1.1 408 " in answers


def test_request_head_above_size_limit_is_answered_with_400(impatient: Api) -> None:
    with connected(impatient) as connection:
        connection.sendall(b"GET /v2/health/ HTTP/1.1\r\n" + b"X-A: b\r\n" * 6_000)
        assert rest(connection).startswith(b"HTTP/1.1 400 ")


def test_connection_with_endless_refused_body_is_closed(impatient: Api) -> None:
    with connected(impatient) as connection:
        connection.sendall(
            b"POST /v2/locations/search/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"
        )
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 401 ")
        assert _is_closed(connection, b" " * 1_000)


def _is_closed(connection: socket.socket, part: bytes) -> bool:
    """Keep sending until the service closes the connection, then return True."""
    connection.settimeout(0.05)
    while True:
        try:
            connection.sendall(part)
            if not connection.recv(1 << 16):
                return True
        except TimeoutError:
            continue
        except (BrokenPipeError, ConnectionResetError):
            return True


def test_body_of_too_many_tiny_chunks_is_cut_off(impatient: Api) -> None:
    with connected(impatient) as connection:
        connection.sendall(
            b"POST /v2/locations/search/ HTTP/1.1\r\nHost: x\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 1_000
        )
        rest(connection)
    answer = impatient(
        "POST", SEARCH, "member", content=(letter.encode() for letter in '{"country": "usa"}')
    )
    assert answer.status_code == 200


class Counted(LimitedProtocol):
    """A protocol that counts the parts of a body that are read in each turn of the loop."""

    limits = ConnectionLimits(body_parts=50)
    parts: ClassVar[list[int]] = []
    turns: ClassVar[Counter[int]] = Counter()
    turn: ClassVar[int] = 0

    def handle_events(self) -> None:
        cycle = cast("RequestResponseCycle | None", self.cycle)
        before = 0 if cycle is None else len(cycle.body)
        super().handle_events()
        self.parts.append(len(self.cycle.body) - before)

    def read_on(self) -> None:
        self.turns[self.turn] += 1
        super().read_on()

    @classmethod
    def tick(cls, loop: asyncio.AbstractEventLoop) -> None:
        Counted.turn += 1
        loop.call_soon(cls.tick, loop)


async def count_body(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond with the size of the body."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message["body"])
        more = message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d bytes" % size})


def test_bodies_of_tiny_chunks_are_read_in_turns() -> None:
    config = uvicorn.Config(count_body, http=Counted, ws="none", log_config=None, lifespan="off")
    head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    sent = head + b"1\r\n \r\n" * 9_000 + b"0\r\n\r\n"

    async def answers() -> list[bytes]:
        loop, state = asyncio.get_running_loop(), ServerState()
        server = await loop.create_server(
            lambda: Counted(config=config, server_state=state, app_state={}), "127.0.0.1"
        )
        Counted.tick(loop)

        async def ask() -> bytes:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(sent)
            answer = await reader.read()
            writer.close()
            return answer

        async with server:
            return await asyncio.gather(*(ask() for _ in range(4)))

    assert all(b"\r\n9000 bytes\r\n" in answer for answer in asyncio.run(answers()))
    assert max(Counted.parts) == 50
    assert max(Counted.turns.values()) == 1
    assert sum(Counted.turns.values()) > 9_000 * 4 / 50 - 100


def test_client_that_stops_reading_is_disconnected(impatient: Api) -> None:
    with sending(impatient, f"GET {SAMPLES} HTTP/1.1") as answer:
        assert status_of(answer) == 200
        time.sleep(1.5)
        with pytest.raises((ConnectionResetError, ValueError)):
            _whole(answer)


def test_new_connection_replaces_longest_waiting_one_at_limit(
    make_api: ApiFactory, seeded: Database
) -> None:
    api = make_api(seeded, connections=ConnectionLimits(connections=3))
    with ExitStack() as stack:
        waiting = [stack.enter_context(connected(api)) for _ in range(3)]
        for connection in waiting[1:]:
            connection.sendall(b"GET /v2/hea")
        assert api("GET", "/v2/health/").status_code == 200
        assert rest(waiting[0]) == b""
        waiting[1].sendall(b"lth/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert waiting[1].recv(1 << 16).startswith(b"HTTP/1.1 200 ")


# Health and readiness


def test_health_needs_no_database_and_readiness_does(
    make_api: ApiFactory, seeded: Database
) -> None:
    away = make_api(Database(seeded.url.set(port=1)))
    assert away("GET", "/v2/health/").status_code == 200
    answer = away("GET", "/v2/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"error": "the database cannot be reached"})
    there = make_api(seeded)("GET", "/v2/health/ready")
    assert (there.status_code, there.json()) == (200, {"healthy": True})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b" ", 422),
        (b"\xff", 422),
        (b'{"samples": 1}', 422),
        (b'{"samples": [{}]}', 422),
        (b'{"samples": [], "more": "\\u0000"}', 422),
        (b"[" * 33 + b"]" * 33, 422),
        (b"[%s]" % (b"," * 500_000), 413),
    ],
)
def test_answered_errors_are_freed_without_garbage_collection(
    shared_api: Api, body: bytes, status: int
) -> None:
    def errors() -> int:
        # The frames of an error's traceback keep the body of its request alive.
        kinds = (RequestValidationError, HTTPException)
        return sum(issubclass(type(one), kinds) for one in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = errors()
        for _ in range(3):
            assert shared_api("PUT", SAMPLES, "member", content=body).status_code == status
        deadline = time.monotonic() + 120
        while errors() > before:  # the service finishes a request after answering it
            assert time.monotonic() < deadline
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("method", "path", "key"),
    [
        ("DELETE", SAMPLES, "ids"),
        ("POST", SAMPLES + "validate_ids/", "sample_ids"),
        ("POST", SAMPLES + "submission_template", "sample_ids"),
        ("POST", "/v2/orgs/1/sequences/", "sample_ids"),
        ("POST", "/v2/orgs/1/qc_mutations/", "sample_ids"),
        ("PUT", SAMPLES, "samples"),
    ],
)
def test_values_of_a_request_are_freed_without_garbage_collection(
    shared_api: Api, method: str, path: str, key: str
) -> None:
    count = 1_013
    row = {"collection_location": 0, "private": False, "private_identifier": "a"}
    rows = [{**row, "id": 10**6 + n, "collection_date": "2021-01-01"} for n in range(count)]
    values = rows if key == "samples" else [10**6 + n for n in range(count)]
    body = json.dumps({key: values, "public_repository_name": "GISAID"})

    def lists() -> int:
        return sum(type(one) is list and len(one) == count for one in gc.get_objects())

    # SQLAlchemy's cache of compiled statements keeps some lists, so fill it first.
    for _ in range(2):
        assert shared_api(method, path, "member", content=body).status_code in {200, 404}
    gc.disable()
    try:
        gc.collect()
        before = lists()
        for _ in range(3):
            shared_api(method, path, "member", content=body)
        deadline = time.monotonic() + 120
        while lists() > before:  # the service finishes a request after answering it
            assert time.monotonic() < deadline
    finally:
        gc.enable()


def test_refused_large_bodies_do_not_stay_in_memory(shared_api: Api) -> None:
    body = b" " * (20 * MIB)
    process = psutil.Process()
    before = process.memory_info().rss
    gc.disable()  # as between two full collections, which are far apart
    try:
        for _ in range(15):
            assert shared_api("PUT", SAMPLES, "member", content=body).status_code == 422
        assert process.memory_info().rss - before < 200 * MIB
    finally:
        gc.enable()
