"""A request, its expected answer, and the comparison with the real one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import sqlalchemy as sa

from aspen.database.models import Location, PhyloRun, PhyloTree, Sample
from tests.api.conftest import Api

Facts = Mapping[str, Any]
"""The contents of the database, by the names that paths and bodies use: ``{tree}``, ..."""
Check = Callable[[Any], bool]


@dataclass(frozen=True)
class Ask:
    """One request.

    Attributes:
        who: The principal, or None if not signed in.
        status: The expected status.
        body: The expected body: a value, or a check of it; None for anything.
        differs: Words from ``docs/guides/service-differences.md`` if the live service answers
            differently; empty if it answers the same.
        json: The body to send, or a function that makes it from the facts.
        options: Other options for `httpx`.
    """

    who: str | None
    method: str
    path: str
    status: int
    body: Any = None
    differs: str = ""
    json: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answered:
    """The answer received, and whether it was as expected."""

    ask: Ask
    path: str
    status: int
    body: Any
    fine: bool

    def __str__(self) -> str:
        verdict = "differs" if self.ask.differs else "ok"
        shown = " ".join(str(self.body).split())
        return (
            f"{verdict if self.fine else 'WRONG':7} {self.status} {self.ask.method:7}"
            f"{self.path} as {self.ask.who or 'nobody'}: {shown[:120]}"
        )


def play(api: Api, facts: Facts, asks: Iterable[Ask]) -> Iterator[Answered]:
    """Send the requests in order, because some change the answers to later ones."""
    for ask in asks:
        path = ask.path.format(**facts)
        options = dict(ask.options)
        if ask.json is not None:
            options["json"] = ask.json(facts) if callable(ask.json) else ask.json
        answer = api(ask.method, path, ask.who, **options)
        body = _read(answer)
        fine = answer.status_code == ask.status and _fits(ask.body, body)
        yield Answered(ask, path, answer.status_code, body, fine)


def facts_of(api: Api) -> Facts:
    """Return the values that the tables refer to."""
    with api.database.reading() as session:
        trees = sa.select(PhyloTree.entity_id).order_by(PhyloTree.entity_id)
        samples = sa.select(Sample).order_by(Sample.id)
        runs = sa.select(PhyloRun).order_by(PhyloRun.id)
        of_1 = {
            run.workflow_status.lower(): run.id
            for run in session.scalars(runs.where(PhyloRun.group_id == 1))
        }
        places = sa.select(Location.id).order_by(Location.id)
        return {
            "tree": session.scalars(trees.where(PhyloTree.group_id == 1)).first(),
            "tree_of_2": session.scalars(trees.where(PhyloTree.group_id == 2)).first(),
            "run": of_1["completed"],
            "run_failed": of_1["failed"],
            "run_started": of_1["started"],
            "run_of_2": session.scalars(runs.where(PhyloRun.group_id == 2)).first().id,  # type: ignore[union-attr] # it has one
            "place": session.scalars(places).first(),
            **{
                f"sample_of_{group}": session.scalars(
                    samples.where(Sample.submitting_group_id == group)
                )
                .first()
                .id  # type: ignore[union-attr] # every group has some
                for group in (1, 2, 3)
            },
        }


def error(text: str, **details: Any) -> dict[str, Any]:
    """Return the body of an application error."""
    return {"error": text, **details}


def begins(text: str) -> Check:
    """Return a check for an application error whose text starts like this."""
    return lambda body: str(body.get("error", "")).startswith(text)


def keys(*names: str) -> Check:
    """Return a check for a body with exactly these keys."""
    return lambda body: set(body) == set(names)


def items(key: str, *names: str) -> Check:
    """Return a check for a list under the key, whose items have exactly these keys."""
    return lambda body: (
        isinstance(body[key], list) and all(set(item) == set(names) for item in body[key])
    )


def finding(*place: str | int) -> Check:
    """Return a check for a 422 with a finding about the given place."""
    return lambda body: any(
        entry["loc"][: len(place)] == [*place] and {"msg", "type"} <= set(entry)
        for entry in body["detail"]
    )


def _read(answer: httpx.Response) -> Any:
    if answer.headers.get("content-type", "").startswith("application/json"):
        return answer.json()
    return answer.headers.get("location") or answer.text


def _fits(expected: Any, body: Any) -> bool:
    if expected is None:
        return True
    return bool(expected(body)) if callable(expected) else bool(expected == body)
