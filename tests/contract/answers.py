"""``python -m tests.contract.answers``: replay requests recorded from the live service.

A response is correct if it equals the recorded one, or differs as documented in a row of
``docs/guides/service-differences.md`` (``tests/contract/differences.toml`` names the row).
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from io import BytesIO
from itertools import zip_longest
from pathlib import Path
from typing import Any

import httpx

from aspen.database.engine import Database
from tests.api.conftest import Api, use_organizations
from tests.contract.site import whole_service

ROOT = Path(__file__).parents[2]
RECORDED = ROOT.parent / "shared" / "contract" / "answers"
GUIDE = ROOT / "docs" / "guides" / "service-differences.md"
_DIFFERENCES = Path(__file__).with_name("differences.toml")
_ANY = "*"
_REST = re.compile(r"\.\.\. ([\d,]+) in all")
_CUT = re.compile(r" \.\.\. ([\d,]+) characters \.\.\. ")
_REPEATED = re.compile(r"([ACGTX]+)… \((\d+)\)")
_COPY = re.compile(rb"COPY (aspen\.\w+ \(.*\)) FROM stdin;")
_INVALID = 422
_RECORDED_ON = "20261128"
_MADE_NAME = re.compile(r"(/[A-Z]+-\d+/)2026\b")


class Verdict(StrEnum):
    """The result of a comparison."""

    EQUAL = "equal"
    DOCUMENTED = "documented"
    WRONG = "wrong"
    UNKNOWN = "unknown"
    """No answer was recorded."""


@dataclass(frozen=True)
class Answer:
    """An answer, recorded or received."""

    status: int
    content_type: str | None
    content_disposition: str | None
    body: Any


@dataclass(frozen=True)
class Request:
    """A recorded request, with the live service's answer if it was recorded."""

    number: int
    who: str | None
    method: str
    path: str
    body: Any
    recorded: Answer | None

    def send(self, api: Api) -> Answer:
        """Send it to our service, and return the answer."""
        options: dict[str, Any] = {}
        if isinstance(self.body, str):
            options = {"content": self.body, "headers": {"Content-Type": "application/json"}}
        elif self.body is not None:
            options = {"json": self.body}
        return _received(api(self.method, self.path, self.who, **options))


@dataclass(frozen=True)
class Difference:
    """A way in which our answers may differ, and the row of the guide that says so.

    Attributes:
        row: The first cell of the row.
        request: A regular expression for the method and path.
        rule: How the answers differ; one of `_RULES`.
        live: The status of the live service's answer; 0 for any.
        ours: The status of our answer; 0 for any.
        keys: The additional keys in our answer.
        seen: True if a recorded answer shows it.
    """

    row: str
    request: str
    rule: str
    live: int = 0
    ours: int = 0
    keys: tuple[str, ...] = ()
    seen: bool = True

    def explains(self, request: Request, ours: Answer) -> bool:
        """Return True if our answer differs from the recorded one only in this way."""
        live = request.recorded
        return (
            live is not None
            and re.fullmatch(self.request, f"{request.method} {request.path}") is not None
            and self.accounts(live, ours)
        )

    def accounts(self, live: Answer, ours: Answer) -> bool:
        """Return True if two answers differ only by this rule."""
        return (
            self.live in (0, live.status)
            and self.ours in (0, ours.status)
            and _RULES[self.rule](self, live, ours)
        )


@dataclass(frozen=True)
class Compared:
    """A request, our answer to it, and how it compares with the recorded one."""

    request: Request
    ours: Answer
    verdict: Verdict
    difference: Difference | None = None

    def __str__(self) -> str:
        request = self.request
        line = (
            f"{request.number:4} {self.verdict:10} {self.ours.status}"
            f" {request.method:6} {request.path} as {request.who or 'no one'}"
        )
        return f"{line}\n     {self.difference.row}" if self.difference else line


def read_requests(path: Path) -> list[Request]:
    """Return the requests of a record, in order."""
    return [_request(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def read_differences() -> list[Difference]:
    """Return the ways in which our answers may differ."""
    document = tomllib.loads(_DIFFERENCES.read_text(encoding="utf-8"))
    return [
        Difference(**{**entry, "keys": tuple(entry.get("keys", ()))})
        for entry in document["difference"]
    ]


def read_reasons() -> dict[str, str]:
    """Return the last cell of each row of the guide, by the first cell."""
    rows = (line.split(" | ") for line in GUIDE.read_text().splitlines() if line.startswith("| "))
    return {cells[0].removeprefix("| "): cells[-1].removesuffix("|").strip() for cells in rows}


def replay(api: Api, requests: Iterable[Request]) -> Iterator[Compared]:
    """Send the requests one after another, and compare each answer."""
    differences = read_differences()
    for request in requests:
        ours = request.send(api)
        if request.recorded is None:
            yield Compared(request, ours, Verdict.UNKNOWN)
        elif _same_answer(request.recorded, ours):
            yield Compared(request, ours, Verdict.EQUAL)
        else:
            found = (one for one in differences if one.explains(request, ours))
            difference = next(found, None)
            verdict = Verdict.DOCUMENTED if difference else Verdict.WRONG
            yield Compared(request, ours, verdict, difference)


@contextmanager
def recorded_service(rows: Path) -> Iterator[Api]:
    """Yield the whole service with the rows that the live service had when it was recorded."""
    with whole_service() as api:
        prepare(api, rows)
        yield api


def prepare(api: Api, rows: Path) -> None:
    """Put a service into the state in which the live one was recorded."""
    load_rows(api.database, rows)
    use_organizations(api.database)
    invited = {"role": "member", "emails": ["a1@example.org"]}
    api("POST", "/v2/groups/1/invitations/", "gadmin", json=invited).raise_for_status()


def load_rows(database: Database, dump: Path) -> None:
    """Replace all rows of a migrated database with those of a data-only dump."""
    with database.begin() as session:
        connection = session.connection()
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        tables = connection.exec_driver_sql(
            "SELECT string_agg('aspen.' || quote_ident(tablename), ', ') FROM pg_tables"
            " WHERE schemaname = 'aspen'"
        ).scalar_one()
        connection.exec_driver_sql(f"TRUNCATE {tables}")
        cursor = connection.connection.cursor()
        lines = iter(gzip.decompress(dump.read_bytes()).splitlines(keepends=True))
        for line in lines:
            if copy := _COPY.match(line):
                rows = b"".join(iter(lines.__next__, b"\\.\n"))
                cursor.copy_expert(f"COPY {copy[1].decode()} FROM STDIN", BytesIO(rows))
            elif line.startswith(b"SELECT pg_catalog.setval("):
                cursor.execute(line.decode())


def show(answer: Answer | None) -> str:
    """Return an answer as readable text."""
    if answer is None:
        return "not recorded"
    body = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
    return f"{answer.status} {answer.content_type} {answer.content_disposition}\n{body[:3000]}"


def main() -> int:
    """Replay all requests and print each; return 1 if an answer is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.contract.answers", description=__doc__)
    parser.add_argument("--wrong", action="store_true", help="print only wrong responses, in full")
    parser.add_argument(
        "--show", type=int, nargs="*", default=[], help="numbers of requests to print in full"
    )
    parser.add_argument("--answers", type=Path, default=RECORDED / "answers.jsonl")
    parser.add_argument("--rows", type=Path, default=RECORDED / "rows.sql.gz")
    chosen = parser.parse_args()
    counts = dict.fromkeys(Verdict, 0)
    with recorded_service(chosen.rows) as api:
        for compared in replay(api, read_requests(chosen.answers)):
            counts[compared.verdict] += 1
            wrong = compared.verdict is Verdict.WRONG
            if wrong or not chosen.wrong or compared.request.number in chosen.show:
                sys.stdout.write(f"{compared}\n")
            if wrong or compared.request.number in chosen.show:
                recorded = compared.request.recorded
                sys.stdout.write(f"live: {show(recorded)}\nours: {show(compared.ours)}\n")
    known = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    sys.stdout.write(f"\n{sum(counts.values())} requests: {known}\n")
    return int(counts[Verdict.WRONG] > 0)


def _request(entry: Mapping[str, Any]) -> Request:
    recorded = None
    if "status" in entry:
        fields = ("status", "content_type", "content_disposition", "body")
        recorded = Answer(*(_today(entry[field]) for field in fields))
    body = _whole(entry["json"])
    return Request(entry["n"], entry["who"], entry["method"], entry["path"], body, recorded)


def _whole(value: Any) -> Any:
    """Return a value of a request, with its shortened sequences in full."""
    if isinstance(value, dict):
        return {key: _whole(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_whole(one) for one in value]
    if isinstance(value, str) and (short := _REPEATED.fullmatch(value)):
        length = int(short[2])
        return (short[1] * length)[:length]
    return value


def _today(value: Any) -> Any:
    """Return a recorded value, with the date of the recording replaced by today's."""
    if isinstance(value, dict):
        return {key: _today(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_today(one) for one in value]
    if isinstance(value, str):
        now = datetime.now(UTC)
        return _MADE_NAME.sub(rf"\g<1>{now.year}", value.replace(_RECORDED_ON, f"{now:%Y%m%d}"))
    return value


def _received(response: httpx.Response) -> Answer:
    headers = response.headers
    content_type = headers.get("content-type")
    is_json = content_type == "application/json"
    body = response.json() if is_json else response.text
    return Answer(response.status_code, content_type, headers.get("content-disposition"), body)


def _same_answer(live: Answer, ours: Answer) -> bool:
    return (
        live.status == ours.status
        and live.content_type == ours.content_type
        and live.content_disposition == ours.content_disposition
        and matches(live.body, ours.body)
    )


def matches(live: Any, ours: Any) -> bool:
    """Compare a recorded value, which may be shortened, with one of ours."""
    if live == _ANY:
        return ours is not None
    if isinstance(live, dict) and isinstance(ours, dict):
        return live.keys() == ours.keys() and all(matches(live[key], ours[key]) for key in live)
    if isinstance(live, list) and isinstance(ours, list):
        return _same_list(live, ours)
    if isinstance(live, str) and isinstance(ours, str) and (cut := _CUT.search(live)):
        head, tail = live[: cut.start()], live[cut.end() :]
        return len(ours) == _number(cut) and ours.startswith(head) and ours.endswith(tail)
    return isinstance(live, bool) is isinstance(ours, bool) and bool(live == ours)


def _same_list(live: list[Any], ours: list[Any]) -> bool:
    if live and isinstance(live[-1], str) and (rest := _REST.fullmatch(live[-1])):
        *live, _ = live
        if len(ours) != _number(rest):
            return False
        ours = ours[: len(live)]
    missing = object()
    return all(matches(one, other) for one, other in zip_longest(live, ours, fillvalue=missing))


def _number(found: re.Match[str]) -> int:
    return int(found[1].replace(",", ""))


def _places(body: Any) -> set[tuple[Any, ...]]:
    return {tuple(finding["loc"]) for finding in body["detail"]}


def _is_worded(_: Difference, live: Answer, ours: Answer) -> bool:
    return live.status == ours.status == _INVALID and _places(live.body) == _places(ours.body)


def _is_detailed(difference: Difference, live: Answer, ours: Answer) -> bool:
    kinds = [_without(ours.body, [key]) != ours.body for key in difference.keys]
    bare = _without(ours.body, difference.keys)
    return live.status == ours.status and all(kinds) and matches(live.body, bare)


def _without(value: Any, keys: Iterable[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(one, keys) for key, one in value.items() if key not in keys}
    return [_without(one, keys) for one in value] if isinstance(value, list) else value


def _is_ordered(_: Difference, live: Answer, ours: Answer) -> bool:
    return (
        live.status == ours.status
        and live.body.keys() == ours.body.keys()
        and all(isinstance(part, list) for part in (*live.body.values(), *ours.body.values()))
        and all(_same_items(live.body[key], ours.body[key]) for key in live.body)
    )


def _same_items(live: list[Any], ours: list[Any]) -> bool:
    """Compare two lists, ignoring order."""
    left = list(ours)
    for one in live:
        same = next((other for other in left if matches(one, other)), None)
        if same is None:
            return False
        left.remove(same)
    return not left


def _is_status(difference: Difference, live: Answer, ours: Answer) -> bool:
    return bool(difference.live and difference.ours) and live.status != ours.status


_RULES = {
    "words": _is_worded,
    "details": _is_detailed,
    "order": _is_ordered,
    "status": _is_status,
}


if __name__ == "__main__":
    sys.exit(main())
