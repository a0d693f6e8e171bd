"""Memory that the readers of a long list of samples from the API take."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from aspen.database.bulk.columns import COLUMNS, PRIVATE, RENAME, SAMPLES
from aspen.database.bulk.spec import RowRequest, Spec
from aspencli.changes.request_journal import RenameRow
from aspencli.reference.remote import Org, Scope
from aspencli.remote.api import Api
from aspencli.samples.create import WantedSample, taken_names
from aspencli.samples.edit import find_samples
from aspencli.samples.models import SampleQuery
from aspencli.samples.remote import GroupSamples, Snapshot, Wanted, describe_asked, list_asked
from aspencli.samples.remote_plan import RenamePlan, RestorePlan
from tests.remote.conftest import Client, client, serving
from tests.remote.long_list import long_list, sample, stream
from tests.remote.naughty import Reply, Seen, reply_json

__all__ = ["client", "serving"]

MANY = 20_000
MOST = 2_500_000  # bytes; the identifiers alone take 4 MB
SCOPE = Scope(Org(1), "SC2")
NAME = "RCPHL-0000777"


def _listed(api: Api) -> list[int]:
    with list_asked(api, SampleQuery(group="1"), limit=2) as found:
        assert found.count() == MANY
        return [row.id for row in found.rows(2)]


def _snapshot(api: Api) -> list[int]:
    wanted = Wanted(frozenset([5]), frozenset([NAME, "hCoV-19/USA/CA-RCPHL-0000003/2020"]))
    return [*GroupSamples(api.samples, 1, ["SC2"]).read(wanted).samples]


def _restored(api: Api) -> list[int]:
    spec = Spec(SAMPLES, PRIVATE, (COLUMNS["private_identifier"],), partial=True)
    plan = RestorePlan(spec, GroupSamples(api.samples, 1, ["SC2"]), api.locations)
    plan.load([RowRequest(2, "777", ("OLD",), (NAME,))])
    assert plan.plan().to_change == 1
    return [edit.after["id"] for _slug, edits in plan.batches() for edit in edits]


def _taken(api: Api) -> set[str]:
    fields: Any = [{"private_identifier": name} for name in (NAME, "N-1")]
    return taken_names(api, SCOPE, [WantedSample(2, each) for each in fields])[0]


READERS: dict[str, tuple[Callable[[Api], object], object]] = {
    "list": (_listed, [1, 2]),
    "show": (lambda api: [s.id for s in describe_asked(api, [NAME], group="1", by=None)], [777]),
    "find": (
        lambda api: [s.record["id"] for s in find_samples(api.samples, SCOPE, ["777"], None)],
        [777],
    ),
    "rename": (_snapshot, [3, 5, 777]),
    "restore": (_restored, [777]),
    "create": (_taken, {NAME}),
}


@pytest.mark.parametrize("reader", READERS)
def test_only_needed_samples_are_kept(client: Callable[..., Client], reader: str) -> None:
    def route(seen: Seen) -> Reply:
        if seen.target.endswith("/samples/"):
            return stream(lambda: long_list(MANY))
        return reply_json({"pathogens": [sample(1)["pathogen"]]})

    read, expected = READERS[reader]
    api = client(route=route).api
    tracemalloc.start()
    found = read(api)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == expected
    assert peak < MOST


def test_rename_plan_asks_for_file_and_interrupted_run() -> None:
    asked: list[Wanted] = []

    def read(wanted: Wanted) -> Snapshot:
        asked.append(wanted)
        return Snapshot({}, frozenset())

    plan = RenamePlan(RENAME, read, interrupted=[RenameRow(2, "K-7", 7, "OLD", "NEW")])
    plan.load([RowRequest(2, "K-8", ("N-8",)), RowRequest(3, "K\u20119", ("N-9",))])
    plan.plan()
    names = {"OLD", "NEW", "K-8", "N-8", "K\u20119", "K-9", "N-9"}  # K-9 may be meant by K\u20119
    assert asked == [Wanted(frozenset([7]), frozenset(names))]
